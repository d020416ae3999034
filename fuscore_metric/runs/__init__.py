"""Triples in files -> rows in a run folder -> a leaderboard: for `evaluate` and the commands.

Nothing here depends on a command line: faults are ordinary exceptions.
"""
