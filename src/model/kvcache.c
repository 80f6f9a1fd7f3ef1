/* kvcache: the pool of KV pages and who has which.
 *
 * The pool is shared by all sessions of a model. A sequence's pages are listed in a row of the
 * table that the kernels read; a page belongs to at most one sequence. Pages are taken before a
 * pass that needs them is recorded, so a full pool is an error with nothing changed. */
#include "model/model.h"

static bool upload_pages(dp_model *m, uint32_t slot_index, uint32_t first, dp_error *err) {
    const slot *s = &m->slots[slot_index];
    const uint64_t row = (uint64_t)slot_index * m->shapes.n_pages;
    const gpu_range range =
        gpu_part(m->buffers.pages, (row + first) * 4, (uint64_t)(s->n_pages - first) * 4);
    return gpu_write(m->gpu, range, s->page_list + first, err);
}

bool kv_grow(dp_model *m, uint32_t slot_index, uint32_t n_tokens, dp_error *err) {
    slot *s = &m->slots[slot_index];
    const uint32_t first = s->n_pages, want = ceil_div(n_tokens, KV_PAGE);
    if (want <= first) {
        return true;
    }
    if (want - first > m->n_free_pages) {
        return err_set(err, DP_E_MEMORY,
                       "the KV cache is full: %u more tokens wanted, room for %u of %u is left",
                       (want - first) * KV_PAGE, m->n_free_pages * KV_PAGE, m->shapes.context);
    }
    assert(want <= m->shapes.n_pages);
    while (s->n_pages < want) {
        s->page_list[s->n_pages++] = m->free_pages[--m->n_free_pages];
    }
    if (!upload_pages(m, slot_index, first, err)) {
        kv_shrink(m, slot_index, first * KV_PAGE);
        return false;
    }
    return true;
}

void kv_shrink(dp_model *m, uint32_t slot_index, uint32_t n_tokens) {
    slot *s = &m->slots[slot_index];
    const uint32_t keep = ceil_div(n_tokens, KV_PAGE);
    while (s->n_pages > keep) {
        assert(m->n_free_pages < m->shapes.n_pages);
        m->free_pages[m->n_free_pages++] = s->page_list[--s->n_pages];
    }
}
