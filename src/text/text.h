/* text: bytes to tokens and back. Needs base and format.
 *
 * Tokenizers are built from GGUF metadata (tokenizer.ggml.*), a Hugging Face tokenizer.json, or a
 * SentencePiece tokenizer.model where that is all there is. Hugging Face `tokenizers` is the
 * reference for byte-level BPE and tokenizer.json, SentencePiece for the rest. Three algorithms:
 * byte-level BPE (GPT-2, Llama 3, Qwen, ...), SentencePiece BPE with byte fallback (Llama 2,
 * Mistral, Gemma), unigram. A tokenizer is read-only after opening and may be used from any number
 * of threads; it keeps nothing of the container. */
#ifndef TEXT_TEXT_H
#define TEXT_TEXT_H

#include "format/format.h"

typedef struct tokenizer tokenizer;

/* Whether the files have a tokenizer at all: a model that has none takes and gives ids only. */
bool tokenizer_present(container *c, bool *has, dp_error *err) CHECK_RESULT;
/* DP_E_FORMAT, DP_E_UNSUPPORTED (a model, normalizer, pre-tokenizer or decoder that is not known,
 * by name), DP_E_LIMIT, DP_E_MEMORY. */
tokenizer *tokenizer_open(container *c, const log_sink *log, dp_error *err) CHECK_RESULT;
void tokenizer_close(tokenizer *t);

/* "bpe": byte-level BPE, "spm": SentencePiece BPE and its kin, "unigram". Static text. */
const char *tokenizer_kind(const tokenizer *t);
uint32_t tokenizer_n_tokens(const tokenizer *t); /* ids are below this; some may have no token */

/* Tokens of any bytes, in order. `add_special`: put in front (and behind) what the model's own
 * tokenizer adds (bos, eos). `parse_special`: text that spells a control token becomes that token;
 * otherwise it is plain text (user-defined added tokens are recognised always). Writes at most
 * `max` ids and sets *n to how many there are: if *n > max the rest is lost, call again with more
 * room. Invalid UTF-8 is kept byte for byte in byte-level vocabularies and by byte fallback; what a
 * vocabulary has no token for becomes its unknown token or, if it has none, nothing. DP_E_LIMIT for
 * texts over TEXT_BYTES_MAX or a pattern that passes its match limit, DP_E_MEMORY. */
bool tokenizer_encode(const tokenizer *t, str text, bool add_special, bool parse_special,
                      dp_token *out, size_t max, size_t *n, dp_error *err) CHECK_RESULT;

/* tokenizer_encode of a text that has parts by others: `untrusted`, [text.size] or NULL for none,
 * is not 0 for every byte that came from a message. A control token is never recognised where one
 * byte of its spelling is marked; all else is as for the text without marks, across the borders of
 * marks too. (Whitespace that a control token takes along may be marked; where normalization joins
 * a marked character to others, all of them count as marked.) */
bool tokenizer_encode_marked(const tokenizer *t, str text, const uint8_t *untrusted,
                             bool add_special, bool parse_special, dp_token *out, size_t max,
                             size_t *n, dp_error *err) CHECK_RESULT;

/* The whole text of tokens, special ones spelt out only if `special`. Appends to `out`. Bytes come
 * out as they are, valid UTF-8 or not; an id without a token is no text. An id out of range is
 * DP_E_ARGUMENT. */
bool tokenizer_decode(const tokenizer *t, const dp_token *tokens, size_t n, bool special, buf *out,
                      dp_error *err) CHECK_RESULT;

/* Streaming: appends the bytes of one token, in order, to `out`; what would end in half a UTF-8
 * character is held back in the state and comes with a later token or decoder_finish, which gives
 * out the rest as it is. The concatenation of all pieces equals tokenizer_decode.
 *
 * SentencePiece drops the space in front of a text's first word. Where the tokens go on a text that
 * the reader already has (a completion), set `started` right after decoder_init: nothing is dropped
 * then. */
typedef struct {
    const tokenizer *t;
    bool special;       /* spell special tokens out */
    bool started;       /* text came out: what follows has its leading space */
    uint32_t n_dropped; /* leading characters dropped so far */
    unsigned n_held;    /* bytes held back */
    char held[8];
} decoder;
void decoder_init(decoder *d, const tokenizer *t, bool special);
bool decoder_add(decoder *d, dp_token token, buf *out, dp_error *err) CHECK_RESULT;
void decoder_finish(decoder *d, buf *out);

/* The token's bytes as they come out when decoded alone in mid-text (a view that lives with t). */
str tokenizer_piece(const tokenizer *t, dp_token token);
bool tokenizer_is_special(const tokenizer *t, dp_token token);
/* A token by its exact spelling in the vocabulary; false if there is none. */
bool tokenizer_find(const tokenizer *t, str spelling, dp_token *out);

/* DP_NO_TOKEN where the model has none. */
dp_token tokenizer_bos(const tokenizer *t);
dp_token tokenizer_eos(const tokenizer *t);
bool tokenizer_adds_bos(const tokenizer *t);
bool tokenizer_adds_eos(const tokenizer *t);
/* End of generation, as a set: eos, eot, eom, generation_config's list, and the well-known
 * spellings as far as they are control tokens. Borrowed. */
const dp_token *tokenizer_stops(const tokenizer *t, size_t *n);
/* The chat template's text; empty if there is none. */
str tokenizer_chat_template(const tokenizer *t);

/* ---- writing (tokenizer_write_json.c, tokenizer_write_gguf.c) ------------------------------ */

/* Appends a whole tokenizer.json that Hugging Face tokenizers reads and that, opened again, gives
 * the same tokens. Padding at the vocabulary's end ("[PAD7]" as token 7) is left out. The model
 * file of a folder that has a tokenizer.json is better copied: that loses nothing
 * (tokenizer_source_json). DP_E_UNSUPPORTED for a token that is no UTF-8, DP_E_LIMIT (out's
 * ceiling), DP_E_MEMORY. */
bool tokenizer_write_json(const tokenizer *t, buf *out, dp_error *err) CHECK_RESULT;
/* Appends the tokenizer_config.json beside it: special tokens by name, chat templates. */
bool tokenizer_write_config(const tokenizer *t, buf *out, dp_error *err) CHECK_RESULT;
/* Appends the tokenizer.json that the files came with, as it is: that of a folder or pack, or the
 * one in a GGUF file (tokenizer.huggingface.json). *found false if there is none. */
bool tokenizer_source_json(container *c, buf *out, bool *found, dp_error *err) CHECK_RESULT;

/* Writes the keys tokenizer.* of a GGUF file of `vocab_size` rows, whose further tokens are
 * padding. `source`, or NULL: the files that t was opened from. A GGUF's keys are copied; the
 * tokenizer.json of anything else becomes tokenizer.huggingface.json, which tokenizer_open goes by,
 * and the other keys are as near as GGUF comes to it: what they cannot say is told to the log.
 * DP_E_UNSUPPORTED, DP_E_LIMIT, DP_E_MEMORY. */
bool tokenizer_write_gguf(const tokenizer *t, container *source, uint32_t vocab_size,
                          const meta_sink *sink, dp_error *err) CHECK_RESULT;

/* ---- chat templates (chat.c, jinja*.c) ------------------------------------------------------ */

typedef struct {
    str messages;               /* a JSON array of objects */
    str tools;                  /* a JSON array of objects; empty: the template sees none */
    str variables;              /* a JSON object of further variables (enable_thinking), or empty */
    bool add_generation_prompt; /* the template ends with the start of an answer */
    str bos, eos;               /* spellings of bos_token and eos_token; empty: undefined */
    int64_t now;                /* seconds since 1970, UTC: what strftime_now prints */
} chat_input;

/* Appends the prompt that a chat template makes of `in` to `out`. The template is Jinja as Hugging
 * Face transformers runs it, and the bytes are those that it would make. `untrusted` (NULL is fine)
 * gets one byte for each of them: 1 where it came from the messages, tools or variables, through
 * whatever operations, 0 where the template itself, bos or eos wrote it. Role names of the usual
 * set (system, user, assistant, tool, ...) count as the template's, because some templates build
 * special tokens of them; any other role is marked.
 *
 * A template is code from a stranger: its steps, depth and memory are bounded by fixed amounts plus
 * a multiple of the sizes given in. Messages begin with `name_for_errors` and the template's line.
 * DP_E_FORMAT for a template that is wrong or fails on these messages, or for bad JSON;
 * DP_E_ARGUMENT where the template itself refuses the messages (raise_exception, whose text is the
 * message) or messages are no array of objects; DP_E_UNSUPPORTED for a tag or filter that we leave
 * out; DP_E_LIMIT; DP_E_MEMORY. On false nothing was appended. */
bool chat_render(str chat_template, const char *name_for_errors, const chat_input *in, buf *out,
                 buf *untrusted, dp_error *err) CHECK_RESULT;

#endif
