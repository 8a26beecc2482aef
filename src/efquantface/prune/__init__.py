"""Structured channel pruning: a smaller dense network, not a mask."""
