"""Distillation: losses, teacher bank, trainer."""
