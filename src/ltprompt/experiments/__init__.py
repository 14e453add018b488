"""Experiments: grids of runs, their ledger, workers, and the tables and figures made of them."""
