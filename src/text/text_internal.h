/* text_internal: what the files of src/text share.
 *
 * The stages of encoding, each a file: added.c cuts the text at added tokens, normal.c rewrites
 * what is between them (charsmap.c as SentencePiece does), pretoken.c cuts that into pieces, bpe.c
 * or unigram.c turns each piece into tokens. Stages call the next one for every piece as soon as it
 * is known (depth first), so that the memory of a call is a few buffers as long as the longest
 * piece and not a list of all pieces. decode.c goes the other way. tokenizer_json.c,
 * tokenizer_gguf.c and tokenizer_spm.c fill the same structure from the three sources, companions.c
 * from the files beside the first and the last; tokenizer.c finishes it and holds the public calls.
 * tokenizer_write_json.c and tokenizer_write_gguf.c turn it into such sources again.
 * A tokenizer never changes after opening: all that changes during a call is in its `encoding`. */
#ifndef TEXT_INTERNAL_H
#define TEXT_INTERNAL_H

#include "text/text.h"

enum {
    TOKEN_BYTES_MAX = 65535,        /* one token's spelling */
    ADDED_BYTES_MAX = 1024,         /* one of a trie's: the search walks as far at every byte */
    TRIE_BYTES_MAX = (1 << 24) - 1, /* all tokens of a trie together: a node has 24 bits */
    STEPS_MAX = 32,                 /* of a normalizer, a pre-tokenizer or a decoder */
    AFFIX_MAX = 16,                 /* tokens put in front or behind by the post-processor */
    PATTERN_BYTES_MAX = 65535,      /* one regular expression */
    MERGES_BYTES_MAX = 1 << 30,     /* a list of merges that is being written */
    CHAR_TABLE = 1024,              /* characters whose token is looked up without hashing */
};

/* ---- regular expressions (regex.c) --------------------------------------------------------- */

typedef struct regex regex;
typedef struct regex_work regex_work; /* what matching needs; one per call and thread */

/* Compiles a pattern written for Oniguruma's Ruby syntax, as Hugging Face tokenizers has it, with
 * the same meaning. DP_E_UNSUPPORTED for constructs that would mean something else here. */
regex *regex_new(str pattern, dp_error *err) CHECK_RESULT;
void regex_free(regex *r);
str regex_pattern(const regex *r); /* as it was given; lives with r */
regex_work *regex_work_new(dp_error *err) CHECK_RESULT;
void regex_work_free(regex_work *w);
/* The leftmost match at or after `from`; *found says whether there is one. `text` must be valid
 * UTF-8 and `from` the start of a character or the end. */
bool regex_find(const regex *r, regex_work *w, str text, size_t from, size_t *start, size_t *end,
                bool *found, dp_error *err) CHECK_RESULT;

/* GPT-2's own, which tokenizer.json means by ByteLevel and many GGUF names stand for. */
extern const char gpt2_pattern[];

/* ---- steps: the elements of normalizers and pre-tokenizers --------------------------------- */

typedef enum {
    STEP_SPLIT,   /* one piece to many; pre-tokenizers only */
    STEP_BYTES,   /* every byte to a printable character (GPT-2's table) */
    STEP_PREPEND, /* content in front */
    STEP_REPLACE, /* content for every match */
    STEP_NFC,
    STEP_NFD,
    STEP_NFKC,
    STEP_NFKD,
    STEP_LOWER,
    STEP_STRIP_ACCENTS, /* combining marks away */
    STEP_STRIP,         /* whitespace at the ends */
    STEP_CHARSMAP,      /* Hugging Face's Precompiled */
    STEP_SENTENCE,      /* all that SentencePiece does before its model */
} step_kind;

typedef enum {
    MATCH_REGEX,
    MATCH_LITERAL,
    MATCH_SPACE,
    MATCH_NUMBER,
    MATCH_PUNCTUATION
} match_kind;
typedef enum {
    SPLIT_ISOLATED,
    SPLIT_REMOVED,
    SPLIT_PREVIOUS,
    SPLIT_NEXT,
    SPLIT_CONTIGUOUS
} split_kind;

typedef struct charsmap charsmap; /* see charsmap.c; in the tokenizer's memory */

typedef struct {
    step_kind kind;
    match_kind match;         /* STEP_SPLIT, STEP_REPLACE */
    split_kind split;         /* STEP_SPLIT: where matches go */
    bool invert;              /* STEP_SPLIT: what does not match is the match */
    bool only_at_start;       /* STEP_PREPEND, _SENTENCE: only to the piece that starts the text */
    bool unless_there;        /* STEP_PREPEND: not if the piece starts with content */
    bool left, right;         /* STEP_STRIP */
    bool prefixes;            /* STEP_SENTENCE: a space in front; a space is `content` */
    bool trims;               /* STEP_SENTENCE: no space at the ends, one between words */
    const charsmap *charsmap; /* STEP_CHARSMAP; STEP_SENTENCE: or NULL */
    regex *regex;             /* owned */
    str literal, content;
} step;

typedef struct {
    step list[STEPS_MAX];
    uint32_t n;
} step_list;

/* A fresh step at the end; NULL and DP_E_LIMIT if there are STEPS_MAX already. */
step *step_add(step_list *steps, step_kind kind, const char *what, dp_error *err) CHECK_RESULT;
/* Adds STEP_SPLIT by a regular expression. */
bool step_add_regex(step_list *steps, str pattern, split_kind split, const char *what,
                    dp_error *err) CHECK_RESULT;
void steps_free(step_list *steps);

/* ---- the tokenizer ------------------------------------------------------------------------- */

enum {
    TOKEN_PRESENT = 1, /* no hole of the vocabulary */
    TOKEN_MODEL = 2,   /* the model may produce it, not only the search for added tokens */
    TOKEN_ADDED = 4,
    TOKEN_SPECIAL = 8, /* a control token: not spelt out in texts */
    TOKEN_BYTE = 16,   /* stands for one byte, spelt <0xXX> */
    TOKEN_LSTRIP = 32, /* an added token that takes the whitespace around it */
    TOKEN_RSTRIP = 64,
    TOKEN_SINGLE_WORD = 128, /* only where no word character touches it */
    TOKEN_NORMALIZED = 256,  /* searched in the normalized text */
    TOKEN_UNUSED = 512,      /* its file says that no text means it: padding of a vocabulary */
};

/* GGUF's types of tokens (tokenizer.ggml.token_type). */
enum { GGUF_NORMAL = 1, GGUF_UNKNOWN, GGUF_CONTROL, GGUF_USER, GGUF_UNUSED, GGUF_BYTE };

/* Tokens with a part to play, besides bos, eos and unk. Only ends of turns matter here; the others
 * are kept for files that are written. */
typedef enum { ROLE_EOT, ROLE_EOM, ROLE_PAD, ROLE_SEP, ROLE_MASK, ROLE_CLS, ROLE_COUNT } token_role;
typedef struct {
    const char *meta, *config; /* key in GGUF, in tokenizer_config.json */
} role_keys;
extern const role_keys token_roles[ROLE_COUNT];

/* A further chat template ("tool_use"). */
typedef struct {
    str name, text;
} named_template;

/* (left, right) -> (rank, result): open addressing, at most half full. */
typedef struct {
    uint64_t key; /* left << 32 | right; all ones if free */
    uint32_t rank;
    dp_token result;
} merge;

typedef struct {
    merge *slots;
    uint32_t mask; /* slots - 1, a power of two less one */
} merge_table;

/* Tokens by their bytes. Node 0 is the root and no edge leads to it. */
typedef struct {
    uint32_t *keys;    /* of edges: node << 8 | byte, + 1 so that 0 is free */
    uint32_t *targets; /* node that the edge leads to */
    uint32_t mask, n_nodes;
    dp_token *tokens;    /* [n_nodes]: the token that ends there or DP_NO_TOKEN */
    uint32_t first[256]; /* edges of the root; 0: none */
} trie;

/* How a token's spelling becomes bytes. */
typedef enum {
    DECODE_BYTES,
    DECODE_REPLACE,
    DECODE_FALLBACK,
    DECODE_STRIP,
    DECODE_METASPACE
} decode_kind;

typedef struct {
    decode_kind kind;
    str literal, content; /* DECODE_REPLACE; DECODE_STRIP, _METASPACE: the character is `literal` */
    uint32_t start, stop; /* DECODE_STRIP: at most so many from either end */
    bool drop_first;      /* DECODE_METASPACE: nothing instead of spaces in the first token */
} decode_step;

struct tokenizer {
    arena memory; /* spellings, tables */
    log_sink log;
    const char *source; /* "tokenizer.json" or "GGUF", for messages */

    uint32_t n_tokens;
    str *spelling;   /* [n_tokens], as the vocabulary has it */
    str *piece;      /* [n_tokens], what it decodes to in mid-text */
    uint16_t *flags; /* [n_tokens], TOKEN_... */
    map *ids;        /* spelling -> id; the lowest id where two tokens have one spelling */

    bool by_score; /* SentencePiece: any pair whose concatenation is a token, the highest score
                      first */
    bool unigram;  /* no merges: the most probable tokens */
    bool ignore_merges, byte_fallback, fuse_unk;
    bool raw_bytes; /* byte-level vocabulary: ordinary tokens are spelt with GPT-2's table */
    dp_token unk;
    uint32_t *order; /* by_score: [n_tokens], lower merges first */
    double *scores;  /* unigram: [n_tokens] */
    bool float_sums; /* unigram: as SentencePiece adds them */
    double unknown_score;
    trie model_trie; /* unigram: tokens that the model may produce */
    str unk_surface; /* what decodes from the unknown token; NULL: its spelling */
    merge_table merges;
    size_t longest; /* bytes of the longest spelling */
    dp_token char_ids[CHAR_TABLE];
    dp_token byte_ids[256]; /* of <0xXX> */

    step_list normal, pre;
    bool uses_regex;
    trie added_raw, added_normal;
    bool has_added_raw, has_added_normal;

    dp_token prefix[AFFIX_MAX], suffix[AFFIX_MAX];
    uint32_t n_prefix, n_suffix;
    dp_token bos, eos;
    dp_token *stops;
    size_t n_stops, stops_capacity;
    str chat_template;
    named_template *templates; /* [n_templates], besides chat_template */
    uint32_t n_templates;
    dp_token roles[ROLE_COUNT];

    decode_step decode[STEPS_MAX];
    uint32_t n_decode;
    bool join_spaces; /* no decoder: tokens are joined by spaces */
    bool drops_first; /* a decode step treats the first token otherwise */
    char lead;        /* what is dropped from the start of the text, */
    uint32_t n_lead;  /* at most so often */
};

static inline bool token_present(const tokenizer *t, dp_token id) {
    return t->flags[id] & TOKEN_PRESENT;
}

/* ---- one call ------------------------------------------------------------------------------ */

typedef struct {
    dp_token id;          /* DP_NO_TOKEN: not in the vocabulary */
    uint32_t prev, next;  /* neighbours; no_symbol at the ends */
    uint32_t start, size; /* bytes of the piece; size 0: merged into another */
} symbol;

typedef struct {
    uint32_t key; /* rank, or place in the order of scores */
    uint32_t pos; /* the left symbol */
    dp_token result;
    uint32_t size; /* bytes of both symbols */
} candidate;

/* The best way to write a piece up to here. */
typedef struct {
    double score;
    uint32_t from; /* where its last token starts; no_path: not reached */
    uint32_t to;   /* where the next token of the chosen way ends */
    dp_token id;   /* DP_NO_TOKEN: an unknown character */
} best_path;

static const uint32_t no_path = UINT32_MAX;

typedef struct {
    const tokenizer *t;
    bool parse_special;
    bool may_merge;    /* pieces of this run may become control tokens by merging */
    bool spells_added; /* STEP_SENTENCE on an added token's spelling: only spaces change */
    dp_token *out;
    size_t max, n;
    dp_error *err;

    regex_work *regex;
    buf level[STEPS_MAX];    /* text made by pre-tokenizer step i */
    buf normal[2];           /* text made by normalizers, in turn */
    buf marks[2];            /* marks of that text */
    const uint8_t *marks_in; /* marks of the text that a normalizer reads; NULL: nobody asks */
    buf *marks_out;
    int32_t *codes; /* code points being normalized, and as much again to sort them */
    size_t n_codes; /* capacity */
    symbol *symbols;
    size_t n_symbols; /* capacity */
    candidate *heap;
    size_t n_heap, heap_capacity;
    best_path *best;
    size_t n_best;         /* capacity */
    uint64_t n_candidates; /* put into the heap so far: the work of the call */
    buf *pieces; /* not NULL: pieces go there, each with a NUL behind it, not to a model */
} encoding;

bool encoding_init(encoding *e, const tokenizer *t, bool parse_special, dp_token *out, size_t max,
                   dp_error *err) CHECK_RESULT;
void encoding_free(encoding *e);
/* `marks` as in tokenizer_encode_marked. */
bool encoding_run(encoding *e, str text, const uint8_t *marks, bool add_special) CHECK_RESULT;

static inline void emit(encoding *e, dp_token id) {
    if (e->n < e->max) {
        e->out[e->n] = id;
    }
    e->n++;
}

/* ---- stages -------------------------------------------------------------------------------- */

/* added.c: cuts at added tokens, normalizes between them and hands on the rest. */
bool added_encode(encoding *e, str text, const uint8_t *marks) CHECK_RESULT;
bool added_build(tokenizer *t, dp_error *err) CHECK_RESULT;
/* Room for texts of `total` bytes. */
bool trie_reserve(tokenizer *t, trie *r, size_t total, dp_error *err) CHECK_RESULT;
/* The first of equal texts stays. */
void trie_put(trie *r, str text, dp_token id);
/* Node behind the edge, 0 if there is none. */
uint32_t trie_child(const trie *r, uint32_t node, uint8_t byte);

/* normal.c: one step on a text; *out is `in` itself or lies in `space`. */
bool step_apply(encoding *e, const step *s, str in, bool at_start, buf *space,
                str *out) CHECK_RESULT;
/* All of them. *marks, NULL or as long as `in`, becomes that of *out. */
bool normalize(encoding *e, str in, bool at_start, str *out, const uint8_t **marks) CHECK_RESULT;
/* What a normalizer just wrote, `n` bytes, comes from [from, to) of its text: marked if one of
 * those bytes is. What comes from nothing (from == to) is as its neighbours. */
void mark_output(encoding *e, str in, size_t from, size_t to, size_t n);
/* [from, to) was written as it is. */
void mark_copied(encoding *e, size_t from, size_t to);
bool code_is_space(uint32_t code);
bool code_is_word(uint32_t code);
bool code_is_number(uint32_t code);
bool code_is_punctuation(uint32_t code);
/* Length of the character that ends at `end`; 0 if there is none or it is invalid. */
size_t utf8_previous(str s, size_t end, uint32_t *code);
extern const uint16_t byte_chars[256]; /* GPT-2's table: byte -> code point */
/* The byte that a code point of the table stands for, or -1. */
int char_byte(uint32_t code);
void add_byte_chars(buf *out, str bytes);

/* charsmap.c: from the bytes of a file, raw or as base64. */
charsmap *charsmap_new(tokenizer *t, str bytes, dp_error *err) CHECK_RESULT;
charsmap *charsmap_new_base64(tokenizer *t, str text, dp_error *err) CHECK_RESULT;
/* What the two take, appended. */
void charsmap_bytes(const charsmap *rules, buf *out);
void charsmap_base64(const charsmap *rules, buf *out);
void charsmap_apply(encoding *e, const charsmap *rules, str in, buf *out);
void sentence_apply(encoding *e, const step *s, str in, bool at_start, buf *out);

/* pretoken.c */
bool pretoken_encode(encoding *e, str piece, bool at_start) CHECK_RESULT;
/* The next match in valid or invalid text, matches of regular expressions only within valid parts.
 */
typedef struct {
    const step *step;
    str text;
    size_t pos;                  /* where to search on */
    size_t part_start, part_end; /* the valid part that pos is in */
    bool in_part;
    size_t last_end; /* of the last match; SIZE_MAX before */
} match_scan;
bool match_next(encoding *e, match_scan *scan, size_t *start, size_t *end,
                bool *found) CHECK_RESULT;

/* unigram.c */
bool unigram_encode(encoding *e, str piece) CHECK_RESULT;
bool unigram_build(tokenizer *t, dp_error *err) CHECK_RESULT;

/* bpe.c */
/* Whether text may become this token: one that only the vocabulary knows of, and a control token
 * only if the caller lets all of this text spell them. SentencePiece keeps its control and byte
 * tokens out of merging altogether. */
bool may_become(const encoding *e, dp_token id);
/* <0xXX> for every byte; false, and nothing, if they are not used or one is missing. */
bool emit_byte_tokens(encoding *e, str bytes);
bool bpe_encode(encoding *e, str piece) CHECK_RESULT;
bool merges_new(merge_table *m, size_t n, dp_error *err) CHECK_RESULT;
void merges_put(merge_table *m, dp_token left, dp_token right, uint32_t rank, dp_token result);
const merge *merges_get(const merge_table *m, dp_token left, dp_token right);

/* decode.c: fills t->piece. */
bool pieces_build(tokenizer *t, dp_error *err) CHECK_RESULT;

/* ---- building (tokenizer.c) ---------------------------------------------------------------- */

/* What a folder offers; absent files are NULL. */
typedef struct {
    const json_value *tokenizer, *tokenizer_config, *special_tokens_map;
    const json_value *generation_config, *config, *added_tokens;
    str model;         /* tokenizer.model; empty if absent */
    str chat_template; /* chat_template.jinja; empty if absent */
} tokenizer_files;

/* GGUF metadata by key; NULL if absent. */
typedef const meta_value *meta_get(const void *user, const char *key);

tokenizer *tokenizer_from_json(const tokenizer_files *files, const log_sink *log,
                               dp_error *err) CHECK_RESULT;
/* Without tokenizer.json. */
tokenizer *tokenizer_from_spm(const tokenizer_files *files, const log_sink *log,
                              dp_error *err) CHECK_RESULT;
tokenizer *tokenizer_from_meta(meta_get *get, const void *user, const log_sink *log,
                               dp_error *err) CHECK_RESULT;

/* What tokenizer.json itself says, not finished: ends, template and, unless *has_template, affixes
 * are the caller's. */
tokenizer *tokenizer_described(const json_value *root, const log_sink *log, bool *has_template,
                               dp_error *err) CHECK_RESULT;

tokenizer *tokenizer_new(const char *source, const log_sink *log, dp_error *err) CHECK_RESULT;
/* Room for n tokens, all holes. */
bool tokenizer_reserve(tokenizer *t, uint64_t n, dp_error *err) CHECK_RESULT;
/* Gives token `id` a spelling; a second spelling of one id is only looked up. */
bool tokenizer_put(tokenizer *t, dp_token id, str spelling, uint16_t flags,
                   dp_error *err) CHECK_RESULT;
bool tokenizer_copy(tokenizer *t, str s, str *out, dp_error *err) CHECK_RESULT;
/* Once vocabulary, steps, decoder and affixes stand: tables, added tokens, pieces, known stops. */
bool tokenizer_finish(tokenizer *t, dp_error *err) CHECK_RESULT;
bool tokenizer_add_stop(tokenizer *t, dp_token id, dp_error *err) CHECK_RESULT;
decode_step *decode_add(tokenizer *t, decode_kind kind, dp_error *err) CHECK_RESULT;
/* Whether a control token counts as a stop by its spelling alone. */
bool tokenizer_known_stop(const tokenizer *t, dp_token id);
/* Room for n further chat templates. */
bool tokenizer_reserve_templates(tokenizer *t, uint64_t n, dp_error *err) CHECK_RESULT;
bool tokenizer_put_template(tokenizer *t, str name, str text, dp_error *err) CHECK_RESULT;
/* bos and eos, as far as the model has them, around every text. */
void tokenizer_add_affixes(tokenizer *t, bool bos, bool eos);
/* Scores of a vocabulary whose tokens stand, as the model needs them. */
bool tokenizer_set_scores(tokenizer *t, const double *scores, dp_error *err) CHECK_RESULT;
/* SentencePiece's steps round its models: what is done to a text before, and back again. */
typedef struct {
    const charsmap *charsmap; /* or NULL */
    bool prefixes, only_at_start, trims, escapes;
} sentence_options;
bool tokenizer_add_sentence(tokenizer *t, sentence_options options, dp_error *err) CHECK_RESULT;

/* tokenizer_gguf.c: pre-tokenizers that GGUF names. */
typedef struct {
    const char *name;
    bool whole; /* pieces that are tokens need no merges */
    bool nfc;   /* texts are composed first */
} pre_name;
/* Number i of the table, false behind its end; aliases with a "*" are left out. */
bool pre_name_at(size_t i, pre_name *out);
/* Appends its steps. */
bool pre_name_steps(size_t i, step_list *pre, dp_error *err) CHECK_RESULT;

/* tokenizer_write_json.c: all merges in their order; by scores, those that give the same order. */
typedef void merge_call(void *user, dp_token left, dp_token right);
bool tokenizer_each_merge(const tokenizer *t, merge_call *call, void *user,
                          dp_error *err) CHECK_RESULT;

/* companions.c: bos, eos, stop tokens and the chat template from the files beside the vocabulary.
 * `adds_bos`: whether bos is added where they do not say. */
bool companions_read(tokenizer *t, const tokenizer_files *files, bool has_template, bool adds_bos,
                     dp_error *err) CHECK_RESULT;
/* TOKEN_... of an added token's description; `source` is the file. */
bool added_flags(const json_value *description, const char *source, uint16_t *flags,
                 dp_error *err) CHECK_RESULT;

#endif
