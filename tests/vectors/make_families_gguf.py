#!/usr/bin/env python3
"""Writes families-gguf/NAME/model.gguf: the models of make_families.py as GGUF.

Metadata keys and tensors are those that llama.cpp's converter gives each architecture, plus the few
keys without which a file of these tiny shapes would mean another model (marked below); written by
the PyPI package gguf. Every file is read back with gguf's reader: its weights are the folder's to
the bit, and the float64 pass made from its metadata alone gives the folder's logits. No tokenizer.
"""

import argparse
import json
import math
import os
import shutil

import gguf
import numpy as np
from safetensors.torch import load_file

import families64
import make_gguf
import vectorlib as lib

HERE = os.path.dirname(os.path.abspath(__file__))
T = gguf.GGMLQuantizationType

# Architecture of each; without a twin are llama-dynamic and qwen3moe-raw, for which no file that a
# converter writes says what they need, and gpt2-bare, whose tensors differ in name only.
MODELS = {
    "gpt2": "gpt2", "llama-yarn": "llama", "smollm3": "smollm3", "mistral-window": "llama",
    "qwen2": "qwen2", "qwen3": "qwen3", "gemma2": "gemma2", "gemma3": "gemma3",
    "gemma3-4b": "gemma3", "phi3": "phi3", "phi3-longrope": "phi3", "phi4-mini": "phi3",
    "olmo2": "olmo2", "granite": "granite", "mixtral": "llama", "qwen3moe": "qwen3moe",
    "gpt-oss": "gpt-oss", "gpt-oss-bf16": "gpt-oss",
}


# ---- metadata -----------------------------------------------------------------------------------

def add_common(out, c):
    """What every architecture but gpt2 and phi3 has."""
    out.add_block_count(c["num_hidden_layers"])
    out.add_context_length(c["max_position_embeddings"])
    out.add_embedding_length(c["hidden_size"])
    out.add_feed_forward_length(c["intermediate_size"])
    out.add_head_count(c["num_attention_heads"])
    out.add_head_count_kv(c["num_key_value_heads"])
    scaling = c.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind == "linear":
        out.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        out.add_rope_scaling_factor(scaling["factor"])
    elif kind == "yarn":
        out.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        out.add_rope_scaling_factor(scaling["factor"])
        out.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
        out.add_rope_scaling_yarn_beta_fast(scaling["beta_fast"])
        out.add_rope_scaling_yarn_beta_slow(scaling["beta_slow"])
    else:
        assert kind is None, kind
    out.add_rope_freq_base(c["rope_theta"])
    out.add_layer_norm_rms_eps(c["rms_norm_eps"])
    experts = c.get("num_local_experts", c.get("num_experts"))
    if experts:
        out.add_expert_count(experts)
        out.add_expert_used_count(c["num_experts_per_tok"])
    if c.get("head_dim"):
        out.add_key_length(c["head_dim"])
        out.add_value_length(c["head_dim"])


def add_gpt2(out, c):
    out.add_block_count(c["n_layer"])
    out.add_context_length(c["n_ctx"])
    out.add_embedding_length(c["n_embd"])
    out.add_feed_forward_length(4 * c["n_embd"])
    out.add_head_count(c["n_head"])
    out.add_layer_norm_eps(c["layer_norm_epsilon"])


def add_phi3(out, c):
    original, context = c["original_max_position_embeddings"], c["max_position_embeddings"]
    head_dim = c["hidden_size"] // c["num_attention_heads"]
    out.add_context_length(context)
    out.add_rope_scaling_orig_ctx_len(original)
    out.add_embedding_length(c["hidden_size"])
    out.add_feed_forward_length(c["intermediate_size"])
    out.add_block_count(c["num_hidden_layers"])
    out.add_head_count(c["num_attention_heads"])
    out.add_head_count_kv(c["num_key_value_heads"])
    out.add_layer_norm_rms_eps(c["rms_norm_eps"])
    out.add_rope_dimension_count(int(head_dim * c.get("partial_rotary_factor", 1.0)))
    out.add_rope_freq_base(c["rope_theta"])
    out.add_sliding_window(c["sliding_window"] or 0)
    if c["rope_scaling"]:
        out.add_rope_scaling_attn_factors(
            math.sqrt(1 + math.log(context / original) / math.log(original)))
        for which in ("long", "short"):
            out.add_tensor("rope_factors_%s.weight" % which,
                           np.array(c["rope_scaling"][which + "_factor"], np.float32))


def add_metadata(out, arch, c):
    if arch == "gpt2":
        add_gpt2(out, c)
        return
    if arch == "phi3":
        add_phi3(out, c)
        return
    add_common(out, c)
    if arch in families64.INTERLEAVED:
        out.add_vocab_size(c["vocab_size"])
        out.add_rope_dimension_count(
            c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"])
        if c.get("sliding_window"):
            out.add_sliding_window(c["sliding_window"])  # ours: converters drop Mistral's window
    if arch == "qwen3moe":
        out.add_expert_feed_forward_length(c["moe_intermediate_size"])
    if arch == "gpt-oss":
        out.add_sliding_window(c["sliding_window"])
        out.add_expert_feed_forward_length(c["intermediate_size"])
    if arch in ("gemma2", "gemma3"):
        out.add_sliding_window(c["sliding_window"])
    if arch == "gemma2":
        out.add_attn_logit_softcapping(c["attn_logit_softcapping"])
        out.add_final_logit_softcapping(c["final_logit_softcapping"])
        # Ours: without it 1/sqrt(head_dim), or 1/sqrt(width / heads) in the 46 layers of the 27B.
        out.add_attention_scale(c["query_pre_attn_scalar"] ** -0.5)
    if arch == "gemma3" and c["rope_local_base_freq"] != 10000.0:
        out.add_rope_freq_base_swa(c["rope_local_base_freq"])  # ours: converters rely on 10000
    if arch == "granite":
        out.add_attention_scale(c["attention_multiplier"])
        out.add_embedding_scale(c["embedding_multiplier"])
        out.add_residual_scale(c["residual_multiplier"])
        out.add_logit_scale(c["logits_scaling"])


# ---- tensors ------------------------------------------------------------------------------------

def permute_rows(w, heads):
    return make_gguf.permute(w, heads) if w.ndim == 2 else \
        make_gguf.permute(w[:, None], heads)[:, 0]


def arranged(arch, s, w):
    """families64's weights as the architecture's files have them: fused, renamed, permuted."""
    out = dict(w)
    for i in range(s["n_layers"]):
        p = "blk.%d." % i
        if arch in ("gpt2", "phi3"):
            for bias in ("", ".bias"):
                parts = [out.pop(p + "attn_" + x + bias, None) for x in "qkv"]
                if parts[0] is not None:
                    out[p + "attn_qkv" + bias] = np.concatenate(parts)
        if arch == "phi3":
            out[p + "ffn_up"] = np.concatenate([out.pop(p + "ffn_gate"), out[p + "ffn_up"]])
        if arch == "gpt-oss":
            out[p + "post_attention_norm"] = out.pop(p + "ffn_norm")
        if arch in families64.INTERLEAVED:
            for part, heads in (("q", s["n_heads"]), ("k", s["n_kv_heads"])):
                out[p + "attn_" + part] = permute_rows(out[p + "attn_" + part], heads)
    return out


def repacked(blocks, scales):
    """Published MXFP4 (neighbours share a byte) -> GGUF's: scale, then 16 bytes of halves."""
    codes = np.stack([blocks & 15, blocks >> 4], -1).reshape(blocks.shape[:-1] + (32,))
    halves = codes[..., :16] | codes[..., 16:] << 4
    data = np.concatenate([scales[..., None], halves], -1).astype(np.uint8)
    return data.reshape(data.shape[:-2] + (-1,))


def packed_experts(folder):
    """GGUF name -> bytes [experts, rows, row bytes] of a folder with MXFP4 blocks."""
    out, stored = {}, load_file(os.path.join(folder, "model.safetensors"))
    for name in stored:
        if name.endswith("_blocks"):
            data = repacked(stored[name].numpy(),
                            stored[name.replace("_blocks", "_scales")].numpy())
            p, rest, _ = families64.split_name(name)
            if "gate_up" in rest:
                out[p + "ffn_gate_exps"], out[p + "ffn_up_exps"] = data[:, 0::2], data[:, 1::2]
            else:
                out[p + "ffn_down_exps"] = data
    return out


def stays_f32(name, value):
    return value.ndim == 1 or name.endswith((".bias", "_norm", "ffn_gate_inp", "position_embd"))


def write(name, arch, source, path):
    with open(os.path.join(source, "config.json")) as f:
        c = json.load(f)
    s, w = families64.of_folder(source)
    if "text_config" in c:
        c = dict({"max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
                  "rope_local_base_freq": 10000.0}, torch_dtype=c["torch_dtype"],
                 **c["text_config"])
    packed = packed_experts(source)
    wide = c.get("torch_dtype", "float32") == "float32"
    out = gguf.GGUFWriter(path, arch)
    out.add_name(name)
    out.add_file_type(gguf.LlamaFileType.MOSTLY_MXFP4_MOE if packed else
                      gguf.LlamaFileType.ALL_F32 if wide else gguf.LlamaFileType.MOSTLY_BF16)
    out.add_quantization_version(2)
    add_metadata(out, arch, c)
    out.add_tokenizer_model("none")
    for key, value in arranged(arch, s, w).items():
        full = key if key.endswith(".bias") else key + ".weight"
        if key in packed:
            out.add_tensor(full, np.ascontiguousarray(packed[key]), raw_dtype=T.MXFP4)
            continue
        value = np.ascontiguousarray(value, np.float32)
        qtype = T.F32 if wide or stays_f32(key, value) else T.BF16
        out.add_tensor(full, gguf.quants.quantize(value, qtype), raw_dtype=qtype)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return w


def make(name, arch):
    source = os.path.join(HERE, "families", name)
    folder = os.path.join(HERE, "families-gguf", name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    path = os.path.join(folder, "model.gguf")
    original = write(name, arch, source, path)
    s, w, _ = families64.of_gguf(path)
    assert w.keys() == original.keys(), (name, w.keys() ^ original.keys())
    for key, value in original.items():
        back = w[key]
        if s["interleaved"] and key.endswith(("attn_q", "attn_k")):
            back = make_gguf.unpermute(back, s["n_heads" if key[-1] == "q" else "n_kv_heads"])
        assert np.array_equal(back, value.astype(np.float32)), (name, key)
    for stem in ("vectors", "short"):
        of = os.path.join(source, stem)
        if os.path.exists(of + ".json"):
            with open(of + ".json") as f:
                info = json.load(f)
            want = np.fromfile(of + ".f32", "<f4").reshape(-1, info["vocab"])
            got = families64.Pass(s, w)(info["tokens"])[info["positions"]]
            assert np.abs(got - want).max() < 1e-4 * want.std(), (name, stem)
    lib.write_json(os.path.join(folder, "vectors.json"), {"same_as": "families/" + name})
    print("%-16s %-9s %3d KB" % (name, arch, lib.folder_bytes(folder) // 1000), flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("only", nargs="*", help="names; default all")
    args = ap.parse_args()
    for name, arch in MODELS.items():
        if not args.only or name in args.only:
            make(name, arch)


if __name__ == "__main__":
    main()
