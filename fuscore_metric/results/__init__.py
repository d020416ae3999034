"""Scores of many triples as a table: its rows, what they were made with, and their files."""
