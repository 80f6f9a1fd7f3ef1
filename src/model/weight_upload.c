/* weight_upload: what weights_plan laid out, taken to the device piece by piece. */
#include "model/weights_internal.h"

typedef struct {
    gpu *g;
    container *files;
    const dp_model_options *options;
    uint64_t done, total;
    unsigned char *piece; /* [UPLOAD_BYTES] */
    dp_error *err;
} uploader;

static bool report_progress(uploader *u, uint64_t bytes) {
    u->done = min_u64(u->done + bytes, u->total);
    if (u->options != NULL && u->options->progress != NULL &&
        !u->options->progress(u->options->progress_user, u->done, u->total)) {
        return err_set(u->err, DP_E_CANCELLED, "%s: loading was cancelled",
                       container_path(u->files));
    }
    return true;
}

static bool upload_matrix(uploader *u, const weight *w) {
    if (w->n_pieces == 0) {
        return true;
    }
    uint64_t row_bytes = 0;
    const uint32_t step = upload_rows(w, &row_bytes);
    for (uint32_t i = 0; i < w->n_parts; i++) {
        const weight_part *p = &w->parts[i];
        const uint64_t unit = w->experts ? w->rows : 1;
        const uint64_t first = p->first * unit, n_rows = p->rows * unit;
        for (uint64_t row = 0; row < n_rows; row += step) {
            const uint32_t n = (uint32_t)min_u64(step, n_rows - row);
            const size_t bytes = (size_t)(n * row_bytes), padded = (size_t)align_up(bytes, 4);
            if (!weight_read(u->files, w, first + row, n, u->piece, u->err)) {
                return false;
            }
            memset(u->piece + bytes, 0, padded - bytes);
            if (!gpu_write(u->g, gpu_part(p->range, row * row_bytes, padded), u->piece, u->err) ||
                !report_progress(u, bytes)) {
                return false;
            }
        }
    }
    return true;
}

static bool upload_vector(uploader *u, const vector *v) {
    enum { AT_ONCE = UPLOAD_BYTES / sizeof(float) };
    for (uint32_t i = 0; v->source != NULL && i < v->n; i += AT_ONCE) {
        const uint32_t n = min_u32(AT_ONCE, v->n - i);
        if (!vector_read(u->files, v, i, n, (float *)(void *)u->piece, u->err) ||
            !gpu_write(u->g, gpu_part(v->range, i * sizeof(float), n * sizeof(float)), u->piece,
                       u->err) ||
            !report_progress(u, n * sizeof(float))) {
            return false;
        }
    }
    return true;
}

/* Of all experts, as the kernels want them: near enough to what the files have. */
static uint64_t file_bytes_of_experts(const weights *w, const config *c) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < c->n_layers; i++) {
        const layer_weights *l = &w->layers[i];
        const weight *const all[] = { &l->expert_gate, &l->expert_up, &l->expert_down };
        for (size_t k = 0; k < ARRAY_LEN(all); k++) {
            uint64_t row_bytes = 0;
            (void)dtype_padded_row_bytes(all[k]->type, all[k]->cols, &row_bytes);
            sum += row_bytes * all[k]->rows * all[k]->n_pieces;
        }
    }
    return sum;
}

static bool upload_all(uploader *u, const weights *w, const config *c) {
    if (!upload_matrix(u, &w->embedding) || !upload_vector(u, &w->positions)) {
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
            if (is_matrix(field) ? !upload_matrix(u, where) : !upload_vector(u, where)) {
                return false;
            }
        }
    }
    return upload_vector(u, &w->output_norm) && upload_vector(u, &w->output_norm_bias) &&
           (w->head.pieces == w->embedding.pieces || upload_matrix(u, &w->head));
}

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

bool weights_upload(weights *w, gpu *g, const config *c, container *files,
                    const dp_model_options *options, dp_error *err) {
    uploader u = { .g = g, .files = files, .options = options, .err = err };
    u.total = container_bytes(files);
    if (weights_page_experts(w, c)) {
        u.total -= min_u64(u.total, file_bytes_of_experts(w, c));
    }
    u.piece = mem_new(1, UPLOAD_BYTES, "upload buffer", err);
    const bool ok = u.piece != NULL && upload_all(&u, w, c);
    mem_free(u.piece);
    return ok;
}

void weights_free(weights *w) {
    for (weight_buffer *b = w->newest; b != NULL; b = b->older) {
        gpu_buffer_free(b->buffer);
        b->buffer = NULL;
    }
}
