"""torch → one verified ONNX graph."""
