"""Scores, and the tickets that are cut from them."""
