"""ONNX files to canonical graphs."""
