"""Where the rows of a grid's runs come from."""
