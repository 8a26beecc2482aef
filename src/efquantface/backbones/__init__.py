"""The backbones of the field, each written once."""
