"""What executes programs: ONNX Runtime and TVM."""
