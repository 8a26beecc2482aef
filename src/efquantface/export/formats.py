"""The files that ``efq export`` writes."""

FORMATS = ("onnx", "openvino", "scales")
