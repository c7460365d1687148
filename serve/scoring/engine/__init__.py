"""One inference session on a device: CPU, CUDA or TensorRT."""
