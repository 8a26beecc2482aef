"""Running networks: sessions of both runtimes, processor, memory, environment."""
