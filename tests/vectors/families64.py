"""Every family in float64: the second opinion on families/ and families-gguf/.

One forward pass with switches, written from the formulas, over weights under GGUF's names (without
".weight"; Q, K and V always apart, gate and up always apart, experts stacked, Gemma's 1 added).
`of_folder` makes switches and weights from a Hugging Face folder, `of_gguf` from a GGUF file, each
from nothing but the files. So a vector that agrees with both says that the two files mean the same
and that transformers read them as intended.
"""

import json
import math
import os

import gguf
import numpy as np
import torch
from safetensors.torch import load_file

# Sign and magnitude of the sixteen 4-bit floats of MXFP4.
E2M1 = np.array([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6], np.float64)


# ---- rotary positions ---------------------------------------------------------------------------

def rope_freqs(r, n):
    """Of `r` for a pass over `n` positions: frequencies [r.dim / 2], factor of cos and sin."""
    dim, base, kind = r["dim"], r["base"], r.get("kind", "default")
    exponents = np.arange(0, dim, 2) / dim
    if kind == "dynamic" and n > r["context"]:
        grown = r["factor"] * n / r["context"] - (r["factor"] - 1)
        return (base * grown ** (dim / (dim - 2))) ** -exponents, 1.0
    freqs = base ** -exponents
    if kind == "linear":
        return freqs / r["factor"], 1.0
    if kind == "longrope":
        factors = r["long"] if n > r["original"] else r["short"]
        return freqs / np.asarray(factors), r["attention_factor"]
    if kind == "yarn":
        def turn(rotations):
            return dim * math.log(r["original"] / (rotations * 2 * math.pi)) / (2 * math.log(base))
        low, high = turn(r["beta_fast"]), turn(r["beta_slow"])
        if r["truncate"]:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, dim - 1)
        ramp = np.clip((np.arange(dim // 2) - low) / max(high - low, 0.001), 0, 1)
        return freqs * (1 - ramp) + freqs / r["factor"] * ramp, r["attention_factor"]
    return freqs, 1.0


def rotate(x, freqs, scale, interleaved):
    """x [n, heads, head_dim]; the first 2 * len(freqs) elements of a head turn."""
    angles = np.arange(len(x))[:, None] * freqs
    c, s = scale * np.cos(angles)[:, None], scale * np.sin(angles)[:, None]
    half = len(freqs)
    turned, rest = x[..., :2 * half], x[..., 2 * half:]
    if interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
        turned = np.stack([a * c - b * s, b * c + a * s], -1).reshape(turned.shape)
    else:
        a, b = turned[..., :half], turned[..., half:]
        turned = np.concatenate([a * c - b * s, b * c + a * s], -1)
    return np.concatenate([turned, rest], -1)


# ---- the pass -----------------------------------------------------------------------------------

def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def silu(x):
    return x / (1 + np.exp(-x))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))


class Pass:
    """Logits [n, vocab] = Pass(switches, weights)(tokens). `router_margin` afterwards: the least
    distance between the last router logit that was taken and the first that was not."""

    def __init__(self, s, w):
        self.s, self.w, self.router_margin = s, w, math.inf

    def linear(self, x, name):
        y = x @ self.w[name].T
        return y + self.w[name + ".bias"] if name + ".bias" in self.w else y

    def norm(self, x, name):
        if name not in self.w:
            return x
        if self.s["layer_norm"]:
            x = x - x.mean(-1, keepdims=True)
        y = x / np.sqrt((x * x).mean(-1, keepdims=True) + self.s["eps"]) * self.w[name]
        return y + self.w[name + ".bias"] if name + ".bias" in self.w else y

    def heads(self, x, p, which, count, layer, n):
        """One of q and k: projected, normalised over a head or over all, rotated."""
        s, norm = self.s, p + "attn_%s_norm" % which
        y = self.linear(x, p + "attn_" + which)
        whole = norm in self.w and self.w[norm].size == y.shape[-1] != s["head_dim"]
        if whole and s["norm_per_head"]:  # a fault that check.py plants
            split = y.reshape(n, count, -1)
            y = split / np.sqrt((split * split).mean(-1, keepdims=True) + s["eps"])
            y = y.reshape(n, -1) * self.w[norm]
        elif whole:
            y = self.norm(y, norm)
        y = y.reshape(n, count, s["head_dim"])
        y = y if whole or s["norm_after_rope"] else self.norm(y, norm)
        if s["ropes"][layer]:
            freqs, scale = rope_freqs(s["ropes"][layer], n)
            y = rotate(y, freqs, scale, s["interleaved"])
        return self.norm(y, norm) if s["norm_after_rope"] and not whole else y

    def attention(self, x, p, layer):
        s, n = self.s, len(x)
        groups = s["n_heads"] // s["n_kv_heads"]
        q = self.heads(x, p, "q", s["n_heads"], layer, n)
        k = np.repeat(self.heads(x, p, "k", s["n_kv_heads"], layer, n), groups, 1)
        v = self.linear(x, p + "attn_v").reshape(n, s["n_kv_heads"], s["head_dim"])
        score = np.einsum("ihd,jhd->hij", q, k) * s["attn_scale"]
        if s["attn_softcap"]:
            score = s["attn_softcap"] * np.tanh(score / s["attn_softcap"])
        behind = np.arange(n)[:, None] - np.arange(n)
        seen = (behind >= 0) & (behind < (s["windows"][layer] or n))
        score = np.where(seen, score, -np.inf)
        if p + "attn_sinks" in self.w:
            sink = np.broadcast_to(self.w[p + "attn_sinks"][:, None, None], score.shape[:2] + (1,))
            score = softmax(np.concatenate([score, sink], -1))[..., :-1]
        else:
            score = softmax(score)
        y = np.einsum("hij,jhd->ihd", score, np.repeat(v, groups, 1)).reshape(n, -1)
        return self.linear(y, p + "attn_output")

    def glu(self, gate, up):
        s = self.s
        if s["act"] == "clamped":
            gate, up = np.minimum(gate, s["clamp"]), np.clip(up, -s["clamp"], s["clamp"])
            return gate / (1 + np.exp(-1.702 * gate)) * (up + 1)
        return (silu(gate) if s["act"] == "silu" else gelu_tanh(gate)) * up

    def experts(self, x, p):
        s, w = self.s, self.w
        router = self.linear(x, p + "ffn_gate_inp")
        order = np.argsort(-router, -1, kind="stable")
        ranked = np.take_along_axis(router, order, -1)
        used = s["experts_used"]
        self.router_margin = min(self.router_margin, (ranked[:, used - 1] - ranked[:, used]).min())
        share = softmax(ranked[:, :used]) if s["renormalise"] else softmax(ranked)[:, :used]
        out = np.zeros_like(x)
        for e in range(router.shape[-1]):
            rows, place = np.nonzero(order[:, :used] == e)
            h = x[rows]

            def linear(h, name):
                y = h @ w[p + name][e].T
                return y + w[p + name + ".bias"][e] if p + name + ".bias" in w else y

            h = self.glu(linear(h, "ffn_gate_exps"), linear(h, "ffn_up_exps"))
            out[rows] += linear(h, "ffn_down_exps") * share[rows, place][:, None]
        return out

    def feed_forward(self, x, p):
        if p + "ffn_gate_inp" in self.w:
            return self.experts(x, p)
        up = self.linear(x, p + "ffn_up")
        if p + "ffn_gate" in self.w:
            return self.linear(self.glu(self.linear(x, p + "ffn_gate"), up), p + "ffn_down")
        return self.linear(gelu_tanh(up), p + "ffn_down")

    def __call__(self, tokens):
        s, w = self.s, self.w
        x = w["token_embd"][np.asarray(tokens)] * s["embed_scale"]
        if "position_embd" in w:
            x = x + w["position_embd"][:len(tokens)]
        for i in range(s["n_layers"]):
            p = "blk.%d." % i
            y = self.attention(self.norm(x, p + "attn_norm"), p, i)
            x = x + s["residual_scale"] * self.norm(y, p + "post_attention_norm")
            y = self.feed_forward(self.norm(x, p + "ffn_norm"), p)
            x = x + s["residual_scale"] * self.norm(y, p + "post_ffw_norm")
        logits = self.norm(x, "output_norm") @ w["output" if "output" in w else "token_embd"].T
        logits = logits / s["logit_divisor"]
        if s["final_softcap"]:
            logits = s["final_softcap"] * np.tanh(logits / s["final_softcap"])
        return logits


def switches(**given):
    s = dict(layer_norm=False, interleaved=False, norm_after_rope=False, norm_per_head=False,
             attn_softcap=None, final_softcap=None, embed_scale=1.0, residual_scale=1.0,
             logit_divisor=1.0, act="silu", clamp=7.0, experts_used=0, renormalise=True)
    s.update(given)
    s.setdefault("attn_scale", s["head_dim"] ** -0.5)
    s.setdefault("windows", [0] * s["n_layers"])
    return s


# ---- from a Hugging Face folder -----------------------------------------------------------------

def rope_of_config(c, head_dim, base, scaling):
    r = {"dim": int(head_dim * c.get("partial_rotary_factor", 1.0)), "base": float(base)}
    if not scaling:
        return r
    r["kind"] = scaling.get("rope_type", scaling.get("type"))
    context = c.get("max_position_embeddings")
    original = c.get("original_max_position_embeddings",
                     scaling.get("original_max_position_embeddings"))
    r.update(factor=scaling.get("factor"), original=original, context=context)
    if r["kind"] == "yarn":
        r.update(beta_fast=scaling.get("beta_fast", 32), beta_slow=scaling.get("beta_slow", 1),
                 truncate=scaling.get("truncate", True),
                 attention_factor=1 + 0.1 * math.log(r["factor"]))
    elif r["kind"] == "longrope":
        ratio = context / original
        r.update(long=scaling["long_factor"], short=scaling["short_factor"],
                 attention_factor=math.sqrt(1 + math.log(ratio) / math.log(original)))
    return r


def switches_of_config(c):
    kind = c["model_type"]
    if kind == "gemma3":  # what the published 4B leaves out is the class's default
        c = {"rms_norm_eps": 1e-6, "rope_theta": 1e6, "rope_local_base_freq": 1e4,
             **c["text_config"]}
        kind = c["model_type"]
    if kind == "gpt2":
        n = c["n_layer"]
        return switches(n_layers=n, n_heads=c["n_head"], n_kv_heads=c["n_head"],
                        head_dim=c["n_embd"] // c["n_head"], eps=c["layer_norm_epsilon"],
                        layer_norm=True, ropes=[None] * n)
    n, heads = c["num_hidden_layers"], c["num_attention_heads"]
    hd = c.get("head_dim") or c["hidden_size"] // heads
    rope = rope_of_config(c, hd, c["rope_theta"], c.get("rope_scaling"))
    s = dict(n_layers=n, n_heads=heads, n_kv_heads=c["num_key_value_heads"], head_dim=hd,
             eps=c["rms_norm_eps"], ropes=[rope] * n)
    window = c.get("sliding_window") or 0
    if kind in ("mistral", "phi3", "mixtral"):
        s["windows"] = [window] * n
    if kind == "smollm3":
        s["ropes"] = [rope if on else None for on in c["no_rope_layers"]]
    if kind in ("gemma2", "gemma3_text"):
        period = 2 if kind == "gemma2" else c.get("_sliding_window_pattern", 6)
        local = [(i + 1) % period != 0 for i in range(n)]
        s.update(windows=[window if on else 0 for on in local], act="gelu",
                 attn_softcap=c.get("attn_logit_softcapping"),
                 final_softcap=c.get("final_logit_softcapping"),
                 embed_scale=math.sqrt(c["hidden_size"]),
                 attn_scale=c["query_pre_attn_scalar"] ** -0.5)
        if kind == "gemma3_text":
            near = {"dim": hd, "base": c["rope_local_base_freq"]}
            s["ropes"] = [near if on else rope for on in local]
    if kind == "granite":
        s.update(embed_scale=c["embedding_multiplier"], residual_scale=c["residual_multiplier"],
                 attn_scale=c["attention_multiplier"], logit_divisor=c["logits_scaling"])
    if kind == "gpt_oss":
        s.update(windows=[window if t == "sliding_attention" else 0 for t in c["layer_types"]],
                 act="clamped", clamp=c["swiglu_limit"])
    s["experts_used"] = c.get("num_experts_per_tok", 0)
    s["renormalise"] = c.get("norm_topk_prob", True)
    return switches(**s)


def decode_mxfp4(blocks, scales):
    """[..., b, 16] bytes, neighbours in one byte, low half first; [..., b] -> [..., 32 b]."""
    pairs = np.stack([E2M1[blocks & 15], E2M1[blocks >> 4]], -1).reshape(blocks.shape[:-1] + (32,))
    values = pairs * 2.0 ** (scales.astype(np.int32) - 127)[..., None]
    return values.reshape(blocks.shape[:-2] + (-1,))


PLAIN = {
    "embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output",
    "wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm",
    "ln_1": "attn_norm", "ln_2": "ffn_norm", "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
    "input_layernorm": "attn_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "self_attn.sinks": "attn_sinks",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp", "mlp.router": "ffn_gate_inp",
    "block_sparse_moe.gate": "ffn_gate_inp",
}
EXPERT = {"w1": "gate", "w2": "down", "w3": "up",
          "gate_proj": "gate", "up_proj": "up", "down_proj": "down"}


def split_name(name):
    """(layer prefix, rest, suffix) of a tensor's name in any family's spelling."""
    parts = name.split(".")
    suffix = parts.pop() if parts[-1] in ("weight", "bias") else "weight"
    for i, part in enumerate(parts):
        if part in ("layers", "h"):
            return "blk.%s." % parts[i + 1], ".".join(parts[i + 2:]), suffix
    return "", parts[-1], suffix


def canonical(tensors, kind, s):
    """Hugging Face names -> GGUF-like names; float64."""
    out, stacks = {}, {}
    after = "post_attention_norm" if kind in ("gemma2", "gemma3", "gemma3_text", "olmo2") else \
        "ffn_norm"
    q, kv = s["n_heads"] * s["head_dim"], s["n_kv_heads"] * s["head_dim"]
    for name, v in tensors.items():
        if name.startswith(("vision_tower.", "multi_modal_projector.")):
            continue
        p, rest, suffix = split_name(name)
        bias = ".bias" if suffix == "bias" else ""
        if kind == "gpt2" and rest == "attn" and bias:
            continue  # the causal mask, stored as if it were a weight
        if kind == "gpt2" and ".c_" in rest and not bias:
            v = v.T
        if rest in ("attn.c_attn", "self_attn.qkv_proj"):
            for part, rows in zip("qkv", np.split(v, [q, q + kv])):
                out[p + "attn_" + part + bias] = rows
        elif rest == "mlp.gate_up_proj":
            out[p + "ffn_gate"], out[p + "ffn_up"] = np.split(v, 2)
        elif ".experts." in rest and kind != "gpt_oss":
            _, _, e, which = rest.split(".")
            stacks.setdefault(p + "ffn_%s_exps" % EXPERT[which], {})[int(e)] = v
        elif rest.startswith("mlp.experts.gate_up_proj"):
            gpt_oss_gate_up(out, p, rest, v, tensors)
        elif rest.startswith("mlp.experts.down_proj"):
            if rest.endswith("_bias"):
                out[p + "ffn_down_exps.bias"] = v
            elif rest.endswith("_blocks"):
                scales = tensors[name.replace("_blocks", "_scales")]
                out[p + "ffn_down_exps"] = decode_mxfp4(v, scales)
            elif not rest.endswith("_scales"):
                out[p + "ffn_down_exps"] = v.swapaxes(1, 2)
        elif rest == "post_attention_layernorm":
            out[p + after] = v
        else:
            out[p + PLAIN[rest] + bias] = v
    for name, parts in stacks.items():
        out[name] = np.stack([parts[e] for e in range(len(parts))])
    if kind.startswith("gemma"):
        out = {k: v + 1 if k.endswith("_norm") else v for k, v in out.items()}
    return {k: np.asarray(v, np.float64) for k, v in out.items()}


def gpt_oss_gate_up(out, p, rest, v, tensors):
    """Gate and up alternate: even rows gate, odd rows up."""
    bias = ""
    if rest.endswith("_scales"):
        return
    if rest.endswith("_blocks"):
        v = decode_mxfp4(v, tensors["model.layers.%s.%s" % (
            p.split(".")[1], rest.replace("_blocks", "_scales"))])
    elif rest.endswith("_bias"):
        bias = ".bias"
    else:
        v = v.swapaxes(1, 2)
    out[p + "ffn_gate_exps" + bias], out[p + "ffn_up_exps" + bias] = v[:, 0::2], v[:, 1::2]


def tensors_of_folder(folder):
    """Name -> array as stored; floats widened to float64, bytes as they are."""
    out = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            for k, v in load_file(os.path.join(folder, name)).items():
                out[k] = v.numpy() if v.dtype == torch.uint8 else v.double().numpy()
    return out


def of_folder(folder):
    """(switches, weights)."""
    with open(os.path.join(folder, "config.json")) as f:
        c = json.load(f)
    s = switches_of_config(c)
    return s, canonical(tensors_of_folder(folder), c["model_type"], s)


# ---- from a GGUF file ---------------------------------------------------------------------------

INTERLEAVED = ("llama", "smollm3", "granite")


def metadata_of_gguf(reader):
    return {k: f.contents() for k, f in reader.fields.items()}


def rope_of_gguf(m, arch, head_dim, w):
    def get(key, default=None):
        return m.get("%s.rope.%s" % (arch, key), default)
    r = {"dim": get("dimension_count", head_dim), "base": get("freq_base", 10000.0),
         "kind": get("scaling.type", "default"), "factor": get("scaling.factor", 1.0),
         "original": get("scaling.original_context_length")}
    if r["kind"] == "yarn":
        # No key says whether the bounds of the ramp are rounded; gpt-oss is known not to.
        r.update(beta_fast=get("scaling.yarn_beta_fast", 32.0),
                 beta_slow=get("scaling.yarn_beta_slow", 1.0), truncate=arch != "gpt-oss",
                 attention_factor=1 + 0.1 * math.log(r["factor"]))
    if "rope_factors_long" in w:
        r.update(kind="longrope", long=w.pop("rope_factors_long"),
                 short=w.pop("rope_factors_short"), attention_factor=get("scaling.attn_factor"))
    return r


def switches_of_gguf(m, w):
    arch = m["general.architecture"]

    def get(key, default=None):
        return m.get("%s.%s" % (arch, key), default)

    n, dim, heads = get("block_count"), get("embedding_length"), get("attention.head_count")
    hd = get("attention.key_length", dim // heads)
    s = dict(n_layers=n, n_heads=heads, n_kv_heads=get("attention.head_count_kv", heads),
             head_dim=hd, experts_used=get("expert_used_count", 0),
             interleaved=arch in INTERLEAVED, layer_norm=arch == "gpt2",
             eps=get("attention.layer_norm_rms_epsilon", get("attention.layer_norm_epsilon")),
             embed_scale=get("embedding_scale", 1.0), residual_scale=get("residual_scale", 1.0),
             logit_divisor=get("logit_scale", 1.0),
             attn_scale=get("attention.scale", hd ** -0.5),
             attn_softcap=get("attn_logit_softcapping"),
             final_softcap=get("final_logit_softcapping"))
    rope = rope_of_gguf(m, arch, hd, w)
    s["ropes"] = [None if arch == "gpt2" or arch == "smollm3" and (i + 1) % 4 == 0 else rope
                  for i in range(n)]
    window = get("attention.sliding_window", 0)
    period = {"gemma2": 2, "gemma3": 6, "gpt-oss": 2}.get(arch)
    local = [period is None or (i + 1) % period != 0 for i in range(n)]
    s["windows"] = [window if on else 0 for on in local]
    if arch.startswith("gemma"):
        s.update(act="gelu", embed_scale=math.sqrt(dim))
    if arch == "gemma3":
        near = {"dim": hd, "base": get("rope.freq_base_swa", 10000.0)}
        s["ropes"] = [near if on else rope for on in local]
    if arch == "gpt-oss":
        s["act"] = "clamped"
    return switches(**s)


def of_gguf(path):
    """(switches, weights, metadata). Rows of Q and K stay as they are: the switch says pairs."""
    reader = gguf.GGUFReader(path)
    m = metadata_of_gguf(reader)
    arch, w = m["general.architecture"], {}
    for t in reader.tensors:
        rows = [int(n) for n in reversed(t.shape)]
        data = gguf.quants.dequantize(np.array(t.data), t.tensor_type).reshape(rows)
        w[t.name.removesuffix(".weight")] = data.astype(np.float64)
    s = switches_of_gguf(m, w)
    q, kv = s["n_heads"] * s["head_dim"], s["n_kv_heads"] * s["head_dim"]
    for name in list(w):
        if ".attn_qkv" in name:
            for part, rows in zip("qkv", np.split(w.pop(name), [q, q + kv])):
                w[name.replace("attn_qkv", "attn_" + part)] = rows
        elif arch == "phi3" and name.endswith("ffn_up"):
            w[name.replace("ffn_up", "ffn_gate")], w[name] = np.split(w[name], 2)
        elif arch == "gpt-oss" and "post_attention_norm" in name:
            w[name.replace("post_attention_norm", "ffn_norm")] = w.pop(name)
    return s, w, m
