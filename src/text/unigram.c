/* unigram: the most probable way to write a piece as tokens.
 *
 * Every token has a score, the logarithm of its probability. best[i] is the best way to write the
 * first i bytes, found from left to right by all tokens that start at each character (Viterbi's
 * algorithm). A character that no token writes alone may be unknown, at the lowest score less
 * unknown_penalty. The first of equals stays. Sums are in double as in Hugging Face tokenizers, or
 * in float as in SentencePiece: both meet ways of equal probability that rounding decides. Runs of
 * unknown characters become their bytes' tokens or one unknown token. The work is a piece's bytes
 * times the longest token, at most ADDED_BYTES_MAX. */
#include "text/text_internal.h"

static const double unknown_penalty = 10;

/* Tokens by their bytes. Control and byte tokens of SentencePiece are no part of the model. */
static bool in_model(const tokenizer *t, dp_token id) {
    return (t->flags[id] & TOKEN_MODEL) && !(t->flags[id] & TOKEN_BYTE) && t->spelling[id].size > 0;
}

bool unigram_build(tokenizer *t, dp_error *err) {
    size_t total = 0;
    double lowest = 0;
    bool any = false;
    for (dp_token id = 0; id < t->n_tokens; id++) {
        if (!in_model(t, id)) {
            continue;
        }
        if (t->spelling[id].size > ADDED_BYTES_MAX) {
            return err_set(err, DP_E_LIMIT,
                           "%s: token %u has %zu bytes, the limit of a unigram model is %d",
                           t->source, id, t->spelling[id].size, ADDED_BYTES_MAX);
        }
        total += t->spelling[id].size;
        lowest = !any || t->scores[id] < lowest ? t->scores[id] : lowest;
        any = true;
    }
    t->unknown_score = lowest - unknown_penalty;
    if (!trie_reserve(t, &t->model_trie, total, err)) {
        return false;
    }
    for (dp_token id = 0; id < t->n_tokens; id++) {
        if (in_model(t, id)) {
            trie_put(&t->model_trie, t->spelling[id], id);
        }
    }
    return true;
}

static bool reserve_nodes(encoding *e, size_t n) {
    if (n <= e->n_best) {
        return true;
    }
    const size_t capacity = n + n / 2 + 64;
    best_path *best = mem_resize(e->best, capacity, sizeof(*best), "a unigram model", e->err);
    if (best == NULL) {
        return false;
    }
    e->best = best;
    e->n_best = capacity;
    return true;
}

static void offer(const tokenizer *t, best_path *best, size_t from, size_t end, double score,
                  dp_token id) {
    best_path *to = &best[end];
    score += best[from].score;
    score = t->float_sums ? (double)(float)score : score;
    if (to->from == no_path || score > to->score) {
        *to = (best_path){ .score = score, .from = (uint32_t)from, .id = id };
    }
}

/* Unknown characters in a row, [from, to) of the piece. */
static void emit_unknown(encoding *e, str run) {
    if (run.size > 0 && !emit_byte_tokens(e, run) && e->t->unk != DP_NO_TOKEN) {
        emit(e, e->t->unk);
    }
}

bool unigram_encode(encoding *e, str piece) {
    const tokenizer *t = e->t;
    if (!reserve_nodes(e, piece.size + 1)) {
        return false;
    }
    best_path *best = e->best;
    for (size_t i = 0; i <= piece.size; i++) {
        best[i].from = no_path;
    }
    best[0].score = 0;
    for (size_t i = 0; i < piece.size;) {
        size_t n = utf8_next((str){ piece.data + i, piece.size - i }, NULL);
        n = n > 0 ? n : 1;
        bool alone = false; /* a token writes this character */
        uint32_t node = 0;
        for (size_t j = i; j < piece.size; j++) {
            node = trie_child(&t->model_trie, node, (uint8_t)piece.data[j]);
            if (node == 0) {
                break;
            }
            const dp_token id = t->model_trie.tokens[node];
            if (id != DP_NO_TOKEN && may_become(e, id)) {
                offer(t, best, i, j + 1, t->scores[id], id);
                alone = alone || j + 1 - i == n;
            }
        }
        if (!alone) {
            offer(t, best, i, i + n, t->unknown_score, DP_NO_TOKEN);
        }
        i += n;
    }
    /* From the end back, then forward. */
    for (size_t i = piece.size; i > 0; i = best[i].from) {
        best[best[i].from].to = (uint32_t)i;
    }
    size_t done = 0; /* start of a run of unknown characters that ends at i */
    for (size_t i = 0; i < piece.size; i = best[i].to) {
        const dp_token id = best[best[i].to].id;
        if (id == DP_NO_TOKEN || id == t->unk) {
            continue;
        }
        emit_unknown(e, (str){ piece.data + done, i - done });
        emit(e, id);
        done = best[i].to;
    }
    emit_unknown(e, (str){ piece.data + done, piece.size - done });
    return true;
}
