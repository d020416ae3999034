"""The Qwen-VL families: vision-language models of transformers, with adapters."""
