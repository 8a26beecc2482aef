"""Networks as canonical graphs: operators, rewrites, checkpoints."""
