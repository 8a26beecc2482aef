"""A wanted accuracy, size or time, and which way of compressing meets it."""
