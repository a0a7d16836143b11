"""Newton-Schulz and the optimizer step as ONNX graphs."""
