"""What a grid asks for: its file, the runs that it comes to, their tickets and backbones."""
