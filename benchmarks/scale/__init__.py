"""How far scoring scales: engines side by side, and what a cluster would need."""
