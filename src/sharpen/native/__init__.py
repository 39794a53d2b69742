"""Kernels in C++ with a plain C interface; each has a twin in torch or NumPy."""
