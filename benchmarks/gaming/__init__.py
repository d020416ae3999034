"""How far FuScore can be gamed."""
