#!/usr/bin/env python3
"""Writes models/NAME: tiny random Llama-family models as Hugging Face folders, with their logits.

Weights come from numpy's PCG64 by a fixed seed, so a second run writes the same bytes. Reference
logits: transformers, float32 arithmetic, eager attention, from the weights and the config.json as
stored. The weights are scaled so that attention is far from uniform and every layer matters: a
rotation by the wrong angle or a head that reads another head's keys moves the logits by about
their own standard deviation.
"""

import argparse
import json
import os
import shutil

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging

import vectorlib as lib

HERE = os.path.dirname(os.path.abspath(__file__))
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64, "rope_type": "llama3"}

# What each stands for is the sentence beside it; sizes are as small as the point allows.
MODELS = [
    # Llama 2: as many key heads as query heads, head of its own, F32, smallest sensible width.
    dict(name="llama2-mha", dtype="float32", dim=32, layers=2, heads=2, kv=2, ffn=64, vocab=320,
         config={"rope_theta": 10000.0, "rope_scaling": None}),
    # Llama 3.x: grouped queries 4:1, all three branches of the llama3 frequency rule, tied, BF16.
    dict(name="llama3-gqa", dtype="bfloat16", dim=64, layers=2, heads=8, kv=2, head_dim=16, ffn=96,
         vocab=160, tied=True, context=8192, long=4000,
         config={"rope_theta": 500000.0, "rope_scaling": LLAMA3}),
    # The newer spelling of the same, F16, in three shards with an index.
    dict(name="llama3-rope-parameters", dtype="float16", dim=64, layers=2, heads=8, kv=2,
         head_dim=16, ffn=96, vocab=128, tied=True, shards=3, context=8192,
         config={"rope_parameters": dict(LLAMA3, rope_theta=500000.0)}),
    # Mistral: head_dim * heads differs from the width (as in Nemo), head_dim no power of two.
    dict(name="mistral-head-dim", dtype="bfloat16", dim=64, layers=2, heads=4, kv=2, head_dim=24,
         ffn=96, vocab=136, kind="mistral", config={"rope_theta": 1000000.0,
                                                    "sliding_window": None}),
    # SmolLM2's 9 query and 3 key heads, head_dim 80. The class is Mistral because transformers 5
    # refuses a Llama whose width is no multiple of its heads, and 288 columns would be too large.
    dict(name="smollm2-heads", dtype="float16", dim=32, layers=1, heads=9, kv=3, head_dim=80,
         ffn=96, vocab=128, kind="mistral", tied=True, out_gain=2.0,
         config={"rope_theta": 100000.0, "sliding_window": None}),
    # One key head for all, head_dim at its limit.
    dict(name="mqa-head-256", dtype="bfloat16", dim=32, layers=1, heads=2, kv=1, head_dim=256,
         ffn=64, vocab=128, tied=True, out_gain=2.0, config={"rope_theta": 10000.0}),
    # The shape of stories260K: feed-forward 172 is a multiple of 4 only, head_dim 8.
    dict(name="stories-ffn-172", dtype="float32", dim=64, layers=1, heads=8, kv=4, ffn=172,
         vocab=128, tied=True, config={"rope_theta": 10000.0}),
    # Biases on every projection of attention and feed-forward; with a tokenizer, so that text goes
    # in and comes out.
    dict(name="llama-bias", dtype="bfloat16", dim=32, layers=2, heads=4, kv=2, head_dim=16, ffn=48,
         vocab=288, bias=True, tokenizer="bytes-288", config={"rope_theta": 10000.0}),
    # Linear position interpolation, in the oldest spelling ("type"), with an odd vocabulary.
    dict(name="llama-rope-linear", dtype="bfloat16", dim=64, layers=2, heads=2, kv=1, ffn=96,
         vocab=131, tied=True, config={"rope_theta": 10000.0,
                                       "rope_scaling": {"type": "linear", "factor": 4.0}}),
]


def config_json(m):
    mistral = m.get("kind") == "mistral"
    head_dim = m.get("head_dim", m["dim"] // m["heads"])
    c = {
        "architectures": ["MistralForCausalLM" if mistral else "LlamaForCausalLM"],
        "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
        "hidden_act": "silu", "hidden_size": m["dim"], "initializer_range": 0.02,
        "intermediate_size": m["ffn"], "max_position_embeddings": m.get("context", 256),
        "model_type": "mistral" if mistral else "llama", "num_attention_heads": m["heads"],
        "num_hidden_layers": m["layers"], "num_key_value_heads": m["kv"], "rms_norm_eps": 1e-05,
        "tie_word_embeddings": m.get("tied", False), "torch_dtype": m["dtype"], "use_cache": True,
        "vocab_size": m["vocab"],
    }
    if not mistral:
        c.update(attention_bias=m.get("bias", False), mlp_bias=m.get("bias", False),
                 pretraining_tp=1)
    if "head_dim" in m:  # left out where it follows from the width, as older folders do
        c["head_dim"] = head_dim
    c.update(m["config"])
    return dict(sorted(c.items()))


def weights(m, seed):
    """Hugging Face names -> float64 arrays."""
    rng = np.random.default_rng([20, seed])
    dim, ffn, vocab = m["dim"], m["ffn"], m["vocab"]
    hd = m.get("head_dim", dim // m["heads"])
    q, kv = m["heads"] * hd, m["kv"] * hd
    out = {}

    def matrix(name, rows, cols, gain):
        out[name + ".weight"] = rng.standard_normal((rows, cols)) * gain / np.sqrt(cols)
        if m.get("bias"):
            out[name + ".bias"] = rng.standard_normal(rows) * 0.3

    def norm(name):
        out[name + ".weight"] = 1 + 0.25 * rng.standard_normal(dim)

    # A tied head multiplies by the embedding again: smaller, so that the logits stay near 3.
    out["model.embed_tokens.weight"] = rng.standard_normal((vocab, dim)) * (
        3 / np.sqrt(dim) if m.get("tied") else 1.0)
    for i in range(m["layers"]):
        p = "model.layers.%d." % i
        norm(p + "input_layernorm")
        # q.k / sqrt(head_dim) has deviation gain_q * gain_k = 2.25: clear favourites.
        matrix(p + "self_attn.q_proj", q, dim, 1.5)
        matrix(p + "self_attn.k_proj", kv, dim, 1.5)
        matrix(p + "self_attn.v_proj", kv, dim, 1.0)
        matrix(p + "self_attn.o_proj", dim, q, m.get("out_gain", 1.0))
        norm(p + "post_attention_layernorm")
        matrix(p + "mlp.gate_proj", ffn, dim, 1.5)
        matrix(p + "mlp.up_proj", ffn, dim, 1.0)
        matrix(p + "mlp.down_proj", dim, ffn, m.get("out_gain", 1.0))
    norm("model.norm")
    if not m.get("tied"):
        out["lm_head.weight"] = rng.standard_normal((vocab, dim)) * 3 / np.sqrt(dim)
    return out


def save(m, folder, seed):
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config_json(m), f, indent=2)
        f.write("\n")
    with open(os.path.join(folder, "generation_config.json"), "w") as f:
        json.dump({"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2}, f, indent=2)
        f.write("\n")
    if "tokenizer" in m:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(os.path.join(HERE, "tokenizers", m["tokenizer"], name), folder)
    tensors = {k: torch.from_numpy(v).to(DTYPES[m["dtype"]]) for k, v in weights(m, seed).items()}
    n = m.get("shards", 1)
    if n == 1:
        save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
        return
    # Dealt in turn, so that a layer's tensors lie in different files.
    index, total = {}, 0
    for s in range(n):
        name = "model-%05d-of-%05d.safetensors" % (s + 1, n)
        part = {k: v for i, (k, v) in enumerate(sorted(tensors.items())) if i % n == s}
        save_file(part, os.path.join(folder, name), metadata={"format": "pt"})
        index.update({k: name for k in part})
        total += sum(v.numel() * v.element_size() for v in part.values())
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))}, f,
                  indent=1)
        f.write("\n")


def stored(folder):
    """The weights as the files have them, under GGUF names, widened to float64."""
    out = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            for k, v in load_file(os.path.join(folder, name)).items():
                out[lib.gguf_name(k)] = v.double().numpy()
    return out


def load_reference(folder):
    net = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32,
                                               attn_implementation="eager").eval()

    def logits_of(tokens, last=None):
        with torch.no_grad():
            out = net(torch.tensor([tokens]), use_cache=False,
                      logits_to_keep=last or 0).logits[0]
        return out.float().numpy()

    return net, logits_of


def vectors(m, folder, seed):
    _, logits_of = load_reference(folder)
    with open(os.path.join(folder, "config.json")) as f:
        shape = lib.shape_of_config(json.load(f))
    w = stored(folder)
    tokens, cont, margins = lib.choose_prompt(logits_of, m["vocab"], seed)
    logits = logits_of(tokens)
    std, diff = lib.write_vectors(folder, tokens, logits, list(range(len(tokens))), cont, margins,
                                  lib.llama64(shape, w, tokens), {"model": m["name"]})
    if "long" in m:
        long_vectors(m, folder, seed, logits_of, shape, w)
    print("%-24s std %5.2f  f64 diff %.1e  margin %6.3f  greedy %2d distinct  %3d KB" % (
        m["name"], std, diff, min(margins), len(set(cont)), lib.folder_bytes(folder) // 1000))


def long_vectors(m, folder, seed, logits_of, shape, w):
    """A prompt of thousands: logits of the last two positions only."""
    n = m["long"]
    tokens = np.random.default_rng([seed, 78]).integers(0, m["vocab"], n).tolist()
    logits = logits_of(tokens, last=2)
    second = lib.llama64(shape, w, tokens)[-2:]
    diff = float(np.abs(logits - second).max())
    # The angle pos * freq is a float32 in transformers: at position 4,000 it is off by up to
    # 4000 * 2^-24 = 2.4e-4 radians, so the tolerance grows with it.
    assert diff < 5e-3 * logits.std(), diff
    logits.astype("<f4").tofile(os.path.join(folder, "long.f32"))
    lib.write_json(os.path.join(folder, "long.json"), {
        "model": m["name"], "tokens": tokens, "vocab": m["vocab"], "positions": [n - 2, n - 1],
        "logit_std": round(float(logits.std()), 5), "float64_difference": float("%.3g" % diff)})
    print("%-24s long: f64 diff %.1e, std %.2f" % (m["name"], diff, logits.std()))


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("only", nargs="*", help="names; default all")
    args = ap.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for i, m in enumerate(MODELS):
        if not args.only or m["name"] in args.only:
            folder = os.path.join(HERE, "models", m["name"])
            save(m, folder, i)
            vectors(m, folder, i)


if __name__ == "__main__":
    main()
