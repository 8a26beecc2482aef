"""Anything that a user can give as a model, as a FaceModel."""
