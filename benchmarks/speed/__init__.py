"""How fast FuScore is, beside its peers."""
