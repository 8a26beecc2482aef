"""Hostile inputs for every reader: ``python -m fuzz`` (see docs/security.md)."""
