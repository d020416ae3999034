"""How accurate FuScore is, by viewers and by labels."""
