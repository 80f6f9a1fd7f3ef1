#!/usr/bin/env python3
"""Writes tokenizers/: small vocabularies in every shape that models ship, and the ids they give.

Byte-level BPE: trained with Hugging Face tokenizers, one per pre-tokenizer, as tokenizer.json and
as a vocabulary-only GGUF. SentencePiece BPE: trained with sentencepiece, as tokenizer.model, as
GGUF, and as tokenizer.json in the forms that models use; SentencePiece unigram the same way. The
ids come from the library that owns the format: tokenizers for tokenizer.json, sentencepiece for
tokenizer.model and the SentencePiece GGUF. What a byte-level GGUF must give (where only the name of
the pre-tokenizer is known) is computed by the plain algorithm below, from the patterns of GGUF's
table, and compared with tokenizers.
"""

import base64
import json
import os
import shutil
import unicodedata

import gguf
import regex
import sentencepiece
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers,
                        pre_tokenizers, processors, trainers)

import texts
import vectorlib as lib

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "tokenizers")

# ---- patterns -----------------------------------------------------------------------------------

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K = (r"[^\r\n\p{L}\p{N}]?%s*%s+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?%s+%s*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}|"
         r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+") % (UPPER, LOWER, UPPER, LOWER)
TEKKEN = (r"[^\r\n\p{L}\p{N}]?%s*%s+|[^\r\n\p{L}\p{N}]?%s+%s*|\p{N}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+") % (UPPER, LOWER, UPPER, LOWER)
DEEPSEEK3 = [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
             "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|"
             r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"]
DEEPSEEK_CODER = [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+"]
QWEN35 = QWEN2.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"[^\s\p{L}\p{N}]+[",
                                                                 r"[^\s\p{L}\p{M}\p{N}]+[")
BLOOM = " ?[^(\\s|.,!?…。，、।۔،)]+"
CHAMELEON = ["<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"([\t\n]|    |  )",
             r"\p{N}", r"[\p{P}!-/:-@\[-`{-~]"]
FALCON_PUNCT = r"[\p{P}\$\+<=>\^~\|`]+"
DEFAULT_PUNCT = r"[\p{P}\$\+<=>\^~\|]+"


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def byte_level(use_regex=False, prefix=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=use_regex)


def seq(*steps):
    return pre_tokenizers.Sequence(list(steps))


# name: pre-tokenizer of tokenizer.json; value of tokenizer.ggml.pre and its patterns; the rest.
BYTE_LEVEL = {
    "llama3": dict(pre=seq(split(LLAMA3), byte_level()), ggml="llama-bpe", patterns=[LLAMA3],
                   ignore_merges=True, bos=True, merges_as_strings=True),
    # The same split said the other way round, as converters from tiktoken write it.
    "dbrx": dict(pre=seq(split(LLAMA3, "removed", True), byte_level()), ggml="dbrx",
                 patterns=[LLAMA3], gguf=False),
    "gpt2": dict(pre=byte_level(use_regex=True), ggml="gpt-2", patterns=[GPT2],
                 merges_as_strings=True),
    "gpt2-prefix": dict(pre=byte_level(use_regex=True, prefix=True)),
    "qwen2": dict(pre=seq(split(QWEN2), byte_level()), ggml="qwen2", patterns=[QWEN2], nfc=True),
    "o200k": dict(pre=seq(split(O200K), byte_level()), ggml="gpt-4o", patterns=[O200K]),
    "tekken": dict(pre=seq(split(TEKKEN), byte_level()), ggml="tekken", patterns=[TEKKEN],
                   ignore_merges=True, bos=True),
    "smollm": dict(pre=seq(pre_tokenizers.Digits(individual_digits=True), byte_level(True)),
                   ggml="smollm", patterns=[r"\p{N}", GPT2]),
    "falcon": dict(pre=seq(pre_tokenizers.Punctuation("contiguous"), byte_level(True),
                           pre_tokenizers.Digits(individual_digits=False),
                           split("[0-9][0-9][0-9]")),
                   ggml="falcon", patterns=[FALCON_PUNCT, GPT2, "[0-9][0-9][0-9]"]),
    "deepseek-coder": dict(pre=seq(*[split(p) for p in DEEPSEEK_CODER],
                                   pre_tokenizers.Digits(individual_digits=True), byte_level()),
                           ggml="deepseek-coder", patterns=DEEPSEEK_CODER + [r"\p{N}"], bos=True),
    "deepseek-v3": dict(pre=seq(*[split(p) for p in DEEPSEEK3], byte_level()),
                        ggml="deepseek-v3", patterns=DEEPSEEK3, bos=True),
    "qwen35": dict(pre=seq(split(QWEN35), byte_level()), ggml="qwen35", patterns=[QWEN35],
                   nfc=True),
    "bloom": dict(pre=seq(split(BLOOM), byte_level()), ggml="bloom", patterns=[BLOOM]),
    "viking": dict(pre=seq(split(BLOOM), pre_tokenizers.Digits(individual_digits=True),
                           byte_level()), ggml="viking", patterns=[BLOOM, r"\p{N}"]),
    "chameleon": dict(pre=seq(split(CHAMELEON[0]), split(CHAMELEON[1]), split(CHAMELEON[2]),
                              pre_tokenizers.Digits(individual_digits=True), split(CHAMELEON[4]),
                              byte_level(True)), ggml="chameleon", patterns=CHAMELEON + [GPT2]),
    # GGUF without tokenizer.ggml.pre.
    "default": dict(pre=seq(split(DEFAULT_PUNCT), split(GPT2), split(r"\p{N}+"),
                            split("[0-9][0-9][0-9]"), byte_level()), ggml=None,
                    patterns=[DEFAULT_PUNCT, GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
}

# ---- the plain algorithm ------------------------------------------------------------------------


def byte_alphabet():
    """GPT-2's bijection of bytes and printable characters."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, extra = {b: chr(b) for b in keep}, 0
    for b in range(256):
        if b not in table:
            table[b], extra = chr(256 + extra), extra + 1
    return table


ALPHABET = byte_alphabet()


class PlainBpe:
    """What tokenizer.ggml.model "gpt2" means, without regard to speed."""

    def __init__(self, data, patterns, nfc):
        model = data["model"]
        self.vocab = model["vocab"]
        pairs = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
        self.rank = {p: i for i, p in enumerate(pairs)}
        self.whole_words = model.get("ignore_merges", False)
        self.patterns = [regex.compile(p) for p in patterns]
        self.nfc = nfc
        added = sorted(data["added_tokens"], key=lambda t: -len(t["content"]))
        self.added = {t["content"]: t["id"] for t in added}
        self.splitter = regex.compile("(" + "|".join(regex.escape(t) for t in self.added) + ")")
        self.memo = {}

    def pieces(self, text):
        parts = [text]
        for p in self.patterns:
            out = []
            for part in parts:
                at = 0
                for m in p.finditer(part):
                    if m.end() > m.start():
                        out += [part[at:m.start()], m.group()]
                        at = m.end()
                out.append(part[at:])
            parts = [o for o in out if o]
        return parts

    def word(self, piece):
        word = "".join(ALPHABET[b] for b in piece.encode())
        if self.whole_words and word in self.vocab:
            return [self.vocab[word]]
        if word not in self.memo:
            symbols = list(word)
            while len(symbols) > 1:
                rank, at = min((self.rank.get(p, 1 << 60), i)
                               for i, p in enumerate(zip(symbols, symbols[1:])))
                if rank == 1 << 60:
                    break
                symbols[at:at + 2] = [symbols[at] + symbols[at + 1]]
            self.memo[word] = [self.vocab[s] for s in symbols]
        return self.memo[word]

    def encode(self, text):
        ids = []
        for part in self.splitter.split(text):
            if part in self.added:
                ids.append(self.added[part])
            elif part:
                if self.nfc:
                    part = unicodedata.normalize("NFC", part)
                for piece in self.pieces(part):
                    ids += self.word(piece)
        return ids


# ---- ids ----------------------------------------------------------------------------------------


def without_controls(data):
    """The same with control tokens that no text spells. A unigram model of tokenizers writes them
    by itself where they are only not searched for; texts must not be able to."""
    data = json.loads(json.dumps(data))
    controls = {t["content"] for t in data["added_tokens"] if t["special"]}
    for i, pair in enumerate(data["model"]["vocab"]):
        if pair[0] in controls:
            pair[0] = "\U0010ff00control%d" % i
    data["added_tokens"] = [t for t in data["added_tokens"] if not t["special"]]
    data["post_processor"] = None
    return Tokenizer.from_str(json.dumps(data))


def ids_json(folder, tok, strings, extra=None):
    """ids with special tokens of the text parsed and none added; exceptions in tables of index."""
    empty = tok.encode("", add_special_tokens=True).ids
    data = json.loads(tok.to_str())
    plain_tok = Tokenizer.from_str(tok.to_str())
    plain_tok.encode_special_tokens = True
    if data["model"]["type"] == "Unigram":
        plain_tok = without_controls(data)
    ids, special, plain, decoded = [], {}, {}, {}
    for i, text in enumerate(strings):
        got = tok.encode(text, add_special_tokens=False).ids
        ids.append(got)
        full = tok.encode(text, add_special_tokens=True).ids
        if full != empty + got:
            special[str(i)] = full
        if (p := plain_tok.encode(text, add_special_tokens=False).ids) != got:
            plain[str(i)] = p
        if (d := tok.decode(got, skip_special_tokens=False)) != text:
            decoded[str(i)] = d
    info = {"prefix": empty, "specials_parsed": True, "special": special, "plain": plain,
            "decoded": decoded}
    info.update(extra or {})
    info["ids"] = ids
    lib.write_json(os.path.join(folder, "ids.json"), info, rows=("ids",))
    return ids, plain


def fresh(name):
    folder = os.path.join(OUT, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    return folder


def save_json(data, folder, bos=None, eos=None):
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
        json.dump(data, f, ensure_ascii=False, indent=None, separators=(",", ":"))
        f.write("\n")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
              "model_max_length": 256}
    if bos:
        config["bos_token"] = bos
    if eos:
        config["eos_token"] = eos
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as f:
        json.dump(config, f, indent=1)
        f.write("\n")


# ---- byte-level BPE -----------------------------------------------------------------------------


def train_bytes(pre, size, nfc=False, specials=texts.SPECIALS):
    tok = Tokenizer(models.BPE())
    if nfc:
        tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre
    tok.train_from_iterator(texts.corpus(), trainers.BpeTrainer(
        vocab_size=size, special_tokens=specials, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tok.decoder = decoders.ByteLevel()
    return tok


def lose_merges(data, every=17):
    """Takes some merges away, so that their tokens are reached by ignore_merges alone."""
    merges = data["model"]["merges"]
    parts = {p for m in merges for p in (m if isinstance(m, list) else m.split(" "))}
    leaves = [i for i, m in enumerate(merges) if "".join(m) not in parts]
    drop = set(leaves[::every])
    data["model"]["merges"] = [m for i, m in enumerate(merges) if i not in drop]
    return len(drop)


def cuts(pieces):
    """Byte positions of the borders between pieces."""
    at, out = 0, set()
    for p in pieces:
        at += len(p.encode())
        out.add(at)
    return out


def set_traps(data, spec, strings, n=200):
    """Appends merges of tokens that meet at the border of two pieces, by this rule or by another
    model's: only a tokenizer that splits as it should uses the right ones. A vocabulary trained
    with its own splits has no merge across them, and hides the mistake."""
    nfc = spec.get("nfc", False)
    plain = PlainBpe(data, spec["patterns"], nfc)
    names = {i: t for t, i in plain.vocab.items()}
    others = {tuple(o["patterns"]) for o in BYTE_LEVEL.values() if o.get("patterns")}
    others.discard(tuple(spec["patterns"]))
    rules = [PlainBpe(data, p, nfc) for p in sorted(others)]
    found = {}  # reason -> pair -> texts
    for i, text in enumerate(strings):
        text = unicodedata.normalize("NFC", text) if nfc else text
        if any(t in text for t in plain.added):
            continue
        pieces = plain.pieces(text)
        tokens = [names[t] for p in pieces for t in plain.word(p)]
        own, at = cuts(pieces), 0
        different = [own ^ cuts(r.pieces(text)) for r in rules]
        for a, b in zip(tokens, tokens[1:]):
            at += len(a)  # a mapped character is a byte
            if a + b in plain.vocab:
                continue
            reasons = [k for k, d in enumerate(different) if at in d]
            if not reasons and at in own:
                reasons = [unicodedata.category(a[-1]) + unicodedata.category(b[0])]
            for r in reasons:
                found.setdefault(r, {}).setdefault((a, b), set()).add(i)
    # For every other rule what the most texts have, then in turn for every pair of categories.
    queues = {r: sorted(v, key=lambda p: (-len(v[p]), p)) for r, v in found.items()}
    chosen = {p: None for k in range(len(rules)) for p in queues.pop(k, [])[:16]}
    for depth in range(n):
        chosen.update((q[depth], None) for _, q in sorted(queues.items()) if depth < len(q))
    top = max(data["model"]["vocab"].values())
    for a, b in list(chosen)[:n]:
        if a + b not in data["model"]["vocab"]:
            top += 1
            data["model"]["vocab"][a + b] = top
            data["model"]["merges"].append([a, b])
    # Tokens outside the model's own vocabulary follow it: tokenizers numbers them anew on loading.
    outside = [t for t in data["added_tokens"] if t["content"] not in data["model"]["vocab"]]
    for i, t in enumerate(outside):
        t["id"] = top + 1 + i


def weakest_difference(data, spec, strings, ids):
    """The rule of another model that would give the most equal ids: its name, texts that differ."""
    best = None
    for name, other in BYTE_LEVEL.items():
        if other.get("patterns") and other["patterns"] != spec["patterns"]:
            plain = PlainBpe(data, other["patterns"], spec.get("nfc", False))
            count = sum(plain.encode(s) != want for s, want in zip(strings, ids))
            best = min(best or (count, name), (count, name))
    return best


def make_bytes(name, spec, strings, size=560):
    tok = train_bytes(spec["pre"], size, spec.get("nfc", False))
    tok.add_tokens([AddedToken(texts.NOTE, special=False, normalized=False)])
    begin = texts.SPECIALS[0]
    steps = [processors.ByteLevel(trim_offsets=False)]
    if spec.get("bos"):
        steps.append(processors.TemplateProcessing(
            single="%s $A" % begin, pair="%s $A %s $B:1" % (begin, begin),
            special_tokens=[(begin, tok.token_to_id(begin))]))
    tok.post_processor = processors.Sequence(steps) if len(steps) > 1 else steps[0]
    data = json.loads(tok.to_str())
    lost = lose_merges(data)
    if spec.get("patterns"):
        set_traps(data, spec, strings)
    data["model"]["ignore_merges"] = spec.get("ignore_merges", False)
    if spec.get("merges_as_strings"):
        data["model"]["merges"] = [" ".join(m) for m in data["model"]["merges"]]
    tok = Tokenizer.from_str(json.dumps(data))
    folder = fresh(name)
    save_json(data, folder, begin if spec.get("bos") else None, texts.SPECIALS[1])
    assert tok.token_to_id(texts.NOTE) == tok.get_vocab_size() - 1
    extra, differ = {}, 0
    if spec.get("patterns"):
        plain = PlainBpe(data, spec["patterns"], spec.get("nfc", False))
        gguf_ids = {}
        for i, text in enumerate(strings):
            got = plain.encode(text)
            if got != tok.encode(text, add_special_tokens=False).ids:
                gguf_ids[str(i)] = got
        differ = len(gguf_ids)
        extra["gguf"] = gguf_ids
        if spec.get("gguf", True):
            vocab_gguf(os.path.join(folder, "vocab.gguf"), data, spec, begin)
    ids, _ = ids_json(folder, tok, strings, extra)
    # Text survives, but for normalisation and a space that the tokenizer adds in front.
    if not spec.get("nfc") and name != "gpt2-prefix":
        bad = [i for i, s in enumerate(strings)
               if tok.decode(ids[i], skip_special_tokens=False) != s]
        assert not bad, (name, [strings[i] for i in bad[:5]])
    nearest = weakest_difference(data, spec, strings, ids) if spec.get("patterns") else (0, "-")
    assert not spec.get("patterns") or nearest[0] >= 5, (name, nearest)
    print("%-16s %3d tokens, %2d merges lost, %d texts differ by GGUF's rule, %d by that of %s, "
          "%5d ids, %d KB" % (name, tok.get_vocab_size(), lost, differ, *nearest,
                              sum(map(len, ids)), lib.folder_bytes(folder) // 1000))


def vocab_gguf(path, data, spec, begin):
    added = {t["id"]: t for t in data["added_tokens"]}
    tokens = {i: t for t, i in data["model"]["vocab"].items()}
    tokens.update({i: t["content"] for i, t in added.items()})
    kinds = [gguf.TokenType.NORMAL if i not in added else gguf.TokenType.CONTROL
             if added[i]["special"] else gguf.TokenType.USER_DEFINED for i in range(len(tokens))]
    merges = [m if isinstance(m, str) else " ".join(m) for m in data["model"]["merges"]]
    out = gguf.GGUFWriter(path, "llama")
    out.add_vocab_size(len(tokens))
    out.add_tokenizer_model("gpt2")
    if spec["ggml"]:
        out.add_tokenizer_pre(spec["ggml"])
    out.add_token_list([tokens[i].encode() for i in range(len(tokens))])
    out.add_token_types([int(k) for k in kinds])
    out.add_token_merges([m.encode() for m in merges])
    by_name = {t: i for i, t in tokens.items()}
    out.add_bos_token_id(by_name[begin])
    out.add_eos_token_id(by_name[texts.SPECIALS[1]])
    out.add_add_bos_token(bool(spec.get("bos")))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def make_added(strings):
    """Every switch of an added token, over a Llama 3 split."""
    tok = train_bytes(seq(split(LLAMA3), byte_level()), 420, nfc=True)
    tok.add_special_tokens([
        AddedToken("<mask>", lstrip=True, special=True, normalized=False),
        AddedToken("<pad>", rstrip=True, special=True, normalized=False),
        AddedToken("<both>", lstrip=True, rstrip=True, special=True, normalized=False),
    ])
    tok.add_tokens([
        AddedToken("<word>", single_word=True, special=False, normalized=False),
        AddedToken("éclair", special=False, normalized=True),  # found after NFC only
        AddedToken(texts.NOTE, special=False, normalized=False),
        AddedToken("hello", single_word=True, special=False, normalized=False),
    ])
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    folder = fresh("added")
    save_json(json.loads(tok.to_str()), folder)
    ids, _ = ids_json(folder, tok, strings)
    print("%-18s %3d tokens, %d KB" % ("added", tok.get_vocab_size(),
                                       lib.folder_bytes(folder) // 1000))


def make_small(vocab=288):
    """The tokenizer of models/llama-bias, whose bos and eos are 1 and 2."""
    tok = train_bytes(seq(split(LLAMA3), byte_level()), vocab, specials=["<pad>", "<s>", "</s>"])
    tok.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B:1",
                                                       special_tokens=[("<s>", 1)])
    assert tok.get_vocab_size() == vocab
    save_json(json.loads(tok.to_str()), fresh("bytes-288"), "<s>", "</s>")


# ---- SentencePiece ------------------------------------------------------------------------------


def train_spm(name, size, symbols, lines, **options):
    folder = fresh(name)
    corpus = os.path.join(folder, "corpus.txt")
    with open(corpus, "w", encoding="utf-8", newline="\n") as f:
        for line in lines:
            f.write(line.strip("\r\n") + "\n")
    prefix = os.path.join(folder, "tokenizer")
    settings = dict(
        model_type="bpe", byte_fallback=True, character_coverage=0.98,
        normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True,
        allow_whitespace_only_pieces=True, add_dummy_prefix=True)
    settings.update(options)
    sentencepiece.SentencePieceTrainer.train(
        input=corpus, model_prefix=prefix, vocab_size=size, user_defined_symbols=symbols,
        num_threads=1, minloglevel=2, hard_vocab_limit=True, **settings)
    os.remove(corpus)
    os.remove(prefix + ".vocab")
    proto = proto_of(sentencepiece.SentencePieceProcessor(model_file=prefix + ".model"))
    for spec, name in ((proto.trainer_spec, "input"), (proto.trainer_spec, "model_prefix"),
                       (proto.normalizer_spec, "normalization_rule_tsv")):
        spec.ClearField(name)  # paths of this machine
    with open(prefix + ".model", "wb") as f:
        f.write(proto.SerializeToString())
    return folder, sentencepiece.SentencePieceProcessor(model_file=prefix + ".model")


def spm_json(sp, kinds, form):
    """tokenizer.json as Hugging Face's converter writes it for the Llama 2 family."""
    n = sp.vocab_size()
    pieces = [sp.id_to_piece(i) for i in range(n)]
    vocab = {p: i for i, p in enumerate(pieces)}
    merges = []
    for i, piece in enumerate(pieces):
        if kinds[i] == 1 and len(piece) > 1:
            local = [(piece[:k], piece[k:]) for k in range(1, len(piece))
                     if piece[:k] in vocab and piece[k:] in vocab]
            merges += [(sp.get_score(i), vocab[a], vocab[b], a, b) for a, b in local]
    merges.sort(key=lambda m: (-m[0], m[1], m[2]))
    added = [{"id": i, "content": pieces[i], "single_word": False, "lstrip": False,
              "rstrip": False, "normalized": False, "special": kinds[i] in (2, 3)}
             for i in range(n) if kinds[i] in (2, 3, 4)]
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    data = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": None, "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                     {"Sequence": {"id": "A", "type_id": 0}},
                     {"SpecialToken": {"id": "<s>", "type_id": 1}},
                     {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>",
                  "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True,
                  "byte_fallback": True, "vocab": vocab,
                  "merges": ["%s %s" % (m[3], m[4]) for m in merges]},
    }
    if form == "prepend":  # Llama 2, TinyLlama, Mistral 0.1: "legacy"
        data["normalizer"] = {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, replace]}
    elif form == "phi3":  # control tokens beyond the vocabulary that take the whitespace behind
        data["normalizer"] = {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, replace]}
        for i, text in enumerate(["<|end|>", "<|im_start|>", "<|im_end|>", "<mask>"]):
            added.append({"id": n + i, "content": text, "single_word": False, "lstrip": False,
                          "rstrip": text != "<mask>", "normalized": False, "special": True})
    elif form == "gemma":
        data["normalizer"] = replace
        data["pre_tokenizer"] = {"type": "Split", "pattern": {"String": " "},
                                 "behavior": "MergedWithPrevious", "invert": False}
        data["decoder"]["decoders"].pop()
    elif form == "metaspace":  # the later form, Mistral 0.3: "legacy": false
        data["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁",
                                 "prepend_scheme": "first", "split": False}
        data["model"]["merges"] = [[m[3], m[4]] for m in merges]
        data["model"]["ignore_merges"] = False
    else:
        raise ValueError(form)
    return data


def make_spm(strings):
    folder, sp = train_spm("spm", 700, ["<cell>", "<cell>x"], texts.corpus())
    proto_kinds = piece_kinds(sp)
    from make_gguf import add_spm
    out = gguf.GGUFWriter(os.path.join(folder, "vocab.gguf"), "llama")
    out.add_vocab_size(sp.vocab_size())
    add_spm(out, os.path.join(folder, "tokenizer.model"))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    ids = spm_ids(folder, sp, strings)
    for form in ("prepend", "metaspace", "phi3"):
        data = spm_json(sp, proto_kinds, form)
        tok = Tokenizer.from_str(json.dumps(data))
        name = form if form == "phi3" else "spm-" + form
        folder = fresh(name)
        save_json(data, folder, "<s>", "</s>")
        got, plain = ids_json(folder, tok, strings)
        differ = [i for i in range(len(strings)) if plain.get(str(i), got[i]) != ids[i]]
        print("%-18s %3d tokens, %d texts differ from sentencepiece, %d KB: %r" % (
            name, tok.get_vocab_size(), len(differ), lib.folder_bytes(folder) // 1000,
            [strings[i][:20] for i in differ[:12]]))


def proto_of(sp):
    from sentencepiece import sentencepiece_model_pb2
    return sentencepiece_model_pb2.ModelProto.FromString(sp.serialized_model_proto())


def piece_kinds(sp):
    return [p.type for p in proto_of(sp).pieces]


def spm_gguf(path, sp, merges=None):
    """tokenizer.model as a GGUF vocabulary: "llama" or "t5" by its kind, "gemma4" with merges."""
    proto = proto_of(sp)
    unigram = proto.trainer_spec.model_type == 1
    out = gguf.GGUFWriter(path, "llama")
    out.add_vocab_size(len(proto.pieces))
    out.add_tokenizer_model("gemma4" if merges else "t5" if unigram else "llama")
    out.add_token_list([p.piece.encode() for p in proto.pieces])
    out.add_token_scores([p.score for p in proto.pieces])
    out.add_token_types([p.type for p in proto.pieces])
    if merges:
        out.add_token_merges([m.encode() for m in merges])
    out.add_bos_token_id(sp.bos_id())
    out.add_eos_token_id(sp.eos_id())
    out.add_unk_token_id(sp.unk_id())
    out.add_add_bos_token(True)
    out.add_add_eos_token(False)
    out.add_add_space_prefix(proto.normalizer_spec.add_dummy_prefix)
    out.add_remove_extra_whitespaces(proto.normalizer_spec.remove_extra_whitespaces)
    if proto.normalizer_spec.precompiled_charsmap:
        out.add_precompiled_charsmap(proto.normalizer_spec.precompiled_charsmap)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def spm_ids(folder, sp, strings):
    """What SentencePiece makes of the texts: it knows no control tokens in them."""
    ids, decoded = [sp.encode(s) for s in strings], {}
    for i, s in enumerate(strings):
        if (d := sp.decode(ids[i])) != s:
            decoded[str(i)] = d
    lib.write_json(os.path.join(folder, "ids.json"), {
        "prefix": [sp.bos_id()], "specials_parsed": False, "special": {}, "plain": {},
        "decoded": decoded, "ids": ids}, rows=("ids",))
    print("%-18s %3d tokens, %5d ids, %d texts not restored, %d KB" % (
        os.path.basename(folder), sp.vocab_size(), sum(map(len, ids)), len(decoded),
        lib.folder_bytes(folder) // 1000))
    return ids


def charsmap_rules(path, strings):
    """A table of replacements in the manner of nmt_nfkc, small: what NFKC makes of characters of
    the texts, compositions, and what that rule does to controls and spaces."""
    rules = {}
    for c in sorted(set("".join(strings))):
        normal = unicodedata.normalize("NFKC", c)
        control = unicodedata.category(c) == "Cc" and c not in "\t\n\r\0"
        if c in "\u200b\u200d\ufeff\u00ad" or control:
            rules[c] = ""
        elif c in "\t\n\r\u2028\u2029\u0085\u3000\u00a0":
            rules[c] = " "
        elif normal != c:
            rules[c] = normal
    for base in "aeiouAEIOUnc":
        for mark in "\u0300\u0301\u0302\u0303\u0308\u0323\u0327":
            one = unicodedata.normalize("NFC", base + mark)
            if len(one) == 1:
                rules[base + mark] = one
    rules["e\u0323\u0302"], rules["\u1100\u1161\u11a8"], rules["\u1100\u1161"] = "ệ", "각", "가"
    with open(path, "w", encoding="ascii") as f:
        for key, value in sorted(rules.items()):
            f.write("%s\t%s\n" % (" ".join("%X" % ord(c) for c in key),
                                  " ".join("%X" % ord(c) for c in value)))


def unigram_json(sp):
    """tokenizer.json as Hugging Face's converter writes it for unigram models."""
    proto = proto_of(sp)
    spec, kinds = proto.normalizer_spec, [p.type for p in proto.pieces]
    steps = []
    if spec.precompiled_charsmap:
        steps.append({"type": "Precompiled", "precompiled_charsmap":
                      base64.b64encode(spec.precompiled_charsmap).decode()})
    if spec.remove_extra_whitespaces:
        steps += [{"type": "Strip", "strip_left": False, "strip_right": True},
                  {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}]
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [
            {"id": i, "content": p.piece, "single_word": False, "lstrip": p.piece == "<mask>",
             "rstrip": False, "normalized": False, "special": kinds[i] in (2, 3)}
            for i, p in enumerate(proto.pieces) if kinds[i] in (2, 3, 4)],
        "normalizer": {"type": "Sequence", "normalizers": steps} if steps else None,
        "pre_tokenizer": space,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                     {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, space]}
        if proto.trainer_spec.byte_fallback else space,
        "model": {"type": "Unigram", "unk_id": sp.unk_id(),
                  "vocab": [[p.piece, p.score] for p in proto.pieces],
                  "byte_fallback": proto.trainer_spec.byte_fallback},
    }


def make_unigram(name, strings, size, **options):
    folder, sp = train_spm(name, size, ["<cell>", "<cell>x", "<|end|>", "ａｂ"], texts.corpus(),
                           model_type="unigram", control_symbols=["<mask>", "<|begin|>"], **options)
    spm_gguf(os.path.join(folder, "vocab.gguf"), sp)
    ids = spm_ids(folder, sp, strings)
    tok = Tokenizer.from_str(json.dumps(unigram_json(sp)))
    folder = fresh(name + "-json")
    save_json(json.loads(tok.to_str()), folder, "<s>", "</s>")
    got, plain = ids_json(folder, tok, strings)
    differ = [i for i in range(len(strings)) if plain.get(str(i), got[i]) != ids[i]]
    print("%-18s %3d tokens, %d texts differ from sentencepiece, %d KB: %r" % (
        name + "-json", tok.get_vocab_size(), len(differ), lib.folder_bytes(folder) // 1000,
        [strings[i][:20] for i in differ[:12]]))


def make_gemma(strings):
    """No space in front, runs of spaces and newlines as symbols of their own."""
    runs = ["\n" * n for n in range(1, 4)] + ["▁" * n for n in range(2, 5)] + ["\t"]
    folder, sp = train_spm("gemma", 600, runs + ["<|im_start|>", "<|im_end|>"], texts.corpus(),
                           add_dummy_prefix=False, pad_id=0, eos_id=1, bos_id=2, unk_id=3)
    spm_gguf(os.path.join(folder, "vocab.gguf"), sp)
    spm_ids(folder, sp, strings)
    data = spm_json(sp, piece_kinds(sp), "gemma")
    for part in (data["post_processor"]["special_tokens"]["<s>"],):
        part["ids"] = [2]
    tok = Tokenizer.from_str(json.dumps(data))
    folder = fresh("gemma-json")
    save_json(json.loads(tok.to_str()), folder, "<s>", "</s>")
    spm_gguf(os.path.join(folder, "vocab.gguf"), sp, data["model"]["merges"])
    # GGUF's "gemma4" says less than this file: user-defined symbols are searched for in the text
    # with its spaces marked, and lines part it.
    data["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": "[^\\n]+|\\n+"},
                             "behavior": "Isolated", "invert": False}
    for t in data["added_tokens"]:
        t["normalized"] = not t["special"]
    lines = Tokenizer.from_str(json.dumps(data))
    ids = [tok.encode(s, add_special_tokens=False).ids for s in strings]
    other = [lines.encode(s, add_special_tokens=False).ids for s in strings]
    ids_json(folder, tok, strings,
             {"gguf": {str(i): o for i, o in enumerate(other) if o != ids[i]}})
    print("%-18s %3d tokens, %d KB" % ("gemma-json", tok.get_vocab_size(),
                                       lib.folder_bytes(folder) // 1000))


def main():
    os.makedirs(OUT, exist_ok=True)
    strings = texts.strings()
    with open(os.path.join(OUT, "strings.json"), "w", encoding="ascii") as f:
        f.write("[\n" + ",\n".join(json.dumps(s) for s in strings) + "\n]\n")
    print("strings: %d, %d bytes" % (len(strings), sum(len(s.encode()) for s in strings)))
    for name, spec in BYTE_LEVEL.items():
        make_bytes(name, spec, strings)
    make_added(strings)
    make_small()
    train_spm("spm-320", 320, [], [w for w in texts.ENGLISH.lower().split() if w.isalpha()])
    make_spm(strings)
    make_gemma(strings)
    rules = os.path.join(OUT, "rules.tsv")
    charsmap_rules(rules, strings)
    make_unigram("unigram", strings, 500, byte_fallback=False, remove_extra_whitespaces=True,
                 normalization_rule_tsv=rules, normalization_rule_name="user_defined")
    os.remove(rules)
    make_unigram("unigram-bytes", strings, 700)


if __name__ == "__main__":
    main()
