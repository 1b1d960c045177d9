"""The operations on an NVIDIA GPU: Triton kernels, cuBLAS, CUDA graphs. Never run on a GPU: none was at hand."""
