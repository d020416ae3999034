"""How the classic measures compare with published numbers."""
