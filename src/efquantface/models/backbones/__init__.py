"""The field's backbones as PyTorch modules, written from the papers, with their checkpoints' names."""
