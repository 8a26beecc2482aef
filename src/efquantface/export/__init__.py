"""Export: ONNX files, parity with the trained student."""
