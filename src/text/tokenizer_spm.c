/* tokenizer_spm: a tokenizer from SentencePiece's tokenizer.model, where a folder has nothing else.
 *
 * The file is one protocol buffer, ModelProto: pieces with scores and types, how they were trained,
 * how texts are normalized (sentencepiece_model.proto). Fields are read by number, those that mean
 * nothing here are skipped; every length is checked against what is left. SentencePiece itself
 * knows no control tokens in texts: those, and tokens beyond the file, are cut out first as Hugging
 * Face does, by tokenizer_config.json (added_tokens_decoder) or added_tokens.json. */
#include "text/text_internal.h"

typedef struct {
    const uint8_t *at, *end;
} pb_cursor;

/* One field of a message. Its value is a number for varints and fixed sizes, bytes else. */
typedef struct {
    uint32_t number;
    enum { PB_VARINT = 0, PB_FIXED64 = 1, PB_BYTES = 2, PB_FIXED32 = 5 } type;
    uint64_t value;
    str bytes;
} pb_field;

typedef struct {
    tokenizer *t;
    const tokenizer_files *files;
    double *scores; /* [n_tokens] */
    uint64_t n_pieces, n_tokens;
    struct {
        uint64_t type, suffix_spaces, byte_fallback, unk, bos, eos;
        str unk_surface;
    } trainer;
    struct {
        str charsmap;
        uint64_t prefixes, trims, escapes;
    } normalizer;
    dp_error *err;
} spm_reader;

/* ---- protocol buffers ---------------------------------------------------------------------- */

static bool broken_model(const spm_reader *r, const char *what) {
    return err_set(r->err, DP_E_FORMAT, "tokenizer.model: %s", what);
}

static bool pb_varint(pb_cursor *c, uint64_t *out) {
    *out = 0;
    for (unsigned shift = 0; shift < 64 && c->at < c->end; shift += 7) {
        const uint8_t byte = *c->at++;
        *out |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) {
            return shift < 63 || byte < 2;
        }
    }
    return false;
}

static bool pb_fixed(pb_cursor *c, size_t size, uint64_t *out) {
    if ((size_t)(c->end - c->at) < size) {
        return false;
    }
    *out = 0;
    memcpy(out, c->at, size);
    c->at += size;
    return true;
}

/* False at the end, and with *ok false where the bytes are no field. */
static bool pb_next(pb_cursor *c, pb_field *f, bool *ok) {
    uint64_t key;
    *f = (pb_field){ 0 };
    *ok = true;
    if (c->at == c->end) {
        return false;
    }
    *ok = pb_varint(c, &key) && key >> 3 != 0 && key >> 3 <= 0x1FFFFFFF;
    f->number = (uint32_t)(key >> 3);
    switch (*ok ? key & 7 : 7) {
    case PB_VARINT:
        f->type = PB_VARINT;
        *ok = pb_varint(c, &f->value);
        break;
    case PB_FIXED64:
        f->type = PB_FIXED64;
        *ok = pb_fixed(c, 8, &f->value);
        break;
    case PB_FIXED32:
        f->type = PB_FIXED32;
        *ok = pb_fixed(c, 4, &f->value);
        break;
    case PB_BYTES:
        f->type = PB_BYTES;
        *ok = pb_varint(c, &f->value) && f->value <= (uint64_t)(c->end - c->at);
        if (*ok) {
            f->bytes = (str){ (const char *)c->at, (size_t)f->value };
            c->at += f->value;
        }
        break;
    default: /* groups, which nobody writes, and what does not exist */
        *ok = false;
    }
    return *ok;
}

static pb_cursor pb_open(str bytes) {
    const uint8_t *at = (const uint8_t *)bytes.data;
    return (pb_cursor){ at, at + bytes.size };
}

/* Where fields of a message go: a number, or bytes. The last of several counts. */
typedef struct {
    uint32_t number;
    uint64_t *value;
    str *bytes;
} pb_slot;

static bool read_message(const spm_reader *r, str message, const char *what, const pb_slot *slots,
                         size_t n) {
    pb_cursor c = pb_open(message);
    pb_field f;
    bool ok;
    while (pb_next(&c, &f, &ok)) {
        for (size_t i = 0; i < n; i++) {
            if (slots[i].number != f.number) {
                continue;
            }
            if ((slots[i].bytes != NULL) != (f.type == PB_BYTES)) {
                return broken_model(r, what);
            }
            if (slots[i].bytes != NULL) {
                *slots[i].bytes = f.bytes;
            } else {
                *slots[i].value = f.value;
            }
        }
    }
    return ok || broken_model(r, what);
}

/* ---- the three messages -------------------------------------------------------------------- */

enum { SPM_PIECES = 1, SPM_TRAINER = 2, SPM_NORMALIZER = 3 };
enum { SPM_UNIGRAM = 1, SPM_BPE = 2 };
enum {
    PIECE_NORMAL = 1,
    PIECE_UNKNOWN,
    PIECE_CONTROL,
    PIECE_USER_DEFINED,
    PIECE_UNUSED,
    PIECE_BYTE
};

static bool read_piece(const spm_reader *r, str message, str *piece, double *score,
                       uint64_t *type) {
    uint64_t bits = 0;
    float number;
    *piece = STR("");
    *type = PIECE_NORMAL;
    const pb_slot slots[] = { { 1, NULL, piece }, { 2, &bits, NULL }, { 3, type, NULL } };
    if (!read_message(r, message, "a piece is broken", slots, ARRAY_LEN(slots))) {
        return false;
    }
    const uint32_t low = (uint32_t)bits;
    memcpy(&number, &low, sizeof(number));
    *score = (double)number;
    return true;
}

static bool read_specs(spm_reader *r, str trainer, str normalizer) {
    const pb_slot of_trainer[] = {
        { 3, &r->trainer.type, NULL },           { 24, &r->trainer.suffix_spaces, NULL },
        { 35, &r->trainer.byte_fallback, NULL }, { 40, &r->trainer.unk, NULL },
        { 41, &r->trainer.bos, NULL },           { 42, &r->trainer.eos, NULL },
        { 44, NULL, &r->trainer.unk_surface },
    };
    const pb_slot of_normalizer[] = {
        { 2, NULL, &r->normalizer.charsmap },
        { 3, &r->normalizer.prefixes, NULL },
        { 4, &r->normalizer.trims, NULL },
        { 5, &r->normalizer.escapes, NULL },
    };
    r->trainer.type = SPM_UNIGRAM; /* the format's defaults */
    r->trainer.bos = 1;
    r->trainer.eos = 2;
    r->normalizer.prefixes = r->normalizer.trims = r->normalizer.escapes = 1;
    if (!read_message(r, trainer, "the trainer's settings are broken", of_trainer,
                      ARRAY_LEN(of_trainer)) ||
        !read_message(r, normalizer, "the normalizer's settings are broken", of_normalizer,
                      ARRAY_LEN(of_normalizer))) {
        return false;
    }
    if (r->trainer.type != SPM_UNIGRAM && r->trainer.type != SPM_BPE) {
        return err_set(r->err, DP_E_UNSUPPORTED,
                       "tokenizer.model: model type %llu is not supported, only unigram (1) and "
                       "BPE (2) are",
                       (unsigned long long)r->trainer.type);
    }
    return r->trainer.suffix_spaces == 0 ||
           err_set(r->err, DP_E_UNSUPPORTED,
                   "tokenizer.model: treat_whitespace_as_suffix is not supported");
}

/* ---- tokens -------------------------------------------------------------------------------- */

static bool put_piece(spm_reader *r, dp_token id, str message) {
    tokenizer *t = r->t;
    str piece;
    uint64_t type;
    if (!read_piece(r, message, &piece, &r->scores[id], &type)) {
        return false;
    }
    uint16_t flags = TOKEN_MODEL;
    switch (type) {
    case PIECE_NORMAL:
        break;
    case PIECE_UNKNOWN:
        if (t->unk != DP_NO_TOKEN) {
            return err_set(r->err, DP_E_FORMAT, "tokenizer.model: two unknown pieces, %u and %u",
                           t->unk, id);
        }
        t->unk = id;
        flags = TOKEN_ADDED | TOKEN_SPECIAL;
        break;
    case PIECE_CONTROL:
        flags = TOKEN_ADDED | TOKEN_SPECIAL;
        break;
    case PIECE_USER_DEFINED:
        flags = TOKEN_MODEL | TOKEN_ADDED | TOKEN_NORMALIZED;
        break;
    case PIECE_UNUSED:
        flags = t->unigram ? TOKEN_UNUSED : TOKEN_MODEL | TOKEN_UNUSED;
        break;
    case PIECE_BYTE:
        flags = TOKEN_MODEL | TOKEN_BYTE;
        break;
    default:
        return err_set(r->err, DP_E_FORMAT,
                       "tokenizer.model: piece %u has type %llu, the last known is %d", id,
                       (unsigned long long)type, PIECE_BYTE);
    }
    return piece.size == 0 ? broken_model(r, "a piece without text")
                           : tokenizer_put(t, id, piece, flags, r->err);
}

/* Whether one of the settings names this token as special: "..._token": spelling or {"content"},
 * "additional_special_tokens": a list of them. */
static bool named_special(const json_value *config, str spelling) {
    for (json_iter it = json_each(config); json_next(&it);) {
        const bool list = str_is(it.key, "additional_special_tokens");
        json_iter names = json_each(it.value);
        const json_value *v = it.value;
        if (!list && !str_ends(it.key, "_token")) {
            continue;
        }
        while (!list || json_next(&names)) {
            str name;
            v = list ? names.value : v;
            if ((json_string(v, &name) || json_string(json_get(v, "content"), &name)) &&
                str_equal(name, spelling)) {
                return true;
            }
            if (!list) {
                break;
            }
        }
    }
    return false;
}

typedef bool put_token(spm_reader *r, uint64_t id, str content, uint16_t flags);

static bool count_added(spm_reader *r, uint64_t id, str content, uint16_t flags) {
    (void)content;
    (void)flags;
    r->n_tokens = max_u64(r->n_tokens, id + 1);
    return true;
}

static bool put_added(spm_reader *r, uint64_t id, str content, uint16_t flags) {
    tokenizer *t = r->t;
    const str known = t->spelling[id];
    if ((t->flags[id] & TOKEN_PRESENT) && !str_equal(known, content)) {
        return err_set(r->err, DP_E_FORMAT,
                       "tokenizer_config.json: added token \"%.*s\" has id %llu, which is \"%.*s\"",
                       STR_ARG(content), (unsigned long long)id, STR_ARG(known));
    }
    t->flags[id] &= (uint16_t)~TOKEN_NORMALIZED; /* searched in the text as it came */
    return tokenizer_put(t, (dp_token)id, content, flags, r->err);
}

/* added_tokens_decoder {"32000": {"content", switches}}, else added_tokens.json {"content": 32000},
 * whose switches are those of the settings that name it. */
static bool each_added(spm_reader *r, put_token *call) {
    static const char source[] = "tokenizer_config.json";
    const json_value *config = r->files->tokenizer_config;
    const json_value *list = json_get(config, "added_tokens_decoder");
    const bool described = list != NULL;
    for (json_iter it = json_each(described ? list : r->files->added_tokens); json_next(&it);) {
        str content = it.key;
        uint64_t id;
        uint16_t flags = TOKEN_ADDED;
        if (described
                ? !str_to_u64(it.key, &id) || !json_string(json_get(it.value, "content"), &content)
                : !json_u64(it.value, &id)) {
            return err_set(r->err, DP_E_FORMAT, "%s: added token \"%.*s\" has no %s",
                           described ? source : "added_tokens.json", STR_ARG(it.key),
                           described ? "content" : "valid id");
        }
        if (id >= VOCAB_MAX) {
            return err_set(r->err, DP_E_LIMIT, "%s: token %llu, the limit is %d",
                           described ? source : "added_tokens.json", (unsigned long long)id,
                           VOCAB_MAX - 1);
        }
        if (described && !added_flags(it.value, source, &flags, r->err)) {
            return false;
        }
        if (!described && (named_special(config, content) ||
                           named_special(r->files->special_tokens_map, content))) {
            flags |= TOKEN_SPECIAL;
        }
        flags = (uint16_t)(flags & ~TOKEN_NORMALIZED);
        if (content.size > 0 && !call(r, id, content, flags)) {
            return false;
        }
    }
    return true;
}

/* ---- all ----------------------------------------------------------------------------------- */

static bool read_pieces(spm_reader *r) {
    pb_cursor c = pb_open(r->files->model);
    pb_field f;
    bool ok;
    for (dp_token id = 0; pb_next(&c, &f, &ok);) {
        if (f.number == SPM_PIECES && !put_piece(r, id++, f.bytes)) {
            return false;
        }
    }
    return each_added(r, put_added) && tokenizer_set_scores(r->t, r->scores, r->err);
}

static bool count_pieces(spm_reader *r, str *trainer, str *normalizer) {
    pb_cursor c = pb_open(r->files->model);
    pb_field f;
    bool ok;
    *trainer = *normalizer = STR("");
    while (pb_next(&c, &f, &ok)) {
        if (f.number <= SPM_NORMALIZER && f.type != PB_BYTES) {
            return broken_model(r, "a field is of the wrong type");
        }
        r->n_pieces += f.number == SPM_PIECES;
        *trainer = f.number == SPM_TRAINER ? f.bytes : *trainer;
        *normalizer = f.number == SPM_NORMALIZER ? f.bytes : *normalizer;
    }
    r->n_tokens = r->n_pieces;
    return ok ? r->n_pieces > 0 || broken_model(r, "has no pieces")
              : broken_model(r, "is no SentencePiece model");
}

/* What the settings say of ids, if they are pieces. */
static dp_token piece_id(const spm_reader *r, uint64_t id) {
    return id < r->n_pieces ? (dp_token)id : DP_NO_TOKEN;
}

static bool read_spm(spm_reader *r) {
    tokenizer *t = r->t;
    str trainer, normalizer;
    bool legacy = true;
    sentence_options options = { 0 };
    if (!count_pieces(r, &trainer, &normalizer) || !read_specs(r, trainer, normalizer) ||
        !each_added(r, count_added) || !tokenizer_reserve(t, r->n_tokens, r->err)) {
        return false;
    }
    t->unigram = r->trainer.type == SPM_UNIGRAM;
    t->byte_fallback = r->trainer.byte_fallback != 0;
    r->scores = mem_new((size_t)r->n_tokens, sizeof(*r->scores), "scores", r->err);
    if (r->scores == NULL || !read_pieces(r)) {
        return false;
    }
    if (r->normalizer.charsmap.size > 0) {
        options.charsmap = charsmap_new(t, r->normalizer.charsmap, r->err);
        if (options.charsmap == NULL) {
            return false;
        }
    }
    (void)json_bool(json_get(r->files->tokenizer_config, "legacy"), &legacy);
    options.prefixes = r->normalizer.prefixes != 0;
    options.only_at_start = !legacy;
    options.trims = r->normalizer.trims != 0;
    options.escapes = r->normalizer.escapes != 0;
    t->bos = piece_id(r, r->trainer.bos);
    t->eos = piece_id(r, r->trainer.eos);
    return tokenizer_add_sentence(t, options, r->err) &&
           (r->trainer.unk_surface.data == NULL ||
            tokenizer_copy(t, r->trainer.unk_surface, &t->unk_surface, r->err)) &&
           companions_read(t, r->files, false, true, r->err) && tokenizer_finish(t, r->err);
}

tokenizer *tokenizer_from_spm(const tokenizer_files *files, const log_sink *log, dp_error *err) {
    spm_reader r = { .files = files, .err = err };
    r.t = tokenizer_new("tokenizer.model", log, err);
    const bool ok = r.t != NULL && read_spm(&r);
    mem_free(r.scores);
    if (!ok) {
        tokenizer_close(r.t);
        return NULL;
    }
    return r.t;
}
