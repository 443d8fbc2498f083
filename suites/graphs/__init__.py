"""What an ONNX graph holds: MACs, shapes, fused kernels."""
