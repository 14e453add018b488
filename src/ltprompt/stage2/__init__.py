"""Stage 2: what a few labelled examples train (paper, section 3.2)."""
