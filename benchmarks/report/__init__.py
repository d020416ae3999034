"""Pictures of a report, and what its maps cost."""
