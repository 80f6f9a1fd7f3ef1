#!/usr/bin/env python3
"""Writes the seeds of the fuzzers gguf, safetensors, rdrr and json into tests/fuzz/seeds/, and those of
tokenizer that are a tokenizer.model or have a precompiled_charsmap.

Small right files, one for each branch of the parsers, and small wrong ones that once mattered. Plain
Python 3; run it from anywhere. The seeds are kept in the tree, so that a fuzzer needs no Python.
"""
import json
import pathlib
import struct

SEEDS = pathlib.Path(__file__).parent / "seeds"


def write(fuzzer, name, data):
    path = SEEDS / fuzzer / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


# --- GGUF ---------------------------------------------------------------------------------------

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
CODES = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q",
         I64: "q", F64: "d"}
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
          10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
          15: (256, 292), 20: (32, 18), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4),
          27: (1, 8), 28: (1, 8), 30: (1, 2), 39: (32, 17)}


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def scalar(kind, value):
    return text(value) if kind == STRING else struct.pack("<" + CODES[kind], value)


def entry(key, kind, value, element=None):
    if kind != ARRAY:
        return text(key) + struct.pack("<I", kind) + scalar(kind, value)
    body = b"".join(scalar(element, v) for v in value)
    return text(key) + struct.pack("<IIQ", ARRAY, element, len(value)) + body


def gguf(entries, tensors, version=3, alignment=32, data=True):
    """tensors: (name, type, ne)."""
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(entries)) + b"".join(entries)
    offset = 0
    blob = b""
    for name, kind, ne in tensors:
        out += text(name) + struct.pack("<I", len(ne)) + struct.pack("<%dQ" % len(ne), *ne)
        out += struct.pack("<IQ", kind, offset)
        n = 1
        for dim in ne:
            n *= dim
        elements, size = BLOCKS[kind]
        n_bytes = n // elements * size
        padded = (n_bytes + alignment - 1) // alignment * alignment
        blob += bytes(i & 0xFF for i in range(n_bytes)) + bytes(padded - n_bytes)
        offset += padded
    out += bytes(-len(out) % alignment)
    return out + (blob if data else b"")


def gguf_seeds():
    name = entry("general.architecture", STRING, "llama")
    kinds = [entry("k%d" % kind, kind, "x" if kind == STRING else 1)
             for kind in range(13) if kind != ARRAY]
    arrays = [entry("a%d" % kind, ARRAY, ["x", "yz", ""] if kind == STRING else [1, 0, 1], kind)
              for kind in range(13) if kind != ARRAY]
    write("gguf", "empty.gguf", gguf([], []))
    write("gguf", "scalars.gguf", gguf(kinds, []))
    write("gguf", "arrays.gguf", gguf(arrays, []))
    write("gguf", "model.gguf", gguf([name], [("a", 0, [32, 2]), ("b", 0, [32])]))
    write("gguf", "version2.gguf", gguf([name], [("a", 1, [8])], version=2))
    for version in (1, 4, 3 << 24):
        write("gguf", "version%x.gguf" % version, gguf([name], [("a", 1, [8])], version=version))
    write("gguf", "dims.gguf", gguf([name], [("a", 24, [2, 3, 4, 5]), ("b", 24, [1, 1, 1])]))
    write("gguf", "types.gguf", gguf([name], [("t%d" % kind, kind, [BLOCKS[kind][0]])
                                              for kind in BLOCKS]))
    write("gguf", "alignment.gguf", gguf([entry("general.alignment", U32, 64)],
                                         [("a", 0, [3]), ("b", 0, [5])], alignment=64))
    split = [entry("split.no", U16, 0), entry("split.count", U16, 2),
             entry("split.tensors.count", I32, 2)]
    write("gguf", "split.gguf", gguf([name] + split, [("a", 0, [4])]))
    write("gguf", "no_data.gguf", gguf([name], [("a", 0, [32])], data=False))
    tokens = entry("tokenizer.ggml.tokens", ARRAY, ["token %d" % i for i in range(50)], STRING)
    scores = entry("tokenizer.ggml.scores", ARRAY, [-float(i) for i in range(50)], F32)
    write("gguf", "vocabulary.gguf", gguf([name, tokens, scores], []))


# --- safetensors ---------------------------------------------------------------------------------


def safetensors_seeds():
    sizes = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I8": 1, "I16": 2, "I32": 4, "I64": 8,
             "U8": 1, "BOOL": 1, "F8_E4M3": 1, "C64": 8}
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for dtype, size in sizes.items():
        header["t." + dtype] = {"dtype": dtype, "shape": [2, 2], "data_offsets": [at, at + 4 * size]}
        at += 4 * size
    compact = json.dumps(header, separators=(",", ":")).encode()
    write("safetensors", "types", bytes([at // 4]) + compact)
    one = b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
    write("safetensors", "one", b"\x04" + one)
    write("safetensors", "padded", b"\x04" + one + b"   ")
    write("safetensors", "spaced", bytes([at // 4]) + json.dumps(header, indent=1).encode())
    write("safetensors", "scalar", b'\x01{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}')
    write("safetensors", "nothing", b'\x00{"a":{"dtype":"F32","shape":[0,3],"data_offsets":[0,0]}}')
    write("safetensors", "file", b"\xff" + struct.pack("<Q", len(one)) + one + bytes(16))
    write("safetensors", "short", b"\xff" + struct.pack("<Q", 1000) + one)
    write("safetensors", "f4", b'\x01{"a":{"dtype":"F4","shape":[8],"data_offsets":[0,4]}}')
    write("safetensors", "wraps", b'\x00{"a":{"dtype":"F32","shape":[4294967296,4294967296],'
                                  b'"data_offsets":[0,0]}}')


# --- JSON ----------------------------------------------------------------------------------------


def rdrr_seeds():
    """The manifests of tests/vectors/packs, without what no reader of tensors looks at. The fuzzer makes
    the shards, of zeros."""
    packs = pathlib.Path(__file__).parent.parent / "vectors" / "packs"
    for pack in sorted(packs.iterdir()):
        manifest = json.loads((pack / "manifest.json").read_text())
        for key in ("inference", "architecture", "config", "metadata", "artifactIdentity"):
            manifest.pop(key, None)
        for entry in manifest.get("tensors", {}).values():  # zeros are no tensor's shape
            storage = entry.get("storage", {})
            if "companions" in storage:
                storage["companions"] = [c for c in storage["companions"] if c["role"] != "shape"]
        data = json.dumps(manifest, separators=(",", ":")).encode()
        if "tensorsFile" in manifest:
            tensors = json.loads((pack / manifest["tensorsFile"]).read_text())
            data += b"\0" + json.dumps(tensors, separators=(",", ":")).encode()
        write("rdrr", pack.name, data)
    shard = {"filename": "s", "size": 64, "hash": "0" * 64}
    one = {"shards": [shard], "tensors": {
        "x": {"shape": [2, 8], "dtype": "F32", "shard": 0, "offset": 0, "size": 64}}}
    write("rdrr", "least", json.dumps(one).encode())
    write("rdrr", "nested", b"[" * 100)


def json_seeds():
    write("json", "config.json", json.dumps(
        {"model_type": "llama", "rope_theta": 10000.0, "rope_scaling": None, "tie": True,
         "eos_token_id": [1, 2], "rms_norm_eps": 1e-05}, indent=2).encode())
    write("json", "escapes.json", b'["\\u0000\\ud83d\\ude00\\n\\t\\"\\\\\\/\\b\\f\\r", "\xc3\xa9"]')
    write("json", "numbers.json", b"[0,-0,1.5,-2e3,1e-400,18446744073709551615,18446744073709551616,"
                                  b"-9223372036854775808,1E+2,123456789012345678901234567890]")
    write("json", "infinite.json", b"[1e999]")
    write("json", "duplicate.json", b'{"a":1,"\\u0061":2}')
    write("json", "many.json", json.dumps({"k%d" % i: i for i in range(40)}).encode())
    write("json", "deep.json", b"[" * 64 + b"]" * 64)
    write("json", "too_deep.json", b'{"a":' * 65 + b"1" + b"}" * 65)
    write("json", "literals.json", b"[true,false,null,{},[],\"\"]")
    write("json", "surrogate.json", b'["\\ud800"]')
    write("json", "bom.json", b"\xef\xbb\xbf{}")
    write("json", "number", b"-9223372036854775808")


# --- tokenizer.model -----------------------------------------------------------------------------


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(number, value):
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3) + varint(value)


def charsmap():
    """A double array of three keys: "A" to "a", "AB" to "x", "B" to nothing."""
    units = [0] * 512

    def node(place, byte, children, leaf):
        units[place] = children << 10 | (0x100 if leaf else 0) | byte

    node(0, 0, 128, False)
    node(128 ^ 65, 65, 256 ^ 128 ^ 65, True)   # A
    units[256] = 0x80000000
    node(256 ^ 66, 66, 300 ^ 256 ^ 66, True)   # AB
    units[300] = 0x80000002
    node(128 ^ 66, 66, 320 ^ 128 ^ 66, True)   # B
    units[320] = 0x80000004
    trie = struct.pack("<512I", *units)[:4 * 321]
    return struct.pack("<I", len(trie)) + trie + b"a\0x\0\0"


def model_file(kind, **options):
    pieces = [(b"<unk>", 0.0, 2), (b"<s>", 0.0, 3), (b"</s>", 0.0, 3), (b"a", -1.0, 1),
              (b"b", -2.0, 1), (b"ab", -2.5, 1), ("▁".encode(), -1.5, 1), ("▁a".encode(), -2.0, 1),
              (b"<cell>", 0.0, 4), (b"<0xC3>", 0.0, 6), (b"c", -9.0, 5)]
    out = b"".join(field(1, field(1, p) + field(2, s) + field(3, t)) for p, s, t in pieces)
    out += field(2, field(3, kind) + field(35, options.get("bytes", 0)) + field(44, b" ?? "))
    spec = field(1, b"name") + b"".join(field(n, v) for n, v in sorted(
        options.get("spec", {}).items()))
    return out + field(3, spec)


def model_seeds():
    def seed(name, model, added=b"", config=b"", text=b"ab <cell>a<s>  b"):
        write("tokenizer", name, b"M" + struct.pack(">H", len(model)) + model + added + b"\0" +
              config + b"\0" + text)

    seed("model-bpe.bin", model_file(2, bytes=1, spec={4: 0}))
    seed("model-unigram.bin", model_file(1, spec={2: charsmap(), 5: 0}), text=b" AB  BA ABA ")
    seed("model-added.bin", model_file(2, spec={3: 0}), b'{"<x>":11,"<y>":12}',
         b'{"pad_token":"<x>","legacy":false,"add_eos_token":true}', b"a<x> b<y>a")
    seed("model-described.bin", model_file(1), b"",
         b'{"added_tokens_decoder":{"1":{"content":"<s>","special":true},'
         b'"15":{"content":"<z>","lstrip":true,"rstrip":true,"single_word":true}}}', b"a <z> b")
    digits = b"".join(bytes([48 + (b >> 4), 48 + (b & 15)]) for b in charsmap())
    tokens = b"t2~<unk>\nt3~<s>\nt3~</s>\nt1\x05a\nt1\x04b\nt1\x03ab\nt1\x06" + "▁".encode()
    write("tokenizer", "gguf-t5.bin", b"G" + tokens + b"\ns@t5\niB1\niC2\niK0\nbH1\nbL1\nc" +
          digits + b"\n\nAB  BA ABA")
    write("tokenizer", "gguf-gemma4.bin", b"G" + tokens + b"\nma b\ns@gemma4\niB1\niC2\n\nab\n\nb a")


if __name__ == "__main__":
    gguf_seeds()
    safetensors_seeds()
    rdrr_seeds()
    json_seeds()
    model_seeds()
