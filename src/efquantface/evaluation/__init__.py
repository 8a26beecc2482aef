"""Evaluation: metrics and protocols; knows embeddings only."""
