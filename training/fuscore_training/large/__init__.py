"""Fine-tuning of big multimodal LLMs."""
