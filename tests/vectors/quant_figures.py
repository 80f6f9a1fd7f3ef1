#!/usr/bin/env python3
"""Prints the figures of llama.cpp's quantisers that tests/test_quant.c holds ours against.

    quant_figures.py LIBRARY

LIBRARY is a shared object with llama.cpp's quantize_q4_K and its kin: libggml-base.so of the PyPI
package llama-cpp-python 0.3.36, say, or its ggml-quants.c alone compiled with -DNDEBUG. Not a step
of `make`: the package takes long to build, and the figures change only with it. Blocks are decoded
by gguf, so a figure owes nothing to this project's code.

The numbers are test_quant.c's own: number i draws from splitmix64 at places 16 i to 16 i + 15, so
that both sides compute any of them alone.
"""

import ctypes
import sys

import gguf
import numpy as np

ROWS, COLS = 16, 1024
TYPES = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0",
         "IQ4_NL", "IQ4_XS", "MXFP4"]
KINDS = ["normal", "student", "positive", "far", "mixed", "sparse"]


def uniform(seed, i, j):
    """In (0, 1): splitmix64 (Steele, Lea, Flood 2014) at place 16 i + j."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15) * (np.uint64(16) * i.astype(np.uint64)
                                                              + np.uint64(j + 1))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def normal(seed, i, j):
    """Box and Muller 1958, from the uniform numbers 2 j and 2 j + 1."""
    return np.sqrt(-2 * np.log(uniform(seed, i, 2 * j))) * np.cos(
        2 * np.pi * uniform(seed, i, 2 * j + 1))


def values(kind):
    seed, i = 1000 + KINDS.index(kind), np.arange(ROWS * COLS)
    z = normal(seed, i, 0)
    if kind == "student":  # 3 degrees of freedom
        z = z / np.sqrt((normal(seed, i, 1)**2 + normal(seed, i, 2)**2
                         + normal(seed, i, 3)**2) / 3)
    if kind == "positive":
        z = np.abs(z)
    if kind == "far":
        z = 10 + z
    if kind == "mixed":
        z = z * np.exp(normal(seed, i - i % 16, 4))
    if kind == "sparse":
        z = np.where(uniform(seed, i, 12) < 0.9, 0, z)
    return (0.02 * z).astype(np.float32)


def importances():
    return np.exp(normal(2000, np.arange(COLS), 5)).astype(np.float32)


def figure(library, name, x, w):
    encode = getattr(library, "quantize_" + (name.replace("Q", "q") if "K" in name[-1:]
                                             else name.lower()))
    encode.restype = ctypes.c_size_t
    kind = getattr(gguf.GGMLQuantizationType, name)
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    out = np.zeros(ROWS * COLS // elements * size, np.uint8)
    pointer = w.ctypes.data_as(ctypes.c_void_p) if w is not None else None
    encode(x.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p),
           ctypes.c_int64(ROWS), ctypes.c_int64(COLS), pointer)
    y = gguf.quants.dequantize(out, kind).astype(np.float64)
    cost = np.tile(w.astype(np.float64), ROWS) if w is not None else 1
    return np.sqrt(np.sum(cost * (x - y)**2) / np.sum(cost * x.astype(np.float64)**2))


def main():
    library = ctypes.CDLL(sys.argv[1])
    rows = {kind: values(kind) for kind in KINDS}
    for name in TYPES:
        print("    { DTYPE_%s," % name)
        for w in (None, importances()):
            figures = ["%.7g" % figure(library, name, rows[kind], w) for kind in KINDS]
            print("      { %s }%s" % (", ".join(figures), "," if w is None else " },"))


main()
