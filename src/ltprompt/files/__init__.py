"""Files: the atomic writer and the checked reader of artifacts, the user's text and YAML."""
