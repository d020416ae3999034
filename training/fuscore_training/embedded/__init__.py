"""Training of the embedded family, whose features are computed once."""
