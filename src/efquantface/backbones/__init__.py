"""Backbones, each written once."""
