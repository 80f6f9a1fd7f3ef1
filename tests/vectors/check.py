#!/usr/bin/env python3
"""Checks what make wrote: sizes, and that the model vectors notice the mistakes they are there for.

Each fault is planted in the float64 model; a vector that moves by less than a tenth of the logits'
deviation would let an engine with that fault pass, and is refused.
"""

import json
import os
import sys

import numpy as np

import families64
import make_models
import vectorlib as lib

HERE = os.path.dirname(os.path.abspath(__file__))
LIMIT = 300_000
TOTAL = 14_000_000


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


def replace(w, change):
    """Weights of which `change(name, value)` is not None are what it says."""
    out = {}
    for k, v in w.items():
        new = change(k, v)
        out[k] = v if new is None else new
    return out


def without(w, ending):
    return {k: v for k, v in w.items() if not k.endswith(ending)}


def rope_faults(s):
    """name -> per-layer rope settings with one mistake."""
    def each(change):
        return [change(dict(r)) if r else None for r in s["ropes"]]

    def set_to(**values):
        return each(lambda r: dict(r, **values))

    first = next(r for r in s["ropes"] if r)
    out = {"theta doubled": each(lambda r: dict(r, base=r["base"] * 2))}
    if None in s["ropes"]:
        out["rope in the layers that have none"] = [first] * s["n_layers"]
    bases = {r["base"] for r in s["ropes"] if r}
    if len(bases) > 1:
        for base in bases:
            out["base %g everywhere" % base] = set_to(base=base)
    scaled = next((r for r in s["ropes"] if r and "kind" in r), None)
    if scaled and scaled["kind"] != "dynamic":
        kind = scaled["kind"]
        out["no rope scaling"] = set_to(kind="default")
        if kind in ("yarn", "longrope"):
            out["no factor on cos and sin"] = set_to(attention_factor=1.0)
        if kind == "yarn":
            out["yarn as linear"] = set_to(kind="linear")
            if not scaled["truncate"]:
                out["yarn's bounds rounded"] = set_to(truncate=True)
            if (scaled["beta_fast"], scaled["beta_slow"]) != (32, 1):
                out["yarn's betas ignored"] = set_to(beta_fast=32, beta_slow=1)
        if kind == "longrope" and scaled["long"] != scaled["short"]:
            out["long and short swapped"] = set_to(long=scaled["short"], short=scaled["long"])
    if first["dim"] != s["head_dim"]:
        out["all of the head turned"] = set_to(kind="default", dim=s["head_dim"])
    return out


def switch_faults(s):
    """name -> switches with one mistake each."""
    out = {}
    for key, wrong in (("attn_softcap", None), ("final_softcap", None), ("embed_scale", 1.0),
                       ("residual_scale", 1.0), ("logit_divisor", 1.0),
                       ("attn_scale", s["head_dim"] ** -0.5)):
        if s[key] != wrong:
            out["no " + key] = {key: wrong}
    if 0 < max(s["windows"]) < lib.PROMPT:
        out["no window"] = {"windows": [0] * s["n_layers"]}
        for d in (-1, 1):
            out["window %+d" % d] = {"windows": [v and v + d for v in s["windows"]]}
        if not all(s["windows"]):
            out["window in every layer"] = {"windows": [max(s["windows"])] * s["n_layers"]}
            out["the other layers' windows"] = {
                "windows": [0 if v else max(s["windows"]) for v in s["windows"]]}
    if any(s["ropes"]):
        out["pairs instead of halves"] = {"interleaved": not s["interleaved"]}
        out.update({k: {"ropes": v} for k, v in rope_faults(s).items()})
    if s["experts_used"]:
        out["one expert fewer"] = {"experts_used": s["experts_used"] - 1}
        out["norm of the experts' shares"] = {"renormalise": not s["renormalise"]}
    if s["act"] == "clamped":
        out["no clamp"] = {"clamp": 1e9}
        out["plain silu"] = {"act": "silu"}
    elif s["act"] == "gelu":
        out["silu for gelu"] = {"act": "silu"}
    return out


def weight_faults(s, w, gemma):
    """name -> weights with one mistake each."""
    out = {}
    for part in sorted({k.split(".")[-2] for k in w if k.endswith(".bias")}):
        if part == "attn_k" and not any(s["ropes"]):
            continue  # without a rotation it adds the same to every score of a row
        out["no bias of " + part] = without(w, part + ".bias")
    for part in sorted({k.split(".")[-1] for k in w if k.endswith("_norm")}):
        out["weights of %s ignored" % part] = replace(
            w, lambda k, v: np.ones_like(v) if k.endswith(part) else None)
        if part.startswith("post_") or part in ("attn_q_norm", "attn_k_norm"):
            out["no %s at all" % part] = without(w, part)
        if gemma:
            out["w for 1 + w in " + part] = replace(
                w, lambda k, v: v - 1 if k.endswith(part) else None)
    for part, text in (("attn_sinks", "no sinks"), ("position_embd", "no positions")):
        if any(k.endswith(part) for k in w):
            out[text] = without(w, part)
    if any(k.endswith("ffn_gate") or k.endswith("ffn_gate_exps") for k in w):
        other = {"ffn_gate": "ffn_up", "ffn_up": "ffn_gate"}
        out["gate and up swapped"] = {
            k.replace(p, other[p]) if (p := next((p for p in other if p in k and "inp" not in k),
                                                 None)) else k: v for k, v in w.items()}
    if any(k.endswith("_exps") for k in w):
        out["experts in another order"] = replace(
            w, lambda k, v: np.roll(v, 1, 0) if "_exps" in k else None)
    swapped = {k.replace("blk.0", "blk.x").replace("blk.1", "blk.0").replace("blk.x", "blk.1"): v
               for k, v in w.items()}
    out["layers swapped"] = swapped
    if s["n_heads"] > s["n_kv_heads"] > 1:
        order = np.arange(s["n_heads"]).reshape(-1, s["n_kv_heads"]).T.reshape(-1)

        def reorder(k, v):
            if k.endswith(("attn_q", "attn_q.bias")):
                return v.reshape((s["n_heads"], s["head_dim"]) + v.shape[1:])[order].reshape(
                    v.shape)
            if k.endswith("attn_output"):
                return v.reshape(len(v), s["n_heads"], -1)[:, order].reshape(v.shape)
            if k.endswith("attn_sinks"):
                return v[order]
            return None

        out["query head i reads key head i mod n_kv"] = replace(w, reorder)
    return out


def check_family(name):
    """How many complaints: vectors that do not belong to the weights, faults that hardly show."""
    folder = os.path.join(HERE, "families", name)
    s, w = families64.of_folder(folder)
    bad = 0
    for stem in ("vectors", "short", "beyond"):
        path = os.path.join(folder, stem)
        if not os.path.exists(path + ".json"):
            continue
        with open(path + ".json") as f:
            info = json.load(f)
        want = np.fromfile(path + ".f32", "<f4").reshape(-1, info["vocab"])

        def moved(switches, weights):
            got = families64.Pass(switches, weights)(info["tokens"])[info["positions"]]
            return float(np.sqrt(((got - want) ** 2).mean()) / want.std())

        if moved(s, w) > 1e-4:
            print("families/%s/%s: vectors do not belong to the weights" % (name, stem))
            bad += 1
        planted = {k: (dict(s, **v), w) for k, v in switch_faults(s).items()}
        planted.update({k: (s, v) for k, v in weight_faults(s, w, "gemma" in name).items()})
        norm = w.get("blk.0.attn_q_norm")
        if norm is not None and norm.size == s["head_dim"]:
            planted["norm of q and k after the rotation"] = (dict(s, norm_after_rope=True), w)
        elif norm is not None:
            planted["norm of q and k over a head"] = (dict(s, norm_per_head=True), w)
        if stem == "beyond":
            flat = [dict(r, kind="default") for r in s["ropes"]]
            planted = {"no rope scaling": (dict(s, ropes=flat), w)}
        for fault, (fs, fw) in planted.items():
            part = moved(fs, fw)
            if part < 0.1:
                print("families/%s/%s: fault \"%s\" moves the logits by %.3f of their deviation "
                      "only" % (name, stem, fault, part))
                bad += 1
    return bad


def main():
    bad = sum(check_family(name) for name in sorted(os.listdir(os.path.join(HERE, "families"))))
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
    for kind in ("models", "gguf", "families", "families-gguf", "tokenizers"):
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
