"""Fine-tuning FuScore: ratings -> soft labels -> three-part loss -> checkpoint."""
