"""Faces to embeddings: Embedder, its cache, its speed."""
