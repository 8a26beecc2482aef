"""Running networks: Embedder, runtimes, benchmark, environment."""
