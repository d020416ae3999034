"""Tiny random Qwen-VL models; they live with the benchmarks, which run without the tests."""

from benchmarks.tiny_qwen import FAMILIES, SMALL, VOCABULARY, tiny_backbone, tiny_model, tokenizer

__all__ = ["FAMILIES", "SMALL", "VOCABULARY", "tiny_backbone", "tiny_model", "tokenizer"]
