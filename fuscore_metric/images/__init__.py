"""Whatever holds images -> float32 tensors (3, H, W) in [0, 1], checked, in batches."""
