"""What is shown of scores: figures, tables of notebooks, maps over images."""
