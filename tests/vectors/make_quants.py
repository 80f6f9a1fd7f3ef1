#!/usr/bin/env python3
"""Writes quants/: random blocks of every format with the values they decode to, and encodings.

The values are those of gguf's decoders (for Q8_K, Q1_0 and Q2_0, which it does not decode, of the
formulas below). Each is compared here, bit for bit, with a decoder written element by element from
the formulas, so the two ways of reading a layout must agree before it is called a reference.

A decoder multiplies in the order d * scale * q, then adds or subtracts the minimum; in float32
each product of small integers and a half float is either exact or rounded once, so an engine that
keeps this order gets the same bits, and one that does not is within 2 units in the last place of
the larger term.
"""

import os

import gguf
import numpy as np

import vectorlib as lib

HERE = os.path.dirname(os.path.abspath(__file__))
F = np.float32
# name: type number, elements, bytes, offsets of half-float fields
FORMATS = {
    "Q4_0": (2, 32, 18, [0]), "Q4_1": (3, 32, 20, [0, 2]), "Q5_0": (6, 32, 22, [0]),
    "Q5_1": (7, 32, 24, [0, 2]), "Q8_0": (8, 32, 34, [0]), "Q2_K": (10, 256, 84, [80, 82]),
    "Q3_K": (11, 256, 110, [108]), "Q4_K": (12, 256, 144, [0, 2]), "Q5_K": (13, 256, 176, [0, 2]),
    "Q6_K": (14, 256, 210, [208]), "Q8_K": (15, 256, 292, []), "IQ4_NL": (20, 32, 18, [0]),
    "IQ4_XS": (23, 256, 136, [0]), "MXFP4": (39, 32, 17, []), "NVFP4": (40, 64, 36, []),
    "Q1_0": (41, 128, 18, [0]), "Q2_0": (42, 64, 18, [0]), "BF16": (30, 1, 2, []),
    "F16": (1, 1, 2, [0]),
}
TABLE_IQ4 = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]
TABLE_MX = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12]
# zero of both signs, smallest subnormal, largest subnormal, smallest normal, one, largest
EDGES = [0x0000, 0x8000, 0x0001, 0x03FF, 0x0400, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF]


def half(b, at):
    return F(b[at:at + 2].view(np.float16)[0])


def nibble(qs, i):
    return int(qs[i % 16]) & 15 if i < 16 else int(qs[i % 16]) >> 4


def six_bits(b, j):
    b = [int(v) for v in b]
    if j < 4:
        return b[j] & 63, b[j + 4] & 63
    return (b[j + 4] & 15) | (b[j - 4] >> 6) << 4, (b[j + 4] >> 4) | (b[j] >> 6) << 4


def element(name, b, i):
    """Element i of the block b (uint8 array), by the formula."""
    if name == "Q4_0":
        return half(b, 0) * F(nibble(b[2:], i) - 8)
    if name == "Q4_1":
        return half(b, 0) * F(nibble(b[4:], i)) + half(b, 2)
    if name in ("Q5_0", "Q5_1"):
        at = 2 if name == "Q5_0" else 4
        q = nibble(b[at + 4:], i) | (int(b[at + i // 8]) >> i % 8 & 1) << 4
        return half(b, 0) * F(q - 16) if at == 2 else half(b, 0) * F(q) + half(b, 2)
    if name == "Q8_0":
        return half(b, 0) * F(b[2:].view(np.int8)[i])
    h, j, l = i // 128, i % 128 // 32, i % 32
    if name == "Q2_K":
        q, s = int(b[16 + 32 * h + l]) >> 2 * j & 3, int(b[8 * h + 2 * j + l // 16])
        return half(b, 80) * F(s & 15) * F(q) - half(b, 82) * F(s >> 4)
    if name == "Q3_K":
        q = int(b[32 + 32 * h + l]) >> 2 * j & 3
        if not int(b[l]) >> (4 * h + j) & 1:
            q -= 4
        k, s = 8 * h + 2 * j + l // 16, [int(v) for v in b[96:108]]
        low = s[k] & 15 if k < 8 else s[k - 8] >> 4
        return half(b, 108) * F((low | (s[8 + k % 4] >> 2 * (k // 4) & 3) << 4) - 32) * F(q)
    if name in ("Q4_K", "Q5_K"):
        g, t = i // 64, i % 64 // 32
        sc, mn = six_bits(b[4:16], 2 * g + t)
        q = int(b[(16 if name == "Q4_K" else 48) + 32 * g + l]) >> 4 * t & 15
        if name == "Q5_K":
            q += (int(b[16 + l]) >> (2 * g + t) & 1) << 4
        return half(b, 0) * F(sc) * F(q) - half(b, 2) * F(mn)
    if name == "Q6_K":
        low = int(b[64 * h + l + 32 * (j % 2)]) >> 4 * (j // 2) & 15
        q = (low | (int(b[128 + 32 * h + l]) >> 2 * j & 3) << 4) - 32
        return half(b, 208) * F(b[192:208].view(np.int8)[8 * h + 2 * j + l // 16]) * F(q)
    if name == "Q8_K":
        return b[0:4].view(np.float32)[0] * F(b[4:260].view(np.int8)[i])
    if name == "IQ4_NL":
        return half(b, 0) * F(TABLE_IQ4[nibble(b[2:], i)])
    if name == "IQ4_XS":
        ib = i // 32
        ls = int(b[4 + ib // 2]) >> 4 * (ib % 2) & 15
        ls |= (int(b[2:4].view(np.uint16)[0]) >> 2 * ib & 3) << 4
        return half(b, 0) * F(ls - 32) * F(TABLE_IQ4[nibble(b[8 + 16 * ib:], i % 32)])
    if name == "MXFP4":
        e = int(b[0])
        bits = np.array([0x00200000 << e if e < 2 else e - 1 << 23], np.uint32)
        return bits.view(np.float32)[0] * F(TABLE_MX[nibble(b[1:], i)])
    if name == "NVFP4":
        s, t = i // 16, i % 16
        u = int(b[s])
        e, m = u >> 3 & 15, u & 7
        scale = 0.0 if u in (0, 0x7F) else (m * 2.0 ** -9 if e == 0 else
                                            (1 + m / 8) * 2.0 ** (e - 7)) / 2
        q = int(b[4 + 8 * s + t % 8])
        return F(scale) * F(TABLE_MX[q & 15 if t < 8 else q >> 4])
    if name == "Q1_0":
        return half(b, 0) if int(b[2 + i // 8]) >> i % 8 & 1 else -half(b, 0)
    if name == "Q2_0":
        return half(b, 0) * F((int(b[2 + i // 4]) >> 2 * (i % 4) & 3) - 1)
    if name == "BF16":
        return np.array([int(b[0]) << 16 | int(b[1]) << 24], np.uint32).view(np.float32)[0]
    if name == "F16":
        return half(b, 0)
    raise KeyError(name)


def random_half(rng):
    """A finite half float: usual weight scales mostly, edges sometimes."""
    if rng.random() < 0.25:
        return EDGES[rng.integers(len(EDGES))]
    return int(rng.integers(2) << 15 | rng.integers(0x0C00, 0x4C00))  # 2^-12 to 16


def random_blocks(name, n, rng):
    _, elements, size, halves = FORMATS[name]
    b = rng.integers(0, 256, (n, size), dtype=np.uint8)
    b[0] = 0  # all fields zero, all fields ones
    if n > 1:
        b[1] = 255
    for r in range(n):
        for k, at in enumerate(halves):
            v = random_half(rng) if r >= len(EDGES) else EDGES[(r + 3 * k) % len(EDGES)]
            b[r, at:at + 2] = [v & 255, v >> 8]
    if name == "MXFP4":  # to the largest scale whose products stay finite
        b[:, 0] = np.concatenate([[0, 1, 2, 3, 126, 127, 128, 129, 251, 252],
                                  rng.integers(100, 150, n)])[:n]
    if name == "NVFP4":  # UE4M3 has no sign; 0 and 0x7F decode to zero
        b[:, 0:4] &= 127
        b[2, 0:4] = [0x00, 0x7F, 0x01, 0x7E]
        b[3, 0:4] = [0x07, 0x08, 0x38, 0x77]
    if name == "BF16":
        v = rng.integers(0, 1 << 16, n, dtype=np.uint32)
        v[(v & 0x7F80) == 0x7F80] &= 0xBFFF  # no infinities, no NaN
        v[:6] = [0, 0x8000, 1, 0x007F, 0x7F7F, 0xFF7F]
        b = v.astype("<u2").view(np.uint8).reshape(n, 2)
    if name == "Q8_K":
        b[:, 0:4] = (np.exp(rng.uniform(-9, 3, n)) * rng.choice([-1, 1], n)).astype(
            "<f4").view(np.uint8).reshape(n, 4)
        sums = b[:, 4:260].view(np.int8).reshape(n, 16, 16).sum(-1, dtype=np.int32)
        b[:, 260:] = sums.astype("<i2").view(np.uint8).reshape(n, 32)
    return b


def decode_all():
    info = {}
    for name, (number, elements, size, _) in FORMATS.items():
        n = {1: 512, 256: 12}.get(elements, 32)
        b = random_blocks(name, n, np.random.default_rng([30, number]))
        mine = np.array([[element(name, r, i) for i in range(elements)] for r in b], np.float32)
        if name not in ("Q8_K", "Q1_0", "Q2_0"):
            kind = gguf.GGMLQuantizationType[name]
            theirs = gguf.quants.dequantize(b, kind).reshape(mine.shape)
            same = theirs.view(np.uint32) == mine.view(np.uint32)
            zeros = (theirs == 0) & (mine == 0)  # the sign of a zero is nobody's business
            assert np.all(same | zeros), (name, np.argwhere(~(same | zeros))[:5])
            mine = theirs
        assert np.isfinite(mine).all(), name
        with open(os.path.join(HERE, "quants", name + ".bin"), "wb") as f:
            f.write(b.tobytes())
            f.write(mine.astype("<f4").tobytes())
        info[name] = {"type": number, "blocks": n, "block_bytes": size, "block_elements": elements}
    return info


def encode_all():
    """Reference encodings by gguf: floats and the bytes they become."""
    info = {}
    for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4", "BF16", "F16"):
        number, elements, size, _ = FORMATS[name]
        n = 512 if elements == 1 else 32
        rng = np.random.default_rng([31, number])
        x = (rng.standard_normal((n, elements)) *
             np.exp(rng.uniform(-6, 2, (n, 1)))).astype(np.float32)
        if elements > 1:
            x[0] = 0                                # nothing to scale by
            x[1] = 0.75                             # no range between minimum and maximum
            x[2] = np.abs(x[2])                     # no negative value
            x[3, 5], x[3, 9] = 3.0, -3.0            # a tie for the largest: the first one counts
            x[4] = np.linspace(-1, 1, elements)
        bytes_ = gguf.quants.quantize(x, gguf.GGMLQuantizationType[name])
        bytes_ = np.ascontiguousarray(bytes_).view(np.uint8)
        assert bytes_.size == n * size
        with open(os.path.join(HERE, "quants", name + ".encode.bin"), "wb") as f:
            f.write(x.astype("<f4").tobytes())
            f.write(bytes_.tobytes())
        info[name] = {"type": number, "blocks": n, "block_bytes": size, "block_elements": elements}
    return info


def main():
    os.makedirs(os.path.join(HERE, "quants"), exist_ok=True)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        decode, encode = decode_all(), encode_all()
    lib.write_json(os.path.join(HERE, "quants", "quants.json"),
                   {"decode": decode, "encode": encode})
    print("quants: %d formats decoded, %d encoded, %d KB" % (
        len(decode), len(encode), lib.folder_bytes(os.path.join(HERE, "quants")) // 1000))


if __name__ == "__main__":
    main()
