"""Whatever a user calls a model, as a FaceModel."""
