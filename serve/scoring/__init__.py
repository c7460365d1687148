"""Scoring without torch: ONNX Runtime over any pool."""
