"""The embedded family: statistics of a small convolutional network, read by a small Llama."""
