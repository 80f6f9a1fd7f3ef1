/* weight_upload: what weights_plan laid out, taken to the device.
 *
 * What is to travel is cut into items, in the order of the files; a load is some items that fit one
 * piece of the device's staging memory. Threads take loads in that order, and each reads, repacks
 * and writes its own straight into the piece, in chunks that stay in a core's cache. The thread
 * that owns the device hands out pieces, sends those that are filled, in whatever order they come,
 * and tells the progress. Loads begin in order and those that have begun are finished, so of
 * several failures the first in the files is the one that is reported. Where threads cannot be had
 * the owner fills the pieces itself. */
#define _GNU_SOURCE

#include "model/weights_internal.h"

#include <pthread.h>
#include <stdlib.h>

enum {
    CHUNK_BYTES = 256 * 1024, /* read and repacked at a time: twice that is in the second cache */
    FILLERS_MAX = 12,
    PIECES_MAX = FILLERS_MAX + 4, /* some are on their way while the others are filled */
    LOAD_ITEMS = 64,
};

/* Rows [first, first + n) of a matrix, or elements of a vector, and where they go. */
typedef struct {
    const weight *w; /* NULL: of v */
    const vector *v;
    uint64_t first;
    uint32_t n;
    uint32_t file;
    uint64_t place; /* in the file: where the source begins */
    gpu_range to;
} upload_item;

typedef struct {
    size_t first; /* item */
    uint32_t n;
} upload_load;

/* A filled piece, on its way to the owner. */
typedef struct {
    uint32_t piece, load;
} filled_piece;

typedef struct {
    uint32_t piece;
    void *memory;
} empty_piece;

struct uploader {
    gpu *g;
    container *files;
    dp_progress_fn *progress;
    void *progress_user;
    gpu_staging *staging;
    uint64_t done, total;
    upload_item *items;
    size_t n_items, max_items;
    upload_load *loads;
    uint32_t n_loads;
    uint32_t n_pieces;    /* at most under way */
    uint64_t piece_bytes; /* of the largest load */
    size_t scratch_bytes; /* of each thread, twice: as in the files, as on the device */

    pthread_mutex_t lock; /* of all that follows */
    pthread_cond_t wake_fillers, wake_owner;
    uint32_t next; /* load to begin */
    empty_piece empty[PIECES_MAX];
    uint32_t n_empty;
    filled_piece filled[PIECES_MAX];
    uint32_t n_filled;
    uint32_t n_filling;
    bool stop;       /* nothing more begins */
    uint32_t failed; /* the first load that could not be filled; UINT32_MAX: none */
    dp_error failure;
    unsigned char *scratch; /* of the owner, if it fills pieces itself */
};

/* ---- what is to travel --------------------------------------------------------------------- */

static bool list_item(uploader *u, upload_item item, dp_error *err) {
    if (u->n_items == u->max_items) {
        const size_t max = u->max_items > 0 ? u->max_items * 2 : 256;
        upload_item *items = mem_resize(u->items, max, sizeof *items, "uploads", err);
        if (items == NULL) {
            return false;
        }
        u->items = items;
        u->max_items = max;
    }
    u->items[u->n_items++] = item;
    u->total += item.to.size;
    return true;
}

/* Rows that are read and repacked at a time; the bytes of one in the files or on the device,
 * whichever are more, and on the device. Decoding goes by 256 rows, transposing reads all
 * columns for however many rows. */
static uint32_t chunk_rows(const weight *w, uint32_t most, uint64_t *bytes, uint64_t *row_bytes) {
    uint64_t file_bytes = 0;
    const bool sized = dtype_padded_row_bytes(w->type, w->cols, &file_bytes) &&
                       device_row_bytes(w->type, w->cols, row_bytes);
    assert(sized);
    (void)sized;
    *bytes = max_u64(file_bytes, *row_bytes);
    const uint32_t rows = (uint32_t)max_u64(CHUNK_BYTES / *bytes, 1);
    return w->decoded              ? min_u32((uint32_t)align_up(rows, 256), most)
           : w->pieces->transposed ? most
                                   : min_u32(rows, most);
}

static bool list_matrix(uploader *u, const weight *w, dp_error *err) {
    if (w->n_pieces == 0) {
        return true;
    }
    uint64_t row_bytes = 0, chunk_bytes = 0;
    const uint32_t step = upload_rows(w, &row_bytes);
    const uint32_t chunk = chunk_rows(w, step, &chunk_bytes, &row_bytes);
    u->scratch_bytes = (size_t)max_u64(u->scratch_bytes, chunk * chunk_bytes);
    for (uint32_t i = 0; i < w->n_parts; i++) {
        const weight_part *p = &w->parts[i];
        const uint64_t unit = w->experts ? w->rows : 1;
        const uint64_t first = p->first * unit, n_rows = p->rows * unit;
        for (uint64_t row = 0; row < n_rows; row += step) {
            const uint32_t n = (uint32_t)min_u64(step, n_rows - row);
            const tensor *source = w->pieces[(first + row) / w->rows].source;
            const upload_item item = { .w = w,
                                       .first = first + row,
                                       .n = n,
                                       .file = source->file,
                                       .place = source->offset,
                                       .to = gpu_part(p->range, row * row_bytes, n * row_bytes) };
            if (!list_item(u, item, err)) {
                return false;
            }
        }
    }
    return true;
}

static bool list_vector(uploader *u, const vector *v, dp_error *err) {
    enum { AT_ONCE = UPLOAD_BYTES / sizeof(float) };
    for (uint32_t i = 0; v->source != NULL && i < v->n; i += AT_ONCE) {
        const uint32_t n = min_u32(AT_ONCE, v->n - i);
        const upload_item item = { .v = v,
                                   .first = i,
                                   .n = n,
                                   .file = v->source->file,
                                   .place = v->source->offset,
                                   .to = gpu_part(v->range, i * sizeof(float), n * sizeof(float)) };
        if (!list_item(u, item, err)) {
            return false;
        }
    }
    return true;
}

static bool list_all(uploader *u, const weights *w, const config *c, dp_error *err) {
    if (!list_matrix(u, &w->embedding, err) || !list_vector(u, &w->positions, err)) {
        return false;
    }
    const bool paged = weights_page_experts(w, c);
    for (uint32_t i = 0; i < c->n_layers; i++) {
        for (size_t f = 0; f < N_LAYER_FIELDS; f++) {
            const layer_field *field = &LAYER_FIELDS[f];
            const void *where = (const char *)&w->layers[i] + field->offset;
            if (field->kind == IS_EXPERTS && paged) {
                continue;
            }
            if (is_matrix(field) ? !list_matrix(u, where, err) : !list_vector(u, where, err)) {
                return false;
            }
        }
    }
    return list_vector(u, &w->output_norm, err) && list_vector(u, &w->output_norm_bias, err) &&
           (w->head.pieces == w->embedding.pieces || list_matrix(u, &w->head, err));
}

static int compare_u64(uint64_t a, uint64_t b) {
    return a < b ? -1 : a > b;
}

/* By place in the files; equal ones (several rows, or fields, of a tensor) by rows and target. */
static int compare_items(const void *a, const void *b) {
    const upload_item *x = a, *y = b;
    const int by_file = compare_u64(x->file, y->file), by_place = compare_u64(x->place, y->place);
    const int by_row = compare_u64(x->first, y->first);
    return by_file != 0    ? by_file
           : by_place != 0 ? by_place
           : by_row != 0   ? by_row
                           : compare_u64(x->to.offset, y->to.offset);
}

/* Bytes of an item in its piece. */
static uint64_t staged_bytes(const upload_item *item) {
    return align_up(item->to.size, 16);
}

static bool make_loads(uploader *u, dp_error *err) {
    if (u->n_items > 0) {
        qsort(u->items, u->n_items, sizeof *u->items, compare_items);
    }
    u->loads = mem_new(u->n_items + 1, sizeof *u->loads, "uploads", err);
    if (u->loads == NULL) {
        return false;
    }
    uint64_t bytes = UPLOAD_BYTES; /* of the last load: none yet */
    for (size_t i = 0; i < u->n_items; i++) {
        const uint64_t more = staged_bytes(&u->items[i]);
        if (bytes + more > UPLOAD_BYTES || u->loads[u->n_loads - 1].n == LOAD_ITEMS) {
            u->loads[u->n_loads++] = (upload_load){ .first = i };
            bytes = 0;
        }
        u->loads[u->n_loads - 1].n++;
        bytes += more;
        u->piece_bytes = max_u64(u->piece_bytes, bytes);
    }
    return true;
}

/* ---- filling ------------------------------------------------------------------------------- */

/* The memory may be slow to read and to write out of order: what is repacked goes there whole. */
static bool fill_rows(uploader *u, const upload_item *item, unsigned char *scratch,
                      unsigned char *to, dp_error *err) {
    const weight *w = item->w;
    unsigned char *repacked = scratch + u->scratch_bytes;
    uint64_t most = 0, row_bytes = 0;
    const uint32_t chunk = chunk_rows(w, item->n, &most, &row_bytes);
    for (uint32_t row = 0; row < item->n; row += chunk) {
        const uint32_t n = min_u32(chunk, item->n - row);
        if (!weight_read_device(u->files, w, item->first + row, n, scratch, repacked, err)) {
            return false;
        }
        memcpy(to, repacked, (size_t)(n * row_bytes));
        to += n * row_bytes;
    }
    return true;
}

/* Asks for what will be read when all pieces have been filled once more. */
static void read_ahead(const uploader *u, uint32_t load) {
    if (load >= u->n_loads) {
        return;
    }
    const upload_load *l = &u->loads[load];
    for (uint32_t i = 0; i < l->n; i++) {
        const upload_item *item = &u->items[l->first + i];
        if (item->w != NULL) {
            weight_read_ahead(u->files, item->w, item->first, item->n);
        }
    }
}

static bool fill_piece(uploader *u, uint32_t load, unsigned char *scratch, unsigned char *memory,
                       dp_error *err) {
    const upload_load *l = &u->loads[load];
    read_ahead(u, load + u->n_pieces);
    for (uint32_t i = 0; i < l->n; i++) {
        const upload_item *item = &u->items[l->first + i];
        const bool ok = item->w != NULL ? fill_rows(u, item, scratch, memory, err)
                                        : vector_read(u->files, item->v, (uint32_t)item->first,
                                                      item->n, (float *)(void *)memory, err);
        if (!ok) {
            return false;
        }
        memory += staged_bytes(item);
    }
    return true;
}

static void note_failure(uploader *u, uint32_t load, const dp_error *err) {
    if (load < u->failed) {
        u->failed = load;
        u->failure = *err;
    }
    u->stop = true;
}

/* With the lock held: begins the next load with an empty piece and fills it. */
static void fill_next(uploader *u, unsigned char *scratch) {
    const uint32_t load = u->next++;
    const empty_piece piece = u->empty[--u->n_empty];
    dp_error err = { 0 };
    u->n_filling++;
    pthread_mutex_unlock(&u->lock);
    const bool ok = fill_piece(u, load, scratch, piece.memory, &err);
    pthread_mutex_lock(&u->lock);
    u->n_filling--;
    if (ok) {
        u->filled[u->n_filled++] = (filled_piece){ piece.piece, load };
    } else {
        note_failure(u, load, &err);
    }
    pthread_cond_signal(&u->wake_owner);
}

static void *run_filler(void *user) {
    uploader *u = user;
    dp_error err = { 0 };
    unsigned char *scratch = mem_new(2, u->scratch_bytes, "upload buffer", &err);
    pthread_mutex_lock(&u->lock);
    if (scratch == NULL) {
        note_failure(u, u->next, &err);
    }
    for (;;) {
        while (!u->stop && u->next < u->n_loads && u->n_empty == 0) {
            pthread_cond_wait(&u->wake_fillers, &u->lock);
        }
        if (u->stop || u->next == u->n_loads) {
            break;
        }
        fill_next(u, scratch);
    }
    pthread_cond_broadcast(&u->wake_fillers); /* the others may end too */
    pthread_cond_signal(&u->wake_owner);
    pthread_mutex_unlock(&u->lock);
    mem_free(scratch);
    return NULL;
}

/* ---- sending ------------------------------------------------------------------------------- */

static bool report_progress(uploader *u, uint64_t bytes, dp_error *err) {
    u->done += bytes;
    return u->progress == NULL || u->progress(u->progress_user, u->done, u->total) ||
           err_set(err, DP_E_CANCELLED, "%s: loading was cancelled", container_path(u->files));
}

static bool send_load(uploader *u, filled_piece f, dp_error *err) {
    const upload_load *l = &u->loads[f.load];
    gpu_staged list[LOAD_ITEMS];
    uint64_t at = 0, bytes = 0;
    for (uint32_t i = 0; i < l->n; i++) {
        const upload_item *item = &u->items[l->first + i];
        list[i] = (gpu_staged){ .to = item->to, .from = at };
        at += staged_bytes(item);
        bytes += item->to.size;
    }
    return gpu_staging_send(u->staging, f.piece, list, l->n, err) && report_progress(u, bytes, err);
}

/* With the lock held: takes a piece for a load to come. If the threads have nothing to do it waits
 * for the device to give one back. */
static bool offer_piece(uploader *u, uint32_t n_threads, dp_error *err) {
    const bool idle = u->n_empty == 0 && u->n_filling < max_u32(n_threads, 1);
    uint32_t piece = 0;
    pthread_mutex_unlock(&u->lock);
    void *memory = gpu_staging_take(u->staging, idle, &piece, err);
    pthread_mutex_lock(&u->lock);
    if (memory != NULL) {
        u->empty[u->n_empty++] = (empty_piece){ piece, memory };
        pthread_cond_signal(&u->wake_fillers);
    }
    return memory != NULL;
}

/* Until all is sent or something failed. */
static bool send_all(uploader *u, uint32_t n_threads, dp_error *err) {
    dp_error failed = { 0 };
    pthread_mutex_lock(&u->lock);
    for (uint32_t n_sent = 0; n_sent < u->n_loads && !u->stop;) {
        if (u->n_filled > 0) {
            const filled_piece f = u->filled[--u->n_filled];
            pthread_mutex_unlock(&u->lock);
            const bool sent = send_load(u, f, &failed);
            pthread_mutex_lock(&u->lock);
            u->stop |= !sent;
            n_sent++;
            continue;
        }
        if (u->next + u->n_empty < u->n_loads && offer_piece(u, n_threads, &failed)) {
            continue;
        }
        if (failed.status != DP_OK) {
            u->stop = true;
        } else if (u->n_filled > 0 || u->stop) {
            continue; /* meanwhile */
        } else if (n_threads == 0) {
            fill_next(u, u->scratch);
        } else {
            pthread_cond_wait(&u->wake_owner, &u->lock);
        }
    }
    u->stop = true;
    pthread_cond_broadcast(&u->wake_fillers);
    pthread_mutex_unlock(&u->lock);
    return failed.status == DP_OK || err_set(err, failed.status, "%s", failed.message);
}

static bool make_scratch(uploader *u, dp_error *err) {
    if (u->scratch == NULL) {
        u->scratch = mem_new(2, u->scratch_bytes, "upload buffer", err);
    }
    return u->scratch != NULL;
}

static bool run_upload(uploader *u, dp_error *err) {
    pthread_t threads[FILLERS_MAX];
    const uint32_t wanted = min_u32(min_u32(processors(), FILLERS_MAX), u->n_loads);
    uint32_t n = 0;
    /* One piece alone is filled as well by its owner. */
    while (wanted > 1 && n < wanted && pthread_create(&threads[n], NULL, run_filler, u) == 0) {
        n++;
    }
    bool ok = n > 0 || make_scratch(u, err);
    ok = ok && send_all(u, n, err);
    for (uint32_t i = 0; i < n; i++) {
        pthread_join(threads[i], NULL);
    }
    return u->failed == UINT32_MAX ? ok : err_set(err, u->failure.status, "%s", u->failure.message);
}

uploader *upload_begin(weights *w, gpu *g, const config *c, container *files,
                       const dp_model_options *options, dp_error *err) {
    uploader *u = mem_new(1, sizeof *u, "uploads", err);
    if (u == NULL) {
        return NULL;
    }
    *u = (uploader){ .g = g, .files = files, .scratch_bytes = 16, .failed = UINT32_MAX };
    if (options != NULL) {
        u->progress = options->progress;
        u->progress_user = options->progress_user;
    }
    pthread_mutex_init(&u->lock, NULL);
    pthread_cond_init(&u->wake_fillers, NULL);
    pthread_cond_init(&u->wake_owner, NULL);
    bool ok = list_all(u, w, c, err) && make_loads(u, err);
    if (ok && u->n_loads > 0) {
        u->n_pieces = min_u32(PIECES_MAX, u->n_loads);
        u->staging = gpu_staging_new(g, u->n_pieces, u->piece_bytes, err);
        ok = u->staging != NULL;
    }
    if (ok) {
        return u;
    }
    upload_end(u);
    return NULL;
}

bool upload_some(uploader *u, bool *done, dp_error *err) {
    *done = u->next == u->n_loads;
    if (*done) {
        return true;
    }
    if (!make_scratch(u, err)) {
        return false;
    }
    if (u->n_empty == 0) {
        uint32_t piece = 0;
        void *memory = gpu_staging_take(u->staging, true, &piece, err);
        if (memory == NULL) {
            return false;
        }
        u->empty[u->n_empty++] = (empty_piece){ piece, memory };
    }
    const empty_piece piece = u->empty[0];
    if (!fill_piece(u, u->next, u->scratch, piece.memory, err)) {
        return false;
    }
    u->n_empty = 0;
    const filled_piece filled = { piece.piece, u->next++ };
    *done = u->next == u->n_loads;
    return send_load(u, filled, err);
}

bool upload_all(uploader *u, dp_error *err) {
    return u->n_loads == 0 || run_upload(u, err);
}

void upload_end(uploader *u) {
    if (u == NULL) {
        return;
    }
    pthread_cond_destroy(&u->wake_owner);
    pthread_cond_destroy(&u->wake_fillers);
    pthread_mutex_destroy(&u->lock);
    gpu_staging_free(u->staging);
    mem_free(u->scratch);
    mem_free(u->loads);
    mem_free(u->items);
    mem_free(u);
}

uint64_t weights_staging_bytes(const weights *w) {
    const uint64_t pieces = (w->bytes + UPLOAD_BYTES - 1) / UPLOAD_BYTES;
    return min_u64(pieces, PIECES_MAX) * UPLOAD_BYTES;
}

/* ---- buffers ------------------------------------------------------------------------------- */

bool weights_reserve(weights *w, gpu *g, dp_error *err) {
    for (weight_buffer *b = w->newest; b != NULL; b = b->older) {
        b->buffer = gpu_buffer_new(g, b->size, "weights", err);
        if (b->buffer == NULL) {
            return false;
        }
        for (weight_place *place = b->places; place != NULL; place = place->next) {
            place->range->buffer = b->buffer;
        }
    }
    return true;
}

void weights_free(weights *w) {
    for (weight_buffer *b = w->newest; b != NULL; b = b->older) {
        gpu_buffer_free(b->buffer);
        b->buffer = NULL;
    }
}

/* ---- what it takes ------------------------------------------------------------------------- */

typedef struct {
    dp_memory_row rows[8];
    size_t n;
} role_table;

static void count_role(role_table *t, const char *role, uint64_t bytes, bool cut) {
    size_t i = 0;
    while (i < t->n && strcmp(t->rows[i].name, role) != 0) {
        i++;
    }
    if (i == t->n) {
        assert(t->n < ARRAY_LEN(t->rows));
        t->rows[t->n++] = (dp_memory_row){ .group = "weights", .name = role };
    }
    t->rows[i].bytes += bytes;
    t->rows[i].n++;
    t->rows[i].n_cut += cut;
}

/* As weights_plan laid it out: every part at a multiple of 256. */
static void count_matrix(role_table *t, const char *role, const weight *w) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < w->n_parts; i++) {
        bytes += align_up(w->parts[i].range.size, 256);
    }
    if (w->n_pieces > 0) {
        count_role(t, role, bytes, w->n_parts > 1);
    }
}

static void count_vector(role_table *t, const char *role, const vector *v) {
    if (v->source != NULL) {
        count_role(t, role, align_up(v->range.size, 256), false);
    }
}

static const char *weight_role(const layer_field *f) {
    return is_of_experts(f)                            ? "experts"
           : !is_matrix(f)                             ? "norms and biases"
           : strncmp(f->gguf, "attn", 4) == 0          ? "attention"
           : strncmp(f->gguf, "ffn_gate_inp", 12) == 0 ? "router"
                                                       : "feed-forward";
}

size_t weights_describe(const weights *w, const config *c, dp_memory_row *rows, size_t max) {
    role_table t = { .n = 0 };
    count_matrix(&t, "embedding", &w->embedding);
    count_vector(&t, "positions", &w->positions);
    for (uint32_t i = 0; i < c->n_layers; i++) {
        for (size_t f = 0; f < N_LAYER_FIELDS; f++) {
            const layer_field *field = &LAYER_FIELDS[f];
            const void *where = (const char *)&w->layers[i] + field->offset;
            if (is_matrix(field)) {
                count_matrix(&t, weight_role(field), where);
            } else {
                count_vector(&t, weight_role(field), where);
            }
        }
    }
    count_vector(&t, "norms and biases", &w->output_norm);
    count_vector(&t, "norms and biases", &w->output_norm_bias);
    if (w->head.pieces != w->embedding.pieces) {
        count_matrix(&t, "head", &w->head);
    }
    for (size_t i = 0; i < t.n && i < max; i++) {
        rows[i] = t.rows[i];
    }
    return t.n;
}
