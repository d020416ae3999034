"""Ratings of other studies -> ratings tables."""
