"""The formulas, one file for each family of measures; `windows` and `local` are what they share."""
