"""Quantization: scheme, fake quantizers, placement and ranges."""
