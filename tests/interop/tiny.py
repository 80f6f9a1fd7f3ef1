"""Folders for convert.mjs, and logits in float64 of what it made of them.

    tiny.py models DIR        three folders: q4k, f16, f32
    tiny.py vectors PACK...   writes vectors.f32 and vectors.json beside the manifest

Needs what tests/vectors/requirements.txt names. The logits are of the numbers that the pack holds
(its Q4_K blocks decoded), so they say nothing of how well its converter quantises.
"""
import json
import os
import sys

import numpy as np

SPECIAL = ["<unk>", "<s>", "</s>"]
VOCAB = 64
TOKENS = 24


def tokenizer():
    names = SPECIAL + [chr(33 + i) for i in range(VOCAB - len(SPECIAL))]
    bytelevel = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
        "post_processor": None,
        "added_tokens": [{"id": i, "content": name, "single_word": False, "lstrip": False,
                          "rstrip": False, "normalized": False, "special": True}
                         for i, name in enumerate(SPECIAL)],
        "pre_tokenizer": {**bytelevel, "add_prefix_space": False},
        "decoder": {**bytelevel, "add_prefix_space": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "fuse_unk": False,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "byte_fallback": False, "vocab": {n: i for i, n in enumerate(names)},
                  "merges": []},
    }


def model(folder, seed, dtype, layers, ffn, bias, tied):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    net = LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCAB, hidden_size=16, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, intermediate_size=ffn, max_position_embeddings=64,
        attention_bias=bias, tie_word_embeddings=tied, rms_norm_eps=1e-5, bos_token_id=1,
        eos_token_id=2))
    with torch.no_grad():
        for name, p in net.named_parameters():
            noise = torch.randn_like(p)
            if "norm" in name:
                p.copy_(1 + 0.2 * noise)
            elif name.endswith("bias"):
                p.copy_(0.3 * noise)
            elif "embed" in name or "lm_head" in name:
                p.copy_(0.7 * noise)
            else:
                p.copy_(1.3 * noise / p.shape[1] ** 0.5)
    net.to(getattr(torch, dtype)).save_pretrained(folder)
    os.remove(f"{folder}/generation_config.json")
    with open(f"{folder}/tokenizer.json", "w") as f:
        json.dump(tokenizer(), f)


def models(folder):
    # 256 columns in down_proj, 64 and 16 in the others: whole blocks and rows filled up.
    model(f"{folder}/q4k", 11, "float16", 1, 256, False, True)
    model(f"{folder}/f16", 12, "float16", 2, 24, True, False)
    model(f"{folder}/f32", 13, "float32", 1, 24, True, False)


def q4k(data):
    b = np.frombuffer(data, np.uint8).reshape(-1, 144)
    d = b[:, 0:2].copy().view(np.float16).astype(np.float64)
    dmin = b[:, 2:4].copy().view(np.float16).astype(np.float64)
    s = b[:, 4:16].astype(int)
    out = np.empty((len(b), 256))
    for j in range(8):
        if j < 4:
            scale, low = s[:, j] & 63, s[:, j + 4] & 63
        else:
            scale = (s[:, j + 4] & 15) | (s[:, j - 4] >> 6) << 4
            low = (s[:, j + 4] >> 4) | (s[:, j] >> 6) << 4
        q = b[:, 16 + 32 * (j // 2):48 + 32 * (j // 2)] >> 4 * (j % 2) & 15
        out[:, 32 * j:32 * j + 32] = d * scale[:, None] * q - dmin * low[:, None]
    return out


def weights(pack, manifest):
    shards = []
    for shard in manifest["shards"]:
        with open(f"{pack}/{shard['filename']}", "rb") as f:
            shards.append(f.read())
    out = {}
    for name, t in manifest["tensors"].items():
        data = b""
        for span in t.get("spans", [t]):
            shard = shards[span.get("shardIndex", span.get("shard"))]
            data += shard[span["offset"]:span["offset"] + span["size"]]
        if t["dtype"] == "Q4_K_M":
            rows, cols = t["shape"]
            out[name] = q4k(data).reshape(rows, -1)[:, :cols]
        else:
            dtype = {"F16": np.float16, "F32": np.float32}[t["dtype"]]
            out[name] = np.frombuffer(data, dtype).astype(np.float64).reshape(t["shape"])
    return out


def logits(manifest, w, tokens):
    a, n = manifest["architecture"], len(tokens)
    heads, kv_heads, dim = a["numAttentionHeads"], a["numKeyValueHeads"], a["headDim"]
    inference = manifest["inference"]
    theta, eps = inference["rope"]["ropeTheta"], inference["normalization"]["rmsNormEps"]
    angle = np.arange(n)[:, None] * theta ** (-np.arange(0, dim, 2) / dim)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]

    def norm(x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w[name]

    def linear(x, name):
        return x @ w[name + ".weight"].T + w.get(name + ".bias", 0)

    def turn(x):
        u, v = x[..., :dim // 2], x[..., dim // 2:]
        return np.concatenate([u * cos - v * sin, v * cos + u * sin], -1)

    x = w["model.embed_tokens.weight"][tokens]
    for layer in range(a["numLayers"]):
        p = f"model.layers.{layer}."
        h = norm(x, p + "input_layernorm.weight")
        q = turn(linear(h, p + "self_attn.q_proj").reshape(n, heads, dim))
        k = turn(linear(h, p + "self_attn.k_proj").reshape(n, kv_heads, dim))
        v = linear(h, p + "self_attn.v_proj").reshape(n, kv_heads, dim)
        mixed = np.empty((n, heads, dim))
        for i in range(heads):
            j = i * kv_heads // heads
            s = q[:, i] @ k[:, j].T / inference["attention"]["queryPreAttnScalar"] ** 0.5
            s[np.triu_indices(n, 1)] = -np.inf
            s = np.exp(s - s.max(-1, keepdims=True))
            mixed[:, i] = s / s.sum(-1, keepdims=True) @ v[:, j]
        x = x + linear(mixed.reshape(n, -1), p + "self_attn.o_proj")
        h = norm(x, p + "post_attention_layernorm.weight")
        gate = linear(h, p + "mlp.gate_proj")
        h = gate / (1 + np.exp(-gate)) * linear(h, p + "mlp.up_proj")
        x = x + linear(h, p + "mlp.down_proj")
    head = w.get("lm_head.weight", w["model.embed_tokens.weight"])
    return norm(x, "model.norm.weight") @ head.T


def vectors(pack):
    with open(f"{pack}/manifest.json") as f:
        manifest = json.load(f)
    tokens = np.random.RandomState(5).randint(len(SPECIAL), VOCAB, TOKENS)
    out = logits(manifest, weights(pack, manifest), tokens)
    out.astype("<f4").tofile(f"{pack}/vectors.f32")
    with open(f"{pack}/vectors.json", "w") as f:
        json.dump({"tokens": tokens.tolist(), "vocab": VOCAB,
                   "positions": list(range(TOKENS))}, f)
    best = np.sort(out, 1)
    print(f"{pack}: least margin {np.min(best[:, -1] - best[:, -2]):.4f}")


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in ("models", "vectors"):
        sys.exit(__doc__)
    if sys.argv[1] == "models":
        models(sys.argv[2])
    else:
        for name in sys.argv[2:]:
            vectors(name)
