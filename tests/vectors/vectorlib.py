"""What the generators of this folder share: writing vectors, and a float64 Llama in numpy.

The vectors themselves come from Hugging Face transformers in float32. The numpy model is a second
opinion: it is written from the formulas, runs in float64, and every generator refuses to write a
vector that differs from it by more than float32 can explain. So a wrong config spelling, a wrong
permutation or a wrong block encoder cannot end up as a "reference".
"""

import json
import math
import os

import numpy as np


def write_json(path, obj, rows=()):
    """JSON with one key a line; the keys in `rows` are lists of which each item gets its line."""
    parts = []
    for key, value in obj.items():
        if key in rows:
            body = ",\n".join(json.dumps(v, ensure_ascii=True) for v in value)
            parts.append("%s: [\n%s\n]" % (json.dumps(key), body))
        else:
            parts.append("%s: %s" % (json.dumps(key), json.dumps(value, ensure_ascii=True)))
    with open(path, "w", encoding="ascii", newline="\n") as f:
        f.write("{\n" + ",\n".join(parts) + "\n}\n")


def folder_bytes(path):
    return sum(os.path.getsize(os.path.join(d, n)) for d, _, names in os.walk(path) for n in names)


# ---- a Llama in float64 -------------------------------------------------------------------------

def rope_divisors(config, pairs):
    """What every rotary frequency is divided by: [pairs]. `config` is the parsed config.json."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return np.ones(pairs)
    if kind == "linear":
        return np.full(pairs, float(scaling["factor"]))
    assert kind == "llama3", kind
    theta = rope_theta(config)
    out = np.ones(pairs)
    for i in range(pairs):
        wavelength = 2 * math.pi * theta ** (i / pairs)
        turns = scaling["original_max_position_embeddings"] / wavelength
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        if turns < low:
            out[i] = scaling["factor"]
        elif turns <= high:
            s = (turns - low) / (high - low)
            out[i] = 1 / ((1 - s) / scaling["factor"] + s)
    return out


def rope_theta(config):
    nested = (config.get("rope_parameters") or {}).get("rope_theta")
    return float(nested if nested is not None else config.get("rope_theta", 10000.0))


def _norm(x, w, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w


def _rope(x, angles, interleaved):
    """x [n, heads, head_dim]; angles [n, head_dim / 2]."""
    c, s = np.cos(angles)[:, None], np.sin(angles)[:, None]
    half = x.shape[-1] // 2
    a, b = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
    u, v = a * c - b * s, b * c + a * s
    if interleaved:
        return np.stack([u, v], -1).reshape(x.shape)
    return np.concatenate([u, v], -1)


def llama64(shape, w, tokens):
    """Logits [n, vocab] in float64.

    shape: dim n_layers n_heads n_kv_heads head_dim eps theta divisors interleaved;
    w: name -> array, names as in GGUF without ".weight".
    """
    hd, nh, nk = shape["head_dim"], shape["n_heads"], shape["n_kv_heads"]
    n = len(tokens)
    w = {k: np.asarray(v, np.float64) for k, v in w.items()}

    def linear(x, name):
        y = x @ w[name].T
        return y + w[name + ".bias"] if name + ".bias" in w else y

    freq = shape["theta"] ** (-np.arange(hd // 2) * 2.0 / hd) / shape["divisors"]
    angles = np.arange(n)[:, None] * freq
    mask = np.triu(np.full((n, n), -np.inf), 1)
    x = w["token_embd"][np.asarray(tokens)]
    for i in range(shape["n_layers"]):
        p = "blk.%d." % i
        h = _norm(x, w[p + "attn_norm"], shape["eps"])
        q = _rope(linear(h, p + "attn_q").reshape(n, nh, hd), angles, shape["interleaved"])
        k = _rope(linear(h, p + "attn_k").reshape(n, nk, hd), angles, shape["interleaved"])
        v = linear(h, p + "attn_v").reshape(n, nk, hd)
        k, v = np.repeat(k, nh // nk, 1), np.repeat(v, nh // nk, 1)
        score = np.einsum("ihd,jhd->hij", q, k) / math.sqrt(hd) + mask
        score = np.exp(score - score.max(-1, keepdims=True))
        score /= score.sum(-1, keepdims=True)
        x = x + linear(np.einsum("hij,jhd->ihd", score, v).reshape(n, nh * hd), p + "attn_output")
        h = _norm(x, w[p + "ffn_norm"], shape["eps"])
        g = linear(h, p + "ffn_gate")
        x = x + linear(g / (1 + np.exp(-g)) * linear(h, p + "ffn_up"), p + "ffn_down")
    x = _norm(x, w["output_norm"], shape["eps"])
    return x @ w["output" if "output" in w else "token_embd"].T


HF_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(hf):
    """model.layers.3.self_attn.q_proj.weight -> blk.3.attn_q ; .bias stays as a suffix."""
    stem, _, last = hf.rpartition(".")
    suffix = "" if last == "weight" else ".bias"
    if stem.startswith("model.layers."):
        _, _, layer, rest = stem.split(".", 3)
        return "blk.%s.%s%s" % (layer, HF_NAMES[rest], suffix)
    return HF_NAMES[stem] + suffix


def shape_of_config(c):
    nh = c["num_attention_heads"]
    hd = c.get("head_dim") or c["hidden_size"] // nh
    return {
        "dim": c["hidden_size"], "n_layers": c["num_hidden_layers"], "n_heads": nh,
        "n_kv_heads": c["num_key_value_heads"], "head_dim": hd, "eps": c["rms_norm_eps"],
        "theta": rope_theta(c), "divisors": rope_divisors(c, hd // 2), "interleaved": False,
    }


# ---- vectors ------------------------------------------------------------------------------------

PROMPT = 100
LENGTHS = [1, 7, 48, 100]
STEPS = 24


def greedy(logits_of, prompt, steps=STEPS):
    """Tokens and, per step, the distance from the best to the second-best logit."""
    seq, margins = list(prompt), []
    for _ in range(steps):
        last = logits_of(seq)[-1]
        order = np.argsort(-last, kind="stable")
        margins.append(float(last[order[0]] - last[order[1]]))
        seq.append(int(order[0]))
    return seq[len(prompt):], margins


def choose_prompt(logits_of, vocab, seed, tries=40, n=PROMPT):
    """Of `tries` random prompts the one whose greedy continuation is the least ambiguous."""
    best = None
    for t in range(tries):
        prompt = np.random.default_rng([seed, 77, t]).integers(0, vocab, n).tolist()
        out, margins = greedy(logits_of, prompt)
        variety = len(set(out))
        if best is None or (variety >= 6, min(margins)) > best[0]:
            best = ((variety >= 6, min(margins)), prompt, out, margins)
    assert best[0][0], "no prompt whose continuation has six different tokens"
    return best[1:]


def write_vectors(folder, tokens, logits, positions, cont, margins, second, extra=None):
    """vectors.f32 + vectors.json. `second`: float64 logits at `positions`, the second opinion."""
    std = float(logits.std())
    diff = float(np.abs(logits - second).max())
    # float32 over a few hundred terms and one or two layers: errors of 1e-6 relative, a hundred
    # times that with unlucky cancellation; a conversion mistake shows as 1e-1 and more.
    assert diff < 1e-4 * std, (folder, diff, std)
    logits.astype("<f4").tofile(os.path.join(folder, "vectors.f32"))
    info = {
        "tokens": tokens, "vocab": int(logits.shape[1]), "positions": positions,
        "lengths": [n for n in LENGTHS if n <= len(tokens)],
        "greedy": cont, "greedy_margins": [round(m, 5) for m in margins],
        "greedy_margin": round(min(margins), 5), "logit_std": round(std, 5),
        "float64_difference": float("%.3g" % diff),
    }
    info.update(extra or {})
    write_json(os.path.join(folder, "vectors.json"), info)
    return std, diff
