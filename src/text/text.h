/* text: bytes to tokens and back. Needs base and format.
 *
 * Tokenizers are built from GGUF metadata (tokenizer.ggml.*) or from a Hugging Face tokenizer.json;
 * Hugging Face `tokenizers` is the reference for both. Two algorithms: byte-level BPE (GPT-2,
 * Llama 3, Qwen, ...) and SentencePiece BPE with byte fallback (Llama 2, Mistral, TinyLlama). A
 * tokenizer is read-only after opening and may be used from any number of threads; it keeps nothing
 * of the container. */
#ifndef TEXT_TEXT_H
#define TEXT_TEXT_H

#include "format/format.h"

typedef struct tokenizer tokenizer;

/* DP_E_FORMAT, DP_E_UNSUPPORTED (a model, normalizer, pre-tokenizer or decoder that is not known,
 * by name), DP_E_LIMIT, DP_E_MEMORY. */
tokenizer *tokenizer_open(container *c, const log_sink *log, dp_error *err) CHECK_RESULT;
void tokenizer_close(tokenizer *t);

/* "bpe": byte-level BPE, "spm": SentencePiece BPE and its kin. Static text. */
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

#endif
