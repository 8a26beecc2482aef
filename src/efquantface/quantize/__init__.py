"""Quantization: scheme, fake quantizers, placement, ranges and rounding."""
