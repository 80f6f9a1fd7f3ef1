#!/usr/bin/env python3
"""Writes families/NAME: a tiny random model of every family as a Hugging Face folder, with logits.

config.json has the fields of a published model of the family, the tensors have the names that
published checkpoints have. Weights come from numpy's PCG64 by a fixed seed. Reference logits:
transformers, float32 arithmetic, eager attention and eager experts, loaded from the folder with no
tensor missing or left over; gpt-oss's blocks are decoded to float32 as it loads. Every vector is
compared with the float64 pass of families64.py, which has its own decoder, and check.py plants
faults in that.

Weights are scaled so that everything a family adds matters: attention has clear favourites, soft
caps bend, windows are far shorter than the prompt, norms, biases, sinks and routers count.
"""

import argparse
import json
import math
import os
import shutil

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, Mxfp4Config
from transformers.utils import logging

import families64
import vectorlib as lib

HERE = os.path.dirname(os.path.abspath(__file__))
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
TRIES = 12


# ---- configurations -----------------------------------------------------------------------------

def common(kind, model_type, dim, layers, heads, kv, ffn, vocab, **more):
    """Fields that all but GPT-2 share."""
    c = {"architectures": [kind + "ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1,
         "eos_token_id": 2, "hidden_act": "silu", "hidden_size": dim, "initializer_range": 0.02,
         "intermediate_size": ffn, "max_position_embeddings": 256, "model_type": model_type,
         "num_attention_heads": heads, "num_hidden_layers": layers, "num_key_value_heads": kv,
         "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "torch_dtype": "bfloat16",
         "use_cache": True, "vocab_size": vocab}
    c.update(more)
    return {k: v for k, v in c.items() if v != "absent"}


def llama(scaling, **more):
    return common("Llama", "llama", 32, 2, 4, 2, 64, 128, attention_bias=False, mlp_bias=False,
                  pretraining_tp=1, rope_scaling=scaling, tie_word_embeddings=False, **more)


def gpt2(**more):
    c = {"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"],
         "attn_pdrop": 0.1, "bos_token_id": 127, "embd_pdrop": 0.1, "eos_token_id": 127,
         "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "model_type": "gpt2",
         "n_ctx": 128, "n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 128,
         "resid_pdrop": 0.1, "summary_activation": None, "summary_first_dropout": 0.1,
         "summary_proj_to_labels": True, "summary_type": "cls_index", "summary_use_proj": True,
         "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
         "vocab_size": 128}
    c.update(more)
    return c


def gemma2():
    """2B's fields. Scale by query_pre_attn_scalar, which is not head_dim (as in the 27B)."""
    return common("Gemma2", "gemma2", 32, 4, 4, 2, 64, 128, attention_bias=False,
                  attn_logit_softcapping=4.0, bos_token_id=2, cache_implementation="hybrid",
                  eos_token_id=1, final_logit_softcapping=5.0, head_dim=16,
                  hidden_act="gelu_pytorch_tanh", hidden_activation="gelu_pytorch_tanh",
                  pad_token_id=0, query_pre_attn_scalar=8, rms_norm_eps=1e-06, sliding_window=16)


def gemma3():
    """270M's fields; eight layers: 5 is the only global one, 6 and 7 are local again."""
    kinds = ["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(8)]
    return common("Gemma3", "gemma3_text", 32, 8, 4, 1, 64, 128, _sliding_window_pattern=6,
                  attention_bias=False, attn_logit_softcapping=None, bos_token_id=2,
                  eos_token_id=1, final_logit_softcapping=None, head_dim=16, hidden_act="absent",
                  hidden_activation="gelu_pytorch_tanh", layer_types=kinds, pad_token_id=0,
                  query_pre_attn_scalar=16, rms_norm_eps=1e-06, rope_local_base_freq=100.0,
                  rope_scaling=None, rope_theta=10000.0, sliding_window=16,
                  use_bidirectional_attention=False)


def gemma3_4b():
    """text_config leaves out everything that the class's defaults can say for so small a model."""
    return {"architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 255999,
            "eoi_token_index": 256000, "eos_token_id": [1, 106], "image_token_index": 262144,
            "initializer_range": 0.02, "mm_tokens_per_image": 4, "model_type": "gemma3",
            "text_config": {
                "head_dim": 32, "hidden_size": 32, "intermediate_size": 48,
                "model_type": "gemma3_text", "num_attention_heads": 2, "num_hidden_layers": 6,
                "num_key_value_heads": 1, "query_pre_attn_scalar": 32,
                "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 16,
                "vocab_size": 128},
            "torch_dtype": "bfloat16",
            "vision_config": {
                "hidden_size": 8, "image_size": 4, "intermediate_size": 8,
                "model_type": "siglip_vision_model", "num_attention_heads": 2,
                "num_hidden_layers": 1, "patch_size": 2, "vision_use_head": False}}


def phi3(**more):
    auto = {"AutoConfig": "configuration_phi3.Phi3Config",
            "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"}
    c = common("Phi3", "phi3", 32, 2, 4, 4, 64, 128, attention_bias=False, auto_map=auto,
               embd_pdrop=0.0, pad_token_id=3, resid_pdrop=0.0, rope_scaling=None,
               tie_word_embeddings=False, max_position_embeddings=4096,
               original_max_position_embeddings=4096, sliding_window=2047)
    c.update(more)
    return c


def moe(kind, model_type, **more):
    return common(kind, model_type, 32, 2, 4, 2, 32, 128, output_router_logits=False,
                  rope_theta=1000000.0, sliding_window=None, tie_word_embeddings=False, **more)


def qwen3moe(norm):
    return moe("Qwen3Moe", "qwen3_moe", attention_bias=False, decoder_sparse_step=1, head_dim=16,
               intermediate_size=96, max_window_layers=2, mlp_only_layers=[],
               moe_intermediate_size=32, norm_topk_prob=norm, num_experts=8,
               num_experts_per_tok=3, rms_norm_eps=1e-06, rope_scaling=None,
               router_aux_loss_coef=0.001, use_sliding_window=False)


def gpt_oss(packed):
    dim = 64 if packed else 32  # rows of two blocks; the unpacked one would be too large
    c = common("GptOss", "gpt_oss", dim, 2, 8, 4, dim, 128, attention_bias=True,
               bos_token_id="absent", experts_per_token=2, head_dim=16, initial_context_length=32,
               layer_types=["sliding_attention", "full_attention"], num_experts_per_tok=2,
               num_local_experts=4, output_router_logits=False, pad_token_id=3,
               rope_scaling={"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0,
                             "original_max_position_embeddings": 32, "rope_type": "yarn",
                             "truncate": False},
               max_position_embeddings=1024, rope_theta=150000, router_aux_loss_coef=0.9,
               sliding_window=16, swiglu_limit=7.0, tie_word_embeddings=False)
    if packed:
        c["quantization_config"] = {
            "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router",
                                       "model.embed_tokens", "lm_head"],
            "quant_method": "mxfp4"}
    return c


LONG = [1.0, 1.1, 1.6, 3.0, 7.0, 14.0, 25.0, 32.0]
SHORT = [1.0, 1.02, 1.05, 1.3, 1.6, 2.0, 2.4, 2.8]

# name, configuration, and what the weights need (see Weights): the order gives the seeds.
MODELS = [
    ("gpt2", gpt2(torch_dtype="bfloat16"), {"prefix": "transformer."}),
    ("gpt2-bare", gpt2(n_embd=24, n_head=3, vocab_size=96, bos_token_id=95, eos_token_id=95),
     {"prefix": "", "mask": True}),
    ("llama-yarn", llama({"beta_fast": 8.0, "beta_slow": 0.5, "factor": 4.0,
                          "original_max_position_embeddings": 32, "type": "yarn"},
                         max_position_embeddings=128, head_dim=16), {}),
    ("llama-dynamic", llama({"factor": 4.0, "type": "dynamic"}, max_position_embeddings=128), {}),
    ("smollm3", common("SmolLM3", "smollm3", 32, 4, 2, 1, 64, 128, attention_bias=False,
                       layer_types=["full_attention"] * 4, max_window_layers=28, mlp_bias=False,
                       no_rope_layer_interval=4, no_rope_layers=[1, 1, 1, 0], pad_token_id=3,
                       pretraining_tp=2, rms_norm_eps=1e-06, rope_scaling=None,
                       rope_theta=5000000.0, sliding_window=None, use_sliding_window=False),
     {"tied": True}),
    ("mistral-window", common("Mistral", "mistral", 32, 2, 2, 1, 64, 128, sliding_window=16,
                              tie_word_embeddings=False), {}),
    ("qwen2", common("Qwen2", "qwen2", 32, 2, 4, 2, 64, 128, head_dim=32,
                     max_window_layers=1,
                     rms_norm_eps=1e-06, rope_theta=1000000.0, sliding_window=16,
                     tie_word_embeddings=True, use_sliding_window=False),
     {"tied": True, "bias": ("q", "k", "v")}),
    ("qwen3", common("Qwen3", "qwen3", 32, 2, 4, 2, 64, 128, attention_bias=False, head_dim=16,
                     max_window_layers=2, rms_norm_eps=1e-06, rope_scaling=None,
                     rope_theta=1000000, sliding_window=None, tie_word_embeddings=True,
                     use_sliding_window=False), {"tied": True, "qk_norm": "head"}),
    ("gemma2", gemma2(), {"tied": True, "norms": "gemma"}),
    ("gemma3", gemma3(), {"tied": True, "norms": "gemma", "qk_norm": "head"}),
    ("gemma3-4b", gemma3_4b(), {"tied": True, "norms": "gemma", "qk_norm": "head",
                                "qk_gain": 1.95, "prefix": "language_model.", "vision": True}),
    ("phi3", phi3(), {}),
    ("phi3-longrope", phi3(max_position_embeddings=2048, original_max_position_embeddings=64,
                           rope_scaling={"long_factor": LONG[::2], "short_factor": SHORT[::2],
                                         "type": "longrope"}, sliding_window=262144), {}),
    ("phi4-mini", phi3(full_attn_mod=1, hidden_size=64, interpolate_factor=1, lm_head_bias=False,
                       max_position_embeddings=8192, mlp_bias=False, num_key_value_heads=2,
                       original_max_position_embeddings=256, partial_rotary_factor=0.75,
                       rope_scaling={"long_factor": LONG[:6], "short_factor": [1.0] * 6,
                                     "type": "longrope"},
                       sliding_window=262144, tie_word_embeddings=True), {"tied": True}),
    ("olmo2", common("Olmo2", "olmo2", 32, 2, 2, 1, 64, 128, attention_bias=False,
                     bos_token_id="absent", pad_token_id=3, rms_norm_eps=1e-06, rope_scaling=None,
                     rope_theta=500000, tie_word_embeddings=False, torch_dtype="float32"),
     {"norms": "olmo", "qk_norm": "all"}),
    ("granite", common("Granite", "granite", 32, 2, 2, 1, 64, 128, attention_bias=False,
                       attention_multiplier=0.6, embedding_multiplier=3.0, logits_scaling=2.0,
                       mlp_bias=False, pad_token_id=0, residual_multiplier=0.6,
                       rope_scaling=None, rope_theta=10000.0, tie_word_embeddings=True),
     {"tied": True, "out": 2.5}),
    ("mixtral", moe("Mixtral", "mixtral", num_attention_heads=2, num_key_value_heads=1,
                    num_experts_per_tok=2, num_local_experts=4, router_aux_loss_coef=0.02),
     {"experts": "mixtral"}),
    ("qwen3moe", qwen3moe(True), {"experts": "qwen", "qk_norm": "head"}),
    ("qwen3moe-raw", qwen3moe(False), {"experts": "qwen", "qk_norm": "head"}),
    ("gpt-oss", gpt_oss(True), {"experts": "packed", "bias": ("q", "k", "v", "o"),
                                "sinks": True}),
    ("gpt-oss-bf16", gpt_oss(False), {"experts": "fused", "bias": ("q", "k", "v", "o"),
                                      "sinks": True}),
]


# ---- weights ------------------------------------------------------------------------------------

class Weights:
    """Hugging Face names -> float64 arrays (uint8 for packed ones). `how`: tied, bias (which of
    the attention's matrices), qk_norm (head or all), qk_gain, norms (gemma: stored less 1, four a
    layer; olmo: after the sublayers only), out (gain of what the sublayers add), experts, sinks,
    prefix, vision, mask."""

    def __init__(self, c, how, seed):
        self.rng, self.c, self.how, self.out = np.random.default_rng([22, seed]), c, how, {}
        t = c.get("text_config", c)
        self.dim, self.heads = t.get("hidden_size"), t.get("num_attention_heads")
        if c["model_type"] == "gpt2":
            self.gpt2()
            return
        self.hd = t.get("head_dim") or self.dim // self.heads
        self.kv, self.ffn, self.vocab = (t[k] for k in ("num_key_value_heads",
                                                        "intermediate_size", "vocab_size"))
        p = how.get("prefix", "") + "model."
        self.embedding(p + "embed_tokens.weight")
        for i in range(t["num_hidden_layers"]):
            self.layer(p + "layers.%d." % i)
        self.norm(p + "norm", self.dim)
        if not how.get("tied"):
            self.put("lm_head.weight", (self.vocab, self.dim), 3 / math.sqrt(self.dim))
        if how.get("vision"):
            self.vision(c["vision_config"])

    def put(self, name, shape, deviation, mean=0.0):
        self.out[name] = mean + deviation * self.rng.standard_normal(shape)

    def embedding(self, name):
        # A tied head multiplies by the embedding again: smaller, so that the logits stay near 3.
        # Gemma multiplies by sqrt(dim) on the way in, Granite by its own factor.
        deviation = 2 / math.sqrt(self.dim) if self.how.get("tied") else 1.0
        if self.c["model_type"] == "granite":
            deviation = 0.25
        self.put(name, (self.vocab, self.dim), deviation)

    def matrix(self, name, rows, cols, gain, bias=0.0):
        self.put(name + ".weight", (rows, cols), gain / math.sqrt(cols))
        if bias:
            self.put(name + ".bias", rows, bias)

    def norm(self, name, width, mean=1.0):
        if self.how.get("norms") == "gemma":
            mean -= 1
        self.put(name + ".weight", width, 0.3, mean)

    def layer(self, p):
        how, q, kv = self.how, self.heads * self.hd, self.kv * self.hd
        gemma, olmo = how.get("norms") == "gemma", how.get("norms") == "olmo"
        biased, a = how.get("bias", ()), p + "self_attn."
        if not olmo:
            self.norm(p + "input_layernorm", self.dim)
        if self.c["model_type"] == "phi3":
            self.matrix(a + "qkv_proj", q + 2 * kv, self.dim, 1.4)
        else:
            # q.k / sqrt(head_dim) has deviation 2.25: clear favourites. Biases of K alone shift a
            # whole row of scores but for the rotation, so they are larger.
            for part, rows, gain in (("q", q, 1.5), ("k", kv, 1.5), ("v", kv, 1.0)):
                self.matrix(a + part + "_proj", rows, self.dim, gain,
                            {"q": 0.7, "k": 1.5, "v": 0.5}[part] if part in biased else 0)
        self.matrix(a + "o_proj", self.dim, q, how.get("out", 1.0), 0.4 if "o" in biased else 0)
        if "qk_norm" in how:
            wide, gain = how["qk_norm"] == "all", how.get("qk_gain", 1.5)
            self.norm(a + "q_norm", q if wide else self.hd, gain)
            self.norm(a + "k_norm", kv if wide else self.hd, gain)
        if how.get("sinks"):
            self.put(a + "sinks", self.heads, 1.0, 2.0)
        self.norm(p + "post_attention_layernorm", self.dim, 2.0 if gemma or olmo else 1.0)
        if gemma:
            self.norm(p + "pre_feedforward_layernorm", self.dim)
        if gemma or olmo:
            self.norm(p + "post_feedforward_layernorm", self.dim, 2.0)
        if "experts" in how:
            getattr(self, "experts_" + how["experts"])(p)
        elif self.c["model_type"] == "phi3":
            self.matrix(p + "mlp.gate_up_proj", 2 * self.ffn, self.dim, 1.3)
            self.matrix(p + "mlp.down_proj", self.dim, self.ffn, 1.0)
        else:
            self.glu(p + "mlp.", ("gate_proj", "up_proj", "down_proj"), self.ffn)

    def glu(self, p, names, ffn):
        gate, up, down = names
        self.matrix(p + gate, ffn, self.dim, 1.5)
        self.matrix(p + up, ffn, self.dim, 1.0)
        self.matrix(p + down, self.dim, ffn, self.how.get("out", 1.0))

    def experts_mixtral(self, p):
        self.matrix(p + "block_sparse_moe.gate", self.c["num_local_experts"], self.dim, 1.5)
        for e in range(self.c["num_local_experts"]):
            self.glu(p + "block_sparse_moe.experts.%d." % e, ("w1", "w3", "w2"), self.ffn)

    def experts_qwen(self, p):
        self.matrix(p + "mlp.gate", self.c["num_experts"], self.dim, 1.5)
        for e in range(self.c["num_experts"]):
            self.glu(p + "mlp.experts.%d." % e, ("gate_proj", "up_proj", "down_proj"),
                     self.c["moe_intermediate_size"])

    def router_and_biases(self, p):
        n = self.c["num_local_experts"]
        self.matrix(p + "mlp.router", n, self.dim, 1.0, 1.0)
        # Gains that make the clamp at 7 and the 1 beside `up` count.
        self.put(p + "mlp.experts.gate_up_proj_bias", (n, 2 * self.ffn), 1.0)
        self.put(p + "mlp.experts.down_proj_bias", (n, self.dim), 1.0)
        return n

    def experts_fused(self, p):
        n, e = self.router_and_biases(p), p + "mlp.experts."
        self.put(e + "gate_up_proj", (n, self.dim, 2 * self.ffn), 4.5 / math.sqrt(self.dim))
        self.put(e + "down_proj", (n, self.ffn, self.dim), 0.2 / math.sqrt(self.ffn))

    def experts_packed(self, p):
        """Random nibbles; the block scales 2^k spread over three values. The deviation of E2M1's
        sixteen values is 2.95."""
        n, e = self.router_and_biases(p), p + "mlp.experts."
        for name, rows, cols, gain in (("gate_up_proj", 2 * self.ffn, self.dim, 4.5),
                                       ("down_proj", self.dim, self.ffn, 0.2)):
            blocks = self.rng.integers(0, 256, (n, rows, cols // 32, 16)).astype(np.uint8)
            centre = round(math.log2(gain / math.sqrt(cols) / 2.95))
            scales = 127 + centre + self.rng.integers(-1, 2, (n, rows, cols // 32))
            self.out[e + name + "_blocks"] = blocks
            self.out[e + name + "_scales"] = scales.astype(np.uint8)

    def gpt2(self):
        c, prefix, d = self.c, self.how["prefix"], self.c["n_embd"]

        def conv(name, cols, rows, gain):  # Conv1D: [in, out]
            self.put(name + ".weight", (cols, rows), gain / math.sqrt(cols))
            self.put(name + ".bias", rows, 0.4)

        def layer_norm(name):
            self.put(name + ".weight", d, 0.3, 1.0)
            self.put(name + ".bias", d, 0.4)

        self.put(prefix + "wte.weight", (c["vocab_size"], d), 2.5 / math.sqrt(d))
        self.put(prefix + "wpe.weight", (c["n_positions"], d), 0.5)
        for i in range(c["n_layer"]):
            p = prefix + "h.%d." % i
            layer_norm(p + "ln_1")
            if self.how.get("mask"):
                mask = np.tril(np.ones((c["n_ctx"], c["n_ctx"])))
                self.out[p + "attn.bias"] = mask.reshape(1, 1, *mask.shape)
            conv(p + "attn.c_attn", d, 3 * d, 1.5)
            conv(p + "attn.c_proj", d, d, 1.5)
            layer_norm(p + "ln_2")
            conv(p + "mlp.c_fc", d, 4 * d, 1.5)
            conv(p + "mlp.c_proj", 4 * d, d, 1.5)
        layer_norm(prefix + "ln_f")

    def vision(self, v):
        """A tower as small as the class allows, under the published names: to be ignored."""
        d, n = v["hidden_size"], (v["image_size"] // v["patch_size"]) ** 2
        p = "vision_tower.vision_model."
        self.put(p + "embeddings.patch_embedding.weight",
                 (d, 3, v["patch_size"], v["patch_size"]), 0.1)
        self.put(p + "embeddings.patch_embedding.bias", d, 0.1)
        self.put(p + "embeddings.position_embedding.weight", (n, d), 0.1)
        for part in ("layer_norm1", "layer_norm2"):
            self.put(p + "encoder.layers.0.%s.weight" % part, d, 0.1)
            self.put(p + "encoder.layers.0.%s.bias" % part, d, 0.1)
        for part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                     "self_attn.out_proj", "mlp.fc1", "mlp.fc2"):
            self.matrix(p + "encoder.layers.0." + part, d, d, 1.0, 0.1)
        self.put(p + "post_layernorm.weight", d, 0.1)
        self.put(p + "post_layernorm.bias", d, 0.1)
        self.put("multi_modal_projector.mm_input_projection_weight", (d, self.dim), 0.1)
        self.put("multi_modal_projector.mm_soft_emb_norm.weight", d, 0.1)


def save(name, c, how, folder, seed):
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    c = dict(sorted(c.items()))
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(c, f, indent=2)
        f.write("\n")
    ids = {k: c[k] for k in ("bos_token_id", "eos_token_id", "pad_token_id") if k in c}
    with open(os.path.join(folder, "generation_config.json"), "w") as f:
        json.dump(dict({"_from_model_config": True}, **ids), f, indent=2)
        f.write("\n")
    saved = AutoConfig.from_pretrained(folder).to_json_string()
    with open(os.path.join(folder, "config-saved.json"), "w") as f:
        f.write(saved)
    dtype = DTYPES[c.get("torch_dtype", "float32")]
    tensors = {}
    for key, v in Weights(c, how, seed).out.items():
        t = torch.from_numpy(np.ascontiguousarray(v))
        tensors[key] = t if t.dtype == torch.uint8 else t.to(dtype)
    save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})


# ---- the reference ------------------------------------------------------------------------------

def load_reference(folder):
    """Tokens -> logits of a pass over all of them, nothing cached."""
    config = AutoConfig.from_pretrained(folder)
    more = {}
    if getattr(config, "quantization_config", None):
        more["quantization_config"] = Mxfp4Config(dequantize=True)
    net, info = AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=torch.float32, attn_implementation="eager",
        experts_implementation="eager", output_loading_info=True, **more)
    left = {k: v for k, v in info.items() if v}
    assert not left, (folder, left)
    net.eval()

    def logits_of(tokens):
        with torch.no_grad():
            return net(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].numpy()

    return logits_of


def extra_pass(folder, stem, tokens, positions, logits_of, second_of, about):
    """STEM.json and STEM.f32: one pass over `tokens` alone, for rope that depends on the length."""
    logits, second = logits_of(tokens)[positions], second_of(tokens)[positions]
    diff = float(np.abs(logits - second).max())
    assert diff < 1e-4 * logits.std(), (folder, stem, diff)
    logits.astype("<f4").tofile(os.path.join(folder, stem + ".f32"))
    lib.write_json(os.path.join(folder, stem + ".json"), dict({
        "tokens": tokens, "vocab": int(logits.shape[1]), "positions": positions,
        "logit_std": round(float(logits.std()), 5), "float64_difference": float("%.3g" % diff)},
        **about))


def choose(logits_of, s, w, seed):
    """As lib.choose_prompt, and no router close to a tie: rounding must not choose the experts."""
    def run(tokens):
        one = families64.Pass(s, w)
        one(tokens)
        return one.router_margin

    vocab, best = len(w["token_embd"]), None
    for t in range(TRIES):
        prompt = np.random.default_rng([seed, 77, t]).integers(0, vocab, lib.PROMPT).tolist()
        cont, margins = lib.greedy(logits_of, prompt)
        router = run(prompt + cont)
        rank = (len(set(cont)) >= 6, min(router, 1e-3), min(margins))
        if best is None or rank > best[0]:
            best = rank, prompt, cont, margins, router
    assert best[0][0] and best[4] > 3e-4, best[0]
    return best[1:]


def vectors(name, folder, seed):
    logits_of = load_reference(folder)
    s, w = families64.of_folder(folder)
    vocab = len(w["token_embd"])

    def second_of(tokens):
        return families64.Pass(s, w)(tokens)

    tokens, cont, margins, router = choose(logits_of, s, w, seed + 200)
    more = {"model": name}
    if math.isfinite(router):
        more["router_margin"] = float("%.3g" % router)
    if name == "phi3-longrope":
        more["lengths"] = [100]
        extra_pass(folder, "short", tokens[:48], list(range(48)), logits_of, second_of,
                   {"model": name, "lengths": [1, 7, 48]})
    if name == "llama-dynamic":
        longer = tokens + np.random.default_rng([seed, 79]).integers(0, vocab, 60).tolist()
        extra_pass(folder, "beyond", longer, list(range(128, 160)), logits_of, second_of,
                   {"model": name})
    std, diff = lib.write_vectors(folder, tokens, logits_of(tokens), list(range(len(tokens))),
                                  cont, margins, second_of(tokens), more)
    print("%-16s std %5.2f  f64 diff %.1e  margin %6.3f  router %s  greedy %2d distinct  %3d KB" % (
        name, std, diff, min(margins), more.get("router_margin", "-"), len(set(cont)),
        lib.folder_bytes(folder) // 1000), flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("only", nargs="*", help="names; default all")
    args = ap.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for i, (name, c, how) in enumerate(MODELS):
        if not args.only or name in args.only:
            folder = os.path.join(HERE, "families", name)
            save(name, c, how, folder, i)
            vectors(name, folder, i)


if __name__ == "__main__":
    main()
