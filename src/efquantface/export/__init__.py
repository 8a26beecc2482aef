"""Export: ONNX files, and their parity with the trained student."""
