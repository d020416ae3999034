"""Where and how PyTorch computes: devices, dtypes, threads, processes."""
