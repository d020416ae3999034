"""A results table -> one HTML file that needs nothing else, and figures for a paper."""
