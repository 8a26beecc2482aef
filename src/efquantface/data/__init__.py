"""Faces: decoding, folders, alignment, synthetic identities."""
