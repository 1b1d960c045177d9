"""The operations on a processor, in C++: `cpu_ops` gives them, or the same in torch where they are not built."""
