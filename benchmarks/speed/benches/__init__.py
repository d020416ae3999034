"""What `python -m benchmarks.speed.table` runs by pytest-benchmark."""
