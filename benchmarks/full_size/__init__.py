"""Models of full size without their weights: shapes, memory, one real look."""
