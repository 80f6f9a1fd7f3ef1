#!/usr/bin/env python3
"""Writes packs/NAME: RDRR packs in the dialect of each time, of tiny random models, with logits.

The writer below was made from the description of the format alone, both hashes called blake3
included; it shares nothing with the reader that it is for. NAME is a pack as it would be found:
manifest.json, shards, sometimes tensors.json and a tokenizer. Beside them lie values.json (shape
and SHA-256 of each tensor's values as float32, row by row) and, where the pack is a whole model,
vectors.json and vectors.f32 as in models/. Logits: transformers in float32 on the decoded values,
compared with the float64 pass of families64.py.
"""

import argparse
import copy
import hashlib
import json
import math
import os
import shutil
import tempfile

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from transformers.utils import logging

import families64
import make_families
import make_gguf
import vectorlib as lib

HERE = os.path.dirname(os.path.abspath(__file__))
T = gguf.GGMLQuantizationType
POSITIONS = [0, 1, 2, 3, 6, 15, 31, 32, 47, 48, 63, 64, 80, 97, 98, 99]


# ---- hashes -------------------------------------------------------------------------------------

IV = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB,
      0x5BE0CD19]
ORDER = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
QUARTERS = [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
            (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]


class Blake3:
    """Many chunks at a time, recursively; `variant` is what the format's own project computes."""

    def __init__(self, variant):
        self.variant = variant

    def compress(self, cv, words, counter, size, flags):
        """cv [n, 8], words [n, 16] uint32; counter [n] or a number."""
        n = len(cv)
        last = np.zeros((n, 4), np.uint32)
        last[:, 0], last[:, 1] = counter, 0
        last[:, 2], last[:, 3] = size, flags
        v = np.concatenate([cv, np.tile(np.array(IV[:4], np.uint32), (n, 1)), last], 1)
        if self.variant:
            v[:, 12:] ^= np.array(IV[4:], np.uint32)

        def turn(x, by):
            return (x >> np.uint32(by)) | (x << np.uint32(32 - by))

        m = words.copy()
        for _ in range(7):
            for i, (a, b, c, d) in enumerate(QUARTERS):
                for word, (s, t) in zip((2 * i, 2 * i + 1), ((16, 12), (8, 7))):
                    v[:, a] += v[:, b] + m[:, word]
                    v[:, d] = turn(v[:, d] ^ v[:, a], s)
                    v[:, c] += v[:, d]
                    v[:, b] = turn(v[:, b] ^ v[:, c], t)
            m = m[:, ORDER]
        return v[:, :8] if self.variant and flags & 8 else v[:, :8] ^ v[:, 8:]

    def node(self, data, first, root):
        """Value of the subtree over `data`, whose first chunk has the number `first`."""
        if len(data) > 1024:
            left = 1024 << ((len(data) - 1) // 1024).bit_length() - 1
            halves = self.node(data[:left], first, 0), \
                self.node(data[left:], first + left // 1024, 0)
            words = np.concatenate(halves).reshape(1, 16)
            return self.compress(np.array([IV], np.uint32), words, 0, 64, 4 | root)[0]
        cv = np.array([IV], np.uint32)
        blocks = max(1, (len(data) + 63) // 64)
        for i in range(blocks):
            part = data[64 * i:64 * i + 64]
            words = np.frombuffer(part.ljust(64, b"\0"), "<u4").astype(np.uint32).reshape(1, 16)
            end = i == blocks - 1
            flags = (1 if i == 0 else 0) | (2 | root if end else 0)
            cv = self.compress(cv, words, first, len(part), flags)
        return cv[0]

    def hex(self, data):
        with np.errstate(over="ignore"):
            return self.node(data, 0, 8).astype("<u4").tobytes().hex()


assert Blake3(False).hex(b"") == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
assert Blake3(True).hex(b"") == "fda1200e7626ed65703a9c8eb28987d8142bf29fcf7cf582e0c44cc7ad8a8ea8"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


HASHES = {"sha256": sha256, "blake3": Blake3(False).hex, "variant": Blake3(True).hex}


def merkle_root(data, size):
    row = [hashlib.sha256(data[i:i + size]).digest() for i in range(0, len(data), size)]
    while len(row) > 1:
        row += row[-1:] * (len(row) % 2)
        row = [hashlib.sha256(a + b).digest() for a, b in zip(row[0::2], row[1::2])]
    return "sha256:" + row[0].hex()


# ---- encodings ----------------------------------------------------------------------------------

# name in the manifest: GGUF type, elements and bytes of a block, encoder of [n, elements]
BLOCKS = {
    "Q4_K_M": (T.Q4_K, 256, 144, make_gguf.encode_q4_k),
    "Q4_K": (T.Q4_K, 256, 144, make_gguf.encode_q4_k),
    "Q6_K": (T.Q6_K, 256, 210, make_gguf.encode_q6_k),
    "Q4_0": (T.Q4_0, 32, 18, None),
    "Q8_0": (T.Q8_0, 32, 34, None),
}


def lines_of_blocks(x, kind):
    """[lines, n] -> bytes of lines filled up to whole blocks, and the values they stand for."""
    qtype, size, _, encoder = BLOCKS[kind]
    n = x.shape[1]
    filled = np.zeros((x.shape[0], -(-n // size) * size), np.float32)
    filled[:, :n] = x
    if encoder:
        data = np.ascontiguousarray(encoder(filled.reshape(-1, size))).view(np.uint8)
        data = data.reshape(len(x), -1)
    else:
        data = gguf.quants.quantize(filled, qtype)
    values = gguf.quants.dequantize(data, qtype).reshape(filled.shape)[:, :n]
    return data.tobytes(), np.ascontiguousarray(values, np.float32)


def transposed(x):
    return np.ascontiguousarray(x.swapaxes(-1, -2))


def encode(x, kind, layout=None):
    """(bytes, values). layout: None (by rows), "flat" or "column"."""
    x = np.asarray(x, np.float32)
    if layout == "column":
        data, values = encode(transposed(x), kind)
        return data, transposed(values)
    if kind == "F32":
        return x.astype("<f4").tobytes(), x
    if kind == "F16":
        half = x.astype("<f2")
        return half.tobytes(), half.astype(np.float32)
    if kind == "BF16":
        t = torch.from_numpy(np.ascontiguousarray(x)).to(torch.bfloat16)
        return t.view(torch.int16).numpy().astype("<i2").tobytes(), t.float().numpy()
    lines = x.reshape(1, -1) if layout == "flat" else x.reshape(-1, x.shape[-1])
    data, values = lines_of_blocks(lines, kind)
    return data, values.reshape(x.shape)


# ---- packs --------------------------------------------------------------------------------------

class Pack:
    """Tensors laid one after the other into shards. `chunk`: a streaming writer's spans."""

    def __init__(self, name, shard_bytes, align=1, chunk=None):
        self.folder = os.path.join(HERE, "packs", name)
        self.shard_bytes, self.align, self.chunk = shard_bytes, align, chunk
        self.shards, self.tensors, self.bytes, self.values = [bytearray()], {}, {}, {}
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)

    def place(self, data):
        """[(shard, offset, size)] of bytes that now lie in shards."""
        spans = []
        fill = -len(self.shards[-1]) % self.align
        if len(self.shards[-1]) + fill < self.shard_bytes:
            self.shards[-1] += bytes(fill)
        while data:
            if len(self.shards[-1]) >= self.shard_bytes:
                self.shards.append(bytearray())
            shard = self.shards[-1]
            n = min(len(data), self.shard_bytes - len(shard), self.chunk or len(data))
            spans.append((len(self.shards) - 1, len(shard), n))
            shard += data[:n]
            data = data[n:]
        return spans

    def raw(self, name, data, shape, dtype, values, **more):
        """A tensor of these bytes; values None: a companion, which is no tensor of the model."""
        spans = self.place(data)
        entry = {"shard": spans[0][0], "offset": spans[0][1], "size": len(data)}
        if len(spans) > 1:
            entry = {"spans": [{"shardIndex": s, "offset": o, "size": n} for s, o, n in spans],
                     "size": len(data)}
        entry.update({"shape": list(shape), "dtype": dtype})
        entry.update({k: v for k, v in more.items() if v is not None})
        self.tensors[name], self.bytes[name] = entry, data
        if values is not None:
            self.values[name] = np.ascontiguousarray(values, "<f4")

    def add(self, name, x, kind, layout=None, said=None, **more):
        """`layout` is how it is stored, `said` what the entry says of that."""
        data, values = encode(x, kind, layout)
        self.raw(name, data, x.shape, kind, values, layout=said, **more)

    def shard_list(self, algorithm, hash_name="sha256"):
        out, at = [], 0
        for i, data in enumerate(self.shards):
            name = "shard_%05d.bin" % i
            with open(os.path.join(self.folder, name), "wb") as f:
                f.write(data)
            out.append({"index": i, "filename": name, "size": len(data),
                        "hash": HASHES[algorithm](bytes(data)), "offset": at})
            at += len(data)
        return out

    def write_text(self, name, obj, indent=2):
        with open(os.path.join(self.folder, name), "w", encoding="ascii", newline="\n") as f:
            f.write(json.dumps(obj, indent=indent) if not isinstance(obj, str) else obj)

    def roots(self, size):
        return {name: merkle_root(data, size) for name, data in self.bytes.items()}

    def finish(self, manifest, config=None, seed=0):
        self.write_text("manifest.json", manifest)
        lib.write_json(os.path.join(self.folder, "values.json"), {
            name: {"shape": list(v.shape), "sha256": sha256(v.tobytes())}
            for name, v in sorted(self.values.items())})
        if config:
            write_logits(self, config, seed)
        name = os.path.basename(self.folder)
        print("%-12s %2d shards %3d tensors %3d KB" % (
            name, len(self.shards), len(self.tensors), lib.folder_bytes(self.folder) // 1000),
            flush=True)
        assert lib.folder_bytes(self.folder) < 150000


def write_logits(pack, config, seed):
    """What transformers makes of the values, from a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "config.json"), "w") as f:
            json.dump(dict(config, torch_dtype="float32"), f)
        tensors = {k: torch.from_numpy(v.copy()) for k, v in pack.values.items()}
        save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
        logits_of = make_families.load_reference(folder)
        s, w = families64.of_folder(folder)
        tokens, cont, margins, router = make_families.choose(logits_of, s, w, seed)
        more = {"router_margin": float("%.3g" % router)} if math.isfinite(router) else {}
        lib.write_vectors(pack.folder, tokens, logits_of(tokens)[POSITIONS], POSITIONS, cont,
                          margins, families64.Pass(s, w)(tokens)[POSITIONS], more)


# ---- models -------------------------------------------------------------------------------------

def llama(vocab=64, **more):
    return make_families.common(
        "Llama", "llama", 32, 1, 2, 1, 64, vocab, attention_bias=False, mlp_bias=False,
        head_dim=16, pretraining_tp=1, rope_scaling=None, tie_word_embeddings=True, **more)


def qwen3():
    return make_families.common(
        "Qwen3", "qwen3", 32, 1, 4, 2, 64, 64, attention_bias=False, head_dim=16,
        max_window_layers=1, rms_norm_eps=1e-06, rope_scaling=None, rope_theta=1000000,
        sliding_window=None, tie_word_embeddings=False, use_sliding_window=False)


def gemma3():
    return make_families.common(
        "Gemma3", "gemma3_text", 32, 2, 2, 1, 48, 64, _sliding_window_pattern=2,
        attention_bias=False, attn_logit_softcapping=None, bos_token_id=2, eos_token_id=1,
        final_logit_softcapping=None, head_dim=16, hidden_act="absent",
        hidden_activation="gelu_pytorch_tanh", pad_token_id=0, query_pre_attn_scalar=8,
        layer_types=["sliding_attention", "full_attention"], rms_norm_eps=1e-06,
        rope_local_base_freq=100.0, rope_scaling=None, sliding_window=16,
        use_bidirectional_attention=False)


def mixtral():
    return make_families.common(
        "Mixtral", "mixtral", 32, 1, 2, 1, 32, 64, num_experts_per_tok=2, num_local_experts=4,
        output_router_logits=False, rope_theta=1000000.0, router_aux_loss_coef=0.02,
        head_dim=16, sliding_window=None, tie_word_embeddings=False)


def weights(config, seed, **how):
    if config.get("tie_word_embeddings", "gemma" in config["model_type"]):
        how["tied"] = True
    out = make_families.Weights(config, how, seed).out
    return {k: np.asarray(v, np.float32) for k, v in out.items()}


# ---- manifests ----------------------------------------------------------------------------------

def role_of(name):
    if "embed_tokens" in name:
        return "embedding", "embed"
    if "lm_head" in name:
        return "lm_head", "head"
    layer = name.split(".")[2] if ".layers." in name else None
    if "norm" in name:
        return "norm", "layer." + layer if layer else "head"
    if ".experts." in name:
        return "expert", "layer.%s.expert.%s" % (layer, name.split(".experts.")[1].split(".")[0])
    if "block_sparse_moe.gate" in name:
        return "router", "layer.%s.shared" % layer
    return "matmul", "layer." + layer


def architecture(c):
    return {"numLayers": c["num_hidden_layers"], "hiddenSize": c["hidden_size"],
            "intermediateSize": c["intermediate_size"],
            "numAttentionHeads": c["num_attention_heads"],
            "numKeyValueHeads": c["num_key_value_heads"], "headDim": c["head_dim"],
            "vocabSize": c["vocab_size"], "maxSeqLen": c["max_position_embeddings"]}


def session():
    return {
        "compute": {"defaults": {"activationDtype": "f32", "mathDtype": "f32",
                                 "accumDtype": "f32", "outputDtype": "f32"}},
        "kvcache": {"kvDtype": "f16", "layout": "contiguous",
                    "tiering": {"mode": "off", "gating": {"mode": "auto"},
                                "compression": {"mode": "none"}},
                    "quantization": {"mode": "none"}},
        "decodeLoop": {"batchSize": 1, "stopCheckMode": "batch", "readbackInterval": 1,
                       "readbackMode": "sequential", "disableCommandBatching": False},
        "perLayerInputs": {
            "materialization": "auto",
            "rowCache": {"mode": "off", "maxRows": 1, "maxBytes": 1, "decodedDtype": "f32"},
            "prefetch": {"mode": "off", "rowsAhead": 1},
            "gpuUpload": {"mode": "per_step_slices", "stagingRows": 1},
            "hotCache": {"mode": "off", "maxTokens": 1, "maxBytes": 1, "outputDtype": "f32"}}}


def inference(c):
    """As written since July 2026: every field present, null meaning off."""
    gemma = c["model_type"].startswith("gemma")
    layers = {"type": "uniform", "globalPattern": None, "period": None, "offset": None,
              "residualBranchScale": 1}
    if gemma:
        layers.update(type="every_n", period=2, offset=1)
    rope = dict.fromkeys(
        ["ropeLocalTheta", "mropeSection", "partialRotaryFactor", "ropeLocalPartialRotaryFactor",
         "ropeFrequencyBaseDim", "ropeLocalFrequencyBaseDim", "ropeScalingType", "yarnBetaFast",
         "yarnBetaSlow", "yarnOriginalMaxPos", "ropeLocalYarnBetaFast", "ropeLocalYarnBetaSlow",
         "ropeLocalYarnOriginalMaxPos", "longropeShortFactor", "longropeLongFactor",
         "longropeOriginalMaxPos"])
    rope.update(ropeTheta=c["rope_theta"], mropeInterleaved=False, ropeScalingFactor=1)
    if gemma:
        rope.update(ropeLocalTheta=c["rope_local_base_freq"], ropeLocalScalingType=None,
                    ropeLocalScalingFactor=1)
    return {
        "schema": "doppler.execution/v1",
        "attention": {"queryPreAttnScalar": c.get("query_pre_attn_scalar", c["head_dim"]),
                      "attnLogitSoftcapping": None, "slidingWindow": c.get("sliding_window"),
                      "queryKeyNorm": c["model_type"] in ("qwen3", "gemma3_text"),
                      "valueNorm": False, "causal": True, "attentionBias": False},
        "normalization": {"rmsNormEps": c["rms_norm_eps"], "rmsNormWeightOffset": gemma,
                          "postAttentionNorm": True, "preFeedforwardNorm": gemma,
                          "postFeedforwardNorm": gemma},
        "ffn": {"activation": "gelu" if gemma else "silu", "gatedActivation": True,
                "branchMode": "moe" if c["model_type"] == "mixtral" else "dense",
                "useDoubleWideMlp": False, "swigluLimit": None},
        "rope": rope,
        "output": {"tieWordEmbeddings": c.get("tie_word_embeddings", gemma),
                   "scaleEmbeddings": gemma, "embeddingScale": None, "logitInputScale": 1,
                   "embeddingTranspose": False, "embeddingVocabSize": None,
                   "finalLogitSoftcapping": None, "embeddingPostprocessor": None},
        "layerPattern": layers,
        "chatTemplate": {"type": None, "enabled": False},
        "session": session(),
        "execution": {"kernels": {}, "preLayer": [], "decode": [], "prefill": [],
                      "postLayer": []}}


# What each dialect did not have yet, back in time.
SINCE_JUNE = {"ffn": ["branchMode"], "output": ["embeddingScale", "logitInputScale"],
              "layerPattern": ["residualBranchScale"],
              "rope": ["longropeShortFactor", "longropeLongFactor", "longropeOriginalMaxPos"]}
SINCE_APRIL = {"attention": ["valueNorm"], "ffn": ["useDoubleWideMlp"],
               "rope": ["partialRotaryFactor", "ropeLocalPartialRotaryFactor",
                        "ropeFrequencyBaseDim", "ropeLocalFrequencyBaseDim", "mropeInterleaved",
                        "mropeSection", "ropeLocalScalingType", "ropeLocalScalingFactor"],
               "session": ["perLayerInputs"]}
SINCE_MARCH = {"attention": ["causal", "attentionBias"],
               "output": ["embeddingTranspose", "embeddingVocabSize", "embeddingPostprocessor"],
               "rope": ["ropeLocalYarnBetaFast", "ropeLocalYarnBetaSlow",
                        "ropeLocalYarnOriginalMaxPos"]}


def without(block, *lists):
    out = copy.deepcopy(block)
    for fields in lists:
        for group, names in fields.items():
            for name in names:
                out[group].pop(name, None)
    return out


def inference_v0(c):
    out = without(inference(c), SINCE_JUNE, SINCE_APRIL, SINCE_MARCH)
    out["schema"] = None
    out["sessionDefaults"] = out.pop("session")
    out["sessionDefaults"].pop("decodeLoop")
    out["execution"] = {"steps": [{"op": "rmsnorm", "src": "state", "dst": "normed"}],
                        "policies": {}}
    out["defaultKernelPath"] = "gemma3-f16-fused-f32a-online"
    out["normalization"]["postAttentionNorm"] = False
    return out


def top(pack, name, c, shards, kind, **more):
    m = {"version": 1, "modelId": name, "modelType": "transformer", "quantization": kind,
         "hashAlgorithm": "sha256", "eos_token_id": [c["eos_token_id"]],
         "architecture": architecture(c), "moeConfig": None, "inference": inference(c),
         "shards": shards, "totalSize": sum(s["size"] for s in shards),
         "tensors": pack.tensors, "metadata": {"source": "safetensors"}}
    m.update(more)
    return m


def with_roles(pack, w, kind_of):
    """All tensors with role and group; kind_of(name) -> arguments of add."""
    for name, x in w.items():
        role, group = role_of(name)
        pack.add(name, x, *kind_of(name), role=role, group=group)


# ---- the packs ----------------------------------------------------------------------------------

def make_july(seed):
    """July 2026, F16 and Q4_K by rows of 32 and 64 columns, one shard, merkle roots."""
    c, pack = llama(), Pack("july", 1 << 26)
    q4k = ("mlp.gate_proj", "mlp.down_proj")
    with_roles(pack, weights(c, seed), lambda name: (
        ("Q4_K_M", None, "row") if any(q in name for q in q4k) else ("F16",)))
    shards = pack.shard_list("sha256")
    manifest = top(pack, "toy-july", c, shards, "Q4_K_M",
                   quantizationInfo={"weights": "q4k", "embeddings": "f16", "compute": "f32",
                                     "layout": "row", "variantTag": "q4k-ef16"},
                   integrityExtensions={"contractVersion": 1, "blockMerkle": {
                       "blockSize": 1048576, "roots": pack.roots(1048576)}})
    pack.finish(manifest, c, seed)


def make_groups(seed):
    """January 2026 (0.1): tensors.json, groups, 4 KiB alignment, no roles, execution v0."""
    c, pack = llama(), Pack("groups", 16384, align=4096)
    for name, x in weights(c, seed).items():
        pack.add(name, x, "F16", group=role_of(name)[1])
    shards = pack.shard_list("sha256")
    for s in shards:
        s.update(fileName=s.pop("filename"), hashAlgorithm="sha256")
        del s["offset"]
    groups = {}
    for name, e in pack.tensors.items():
        kind = "layer" if e["group"].startswith("layer") else e["group"]
        g = groups.setdefault(e["group"], {"type": kind, "version": "1.0.0", "shards": [],
                                           "tensors": [], "hash": ""})
        g["tensors"].append(name)
        g["shards"] = sorted(set(g["shards"]) | {e["shard"]})
        if kind == "layer":
            g["layerIndex"] = int(e["group"].split(".")[1])
    for g in groups.values():
        g["hash"] = sha256(b"".join(pack.bytes[n] for n in g["tensors"]))
    pack.write_text("tensors.json", pack.tensors)
    manifest = top(pack, "toy-wf16", c, shards, "F16", inference=inference_v0(c), groups=groups,
                   tensorsFile="tensors.json", tensorCount=len(pack.tensors),
                   quantizationInfo={"weights": "f16", "embeddings": "f16"})
    del manifest["tensors"]
    pack.finish(manifest, c, seed)


def make_seeds(seed):
    """December 2025: no inference block, config.json inside, floats transposed, blocks flat, hints,
    numbers as text, and BLAKE3 under the name of SHA-256 (their tool took what was installed)."""
    c, pack = llama(vocab=60), Pack("seeds", 1 << 26)
    for name, x in weights(c, seed).items():
        if "mlp." in name:
            pack.add(name, x, "Q4_K_M", "flat")
        elif x.ndim == 2:
            data, values = encode(x, "F16", "column")
            pack.raw(name, data, x.shape[::-1], "F16", values, layout="column",
                     originalShape=list(x.shape))
        else:
            pack.add(name, x, "F32")
        pack.tensors[name]["shardIndex"] = pack.tensors[name].pop("shard")
    shards = pack.shard_list("blake3")
    for s in shards:
        del s["offset"], s["index"]
    manifest = top(pack, "toy", c, shards, "Q4_K_M", version="1", config=c,
                   weightsTransposed=True, defaultWeightLayout="column",
                   kernelHints={"q4kMatmul": "dequant_f16", "colsPerWorkgroup": 4},
                   optimizations={"attentionKernel": "streaming"})
    for key in ("inference", "architecture", "eos_token_id", "moeConfig"):
        del manifest[key]
    manifest["architecture"] = "LlamaForCausalLM"
    pack.finish(manifest, c, seed)


def make_march(seed):
    """20 March 2026 (0.2.0): execution v1 with kernels, session; real BLAKE3 in the second key."""
    c, pack = qwen3(), Pack("march", 20001)
    with_roles(pack, weights(c, seed, qk_norm="head"), lambda name: (
        ("BF16",) if "proj" in name else ("F16",)))
    shards = pack.shard_list("blake3")
    for s in shards:
        s.update(blake3=s["hash"], hash="0" * 64)
    block = without(inference(c), SINCE_JUNE, SINCE_APRIL)
    digest = "sha256:" + sha256(b"@compute fn main() {}\n@@entry:main")
    block["execution"].update(
        kernels={"embed": {"kernel": "gather_f16.wgsl", "entry": "main", "digest": digest}},
        preLayer=[["embed", "embed", "embed_tokens"]])
    manifest = top(pack, "toy-qwen", c, shards, "F16", hashAlgorithm="blake3", inference=block)
    pack.finish(manifest, c, seed)


def make_april(seed):
    """23 April 2026: identities, the variant of BLAKE3, merkle roots of small leaves."""
    c, pack = gemma3(), Pack("april", 7001)
    with_roles(pack, weights(c, seed, norms="gemma", qk_norm="head"), lambda name: (
        ("BF16",) if "norm" in name else ("F16",)))
    shards = pack.shard_list("variant")
    for s in shards:
        s["blake3"] = s["hash"]
    manifest = top(pack, "toy-gemma", c, shards, "F16", hashAlgorithm="blake3",
                   inference=without(inference(c), SINCE_JUNE), weightsRef=None,
                   artifactIdentity={"weightPackId": "toy-gemma-wp-000000000000",
                                     "modalitySet": ["text"], "artifactCompleteness": "complete"},
                   integrityExtensions={"contractVersion": 1, "blockMerkle": {
                       "blockSize": 4096, "roots": pack.roots(4096)}})
    manifest["config"] = {"vision_config": {"hidden_size": 8}}
    pack.finish(manifest, c, seed)


def make_june(seed):
    """June 2026: experts, streamed into many spans of shards that split tensors and blocks."""
    c, pack = mixtral(), Pack("june", 9001, chunk=1000)
    with_roles(pack, weights(c, seed, experts="mixtral"), lambda name: (
        ("Q4_K_M", None, "row") if ".w2." in name else ("F16",)))
    for name in list(pack.tensors)[::2]:  # the newer way to say the same
        e = pack.tensors[name]
        if "spans" in e:
            e["storage"] = {"packing": "q4k" if e["dtype"] == "Q4_K_M" else "dense",
                            "blockShape": [256] if e["dtype"] == "Q4_K_M" else [1],
                            "shardSpans": [
                                {"shardIndex": s["shardIndex"], "byteStart": s["offset"],
                                 "byteEnd": s["offset"] + s["size"]} for s in e.pop("spans")]}
    shards = pack.shard_list("sha256")
    manifest = top(pack, "toy-mixtral", c, shards, "Q4_K_M", modelType="mixtral",
                   inference=without(inference(c), {"ffn": ["branchMode"]}),
                   quantizationInfo={"weights": "q4k", "embeddings": "f16", "layout": "row"},
                   moeConfig={"numExperts": 4, "numExpertsPerToken": 2,
                              "expertFormat": "mixtral"})
    pack.finish(manifest, c, seed)


def make_ours(seed):
    """What this project writes: config, files, hashes of pieces, any block format, draftModel."""
    c, pack = llama(vocab=288), Pack("ours", 13001)
    kinds = {"gate_proj": ("Q4_K_M", None, "row"), "up_proj": ("Q4_K_M", "column", "column"),
             "down_proj": ("Q8_0", None, "row"), "o_proj": ("F16", "column", "column"),
             "norm": ("F32",)}
    with_roles(pack, weights(c, seed), lambda name: next(
        (v for k, v in kinds.items() if k in name), ("F16", None, "row")))
    for e in pack.tensors.values():
        if e["dtype"] == "Q8_0":
            e["storage"] = {"packing": "gguf-block-v2", "blockShape": [32], "blockBytes": 34}
        if "spans" in e:
            e.update(shard=e["spans"][0]["shardIndex"], offset=e["spans"][0]["offset"])
    with open(os.path.join(HERE, "tokenizers", "bytes-288", "tokenizer.json")) as f:
        pack.write_text("tokenizer.json", json.dumps(json.load(f), separators=(",", ":")))
    pack.write_text("generation_config.json", {"eos_token_id": 2, "temperature": 0.5})
    files = []
    for name in ("tokenizer.json", "generation_config.json"):
        with open(os.path.join(pack.folder, name), "rb") as f:
            data = f.read()
        files.append({"name": name, "size": len(data), "hash": sha256(data)})
    shards = pack.shard_list("sha256")
    pieces = [[sha256(bytes(d[i:i + 4096])) for i in range(0, len(d), 4096)]
              for d in pack.shards]
    manifest = top(pack, "toy-ours", c, shards, "Q4_K_M", config=c, files=files,
                   tokenizer={"type": "bundled", "file": "tokenizer.json", "vocabSize": 288},
                   quantizationInfo={"weights": "q4k", "embeddings": "f16", "compute": "f32",
                                     "layout": "row"},
                   draftModel="toy-ours-draft", weightsTransposed=True,
                   pieceHashes={"blockSize": 4096, "shards": pieces},
                   integrityExtensions={"contractVersion": 1, "blockMerkle": {
                       "blockSize": 4096, "roots": pack.roots(4096)}})
    pack.finish(manifest, c, seed)


# ---- kinds: every encoding, no model ------------------------------------------------------------

def pack_codes(codes, bits):
    """[lines, n] small integers -> bytes, low bits first, each line to a whole byte."""
    per = 8 // bits
    n = codes.shape[1]
    filled = np.zeros((len(codes), -(-n // per) * per), np.int64)
    filled[:, :n] = codes & (1 << bits) - 1
    parts = filled.reshape(len(codes), -1, per)
    return sum(parts[:, :, i] << bits * i for i in range(per)).astype(np.uint8).tobytes()


def add_w4a16(pack, rng, base, rows, cols, scale_kind, companions):
    groups = -(-cols // 32)
    codes = rng.integers(0, 16, (rows, groups * 32))
    data, scales = encode(rng.uniform(0.01, 0.2, (rows, groups)), scale_kind)
    values = (codes[:, :cols] - 8).astype(np.float32) * np.repeat(scales, 32, 1)[:, :cols]
    storage = None
    if companions:
        storage = {"packing": "w4a16", "blockShape": [32], "blockBytes": 16, "companions": [
            {"role": "scales", "tensorId": base + ".weight_scale"},
            {"role": "shape", "tensorId": base + ".weight_shape"}]}
        kind = "I64" if scale_kind == "BF16" else "I32"
        shape = np.array([rows, cols], "<i8" if kind == "I64" else "<i4")
        pack.raw(base + ".weight_shape", shape.tobytes(), [2], kind, None, role="other")
    pack.raw(base + ".weight_scale", data, [rows, groups], scale_kind, None, role="other")
    pack.raw(base + ".weight", pack_codes(codes, 4), [rows, cols], "W4A16", values,
             role="matmul", storage=storage)


BITS = {"INT8": 8, "UINT8": 8, "INT4": 4, "INT2": 2}


def add_affine(pack, rng, name, shape, source, zero):
    bits, n = BITS[source], int(np.prod(shape))
    low = 0 if source == "UINT8" else -(1 << bits - 1)
    codes = rng.integers(low, low + (1 << bits), (1, n))
    values = ((codes - zero).astype(np.float64) * 0.037).astype(np.float32).reshape(shape)
    pack.raw(name, pack_codes(codes, bits), shape, "F16", values, role="matmul", sourceTransform={
        "kind": "affine_dequant", "scheme": "per_tensor_affine", "sourceDtype": source,
        "targetDtype": "F16", "scale": 0.037, "zeroPoint": zero})


def add_rowwise(pack, rng, name, rows, cols, source, encoding, axis=None, divisor=None):
    """axis None: litert_rowwise_dequant; 0: stored transposed; 1: by rows."""
    bits = BITS[source]
    codes = rng.integers(0, 1 << bits, (rows, cols))
    if encoding == "offset_binary":
        stored, real = codes, codes - (1 << bits - 1)
    elif source == "UINT8":
        stored, real = codes, codes
    else:
        stored, real = codes, np.where(codes >= 1 << bits - 1, codes - (1 << bits), codes)
    scales = rng.uniform(0.01, 0.2, rows).astype("<f4")
    step = scales.astype(np.float64) * (1 / divisor if divisor else 1)
    values = (real.astype(np.float64) * step[:, None]).astype(np.float32)
    data = pack_codes(stored.T if axis == 0 else stored, bits)
    f = {"kind": "litert_rowwise_dequant", "scheme": "per_row_affine"}
    if axis is not None:
        f = {"kind": "litert_axis_dequant", "scheme": "per_axis_affine", "quantAxis": axis,
             "storageShape": [cols, rows] if axis == 0 else [rows, cols]}
    # The scales have no name: they lie between two tensors, in one shard.
    while True:
        chunk, pack.chunk = pack.chunk, None
        spans = pack.place(scales.tobytes())
        pack.chunk = chunk
        if len(spans) == 1:
            break
    f.update(sourceDtype=source, targetDtype="F16", storageEncoding=encoding,
             scaleSemantics="qmax_abs" if divisor else "step",
             scaleSource={"shard": spans[0][0], "offset": spans[0][1], "size": 4 * rows})
    if divisor:
        f["scaleDivisor"] = divisor
    pack.raw(name, data, [rows, cols], "F16", values, role="embedding", sourceTransform=f)


def make_kinds(seed):
    """Every type, layout and packing, in shapes that fill no block; shards of an odd size. No
    model: names are what a tensor tests."""
    rng = np.random.default_rng([31, seed])
    pack = Pack("kinds", 10007)

    def matrix(*shape):
        return rng.standard_normal(shape) * 0.5

    for kind in ("F32", "F16", "BF16"):
        pack.add("rows." + kind, matrix(5, 7), kind, role="matmul")
        pack.add("columns." + kind, matrix(300, 3), kind, "column", "column", role="matmul")
        pack.add("stacked." + kind, matrix(2, 5, 3), kind, "column", "col", role="expert")
    pack.add("vector", matrix(9), "F32", role="norm")
    pack.add("scalar", matrix(1), "F16", role="other")
    for cols in (256, 300, 36, 512):
        pack.add("q4k.row.%d" % cols, matrix(3, cols), "Q4_K_M", None, "row", role="matmul")
    pack.add("q4k.row_wise", matrix(2, 300), "Q4_K", None, "row_wise", role="matmul")
    pack.add("q4k.by_size.rows", matrix(3, 300), "Q4_K_M", None, None, role="matmul")
    pack.add("q4k.by_size.flat", matrix(3, 300), "Q4_K_M", "flat", None, role="matmul")
    pack.add("q4k.flat", matrix(5, 100), "Q4_K_M", "flat", "flat", role="matmul")
    pack.add("q4k.conv", matrix(2, 4, 5, 10), "Q4_K_M", "flat", None, role="conv")
    pack.add("q4k.column", matrix(300, 5), "Q4_K_M", "column", "column", role="matmul")
    pack.add("q4k.column_wise", matrix(5, 20), "Q4_K_M", "column", "column_wise", role="matmul")
    pack.add("q4k.experts", matrix(3, 2, 40), "Q4_K_M", None, "row", role="expert")
    pack.add("q4k.experts.column", matrix(2, 300, 3), "Q4_K_M", "column", "col", role="expert")
    x = matrix(270, 3)
    data, values = encode(x, "Q4_K_M", "column")
    pack.raw("q4k.column.turned", data, [3, 270], "Q4_K_M", values, layout="column",
             role="matmul")
    pack.add("q6k", matrix(3, 300), "Q6_K", None, "row", role="matmul")
    pack.add("q4_0", matrix(3, 64), "Q4_0", None, None, role="matmul",
             storage={"packing": "q4_0", "blockShape": [1, 32]})
    pack.add("q8_0", matrix(3, 40), "Q8_0", None, None, role="matmul",
             storage={"packing": "gguf-block-v2", "blockShape": [32], "blockBytes": 34})
    add_w4a16(pack, rng, "w4a16.bf16", 3, 64, "BF16", True)
    add_w4a16(pack, rng, "w4a16.f16", 2, 40, "F16", True)
    add_w4a16(pack, rng, "w4a16.f32", 2, 32, "F32", False)
    add_affine(pack, rng, "affine.int8", [3, 5], "INT8", 3)
    add_affine(pack, rng, "affine.uint8", [2, 2, 5], "UINT8", 128)
    add_affine(pack, rng, "affine.int4", [3, 7], "INT4", 0)
    add_affine(pack, rng, "affine.int2", [3, 3], "INT2", -1)
    add_rowwise(pack, rng, "row.int8", 3, 7, "INT8", "signed")
    add_rowwise(pack, rng, "row.int4", 3, 7, "INT4", "offset_binary")
    add_rowwise(pack, rng, "row.int2", 3, 7, "INT2", "signed", divisor=1.5)
    add_rowwise(pack, rng, "row.uint8", 3, 7, "UINT8", "offset_binary")
    add_rowwise(pack, rng, "axis1.int4", 40, 6, "INT4", "offset_binary", axis=1)
    add_rowwise(pack, rng, "axis0.int4", 301, 5, "INT4", "signed", axis=0, divisor=7.0)
    add_rowwise(pack, rng, "axis0.int2", 5, 9, "INT2", "offset_binary", axis=0)
    add_rowwise(pack, rng, "axis0.int8", 3, 4, "INT8", "signed", axis=0)
    shards = pack.shard_list("sha256")
    manifest = {"version": 1, "modelId": "kinds", "modelType": "transformer",
                "quantization": "Q4_K_M", "hashAlgorithm": "sha256", "shards": shards,
                "totalSize": sum(s["size"] for s in shards), "tensors": pack.tensors,
                "integrityExtensions": {"contractVersion": 1, "blockMerkle": {
                    "blockSize": 4096, "roots": pack.roots(4096)}}}
    pack.finish(manifest)


PACKS = [make_july, make_groups, make_seeds, make_march, make_april, make_june, make_ours,
         make_kinds]


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("only", nargs="*", help="names; default all")
    args = ap.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for i, make in enumerate(PACKS):
        if not args.only or make.__name__.removeprefix("make_") in args.only:
            make(i)


if __name__ == "__main__":
    main()
