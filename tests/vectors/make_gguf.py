#!/usr/bin/env python3
"""Writes gguf/NAME: the models of make_models.py as GGUF, and quantised ones, with their logits.

Needs models/ (make_models.py) and tokenizers/spm-320 (make_tokenizers.py) to be there. Files are
written by the PyPI package gguf. Its block encoders serve Q4_0 to Q8_0 and MXFP4; the K formats are
encoded here by plain minimum and maximum, IQ4 by the nearest level with the extreme value at the
end of the table, which is coarser than llama.cpp's search and just as valid.
Reference logits of a quantised file: transformers in float32 on what gguf's own decoder makes of
the file's bytes, so they contain no quantisation error, only rounding.

Every file is read back with gguf's reader and run through the float64 model with interleaved
rotary pairs, the way GGUF lays out Q and K: a wrong permutation or divisor is caught here.
"""

import argparse
import json
import os
import shutil

import gguf
import numpy as np
import sentencepiece
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

import make_models
import vectorlib as lib

HERE = os.path.dirname(os.path.abspath(__file__))
T = gguf.GGMLQuantizationType
POSITIONS = [0, 1, 2, 3, 6, 15, 31, 32, 47, 48, 63, 64, 80, 97, 98, 99]


# ---- encoders -----------------------------------------------------------------------------------

def f16(x):
    return x.astype(np.float16)


def divide(a, b):
    return np.divide(a, b, out=np.zeros_like(a), where=b != 0)


def encode_min_max(x, levels, subs=8, top=63):
    """Of [n, 256] floats: d, dmin f16 [n, 1], scales and minima up to top [n, subs], quants
    [n, subs, 256 / subs]."""
    sub = x.reshape(-1, subs, 256 // subs).astype(np.float32)
    low = np.minimum(sub.min(-1), 0)
    scale = (np.maximum(sub.max(-1), 0) - low) / levels
    d, dmin = f16(scale.max(-1, keepdims=True) / top), f16(-low.min(-1, keepdims=True) / top)
    d32, dmin32 = d.astype(np.float32), dmin.astype(np.float32)
    sc = np.clip(np.rint(divide(scale, d32 + 0 * scale)), 0, top)
    mn = np.clip(np.rint(divide(-low, dmin32 + 0 * low)), 0, top)
    step, base = (d32 * sc)[..., None], (dmin32 * mn)[..., None]
    q = np.clip(np.rint(divide(sub + base, step + 0 * sub)), 0, levels)
    return d, dmin, sc.astype(np.uint8), mn.astype(np.uint8), q.astype(np.uint8)


def pack_six_bits(sc, mn):
    """formats: bytes 0-3 and 4-7 hold six bits of the first four pairs and the top two of the
    last four, bytes 8-11 the low four bits of those."""
    out = np.empty((len(sc), 12), np.uint8)
    out[:, 0:4] = sc[:, 0:4] | (sc[:, 4:8] >> 4) << 6
    out[:, 4:8] = mn[:, 0:4] | (mn[:, 4:8] >> 4) << 6
    out[:, 8:12] = (sc[:, 4:8] & 15) | (mn[:, 4:8] & 15) << 4
    return out


def encode_q4_k(x):
    d, dmin, sc, mn, q = encode_min_max(x, 15)
    qs = (q[:, 0::2] | q[:, 1::2] << 4).reshape(-1, 128)
    return np.concatenate([d.view(np.uint8), dmin.view(np.uint8), pack_six_bits(sc, mn), qs], 1)


def encode_q5_k(x):
    d, dmin, sc, mn, q = encode_min_max(x, 31)
    qs = ((q[:, 0::2] & 15) | (q[:, 1::2] & 15) << 4).reshape(-1, 128)
    qh = np.zeros((len(q), 32), np.uint8)
    for j in range(8):
        qh |= (q[:, j] >> 4) << j
    return np.concatenate([d.view(np.uint8), dmin.view(np.uint8), pack_six_bits(sc, mn), qh, qs], 1)


def encode_q2_k(x):
    d, dmin, sc, mn, q = encode_min_max(x, 3, 16, 15)
    q = q.reshape(-1, 2, 4, 32)  # half, pair j, l
    qs = sum(q[:, :, j] << (2 * j) for j in range(4)).astype(np.uint8).reshape(-1, 64)
    return np.concatenate([sc | mn << 4, qs, d.view(np.uint8), dmin.view(np.uint8)], 1)


def signed_scales(x, size, end, top):
    """Of [n, 256] floats: the values in sub-blocks, d f16 [n, 1], scales -top - 1 .. top whose
    product with end is about each sub-block's extreme value, and d * scale [n, 256 / size, 1]."""
    sub = x.reshape(-1, 256 // size, size).astype(np.float32)
    extreme = np.take_along_axis(sub, np.abs(sub).argmax(-1)[..., None], -1)[..., 0]
    scale = extreme / end  # of either sign: the extreme value becomes end exactly
    d = f16(np.abs(scale).max(-1, keepdims=True) / top)
    sc = np.clip(np.rint(divide(scale, d.astype(np.float32) + 0 * scale)), -top - 1, top)
    return sub, d, sc, (d.astype(np.float32) * sc)[..., None]


def encode_q3_k(x):
    sub, d, sc, step = signed_scales(x, 16, -4, 31)
    q = (np.clip(np.rint(divide(sub, step + 0 * sub)), -4, 3) + 4).astype(np.uint8)
    q = q.reshape(-1, 2, 4, 32)  # half, pair j, l
    qs = sum((q[:, :, j] & 3) << (2 * j) for j in range(4)).astype(np.uint8).reshape(-1, 64)
    mask = sum((q[:, h, j] >> 2) << (4 * h + j) for h in range(2) for j in range(4))
    sc = (sc + 32).astype(np.uint8)
    high = sum((sc[:, 4 * k:4 * k + 4] >> 4) << (2 * k) for k in range(4)).astype(np.uint8)
    return np.concatenate([mask.astype(np.uint8), qs, (sc[:, :8] & 15) | (sc[:, 8:] & 15) << 4,
                           high, d.view(np.uint8)], 1)


IQ4_LEVELS = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])


def nearest_level(x):
    """Number of the nearest level, the lower one of two."""
    return np.abs(x[..., None] - IQ4_LEVELS.astype(np.float32)).argmin(-1).astype(np.uint8)


def pack_halves(q):
    """[..., 32] nibbles -> [..., 16] bytes: low halves are 0..15."""
    return q[..., :16] | q[..., 16:] << 4


def encode_iq4_nl(x):
    sub = x.reshape(-1, 32).astype(np.float32)
    d = f16(np.take_along_axis(sub, np.abs(sub).argmax(-1)[..., None], -1) / -127)
    q = nearest_level(divide(sub, d.astype(np.float32) + 0 * sub))
    return np.concatenate([d.view(np.uint8), pack_halves(q)], 1)


def encode_iq4_xs(x):
    sub, d, sc, step = signed_scales(x, 32, -127, 31)
    q = nearest_level(divide(sub, step + 0 * sub))
    sc = (sc + 32).astype(np.uint16)
    high = sum((sc[:, j:j + 1] >> 4) << (2 * j) for j in range(8)).astype("<u2")
    low = ((sc[:, 0::2] & 15) | (sc[:, 1::2] & 15) << 4).astype(np.uint8)
    return np.concatenate([d.view(np.uint8), high.view(np.uint8), low,
                           pack_halves(q).reshape(-1, 128)], 1)


def encode_q6_k(x):
    sub, d, sc, step = signed_scales(x, 16, -32, 127)
    q = (np.clip(np.rint(divide(sub, step + 0 * sub)), -32, 31) + 32).astype(np.uint8)
    q = q.reshape(-1, 2, 4, 32)  # half, quarter j, l
    ql = np.concatenate([(q[:, :, 0] & 15) | (q[:, :, 2] & 15) << 4,
                         (q[:, :, 1] & 15) | (q[:, :, 3] & 15) << 4], -1).reshape(-1, 128)
    qh = sum((q[:, :, j] >> 4) << (2 * j) for j in range(4)).astype(np.uint8).reshape(-1, 64)
    return np.concatenate([ql, qh, sc.astype(np.int8).view(np.uint8), d.view(np.uint8)], 1)


# How far a value may be off, as a share of the largest one.
#   Q4_K to Q6_K: the step is at most (range / levels); half of it, plus the rounding of scales and
#     minima to 6 bits (or 8), stays under an eighth of the row's range in the worst block.
#   Q2_K: a step is up to 2/3, half of it 1/3; scales and minima are off by a 30th: 3 of 2/3 and 1.
#   Q3_K: a step of 1/4 that is cut on the side without level 4; scales are off by a 62nd.
#   IQ4: level 113 stands for 127 on the other side (0.11), the widest gap is half of 24 (0.09);
#     scales of IQ4_XS are off by a 62nd.
ENCODERS = {
    T.Q4_K: (encode_q4_k, 1 / 8), T.Q5_K: (encode_q5_k, 1 / 8), T.Q6_K: (encode_q6_k, 1 / 8),
    T.Q2_K: (encode_q2_k, 0.45), T.Q3_K: (encode_q3_k, 0.27), T.IQ4_NL: (encode_iq4_nl, 1 / 8),
    T.IQ4_XS: (encode_iq4_xs, 0.13),
}


def encode(x, qtype):
    """Rows of float32 -> bytes of the type, [rows, row bytes] u8 (or the plain float array)."""
    x = np.ascontiguousarray(x, np.float32)
    if qtype in ENCODERS:
        encoder, share = ENCODERS[qtype]
        blocks = encoder(x.reshape(-1, gguf.GGML_QUANT_SIZES[qtype][0]))
        out = np.ascontiguousarray(blocks).reshape(x.shape[0], -1)
        back = gguf.quants.dequantize(out, qtype)
        assert np.abs(back - x).max() < np.abs(x).max() * share, (qtype, np.abs(back - x).max())
        return out
    return gguf.quants.quantize(x, qtype)


# ---- writing ------------------------------------------------------------------------------------

def permute(w, heads):
    """Rows of Q or K from halves (i, i + head_dim / 2) to pairs (2i, 2i + 1)."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(w.shape)


def unpermute(w, heads):
    return w.reshape(heads, w.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(w.shape)


def write(path, shape, weights, types, name, context, file_type, vocab=None, split=0):
    """weights: GGUF names, HF order of rows; types: name -> type of matrices."""
    shutil.rmtree(os.path.dirname(path), ignore_errors=True)
    os.makedirs(os.path.dirname(path))
    out = gguf.GGUFWriter(path, "llama", split_max_tensors=split)
    out.add_name(name)
    out.add_file_type(file_type)
    out.add_quantization_version(2)
    out.add_vocab_size(shape["vocab"])
    out.add_context_length(context)
    out.add_embedding_length(shape["dim"])
    out.add_block_count(shape["n_layers"])
    out.add_feed_forward_length(shape["ffn"])
    out.add_head_count(shape["n_heads"])
    out.add_head_count_kv(shape["n_kv_heads"])
    out.add_layer_norm_rms_eps(shape["eps"])
    out.add_rope_freq_base(shape["theta"])
    out.add_rope_dimension_count(shape["head_dim"])
    if shape["head_dim"] * shape["n_heads"] != shape["dim"]:
        out.add_key_length(shape["head_dim"])
        out.add_value_length(shape["head_dim"])
    if vocab:
        add_spm(out, vocab)
    else:
        out.add_tokenizer_model("none")
    if not np.all(shape["divisors"] == 1):
        out.add_tensor("rope_freqs.weight", shape["divisors"].astype(np.float32))
    for key, value in weights.items():
        if value.ndim == 1:
            out.add_tensor(key + ".weight", value.astype(np.float32))
            continue
        if key.endswith("attn_q"):
            value = permute(value, shape["n_heads"])
        elif key.endswith("attn_k"):
            value = permute(value, shape["n_kv_heads"])
        qtype = types(key)
        data = encode(value, qtype)
        out.add_tensor(key + ".weight", data, raw_dtype=qtype)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def add_spm(out, model_file):
    """SentencePiece vocabulary as llama.cpp's converter writes it."""
    sp = sentencepiece.SentencePieceProcessor(model_file=model_file)
    n = sp.vocab_size()
    kinds = [gguf.TokenType.UNKNOWN if sp.is_unknown(i) else gguf.TokenType.CONTROL
             if sp.is_control(i) else gguf.TokenType.UNUSED if sp.is_unused(i) else
             gguf.TokenType.BYTE if sp.is_byte(i) else
             gguf.TokenType.USER_DEFINED if is_user_defined(sp, i) else gguf.TokenType.NORMAL
             for i in range(n)]
    out.add_tokenizer_model("llama")
    out.add_tokenizer_pre("default")
    out.add_token_list([sp.id_to_piece(i).encode() for i in range(n)])
    out.add_token_scores([sp.get_score(i) for i in range(n)])
    out.add_token_types([int(k) for k in kinds])
    out.add_bos_token_id(sp.bos_id())
    out.add_eos_token_id(sp.eos_id())
    out.add_unk_token_id(sp.unk_id())
    out.add_add_bos_token(True)
    out.add_add_eos_token(False)
    out.add_add_space_prefix(True)


def is_user_defined(sp, i):
    """sentencepiece's Python names no such predicate; type 4 in the model's own protobuf."""
    from sentencepiece import sentencepiece_model_pb2
    proto = sentencepiece_model_pb2.ModelProto.FromString(sp.serialized_model_proto())
    return proto.pieces[i].type == 4


def read_back(folder):
    """name -> (type, float32 array in file order)."""
    out = {}
    for part in sorted(os.listdir(folder)):
        if part.endswith(".gguf"):
            for t in gguf.GGUFReader(os.path.join(folder, part)).tensors:
                rows = [int(n) for n in reversed(t.shape)]
                data = gguf.quants.dequantize(np.array(t.data), t.tensor_type)
                out[t.name.removesuffix(".weight")] = data.reshape(rows).astype(np.float32)
    return out


def gguf_shape(shape, w):
    s = dict(shape, interleaved=True)
    s["divisors"] = w.pop("rope_freqs", np.ones(shape["head_dim"] // 2)).astype(np.float64)
    return s


# ---- twins of models/ ---------------------------------------------------------------------------

TWINS = [  # folder, model, type, general.file_type, tensors per part (0: one file), vocabulary
    ("llama2-mha-f32", "llama2-mha", T.F32, 0, 0, "spm-320"),
    ("llama3-gqa-bf16", "llama3-gqa", T.BF16, 32, 0, None),
    ("llama3-gqa-split", "llama3-gqa", T.BF16, 32, 7, None),
    ("smollm2-heads-f16", "smollm2-heads", T.F16, 1, 0, None),
    ("stories-ffn-172-f16", "stories-ffn-172", T.F16, 1, 0, None),
]


def make_twin(name, model, qtype, file_type, split, vocab):
    source = os.path.join(HERE, "models", model)
    folder = os.path.join(HERE, "gguf", name)
    with open(os.path.join(source, "config.json")) as f:
        config = json.load(f)
    shape = lib.shape_of_config(config)
    shape.update(vocab=config["vocab_size"], ffn=config["intermediate_size"])
    weights = make_models.stored(source)
    vocab = vocab and os.path.join(HERE, "tokenizers", vocab, "tokenizer.model")
    write(os.path.join(folder, "model.gguf"), shape, weights, lambda _: qtype, name,
          config["max_position_embeddings"], file_type, vocab, split)
    w = read_back(folder)
    s = gguf_shape(shape, w)
    with open(os.path.join(source, "vectors.json")) as f:
        tokens = json.load(f)["tokens"]
    second = lib.llama64(s, w, tokens)
    back = dict(w)
    for key in back:
        if key.endswith("attn_q"):
            back[key] = unpermute(back[key], s["n_heads"])
        elif key.endswith("attn_k"):
            back[key] = unpermute(back[key], s["n_kv_heads"])
    if all(np.array_equal(back[k], weights[k].astype(np.float32)) for k in weights):
        want = np.fromfile(os.path.join(source, "vectors.f32"), "<f4").reshape(second.shape)
        assert np.abs(want - second).max() < 1e-4 * want.std(), name
        lib.write_json(os.path.join(folder, "vectors.json"), {"same_as": "models/" + model})
        print("%-24s same numbers as models/%s  %d KB" % (name, model,
                                                           lib.folder_bytes(folder) // 1000))
    else:
        finish(folder, s, w, seed=50)


# ---- quantised models ---------------------------------------------------------------------------

# Widths that are no multiple of 256, for the formats with blocks of 32; and 256 for the K formats.
# out_gain: the layer outweighs the embedding, else a tied head would only repeat the last token.
NARROW = dict(dim=96, layers=1, heads=2, kv=1, head_dim=48, ffn=160, vocab=192, tied=True,
              out_gain=3.0)
WIDE = dict(dim=256, layers=1, heads=8, kv=1, head_dim=32, ffn=256, vocab=64, tied=True,
            out_gain=3.0)


def all_of(qtype):
    return lambda name: qtype


def except_gate(name):  # Q4_K for one matrix keeps the folder under 300 KB
    return T.Q4_K if name.endswith("ffn_gate") else T.Q6_K


def q4_k_m(name):
    """What "Q4_K_M" means for widths of 256: a mixture."""
    return T.Q6_K if name.endswith(("attn_v", "ffn_down", "output")) and \
        not name.endswith("attn_output") else T.Q4_K


def q4_k_m_narrow(name):
    """The same for a width that is no multiple of 256: only ffn_down keeps K formats."""
    if name == "token_embd" or name.endswith("attn_v"):
        return T.Q8_0
    if name.endswith("ffn_down"):
        return T.Q6_K if name == "blk.1.ffn_down" else T.Q4_K
    return T.Q5_0


QUANTISED = [  # folder, shape, types, general.file_type
    ("q4_0", NARROW, all_of(T.Q4_0), 2),
    ("q4_1", NARROW, all_of(T.Q4_1), 3),
    ("q5_0", NARROW, all_of(T.Q5_0), 8),
    ("q5_1", NARROW, all_of(T.Q5_1), 9),
    ("q8_0", NARROW, all_of(T.Q8_0), 7),
    ("q4_k", WIDE, all_of(T.Q4_K), 14),
    ("q5_k", WIDE, all_of(T.Q5_K), 16),
    ("q6_k", WIDE, except_gate, 18),
    ("q4_k_m", dict(WIDE, tied=False), q4_k_m, 15),
    ("q4_k_m-narrow", dict(NARROW, layers=2, ffn=256), q4_k_m_narrow, 15),
    ("q2_k", WIDE, all_of(T.Q2_K), 10),
    ("q3_k", WIDE, all_of(T.Q3_K), 12),
    ("iq4_nl", NARROW, all_of(T.IQ4_NL), 25),
    ("iq4_xs", WIDE, all_of(T.IQ4_XS), 30),
    ("mxfp4", NARROW, all_of(T.MXFP4), 38),
]


def make_quantised(name, m, types, file_type, seed):
    folder = os.path.join(HERE, "gguf", name)
    shape = {"dim": m["dim"], "n_layers": m["layers"], "n_heads": m["heads"],
             "n_kv_heads": m["kv"], "head_dim": m["head_dim"], "eps": 1e-5, "theta": 10000.0,
             "divisors": np.ones(m["head_dim"] // 2), "vocab": m["vocab"], "ffn": m["ffn"]}
    rng = np.random.default_rng([21, seed])
    weights = {}
    for key, value in make_models.weights(m, 100 + seed).items():
        if value.ndim == 2 and "layers" in key:
            # Each 32 columns of a row at a scale and an offset of their own, so that the scales
            # and minima inside a block of 256 use their whole range.
            scale = np.exp(0.6 * rng.standard_normal((value.shape[0], value.shape[1] // 32, 1)))
            shift = rng.standard_normal(scale.shape) * value.std() * 0.3
            sub = value.reshape(value.shape[0], -1, 32)
            value = ((sub + shift) * scale / 1.5).reshape(value.shape)
        weights[lib.gguf_name(key)] = value
    write(os.path.join(folder, "model.gguf"), shape, weights, types, name, 256, file_type)
    w = read_back(folder)
    finish(folder, gguf_shape(shape, w), w, seed)


def finish(folder, s, w, seed):
    """transformers on the decoded weights, in its own order of rows."""
    config = LlamaConfig(
        hidden_size=s["dim"], intermediate_size=s["ffn"], num_hidden_layers=s["n_layers"],
        num_attention_heads=s["n_heads"], num_key_value_heads=s["n_kv_heads"],
        head_dim=s["head_dim"], vocab_size=s["vocab"], rms_norm_eps=s["eps"],
        max_position_embeddings=256, tie_word_embeddings="output" not in w,
        rope_parameters={"rope_type": "default", "rope_theta": s["theta"]},
        attn_implementation="eager")
    net = LlamaForCausalLM(config).eval()
    names = {v: k for k, v in lib.HF_NAMES.items()}
    state = {}
    for key, value in w.items():
        if key.endswith("attn_q"):
            value = unpermute(value, s["n_heads"])
        elif key.endswith("attn_k"):
            value = unpermute(value, s["n_kv_heads"])
        if key.startswith("blk."):
            _, layer, rest = key.split(".", 2)
            key = "model.layers.%s.%s" % (layer, names[rest])
        else:
            key = names[key]
        state[key + ".weight"] = torch.from_numpy(value.copy())
    left = net.load_state_dict(state, strict=False)
    assert not left.unexpected_keys and left.missing_keys in (
        [], ["lm_head.weight"] if "output" not in w else []), left
    net.tie_weights()

    def logits_of(tokens):
        with torch.no_grad():
            return net(torch.tensor([tokens]), use_cache=False).logits[0].numpy()

    tokens, cont, margins = lib.choose_prompt(logits_of, s["vocab"], seed + 500, tries=15)
    std, diff = lib.write_vectors(folder, tokens, logits_of(tokens)[POSITIONS], POSITIONS, cont,
                                  margins, lib.llama64(s, w, tokens)[POSITIONS])
    print("%-24s std %5.2f  f64 diff %.1e  margin %6.3f  greedy %2d distinct  %3d KB" % (
        os.path.basename(folder), std, diff, min(margins), len(set(cont)),
        lib.folder_bytes(folder) // 1000))


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("only", nargs="*", help="names; default all")
    args = ap.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    for row in TWINS:
        if not args.only or row[0] in args.only:
            make_twin(*row)
    for i, row in enumerate(QUANTISED):
        if not args.only or row[0] in args.only:
            make_quantised(*row, seed=i)


if __name__ == "__main__":
    main()
