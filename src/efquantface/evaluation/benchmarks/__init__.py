"""How the field's benchmarks are read from disk."""
