"""Targets: a wanted accuracy, size or time, and the way of compressing that meets it."""
