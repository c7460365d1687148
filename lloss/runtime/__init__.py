"""What computes on this machine: providers of onnxruntime, their libraries, the GPU's driver."""
