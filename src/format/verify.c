/* verify: a pack's bytes against all hashes that its manifest has.
 *
 * What is hashed is cut into jobs that threads take in order: shards (with their pieces, in one
 * reading) or pieces alone, then text files, then the merkle roots of tensors. Of the failures the
 * one of the earliest job counts, so the answer does not depend on the number of threads.
 *
 * Early writers hashed by BLAKE3 where that was installed and by SHA-256 where not, whatever their
 * manifests say, and their BLAKE3 is mostly a variant (hash.c). So a shard is right if any of the
 * three gives its hash: none is easier to forge than the weakest that must be taken anyway. */
#include "format/format_internal.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>

enum {
    READ_BYTES = 256 * 1024,
    THREADS_UNASKED = 8,
    TREE_LEVELS = 64,
    N_HASHES = 3,
};

static const uint64_t progress_step = 16 * 1024 * 1024;

typedef struct {
    container *c;
    verify_options options;
    const atomic_bool *cancelled; /* NULL: nobody can */
    unsigned char *buffers;       /* READ_BYTES for each thread */
    uint64_t n_first;             /* jobs that are shards or pieces */
    uint64_t total;
    atomic_uint_fast64_t done;
    atomic_int likely; /* the hash_kind that was right last */
    atomic_uint n_pieces, n_shards, n_files, n_roots;

    pthread_mutex_t lock;            /* of what follows */
    uint64_t told;                   /* bytes at the last call of progress */
    atomic_bool stopped;             /* by progress */
    atomic_uint_fast64_t failed_job; /* UINT64_MAX: none */
    dp_error err;                    /* of that job */
} verification;

/* ---- progress ------------------------------------------------------------------------------ */

static bool is_stopped(const verification *v) {
    return atomic_load(&v->stopped) || (v->cancelled != NULL && atomic_load(v->cancelled));
}

static void tell(verification *v, uint64_t n, bool last) {
    const uint64_t done = atomic_fetch_add(&v->done, n) + n;
    if (v->options.progress == NULL) return;
    pthread_mutex_lock(&v->lock);
    if (!atomic_load(&v->stopped) && (last || done >= v->told + progress_step)) {
        v->told = done;
        if (!v->options.progress(v->options.user, done, v->total)) atomic_store(&v->stopped, true);
    }
    pthread_mutex_unlock(&v->lock);
}

/* Remembers the failure of a job unless an earlier one has failed. */
static void fail(verification *v, uint64_t job, const dp_error *err) {
    pthread_mutex_lock(&v->lock);
    if (job < atomic_load(&v->failed_job)) {
        atomic_store(&v->failed_job, job);
        v->err = *err;
    }
    pthread_mutex_unlock(&v->lock);
}

/* ---- shards and pieces --------------------------------------------------------------------- */

static const char *hash_name(hash_kind kind) {
    return kind == HASH_SHA256 ? "SHA-256" : kind == HASH_BLAKE3 ? "BLAKE3" : "BLAKE3 (variant)";
}

/* Sixteen digits tell hashes apart, and the sentence keeps its end. */
static bool refuse_hash(const char *where, hash_kind kind, const unsigned char *got,
                        const unsigned char *want, dp_error *err) {
    char is[HASH_HEX_BYTES], says[HASH_HEX_BYTES];
    hash_to_hex(got, is);
    hash_to_hex(want, says);
    return err_set(err, DP_E_FORMAT, "%s: %s is %.16s..., the manifest says %.16s...", where,
                   hash_name(kind), is, says);
}

/* Reads bytes [from, to) of a shard by pieces of READ_BYTES into the hash. */
static bool hash_range(verification *v, uint32_t shard, uint64_t from, uint64_t to,
                       unsigned char *buffer, hash_state *h, dp_error *err) {
    while (from < to) {
        const size_t n = (size_t)min_u64(READ_BYTES, to - from);
        if (is_stopped(v)) return err_set(err, DP_E_CANCELLED, "verification was stopped");
        if (!pack_read(v->c, shard, from, buffer, n, err)) return false;
        hash_add(h, buffer, n);
        from += n;
    }
    return true;
}

static bool check_piece_digest(const verification *v, uint32_t shard, uint64_t piece,
                               const unsigned char *digest, dp_error *err) {
    const pack_listing *l = &v->c->pack->listing;
    const unsigned char *want = l->pieces + (l->first_piece[shard] + piece) * HASH_BYTES;
    if (memcmp(digest, want, HASH_BYTES) == 0) return true;
    const uint64_t first = piece * l->piece_bytes, size = l->files[shard].size;
    char where[400];
    snprintf(where, sizeof(where), "%.*s: bytes %" PRIu64 " to %" PRIu64,
             STR_ARG(l->files[shard].name), first, min_u64(first + l->piece_bytes, size) - 1);
    return refuse_hash(where, HASH_SHA256, digest, want, err);
}

static bool verify_piece(verification *v, uint32_t shard, uint64_t piece, unsigned char *buffer,
                         dp_error *err) {
    const pack_listing *l = &v->c->pack->listing;
    const uint64_t first = piece * l->piece_bytes;
    const uint64_t end = min_u64(first + l->piece_bytes, l->files[shard].size);
    hash_state h;
    unsigned char digest[HASH_BYTES];
    hash_begin(&h, HASH_SHA256);
    if (!hash_range(v, shard, first, end, buffer, &h, err)) return false;
    hash_end(&h, digest);
    if (!check_piece_digest(v, shard, piece, digest, err)) return false;
    atomic_fetch_add(&v->n_pieces, 1);
    tell(v, end - first, false);
    return true;
}

/* Hash of a whole shard. At the first reading its pieces are checked on the way. */
static bool hash_whole_shard(verification *v, uint32_t shard, hash_kind kind, bool is_first,
                             unsigned char *buffer, unsigned char digest[HASH_BYTES],
                             dp_error *err) {
    const pack_listing *l = &v->c->pack->listing;
    const uint64_t size = l->files[shard].size;
    const bool pieces = is_first && l->piece_bytes > 0;
    const uint64_t piece_bytes = pieces ? l->piece_bytes : size;
    hash_state whole, piece;
    hash_begin(&whole, kind);
    for (uint64_t at = 0, i = 0; at < size; i++) {
        const uint64_t end = at + min_u64(piece_bytes, size - at);
        hash_begin(&piece, HASH_SHA256);
        while (at < end) {
            const size_t n = (size_t)min_u64(READ_BYTES, end - at);
            if (is_stopped(v)) return err_set(err, DP_E_CANCELLED, "verification was stopped");
            if (!pack_read(v->c, shard, at, buffer, n, err)) return false;
            hash_add(&whole, buffer, n);
            if (pieces) hash_add(&piece, buffer, n);
            at += n;
            if (is_first) tell(v, n, false);
        }
        if (!pieces) continue;
        hash_end(&piece, digest);
        if (!check_piece_digest(v, shard, i, digest, err)) return false;
        atomic_fetch_add(&v->n_pieces, 1);
    }
    hash_end(&whole, digest);
    return true;
}

/* ---- merkle roots -------------------------------------------------------------------------- */

/* A tree of which the leaves come one by one: at each level the node that waits for its right
 * neighbour. */
typedef struct {
    uint64_t n_leaves;
    unsigned char waiting[TREE_LEVELS][HASH_BYTES];
} merkle_tree;

static void join_nodes(const unsigned char *left, const unsigned char *right,
                       unsigned char out[HASH_BYTES]) {
    hash_state h;
    hash_begin(&h, HASH_SHA256);
    hash_add(&h, left, HASH_BYTES);
    hash_add(&h, right, HASH_BYTES);
    hash_end(&h, out);
}

static void add_leaf(merkle_tree *m, unsigned char node[HASH_BYTES]) {
    uint32_t level = 0;
    for (; (m->n_leaves >> level & 1) != 0; level++)
        join_nodes(m->waiting[level], node, node);
    memcpy(m->waiting[level], node, HASH_BYTES);
    m->n_leaves++;
}

/* The last node of a level with an odd number of them is its own right neighbour. `count` nodes
 * are at a level in the end, n_leaves >> level of them above full subtrees. */
static void root_of(const merkle_tree *m, unsigned char root[HASH_BYTES]) {
    uint64_t count = m->n_leaves;
    uint32_t level = 0;
    bool carried = false; /* root holds the last node of this level */
    for (; count > 1; level++, count = count / 2 + count % 2) {
        const bool waits = (m->n_leaves >> level & 1) != 0;
        if (carried) {
            join_nodes(waits ? m->waiting[level] : root, root, root);
        } else if (waits) {
            join_nodes(m->waiting[level], m->waiting[level], root);
            carried = true;
        }
    }
    if (!carried) memcpy(root, m->waiting[level], HASH_BYTES);
}

static bool verify_root(verification *v, const wanted_root *r, unsigned char *buffer,
                        dp_error *err) {
    const tensor *t = r->of;
    merkle_tree tree;
    unsigned char digest[HASH_BYTES];
    tree.n_leaves = 0;
    for (uint64_t at = 0; at < t->n_bytes;) {
        const uint64_t end = at + min_u64(v->c->pack->merkle_bytes, t->n_bytes - at);
        hash_state h;
        hash_begin(&h, HASH_SHA256);
        while (at < end) {
            const size_t n = (size_t)min_u64(READ_BYTES, end - at);
            if (is_stopped(v)) return err_set(err, DP_E_CANCELLED, "verification was stopped");
            if (!container_read(v->c, t, at, buffer, n, err)) return false;
            hash_add(&h, buffer, n);
            at += n;
        }
        hash_end(&h, digest);
        add_leaf(&tree, digest);
    }
    root_of(&tree, digest);
    if (memcmp(digest, r->digest, HASH_BYTES) == 0) return true;
    char where[400];
    snprintf(where, sizeof(where), "%.*s: bytes from %" PRIu64 ": tensor %.*s: the merkle root",
             STR_ARG(v->c->pack->listing.files[t->file].name), t->offset, STR_ARG(t->name));
    return refuse_hash(where, HASH_SHA256, digest, r->digest, err);
}

static bool tensor_is_in_shard(const tensor *t, uint32_t shard) {
    for (uint32_t i = 0; i < t->n_spans; i++) {
        if (t->spans[i].file == shard) return true;
    }
    return t->n_spans == 0 && t->file == shard;
}

/* A shard is wrong, and there are no hashes of its pieces: the first wrong tensor in it says more
 * than the shard's hash. */
static bool name_wrong_tensor(verification *v, uint32_t shard, unsigned char *buffer,
                              dp_error *err) {
    const pack *p = v->c->pack;
    for (uint32_t i = 0; i < p->n_roots; i++) {
        if (!tensor_is_in_shard(p->roots[i].of, shard)) continue;
        if (!verify_root(v, &p->roots[i], buffer, err)) return false;
    }
    return true;
}

static bool verify_shard(verification *v, uint32_t shard, unsigned char *buffer, dp_error *err) {
    const pack_listing *l = &v->c->pack->listing;
    const pack_file *f = &l->files[shard];
    const int likely = atomic_load(&v->likely);
    const hash_kind declared = f->kind == HASH_SHA256 ? HASH_SHA256 : HASH_BLAKE3_VARIANT;
    const hash_kind first = likely < 0 ? declared : (hash_kind)likely;
    unsigned char digest[HASH_BYTES], shown[HASH_BYTES];
    for (int i = 0; i < N_HASHES; i++) {
        const hash_kind kind = (hash_kind)((first + (unsigned)i) % N_HASHES);
        if (!hash_whole_shard(v, shard, kind, i == 0, buffer, digest, err)) return false;
        if (memcmp(digest, f->digest, HASH_BYTES) == 0) {
            atomic_store(&v->likely, (int)kind);
            atomic_fetch_add(&v->n_shards, 1);
            return true;
        }
        if (kind == f->kind) memcpy(shown, digest, HASH_BYTES);
    }
    if (l->piece_bytes == 0 && !name_wrong_tensor(v, shard, buffer, err)) return false;
    char where[200];
    snprintf(where, sizeof(where), "%.*s", STR_ARG(f->name));
    return refuse_hash(where, f->kind, shown, f->digest, err);
}

/* ---- text files ---------------------------------------------------------------------------- */

static bool verify_text(verification *v, const pack_file *f, dp_error *err) {
    buf text;
    dp_error problem = { 0 };
    if (!pack_read_text(v->c, f->name.data, JSON_BYTES_MAX, &text, &problem)) {
        return err_set(err, problem.status, "%s", problem.message);
    }
    tell(v, text.size, false);
    buf_free(&text);
    if (f->has_hash) atomic_fetch_add(&v->n_files, 1);
    return true;
}

/* ---- jobs ---------------------------------------------------------------------------------- */

/* Piece `job` of all pieces. */
static bool verify_piece_job(verification *v, uint64_t job, unsigned char *buffer, dp_error *err) {
    const pack_listing *l = &v->c->pack->listing;
    uint32_t low = 0, high = l->n_shards;
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        if (l->first_piece[middle] <= job) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return verify_piece(v, low, job - l->first_piece[low], buffer, err);
}

static bool verify_job(void *user, uint64_t job, uint32_t thread, dp_error *err) {
    verification *v = user;
    const pack *p = v->c->pack;
    const pack_listing *l = &p->listing;
    unsigned char *buffer = v->buffers + (size_t)thread * READ_BYTES;
    dp_error problem = { 0 };
    const uint64_t n_texts = l->n_files - l->n_shards;
    uint64_t i = job;
    bool ok;
    (void)err; /* failures are kept here: the earliest counts */
    if (job > atomic_load(&v->failed_job)) return true;
    if (i < v->n_first) {
        ok = v->options.once && l->piece_bytes > 0 ? verify_piece_job(v, i, buffer, &problem)
                                                   : verify_shard(v, (uint32_t)i, buffer, &problem);
    } else if ((i -= v->n_first) < n_texts) {
        ok = verify_text(v, &l->files[l->n_shards + i], &problem);
    } else {
        const wanted_root *r = &p->roots[i - n_texts];
        ok = verify_root(v, r, buffer, &problem);
        if (ok) {
            atomic_fetch_add(&v->n_roots, 1);
            tell(v, r->of->n_bytes, false);
        }
    }
    if (!ok) fail(v, job, &problem);
    return true;
}

static void count_work(verification *v, uint64_t *n_jobs) {
    const pack *p = v->c->pack;
    const pack_listing *l = &p->listing;
    const bool by_pieces = v->options.once && l->piece_bytes > 0;
    v->n_first = by_pieces ? l->first_piece[l->n_shards] : l->n_shards;
    *n_jobs = v->n_first + (l->n_files - l->n_shards);
    for (uint32_t i = 0; i < l->n_files; i++)
        v->total += l->files[i].size;
    if (v->options.once) return;
    *n_jobs += p->n_roots;
    for (uint32_t i = 0; i < p->n_roots; i++)
        v->total += p->roots[i].of->n_bytes;
}

static bool verify_pack(container *c, const verify_options *options, const atomic_bool *cancelled,
                        verify_result *result, dp_error *err) {
    static const verify_options plain = { 0 };
    verification v = { .c = c, .options = options != NULL ? *options : plain };
    uint64_t n_jobs;
    const uint32_t unasked = min_u32(processors(), THREADS_UNASKED);
    const uint32_t asked = v.options.n_threads > 0 ? v.options.n_threads : unasked;
    const uint32_t n_threads = min_u32(asked, THREADS_MAX);
    if (result != NULL) *result = (verify_result){ 0 };
    if (c->pack == NULL) return true;
    v.cancelled = cancelled;
    atomic_store(&v.failed_job, UINT64_MAX);
    atomic_store(&v.likely, -1);
    v.buffers = mem_new(n_threads, READ_BYTES, "buffers for hashing", err);
    if (v.buffers == NULL) return false;
    pthread_mutex_init(&v.lock, NULL);
    count_work(&v, &n_jobs);
    dp_error ignored = { 0 };
    bool ok = parallel_run(n_threads, n_jobs, verify_job, &v, &ignored);
    if (ok && atomic_load(&v.failed_job) != UINT64_MAX) {
        ok = err_set(err, v.err.status, "%s", v.err.message);
        err_prefix(err, "%s: ", c->path);
    }
    if (ok) tell(&v, 0, true);
    if (ok && atomic_load(&v.stopped)) {
        ok = err_set(err, DP_E_CANCELLED, "%s: verification was stopped", c->path);
    }
    pthread_mutex_destroy(&v.lock);
    mem_free(v.buffers);
    if (result != NULL) {
        *result = (verify_result){ atomic_load(&v.done), atomic_load(&v.n_shards),
                                   atomic_load(&v.n_pieces), atomic_load(&v.n_roots),
                                   atomic_load(&v.n_files) };
    }
    return ok;
}

bool container_verify(container *c, const verify_options *options, verify_result *result,
                      dp_error *err) {
    return verify_pack(c, options, NULL, result, err);
}

/* ---- beside the loading -------------------------------------------------------------------- */

struct verifier {
    container *c;
    verify_options options;
    atomic_bool cancelled, failed;
    verify_result result;
    dp_error err;
    bool ok;
    pthread_t thread;
};

static void *run_verifier(void *user) {
    verifier *v = user;
    v->ok = verify_pack(v->c, &v->options, &v->cancelled, &v->result, &v->err);
    atomic_store(&v->failed, !v->ok);
    return NULL;
}

verifier *verifier_start(container *c, const verify_options *options, dp_error *err) {
    verifier *v = mem_new(1, sizeof(*v), "a verification", err);
    if (v == NULL) return NULL;
    v->c = c;
    if (options != NULL) v->options = *options;
    if (pthread_create(&v->thread, NULL, run_verifier, v) == 0) return v;
    err_set(err, DP_E_MEMORY, "%s: a thread for its verification cannot be had", c->path);
    mem_free(v);
    return NULL;
}

bool verifier_finish(verifier *v, verify_result *result, dp_error *err) {
    pthread_join(v->thread, NULL);
    const bool ok = v->ok || err_set(err, v->err.status, "%s", v->err.message);
    if (result != NULL) *result = v->result;
    mem_free(v);
    return ok;
}

bool verifier_has_failed(const verifier *v) {
    return atomic_load(&v->failed);
}

void verifier_cancel(verifier *v) {
    if (v == NULL) return;
    atomic_store(&v->cancelled, true);
    pthread_join(v->thread, NULL);
    mem_free(v);
}
