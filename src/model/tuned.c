/* tuned: the shapes that tuning has chosen for this device, and the file that keeps them.
 *
 * The file belongs to the device as it is used, its driver and the texts of all kernels: choices
 * for anything else do not hold. It is written whole or not at all, and one that is damaged, too
 * large or anybody else's is as if it were not there. */
#include "model/ops_internal.h"

#include <stdio.h>

enum { ENTRIES_MAX = 4096, FILE_BYTES_MAX = 1 << 20, IDENTITY_BYTES_MAX = 4096, FORMAT = 1 };

bool tuned_put(tuned_table *t, const char *key, const char *shape, dp_error *err) {
    size_t at = 0;
    while (at < t->n && strcmp(t->list[at].key, key) != 0) {
        at++;
    }
    if (at == t->max) {
        const size_t max = t->max > 0 ? 2 * t->max : 64;
        tuned_entry *list = mem_resize(t->list, max, sizeof *list, "tuned shapes", err);
        if (list == NULL) {
            return false;
        }
        t->list = list;
        t->max = max;
    }
    t->n = at == t->n ? t->n + 1 : t->n;
    t->list[at] = (tuned_entry){ .key = "" };
    snprintf(t->list[at].key, sizeof t->list[at].key, "%s", key);
    snprintf(t->list[at].shape, sizeof t->list[at].shape, "%s", shape);
    return true;
}

static void add_to_sum(uint64_t sum[2], const char *own, const char *const *common) {
    static const uint64_t key[2] = { 0, 0 };
    const char *text;
    for (size_t i = 0; (text = gpu_text(own, common, i)) != NULL; i++) {
        sum[1] = hash_bytes(key, text, strlen(text));
        sum[0] = hash_bytes(key, sum, 2 * sizeof *sum);
    }
}

/* What choices hold for: the device as it is used, and the kernels. */
static void write_identity(const dp_model *m, buf *out) {
    const dp_device_info *d = gpu_info(m->gpu);
    uint64_t sum[2] = { 0 };
    for (size_t i = 0; all_kernels[i] != NULL; i++) {
        add_to_sum(sum, all_kernels[i]->text, all_kernels[i]->common);
    }
    for (size_t i = 0; all_parts[i] != NULL; i++) {
        add_to_sum(sum, all_parts[i]->text, all_parts[i]->common);
    }
    buf_printf(out, "%s, %s, %s, %s, %s, doppler %s, kernels %016llx", d->name, d->vendor,
               d->driver, d->backend, d->library, DP_VERSION, (unsigned long long)sum[0]);
    buf_printf(out, ", f16 %d, subgroups %u, int8 %d, matrix %u, lanes %u, memory %u", d->f16,
               d->subgroups ? d->subgroup_size : 0, d->int8, d->matrix, d->max_workgroup_lanes,
               d->max_workgroup_memory);
}

bool tuned_path(const dp_model *m, const char *folder, char *out, size_t size, dp_error *err) {
    static const uint64_t key[2] = { 0, 0 };
    char name[64];
    buf identity;
    buf_init(&identity, IDENTITY_BYTES_MAX);
    write_identity(m, &identity);
    const bool ok = buf_ok(&identity, "a device's description", err);
    if (ok) {
        snprintf(name, sizeof name, "tuning-%016llx.json",
                 (unsigned long long)hash_bytes(key, identity.data, identity.size));
    }
    buf_free(&identity);
    return ok && path_join(out, size, folder, name, err);
}

/* A string that fits out[size], without a NUL inside. */
static bool copy_tuned_name(char *out, size_t size, str s) {
    if (s.size == 0 || s.size >= size || memchr(s.data, '\0', s.size) != NULL) {
        return false;
    }
    memcpy(out, s.data, s.size);
    out[s.size] = '\0';
    return true;
}

/* The shape is none but a name here: tuned_choice takes no other than the operation offers. */
static bool read_entry(tuned_table *t, str key, const json_value *value, dp_error *err) {
    tuned_entry e;
    str shape;
    if (!copy_tuned_name(e.key, sizeof e.key, key) || !json_string(value, &shape) ||
        !copy_tuned_name(e.shape, sizeof e.shape, shape)) {
        return err_set(err, DP_E_FORMAT, "\"choices\": \"%.*s\": no name of a shape", STR_ARG(key));
    }
    return tuned_put(t, e.key, e.shape, err);
}

static bool read_table(const dp_model *m, tuned_table *t, const json_value *root, dp_error *err) {
    uint64_t format;
    str device;
    buf identity;
    buf_init(&identity, IDENTITY_BYTES_MAX);
    write_identity(m, &identity);
    const json_value *list = json_get(root, "choices");
    bool ok = buf_ok(&identity, "a device's description", err);
    if (ok && (!json_u64(json_get(root, "format"), &format) || format != FORMAT)) {
        ok = err_set(err, DP_E_FORMAT, "\"format\" is not %d", FORMAT);
    }
    if (ok && (!json_string(json_get(root, "device"), &device) ||
               !str_equal(device, (str){ .data = identity.data, .size = identity.size }))) {
        ok = err_set(err, DP_E_FORMAT, "\"device\" is not this one with these kernels");
    }
    if (ok && (!json_is_object(list) || json_count(list) > ENTRIES_MAX)) {
        ok = err_set(err, DP_E_FORMAT, "\"choices\" is no object of at most %d", ENTRIES_MAX);
    }
    buf_free(&identity);
    for (json_iter it = json_each(ok ? list : NULL); ok && json_next(&it);) {
        ok = read_entry(t, it.key, it.value, err);
    }
    return ok;
}

/* All of the file, or nothing of it: what failed is said in `why`. */
static bool read_file(const dp_model *m, tuned_table *t, const char *path, dp_error *why) {
    buf text;
    if (!file_read_all(path, FILE_BYTES_MAX, &text, why)) {
        return false;
    }
    json *doc = json_open((str){ .data = text.data, .size = text.size }, "its text", why);
    const bool ok = doc != NULL && read_table(m, t, json_root(doc), why);
    json_close(doc);
    buf_free(&text);
    return ok;
}

bool tuned_read(dp_model *m, const char *folder, dp_error *err) {
    char path[4096];
    tuned_table fresh = { 0 };
    dp_error why = { 0 };
    if (!tuned_path(m, folder, path, sizeof path, err)) {
        return false;
    }
    if (!path_exists(path)) {
        return true;
    }
    if (!read_file(m, &fresh, path, &why)) {
        log_line(&m->log, DP_LOG_WARNING, "%s: is not used: %s", path, why.message);
        mem_free(fresh.list);
        return why.status != DP_E_MEMORY || err_set(err, why.status, "%s", why.message);
    }
    mem_free(m->tuned.list);
    m->tuned = fresh;
    log_line(&m->log, DP_LOG_DEBUG, "%s: %zu tuned shapes", path, fresh.n);
    return true;
}

static void write_table(const dp_model *m, const tuned_table *t, buf *out) {
    buf identity;
    buf_init(&identity, IDENTITY_BYTES_MAX);
    write_identity(m, &identity);
    buf_printf(out, "{\"format\":%d,\"device\":", FORMAT);
    json_add_string(out, (str){ .data = identity.data, .size = identity.size });
    buf_printf(out, ",\"choices\":{");
    for (size_t i = 0; i < t->n; i++) {
        buf_printf(out, "%s\n", i > 0 ? "," : "");
        json_add_string(out, str_of(t->list[i].key));
        buf_printf(out, ":");
        json_add_string(out, str_of(t->list[i].shape));
    }
    buf_printf(out, "\n}}\n");
    buf_free(&identity);
}

/* With what the file holds already: another model's products, or what another process found. */
bool tuned_write(const dp_model *m, const char *folder, dp_error *err) {
    char path[4096];
    tuned_table all = { 0 };
    dp_error why = { 0 };
    buf text;
    buf_init(&text, FILE_BYTES_MAX);
    bool ok = tuned_path(m, folder, path, sizeof path, err) && folders_make(folder, err);
    if (ok && !(path_exists(path) && read_file(m, &all, path, &why))) {
        all.n = 0;
    }
    for (size_t i = 0; ok && i < m->tuned.n; i++) {
        const tuned_entry *e = &m->tuned.list[i];
        ok = (all.n >= ENTRIES_MAX && tuned_find(&all, e->key) == NULL) ||
             tuned_put(&all, e->key, e->shape, err);
    }
    if (ok) {
        write_table(m, &all, &text);
        ok = buf_ok(&text, path, err) && file_write_atomic(path, text.data, text.size, err);
    }
    mem_free(all.list);
    buf_free(&text);
    return ok;
}
