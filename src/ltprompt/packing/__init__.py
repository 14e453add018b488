"""Packing: sequences without padding, and no rows that no one reads."""
