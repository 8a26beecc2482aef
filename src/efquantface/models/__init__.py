"""Networks as canonical graphs: importers, rewrites, checkpoints."""
