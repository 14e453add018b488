"""The report of a grid: tables, figures and comparisons, from its records alone."""
