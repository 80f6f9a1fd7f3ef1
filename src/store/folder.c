/* folder: finding, listing and removing models.
 *
 * Three places in one order: bundled, the model folder, Hugging Face's cache. In the first two a
 * model is a folder, or a .gguf file whose name without the ending is the model's; of a split GGUF
 * model the first file counts. Names with a dot in front are unfinished or on their way out, and
 * are never seen. */
#include "store/store.h"

#include <inttypes.h>
#include <stdio.h>

/* ---- finding ------------------------------------------------------------------------------- */

/* FOLDER/NAME or FOLDER/NAME.gguf. */
static bool find_in_place(const char *folder, const char *name, char *path, size_t size) {
    char file_name[STORE_NAME_MAX + 8];
    const str s = str_of(name);
    if (!name_is_plain(s) || s.size > STORE_NAME_MAX) return false;
    if (path_join(path, size, folder, name, NULL) && (path_is_folder(path) || path_is_file(path))) {
        return true;
    }
    snprintf(file_name, sizeof(file_name), "%s.gguf", name);
    return path_join(path, size, folder, file_name, NULL) && path_is_file(path);
}

/* The next folder of a list with colons, which is moved on; false at its end. */
static bool next_folder(const char **list, char *folder, size_t size) {
    while (*list != NULL && **list != '\0') {
        const size_t n = strcspn(*list, ":");
        const char *at = *list;
        *list += n + (at[n] == ':');
        if (n == 0 || n >= size) continue;
        memcpy(folder, at, n);
        folder[n] = '\0';
        return true;
    }
    return false;
}

bool store_find_bundled(const dp_store_options *options, const char *name, char *path,
                        size_t size) {
    char folder[STORE_PATH_MAX];
    for (const char *list = options->bundled; next_folder(&list, folder, sizeof(folder));) {
        if (find_in_place(folder, name, path, size)) return true;
    }
    return false;
}

static bool has_place(const char *place) {
    return str_of(place).size > 0;
}

static bool not_found(const dp_store_options *o, const char *name, dp_error *err) {
    const bool plain = strchr(name, '/') == NULL;
    err_set(err, DP_E_FILE, "%.200s: no such file or folder", name);
    if (err == NULL) return false;
    buf b;
    buf_init(&b, sizeof(err->message));
    if (plain && has_place(o->bundled)) buf_printf(&b, ", nor a bundled model in %s", o->bundled);
    if (plain && has_place(o->folder)) buf_printf(&b, ", nor a model of the folder %s", o->folder);
    if (has_place(o->hf_cache)) buf_printf(&b, ", nor in Hugging Face's cache %s", o->hf_cache);
    dp_error whole = { 0 };
    err_set(&whole, err->status, "%s%s", err->message, b.data != NULL ? b.data : "");
    *err = whole;
    buf_free(&b);
    return false;
}

bool dp_store_find(const dp_store_options *options, const char *name, char *path, size_t size,
                   dp_error *err) {
    static const dp_store_options none;
    const dp_store_options *o = options != NULL ? options : &none;
    if (str_of(name).size == 0) return err_set(err, DP_E_ARGUMENT, "the model's name is empty");
    const bool hub = hub_is_name(name);
    if (path_is_folder(name) || path_is_file(name) || (strchr(name, '/') != NULL && !hub)) {
        const int n = snprintf(path, size, "%s", name); /* opening it will say what is wrong */
        if (n >= 0 && (size_t)n < size) return true;
        return err_set(err, DP_E_ARGUMENT, "a path of %zu bytes, the limit is %zu", strlen(name),
                       size - 1);
    }
    if (store_find_bundled(o, name, path, size)) return true;
    if (has_place(o->folder) && find_in_place(o->folder, name, path, size)) return true;
    bool found;
    if (!hub_find(o->hf_cache, name, path, size, &found, err)) return false;
    return found || not_found(o, name, err);
}

/* ---- listing ------------------------------------------------------------------------------- */

typedef struct {
    dp_store_entry_fn *entry;
    void *user;
    dp_store_place place;
    map *listed; /* names: what an earlier place has is not found in a later one */
    dp_error *err;
} lister;

const char *container_kind_text(container_kind kind) {
    static const char *const names[] = { [CONTAINER_GGUF] = "gguf",
                                         [CONTAINER_SAFETENSORS] = "safetensors",
                                         [CONTAINER_RDRR] = "rdrr" };
    return names[kind];
}

/* The format that most weight bytes are in, in small letters. */
static void describe_format(const container *c, char *format, size_t size) {
    uint64_t bytes[DTYPE_COUNT] = { 0 };
    size_t most = 0;
    for (uint32_t i = 0; i < container_n_tensors(c); i++) {
        const tensor *t = container_tensor(c, i);
        bytes[t->type] += t->n_bytes;
    }
    for (size_t i = 1; i < ARRAY_LEN(bytes); i++) {
        if (bytes[i] > bytes[most]) most = i;
    }
    const dtype_info *info = bytes[most] > 0 ? dtype_get((uint32_t)most) : NULL;
    snprintf(format, size, "%s", info != NULL ? info->name : "");
    for (char *at = format; *at != '\0'; at++) {
        if (*at >= 'A' && *at <= 'Z') *at = (char)(*at - 'A' + 'a');
    }
}

/* Bytes of a model; of a split one all that its first file's name says. */
static uint64_t bytes_of_model(const char *path) {
    uint32_t index, n;
    size_t stem;
    if (path_is_folder(path) || !name_is_split(path, &index, &n, &stem)) return disk_bytes(path);
    uint64_t bytes = 0;
    for (uint32_t i = 1; i <= n; i++) {
        char part[STORE_PATH_MAX];
        const int length = snprintf(part, sizeof(part), "%.*s-%05" PRIu32 "-of-%05" PRIu32 ".gguf",
                                    (int)stem, path, i, n);
        if (length > 0 && (size_t)length < sizeof(part)) bytes += disk_bytes(part);
    }
    return bytes;
}

/* `problem`: why there is nothing to open. */
static bool tell_entry(const lister *l, const char *name, const char *path,
                       const dp_error *problem) {
    dp_error own = { 0 };
    char format[32] = "";
    bool is_new;
    if (!map_put(l->listed, str_of(name), 0, &is_new, l->err)) return false;
    if (!is_new) return true;
    container *c = problem == NULL ? container_open(path, false, &own) : NULL;
    if (c != NULL) describe_format(c, format, sizeof(format));
    if (own.status == DP_E_MEMORY) return err_set(l->err, own.status, "%s", own.message);
    const dp_store_entry entry = {
        .name = name,
        .path = path,
        .place = l->place,
        .container = c != NULL ? container_kind_text(container_kind_of(c)) : "",
        .format = format,
        .bytes = bytes_of_model(path),
        .problem = problem != NULL ? problem->message : own.message,
    };
    const bool ok = l->entry(l->user, &entry);
    container_close(c);
    return ok || err_set(l->err, DP_E_CANCELLED, "cancelled");
}

/* A folder, or the first file of a GGUF model; its name without the ending into name. */
static bool is_model(const char *path, const char *file_name, char *name, size_t size) {
    uint32_t index, n;
    size_t stem;
    snprintf(name, size, "%s", file_name);
    if (path_is_folder(path)) return true;
    if (!path_is_file(path) || !name_ends(file_name, ".gguf")) return false;
    if (name_is_split(file_name, &index, &n, &stem) && index != 1) return false;
    name[strlen(file_name) - strlen(".gguf")] = '\0';
    return true;
}

static bool list_place(const lister *l, const char *folder) {
    arena memory = { 0 };
    const char **names;
    uint32_t n;
    if (!path_is_folder(folder)) return true;
    bool ok = disk_names(folder, false, &memory, &names, &n, l->err);
    for (uint32_t i = 0; ok && i < n; i++) {
        char path[STORE_PATH_MAX], name[STORE_NAME_MAX + 8];
        if (strlen(names[i]) >= sizeof(name) || !name_is_plain(str_of(names[i]))) continue;
        if (!path_join(path, sizeof(path), folder, names[i], NULL)) continue;
        if (is_model(path, names[i], name, sizeof(name))) ok = tell_entry(l, name, path, NULL);
    }
    arena_free(&memory);
    return ok;
}

static bool list_hub(const lister *l, const char *cache) {
    arena memory = { 0 };
    const char **names;
    uint32_t n;
    if (!has_place(cache) || !path_is_folder(cache)) return true;
    bool ok = disk_names(cache, false, &memory, &names, &n, l->err);
    for (uint32_t i = 0; ok && i < n; i++) {
        char path[STORE_PATH_MAX], name[STORE_NAME_MAX + 8];
        dp_error own = { 0 };
        bool found;
        if (!hub_name_of(names[i], name, sizeof(name))) continue;
        const bool whole = hub_find(cache, name, path, sizeof(path), &found, &own);
        if (!whole && !path_join(path, sizeof(path), cache, names[i], l->err)) {
            ok = false;
        } else if (own.status == DP_E_MEMORY) {
            ok = err_set(l->err, own.status, "%s", own.message);
        } else if (whole ? found : path_is_folder(path)) {
            ok = tell_entry(l, name, path, whole ? NULL : &own);
        }
    }
    arena_free(&memory);
    return ok;
}

bool dp_store_list(const dp_store_options *options, dp_store_entry_fn *entry, void *user,
                   dp_error *err) {
    static const dp_store_options none;
    const dp_store_options *o = options != NULL ? options : &none;
    char folder[STORE_PATH_MAX];
    lister l = { .entry = entry, .user = user, .place = DP_STORE_BUNDLED, .err = err };
    l.listed = map_new(16, err);
    bool ok = l.listed != NULL;
    for (const char *list = o->bundled; ok && next_folder(&list, folder, sizeof(folder));) {
        ok = list_place(&l, folder);
    }
    l.place = DP_STORE_FOLDER;
    if (ok && has_place(o->folder)) ok = list_place(&l, o->folder);
    l.place = DP_STORE_HF_CACHE;
    ok = ok && list_hub(&l, o->hf_cache);
    map_free(l.listed);
    return ok;
}

/* ---- removing ------------------------------------------------------------------------------ */

/* Out of sight by one rename, then deleted; *any if it was there. */
static bool remove_one(const char *path, const char *old, bool *any, dp_error *err) {
    if (!path_exists(path)) return true;
    *any = true;
    return disk_remove(old, err) && disk_rename(path, old, err) && disk_remove(old, err);
}

/* All that bears the model's name. */
static bool remove_locked(const char *folder, const char *name, bool *any, dp_error *err) {
    char path[STORE_PATH_MAX], old[STORE_PATH_MAX], file_name[STORE_NAME_MAX + 32];
    uint32_t index, n = 1;
    size_t stem;
    if (!hidden_path(old, sizeof(old), folder, name, "old", err) ||
        !path_join(path, sizeof(path), folder, name, err) || !remove_one(path, old, any, err)) {
        return false;
    }
    snprintf(file_name, sizeof(file_name), "%s.gguf", name);
    const bool split = name_is_split(file_name, &index, &n, &stem) && index == 1;
    for (uint32_t i = 1; i <= (split ? n : 1); i++) {
        if (split) {
            snprintf(file_name, sizeof(file_name), "%.*s-%05" PRIu32 "-of-%05" PRIu32 ".gguf",
                     (int)stem, name, i, n);
        }
        if (!path_join(path, sizeof(path), folder, file_name, err) ||
            !remove_one(path, old, any, err)) {
            return false;
        }
    }
    *any = *any || path_exists(old);
    if (!disk_remove(old, err)) return false; /* of an earlier one that was broken off */
    return hidden_path(path, sizeof(path), folder, name, "part", err) &&
           remove_one(path, old, any, err);
}

bool dp_store_remove(const dp_store_options *options, const char *name, dp_error *err) {
    static const dp_store_options none;
    const dp_store_options *o = options != NULL ? options : &none;
    char path[STORE_PATH_MAX];
    if (!has_place(o->folder)) return err_set(err, DP_E_ARGUMENT, "there is no model folder");
    if (strchr(name, '/') != NULL) {
        return err_set(err, DP_E_ARGUMENT,
                       "%.200s: only models of %.200s are removed, by their names: neither paths "
                       "nor models of Hugging Face's cache",
                       name, o->folder);
    }
    if (!model_name_check(name, err)) return false;
    if (!path_is_folder(o->folder)) {
        return err_set(err, DP_E_FILE, "%s: there is no model folder %.300s", name, o->folder);
    }
    const int lock = store_lock(o->folder, name, err);
    if (lock < 0) return false;
    bool any = false;
    bool ok = remove_locked(o->folder, name, &any, err);
    store_unlock(o->folder, name, lock);
    if (ok && !any) {
        ok = store_find_bundled(o, name, path, sizeof(path))
                 ? err_set(err, DP_E_ARGUMENT,
                           "%s: is a bundled model, only those of %.300s are "
                           "removed",
                           name, o->folder)
                 : err_set(err, DP_E_FILE, "%s: no model of %.300s has that name", name, o->folder);
    }
    folder_sync(o->folder);
    return ok;
}
