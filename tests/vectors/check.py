#!/usr/bin/env python3
"""Checks what make wrote: sizes, and that the model vectors notice the mistakes they are there for.

Each fault is planted in the float64 model; a vector that moves by less than a tenth of the logits'
deviation would let an engine with that fault pass, and is refused.
"""

import json
import os
import sys

import numpy as np

import make_models
import vectorlib as lib

HERE = os.path.dirname(os.path.abspath(__file__))
LIMIT = 300_000
TOTAL = 6_000_000


def faults(shape, w, config):
    """name -> (shape, weights) with one mistake each."""
    out = {"pairs instead of halves": (dict(shape, interleaved=True), w),
           "theta doubled": (dict(shape, theta=shape["theta"] * 2), w)}
    if not np.all(shape["divisors"] == 1):
        out["no rope scaling"] = (dict(shape, divisors=np.ones_like(shape["divisors"])), w)
    if config["num_hidden_layers"] > 1:
        swapped = {k.replace("blk.0", "blk.x").replace("blk.1", "blk.0").replace("blk.x", "blk.1"):
                   v for k, v in w.items()}
        out["layers swapped"] = (shape, swapped)
    if 1 < shape["n_kv_heads"] < shape["n_heads"]:
        hd, nk = shape["head_dim"], shape["n_kv_heads"]
        order = np.arange(shape["n_heads"]).reshape(-1, nk).T.reshape(-1)
        q = {k: (v.reshape(-1, hd, v.shape[1])[order].reshape(v.shape) if k.endswith("attn_q")
                 else v) for k, v in w.items()}
        q = {k: (v.reshape(v.shape[0], -1, hd)[:, order].reshape(v.shape)
                 if k.endswith("attn_output") else v) for k, v in q.items()}
        out["query head i reads key head i mod n_kv"] = (shape, q)
    if any(k.endswith(".bias") for k in w):
        for part in sorted({k.split(".")[2] for k in w if k.endswith(".bias")}):
            out["no bias of " + part] = (shape, {k: v for k, v in w.items()
                                                 if not k.endswith(part + ".bias")})
    out["norm weights ignored"] = (shape, {k: np.ones_like(v) if k.endswith("_norm") else v
                                           for k, v in w.items()})
    return out


def main():
    bad = 0
    for name in sorted(os.listdir(os.path.join(HERE, "models"))):
        folder = os.path.join(HERE, "models", name)
        with open(os.path.join(folder, "config.json")) as f:
            config = json.load(f)
        with open(os.path.join(folder, "vectors.json")) as f:
            info = json.load(f)
        want = np.fromfile(os.path.join(folder, "vectors.f32"), "<f4").reshape(-1, info["vocab"])
        shape, w = lib.shape_of_config(config), make_models.stored(folder)
        if np.abs(lib.llama64(shape, w, info["tokens"]) - want).max() > 1e-4 * want.std():
            print("%s: vectors do not belong to the weights" % name)
            bad += 1
        for fault, (s, fw) in faults(shape, w, config).items():
            moved = np.abs(lib.llama64(s, fw, info["tokens"]) - want)
            part = float(np.sqrt((moved ** 2).mean()) / want.std())
            if part < 0.1:
                print("%s: fault \"%s\" moves the logits by %.3f of their deviation only" % (
                    name, fault, part))
                bad += 1
    for kind in ("models", "gguf", "tokenizers"):
        for name in sorted(os.listdir(os.path.join(HERE, kind))):
            size = lib.folder_bytes(os.path.join(HERE, kind, name))
            if os.path.isdir(os.path.join(HERE, kind, name)) and size > LIMIT:
                print("%s/%s: %d bytes, limit %d" % (kind, name, size, LIMIT))
                bad += 1
    total = lib.folder_bytes(HERE)
    if total > TOTAL:
        print("%d bytes in all, limit %d" % (total, TOTAL))
        bad += 1
    print("%d bytes in all, %d complaints" % (total, bad))
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
