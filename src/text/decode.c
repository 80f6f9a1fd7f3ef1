/* decode: tokens to bytes.
 *
 * What a token's spelling stands for follows from it alone, save for the start of a text; pieces
 * are computed once at opening and decoding only joins them. Bytes come out as they are, also where
 * they are no UTF-8. A decoder keeps the start of an unfinished character, at most three bytes,
 * until the next token completes it or shows that it never will be. */
#include "text/text_internal.h"

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* <0xXX> to its byte; -1 for any other spelling. */
static int fallback_byte(str s) {
    if (s.size != 6 || memcmp(s.data, "<0x", 3) != 0 || s.data[5] != '>') {
        return -1;
    }
    const int high = hex_digit(s.data[3]), low = hex_digit(s.data[4]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

static void decode_bytes(str in, buf *out) {
    for (size_t i = 0; i < in.size;) {
        uint32_t code;
        const size_t n = utf8_next((str){ in.data + i, in.size - i }, &code);
        const int byte = n > 0 ? char_byte(code) : -1;
        if (byte < 0) { /* not GPT-2's table: the spelling itself */
            buf_reset(out);
            buf_add_str(out, in);
            return;
        }
        const char c = (char)byte;
        buf_add(out, &c, 1);
        i += n;
    }
}

static void decode_replace(str in, str literal, str content, buf *out) {
    size_t i = 0;
    while (i < in.size) {
        if (in.size - i >= literal.size && memcmp(in.data + i, literal.data, literal.size) == 0) {
            buf_add_str(out, content);
            i += literal.size;
        } else {
            buf_add(out, in.data + i, 1);
            i++;
        }
    }
}

static str decode_strip(const decode_step *s, str in) {
    const size_t n = s->literal.size;
    for (uint32_t i = 0; i < s->start && in.size >= n; i++) {
        if (memcmp(in.data, s->literal.data, n) != 0) {
            break;
        }
        in.data += n;
        in.size -= n;
    }
    for (uint32_t i = 0; i < s->stop && in.size >= n; i++) {
        if (memcmp(in.data + in.size - n, s->literal.data, n) != 0) {
            break;
        }
        in.size -= n;
    }
    return in;
}

/* One step on a spelling; the result is `in` itself or lies in `out`. */
static str decode_step_on(const decode_step *d, str in, bool first, buf *out) {
    int byte;
    buf_reset(out);
    switch (d->kind) {
    case DECODE_BYTES:
        decode_bytes(in, out);
        break;
    case DECODE_REPLACE:
        decode_replace(in, d->literal, d->content, out);
        break;
    case DECODE_FALLBACK:
        byte = fallback_byte(in);
        if (byte < 0) {
            return in;
        }
        buf_add(out, &(char){ (char)byte }, 1);
        break;
    case DECODE_STRIP:
        return decode_strip(d, in);
    case DECODE_METASPACE:
        decode_replace(in, d->literal, first && d->drop_first ? STR("") : STR(" "), out);
        break;
    }
    return (str){ out->data, out->size };
}

/* The bytes of token `id`, in `spaces` or in the spelling. */
static str spell_token(const tokenizer *t, dp_token id, bool first, buf spaces[2]) {
    str s = t->spelling[id];
    if (id == t->unk && t->unk_surface.data != NULL) {
        return t->unk_surface;
    }
    if (t->raw_bytes && (t->flags[id] & TOKEN_ADDED)) {
        return s; /* added tokens are spelt plainly beside GPT-2's characters */
    }
    unsigned side = 0; /* the buffer that s does not lie in */
    for (uint32_t i = 0; i < t->n_decode; i++) {
        buf *out = &spaces[side];
        s = decode_step_on(&t->decode[i], s, first, out);
        if (out->size > 0) {
            side = 1 - side;
        }
    }
    return s;
}

static void spaces_init(buf spaces[2]) {
    /* A replacement may lengthen a spelling; what a file's own text can ask for is bounded here. */
    buf_init(&spaces[0], (size_t)1 << 24);
    buf_init(&spaces[1], (size_t)1 << 24);
}

static void spaces_free(buf spaces[2]) {
    buf_free(&spaces[0]);
    buf_free(&spaces[1]);
}

bool pieces_build(tokenizer *t, dp_error *err) {
    buf spaces[2];
    spaces_init(spaces);
    bool ok = true;
    for (dp_token id = 0; ok && id < t->n_tokens; id++) {
        if (!(t->flags[id] & TOKEN_PRESENT)) {
            continue;
        }
        const str s = spell_token(t, id, false, spaces);
        if (!buf_ok(&spaces[0], "a token's text", err) ||
            !buf_ok(&spaces[1], "a token's text", err)) {
            ok = false;
        } else if (str_equal(s, t->spelling[id])) {
            t->piece[id] = t->spelling[id];
        } else {
            ok = tokenizer_copy(t, s, &t->piece[id], err);
        }
    }
    spaces_free(spaces);
    return ok;
}

/* ---- streams ------------------------------------------------------------------------------- */

void decoder_init(decoder *d, const tokenizer *t, bool special) {
    *d = (decoder){ .t = t, .special = special };
}

/* Appends bytes behind what was held and holds back an unfinished character at the end. */
static bool give_bytes(decoder *d, str s, buf *out, dp_error *err) {
    buf_add(out, d->held, d->n_held);
    buf_add_str(out, s);
    if (!buf_ok(out, "decoded text", err)) {
        return false;
    }
    const size_t added = d->n_held + s.size;
    if (added == 0) {
        return true;
    }
    const size_t tail = utf8_incomplete_tail((str){ out->data + out->size - added, added });
    assert(tail < sizeof(d->held));
    out->size -= tail;
    memcpy(d->held, out->data + out->size, tail);
    d->n_held = (unsigned)tail;
    out->data[out->size] = '\0';
    return true;
}

bool decoder_add(decoder *d, dp_token token, buf *out, dp_error *err) {
    const tokenizer *t = d->t;
    if (token >= t->n_tokens) {
        return err_set(err, DP_E_ARGUMENT, "token %u, the vocabulary has %u", token, t->n_tokens);
    }
    if ((t->flags[token] & TOKEN_SPECIAL) && !d->special) {
        return true;
    }
    str s = t->piece[token];
    buf spaces[2];
    spaces_init(spaces);
    bool ok = true;
    if (!d->started && t->drops_first) {
        s = spell_token(t, token, true, spaces);
        ok = buf_ok(&spaces[0], "a token's text", err) && buf_ok(&spaces[1], "a token's text", err);
    }
    if (ok && d->started && t->join_spaces) {
        ok = give_bytes(d, STR(" "), out, err);
    }
    const bool surface = token == t->unk && t->unk_surface.data != NULL; /* keeps its space */
    if (!d->started && t->n_lead > 0 && !surface) {
        while (s.size > 0 && s.data[0] == t->lead && d->n_dropped < t->n_lead) {
            s.data++;
            s.size--;
            d->n_dropped++;
        }
        d->started = s.size > 0 || d->n_dropped == t->n_lead;
    } else {
        d->started = true;
    }
    ok = ok && give_bytes(d, s, out, err);
    spaces_free(spaces);
    return ok;
}

void decoder_finish(decoder *d, buf *out) {
    buf_add(out, d->held, d->n_held);
    d->n_held = 0;
}

bool tokenizer_decode(const tokenizer *t, const dp_token *tokens, size_t n, bool special, buf *out,
                      dp_error *err) {
    decoder d;
    decoder_init(&d, t, special);
    for (size_t i = 0; i < n; i++) {
        if (!decoder_add(&d, tokens[i], out, err)) {
            return false;
        }
    }
    decoder_finish(&d, out);
    return buf_ok(out, "decoded text", err);
}
