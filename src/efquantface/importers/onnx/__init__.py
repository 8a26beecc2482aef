"""From ONNX files to canonical graphs."""
