/* bpe: byte-pair encoding of one piece.
 *
 * The piece starts as a linked list of symbols, one per character. Candidates, pairs of neighbours
 * that may merge, wait in a heap; the best is taken, checked for being still there, merged, and its
 * new neighbours are added: O(n log n) for a piece of n symbols, however long. Two orders of
 * merging: by rank (GPT-2): a table of (left, right) -> (rank, result), the lowest rank first; by
 * score (SentencePiece): any pair whose concatenation is a token, the highest score first. The
 * leftmost goes first among equals. A character without a token becomes its bytes' tokens
 * (<0xXX>), else the unknown token, else nothing, as in Hugging Face tokenizers. */
#include "text/text_internal.h"

static const uint64_t merge_empty = UINT64_MAX;
static const uint32_t no_symbol = UINT32_MAX;

/* ---- the table of merges ------------------------------------------------------------------- */

static uint64_t merge_slot(uint64_t key) { /* the finalizer of splitmix64 */
    key = (key ^ (key >> 30)) * 0xBF58476D1CE4E5B9u;
    key = (key ^ (key >> 27)) * 0x94D049BB133111EBu;
    return key ^ (key >> 31);
}

bool merges_new(merge_table *m, size_t n, dp_error *err) {
    size_t slots = 16;
    while (slots < n * 2) {
        slots *= 2;
    }
    m->slots = mem_new(slots, sizeof(*m->slots), "merges", err);
    if (m->slots == NULL) {
        return false;
    }
    m->mask = (uint32_t)(slots - 1);
    for (size_t i = 0; i < slots; i++) {
        m->slots[i].key = merge_empty;
    }
    return true;
}

static merge *find_merge(const merge_table *m, uint64_t key) {
    uint32_t i = (uint32_t)merge_slot(key) & m->mask;
    while (m->slots[i].key != merge_empty && m->slots[i].key != key) {
        i = (i + 1) & m->mask;
    }
    return &m->slots[i];
}

void merges_put(merge_table *m, dp_token left, dp_token right, uint32_t rank, dp_token result) {
    const uint64_t key = (uint64_t)left << 32 | right;
    *find_merge(m, key) = (merge){ .key = key, .rank = rank, .result = result };
}

const merge *merges_get(const merge_table *m, dp_token left, dp_token right) {
    if (m->slots == NULL || left == DP_NO_TOKEN || right == DP_NO_TOKEN) {
        return NULL;
    }
    const merge *found = find_merge(m, (uint64_t)left << 32 | right);
    return found->key == merge_empty ? NULL : found;
}

/* ---- candidates ---------------------------------------------------------------------------- */

static bool goes_first(const candidate *a, const candidate *b) {
    return a->key != b->key ? a->key < b->key : a->pos < b->pos;
}

static bool push_candidate(encoding *e, candidate c) {
    if (e->n_heap == e->heap_capacity) {
        const size_t capacity = e->heap_capacity * 2 + 64;
        candidate *heap = mem_resize(e->heap, capacity, sizeof(*heap), "merging", e->err);
        if (heap == NULL) {
            return false;
        }
        e->heap = heap;
        e->heap_capacity = capacity;
    }
    size_t i = e->n_heap++;
    while (i > 0 && goes_first(&c, &e->heap[(i - 1) / 2])) {
        e->heap[i] = e->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    e->heap[i] = c;
    e->n_candidates++;
    return true;
}

static candidate pop_candidate(encoding *e) {
    const candidate top = e->heap[0];
    const candidate last = e->heap[--e->n_heap];
    size_t i = 0;
    while (true) {
        size_t child = 2 * i + 1;
        if (child >= e->n_heap) {
            break;
        }
        if (child + 1 < e->n_heap && goes_first(&e->heap[child + 1], &e->heap[child])) {
            child++;
        }
        if (!goes_first(&e->heap[child], &last)) {
            break;
        }
        e->heap[i] = e->heap[child];
        i = child;
    }
    e->heap[i] = last;
    return top;
}

bool may_become(const encoding *e, dp_token id) {
    const uint16_t flags = e->t->flags[id];
    if (e->t->by_score && (flags & (TOKEN_SPECIAL | TOKEN_BYTE))) {
        return false;
    }
    return (flags & TOKEN_MODEL) && (e->may_merge || !(flags & TOKEN_SPECIAL));
}

static dp_token token_of(const encoding *e, str spelling) {
    uint32_t id;
    if (spelling.size > e->t->longest || !map_get(e->t->ids, spelling, &id) || !may_become(e, id)) {
        return DP_NO_TOKEN;
    }
    return id;
}

/* What the symbols at `pos` and behind it merge to; false if they do not. */
static bool candidate_at(const encoding *e, str piece, uint32_t pos, candidate *c) {
    const symbol *left = &e->symbols[pos];
    if (left->next == no_symbol) {
        return false;
    }
    const symbol *right = &e->symbols[left->next];
    *c = (candidate){ .pos = pos, .size = left->size + right->size };
    if (e->t->by_score) {
        c->result = token_of(e, (str){ piece.data + left->start, c->size });
        if (c->result == DP_NO_TOKEN) {
            return false;
        }
        c->key = e->t->order[c->result];
        return true;
    }
    const merge *m = merges_get(&e->t->merges, left->id, right->id);
    if (m == NULL || !may_become(e, m->result)) {
        return false;
    }
    c->key = m->rank;
    c->result = m->result;
    return true;
}

static bool consider(encoding *e, str piece, uint32_t pos) {
    candidate c;
    return !candidate_at(e, piece, pos, &c) || push_candidate(e, c);
}

/* ---- one piece ----------------------------------------------------------------------------- */

static bool push_symbol(encoding *e, size_t *n, dp_token id, size_t start, size_t size) {
    if (*n == e->n_symbols) {
        const size_t capacity = e->n_symbols * 2 + 64;
        symbol *symbols = mem_resize(e->symbols, capacity, sizeof(*symbols), "merging", e->err);
        if (symbols == NULL) {
            return false;
        }
        e->symbols = symbols;
        e->n_symbols = capacity;
    }
    const uint32_t i = (uint32_t)*n;
    e->symbols[i] = (symbol){ .id = id,
                              .prev = i > 0 ? i - 1 : no_symbol,
                              .next = no_symbol,
                              .start = (uint32_t)start,
                              .size = (uint32_t)size };
    if (i > 0) {
        e->symbols[i - 1].next = i;
    }
    ++*n;
    return true;
}

static bool has_byte_tokens(const tokenizer *t, str bytes) {
    for (size_t i = 0; i < bytes.size; i++) {
        if (t->byte_ids[(uint8_t)bytes.data[i]] == DP_NO_TOKEN) {
            return false;
        }
    }
    return t->byte_fallback;
}

bool emit_byte_tokens(encoding *e, str bytes) {
    const bool all = has_byte_tokens(e->t, bytes);
    for (size_t i = 0; all && i < bytes.size; i++) {
        emit(e, e->t->byte_ids[(uint8_t)bytes.data[i]]);
    }
    return all;
}

/* One symbol per character. Ranks merge known tokens alone, so that what is unknown is replaced
 * before; scores may join an unknown character to something known, so that it waits. */
static bool start_symbols(encoding *e, str piece, size_t *n) {
    const tokenizer *t = e->t;
    bool after_unk = false;
    *n = 0;
    for (size_t i = 0; i < piece.size;) {
        uint32_t code = UINT32_MAX;
        str c = { piece.data + i, piece.size - i };
        const size_t length = utf8_next(c, &code);
        c.size = length > 0 ? length : 1;
        dp_token id;
        if (length > 0 && code < CHAR_TABLE) {
            id = t->char_ids[code];
            if (id != DP_NO_TOKEN && !may_become(e, id)) {
                id = DP_NO_TOKEN;
            }
        } else {
            id = token_of(e, c);
        }
        bool ok = true;
        if (id != DP_NO_TOKEN || t->by_score) {
            ok = push_symbol(e, n, id, i, c.size);
            after_unk = false;
        } else if (has_byte_tokens(t, c)) {
            for (size_t j = 0; ok && j < c.size; j++) {
                ok = push_symbol(e, n, t->byte_ids[(uint8_t)c.data[j]], i + j, 1);
            }
            after_unk = false;
        } else if (t->unk != DP_NO_TOKEN && after_unk && t->fuse_unk) {
            e->symbols[*n - 1].size += (uint32_t)c.size;
        } else if (t->unk != DP_NO_TOKEN) {
            ok = push_symbol(e, n, t->unk, i, c.size);
            after_unk = true;
        }
        if (!ok) {
            return false;
        }
        i += c.size;
    }
    return true;
}

static bool merge_symbols(encoding *e, str piece, size_t n) {
    e->n_heap = 0;
    for (size_t i = 0; i + 1 < n; i++) {
        if (!consider(e, piece, (uint32_t)i)) {
            return false;
        }
    }
    while (e->n_heap > 0) {
        const candidate c = pop_candidate(e);
        symbol *left = &e->symbols[c.pos];
        if (left->size == 0 || left->next == no_symbol) {
            continue;
        }
        symbol *right = &e->symbols[left->next];
        if (e->t->by_score) { /* the same place and length are the same text */
            if (left->size + right->size != c.size) {
                continue;
            }
        } else { /* the result must agree, the rank need not: so does the reference */
            const merge *m = merges_get(&e->t->merges, left->id, right->id);
            if (m == NULL || m->result != c.result) {
                continue;
            }
        }
        left->id = c.result;
        left->size += right->size;
        left->next = right->next;
        right->size = 0;
        if (left->next != no_symbol) {
            e->symbols[left->next].prev = c.pos;
        }
        if ((left->prev != no_symbol && !consider(e, piece, left->prev)) ||
            !consider(e, piece, c.pos)) {
            return false;
        }
    }
    return true;
}

bool bpe_encode(encoding *e, str piece) {
    const tokenizer *t = e->t;
    if (t->ignore_merges) {
        const dp_token whole = token_of(e, piece);
        if (whole != DP_NO_TOKEN) {
            emit(e, whole);
            return true;
        }
    }
    size_t n;
    if (!start_symbols(e, piece, &n) || !merge_symbols(e, piece, n)) {
        return false;
    }
    bool after_unk = false;
    for (uint32_t i = n > 0 ? 0 : no_symbol; i != no_symbol; i = e->symbols[i].next) {
        const symbol *s = &e->symbols[i];
        const str bytes = { piece.data + s->start, s->size };
        if (s->id != DP_NO_TOKEN) {
            emit(e, s->id);
        } else if (!emit_byte_tokens(e, bytes)) {
            if (t->unk != DP_NO_TOKEN && !(after_unk && t->fuse_unk)) {
                emit(e, t->unk);
            }
            after_unk = true;
            continue;
        }
        after_unk = false;
    }
    return true;
}
