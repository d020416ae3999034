"""What runs through many triples and gives rows of the results table."""
