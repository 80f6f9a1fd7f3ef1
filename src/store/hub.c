/* hub: the cache of Hugging Face's libraries, read as it is and never written.
 *
 *     models--ORG--NAME/refs/REVISION          the commit that the revision was when it was fetched
 *     models--ORG--NAME/snapshots/COMMIT/FILE  a link to ../../blobs/HASH (a file where the system
 *                                              has no links)
 *     models--ORG--NAME/blobs/HASH.incomplete  a download under way, or broken off
 *
 * A snapshot is a model folder like any other. Names and references come from outside, so both are
 * held to the form that the hub gives them before they become part of a path. */
#include "store/store.h"

#include <stdio.h>
#include <sys/stat.h>

enum {
    COMMIT_HEX = 40,
    REF_BYTES_MAX = 256,
    HUB_NAME_MAX = 96, /* bytes of ORG and of NAME: the hub's own limit */
};

/* ORG or NAME: letters, digits, '-', '_', '.'; neither ".." nor "--" in it, which the hub refuses
 * and the cache could not tell from a '/'. */
static bool is_hub_word(str word) {
    if (word.size == 0 || word.size > HUB_NAME_MAX) return false;
    if (word.data[0] == '.' || word.data[0] == '-') return false;
    for (size_t i = 0; i < word.size; i++) {
        const char c = word.data[i];
        const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        const bool digit = c >= '0' && c <= '9';
        if (!letter && !digit && c != '-' && c != '_' && c != '.') return false;
        if (i > 0 && (c == '-' || c == '.') && word.data[i - 1] == c) return false;
    }
    return true;
}

/* A branch, a tag, a commit, "refs/pr/1": words between slashes. */
static bool is_revision(str text) {
    if (text.size == 0 || text.size > REF_BYTES_MAX) return false;
    while (text.size > 0) {
        const char *slash = memchr(text.data, '/', text.size);
        const size_t n = slash == NULL ? text.size : (size_t)(slash - text.data);
        if (!is_hub_word((str){ text.data, n })) return false;
        if (slash != NULL && n + 1 == text.size) return false;
        text.data += n + (slash != NULL), text.size -= n + (slash != NULL);
    }
    return true;
}

/* ORG/NAME@REVISION into its parts; what is not there is empty. */
static bool split_hub_name(const char *name, str *org, str *word, str *revision) {
    const str all = str_of(name);
    const char *at = memchr(all.data, '@', all.size);
    const size_t n = at == NULL ? all.size : (size_t)(at - all.data);
    const char *slash = n == 0 ? NULL : memchr(all.data, '/', n);
    const size_t n_org = slash == NULL ? 0 : (size_t)(slash - all.data);
    *org = (str){ all.data, n_org };
    *word = (str){ all.data + n_org + (slash != NULL), n - n_org - (slash != NULL) };
    *revision = at == NULL ? (str){ 0 } : (str){ at + 1, all.size - n - 1 };
    return (slash == NULL || is_hub_word(*org)) && is_hub_word(*word) &&
           (at == NULL || is_revision(*revision));
}

bool hub_is_name(const char *name) {
    str org, word, revision;
    return name[0] != '\0' && split_hub_name(name, &org, &word, &revision);
}

bool hub_name_of(const char *folder, char *name, size_t size) {
    static const char prefix[] = "models--";
    if (!str_starts(str_of(folder), prefix)) return false;
    const char *rest = folder + sizeof(prefix) - 1, *between = strstr(rest, "--");
    const int n = between == NULL
                      ? snprintf(name, size, "%s", rest)
                      : snprintf(name, size, "%.*s/%s", (int)(between - rest), rest, between + 2);
    return n > 0 && (size_t)n < size && hub_is_name(name) && strchr(name, '@') == NULL;
}

/* ---- revisions ----------------------------------------------------------------------------- */

static bool is_commit(str text) {
    if (text.size != COMMIT_HEX) return false;
    for (size_t i = 0; i < text.size; i++) {
        const char c = text.data[i];
        if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'f')) return false;
    }
    return true;
}

/* What refs/REVISION says, into commit[COMMIT_HEX + 1]; *found is false if it is not there. */
static bool read_ref(const char *repo, str revision, char *commit, bool *found, dp_error *err) {
    char name[REF_BYTES_MAX + 8], path[STORE_PATH_MAX];
    buf text;
    snprintf(name, sizeof(name), "refs/%.*s", (int)revision.size, revision.data);
    if (!path_join(path, sizeof(path), repo, name, err)) return false;
    *found = path_is_file(path);
    if (!*found) return true;
    if (!file_read_all(path, REF_BYTES_MAX, &text, err)) return false;
    str said = { text.data, text.size };
    if (str_ends(said, "\n")) said.size--;
    const bool ok = is_commit(said) ||
                    err_set(err, DP_E_FORMAT, "%.300s: names no commit of %d hexadecimal digits",
                            path, COMMIT_HEX);
    if (ok) {
        memcpy(commit, said.data, COMMIT_HEX);
        commit[COMMIT_HEX] = '\0';
    }
    buf_free(&text);
    return ok;
}

/* The only snapshot, where no reference says which. */
static bool only_snapshot(const char *repo, const char *name, char *commit, dp_error *err) {
    char path[STORE_PATH_MAX];
    arena memory = { 0 };
    const char **names;
    uint32_t n = 0, n_commits = 0;
    bool ok = path_join(path, sizeof(path), repo, "snapshots", err);
    if (ok && path_is_folder(path)) ok = disk_names(path, false, &memory, &names, &n, err);
    for (uint32_t i = 0; ok && i < n; i++) {
        if (!is_commit(str_of(names[i]))) continue;
        n_commits++;
        snprintf(commit, COMMIT_HEX + 1, "%s", names[i]);
    }
    arena_free(&memory);
    if (ok && n_commits == 0) {
        return err_set(err, DP_E_FILE, "%s: %.300s has no snapshot of it: fetch it again", name,
                       repo);
    }
    if (ok && n_commits > 1) {
        return err_set(err, DP_E_FILE,
                       "%s: %.300s has %u snapshots and no refs/main: name one, %s@COMMIT", name,
                       repo, n_commits, name);
    }
    return ok;
}

static bool find_commit(const char *repo, const char *name, str revision, char *commit,
                        dp_error *err) {
    bool found;
    if (is_commit(revision)) {
        snprintf(commit, COMMIT_HEX + 1, "%.*s", COMMIT_HEX, revision.data);
        return true;
    }
    const bool any = revision.size == 0;
    if (!read_ref(repo, any ? STR("main") : revision, commit, &found, err)) return false;
    if (found) return true;
    if (any) return only_snapshot(repo, name, commit, err);
    return err_set(err, DP_E_FILE, "%s: %.300s has no such revision", name, repo);
}

/* ---- is it whole? -------------------------------------------------------------------------- */

static bool snapshot_has(const char *folder, const char *name) {
    char path[STORE_PATH_MAX];
    return path_join(path, sizeof(path), folder, name, NULL) && path_is_file(path);
}

/* True if an index is there and one of the files that it lists is not. */
static bool lacks_shards(const char *folder) {
    char path[STORE_PATH_MAX];
    buf text;
    if (!path_join(path, sizeof(path), folder, "model.safetensors.index.json", NULL) ||
        !path_is_file(path) || !file_read_all(path, JSON_BYTES_MAX, &text, NULL)) {
        return false;
    }
    json *doc = json_open((str){ text.data, text.size }, path, NULL);
    bool lacks = false;
    for (json_iter it = json_each(json_get(json_root(doc), "weight_map"));
         !lacks && json_next(&it);) {
        str value;
        char name[FILE_NAME_MAX + 1];
        if (!json_string(it.value, &value) || !name_is_plain(value)) continue;
        snprintf(name, sizeof(name), "%.*s", (int)value.size, value.data);
        lacks = !snapshot_has(folder, name);
    }
    json_close(doc);
    buf_free(&text);
    return lacks;
}

/* Weights that can be seen from the names; a tokenizer alone is none. */
static bool has_weights(const char *folder, const char *const *names, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        if (name_ends(names[i], ".gguf") || strcmp(names[i], "manifest.json") == 0 ||
            strcmp(names[i], "model.safetensors") == 0) {
            return true;
        }
    }
    return snapshot_has(folder, "model.safetensors.index.json") && !lacks_shards(folder);
}

/* Links into nothing, or missing weights while a blob is half there. */
static bool check_snapshot(const char *repo, const char *folder, const char *name, dp_error *err) {
    char path[STORE_PATH_MAX];
    arena memory = { 0 };
    const char **names;
    uint32_t n;
    bool ok = disk_names(folder, false, &memory, &names, &n, err);
    for (uint32_t i = 0; ok && i < n; i++) {
        struct stat status;
        ok = path_join(path, sizeof(path), folder, names[i], err);
        if (ok && stat(path, &status) != 0) {
            ok = err_set(err, DP_E_FILE,
                         "%s: its snapshot in Hugging Face's cache is incomplete: %.100s leads to "
                         "nothing; fetch it again",
                         name, names[i]);
        }
    }
    if (ok && !has_weights(folder, names, n) &&
        path_join(path, sizeof(path), repo, "blobs", NULL) && path_is_folder(path)) {
        buf blobs;
        buf_init(&blobs, 1024 * 1024);
        ok = folder_list(path, ".incomplete", &blobs, err);
        if (ok && blobs.size > 0) {
            ok = err_set(err, DP_E_FILE,
                         "%s: its snapshot in Hugging Face's cache is incomplete: a download was "
                         "broken off; fetch it again",
                         name);
        }
        buf_free(&blobs);
    }
    arena_free(&memory);
    return ok;
}

bool hub_find(const char *cache, const char *name, char *path, size_t size, bool *found,
              dp_error *err) {
    char folder[2 * HUB_NAME_MAX + 32], repo[STORE_PATH_MAX], commit[COMMIT_HEX + 1];
    char tail[COMMIT_HEX + 16];
    str org, word, revision;
    *found = false;
    if (str_of(cache).size == 0 || !split_hub_name(name, &org, &word, &revision)) return true;
    snprintf(folder, sizeof(folder), "models--%.*s%s%.*s", (int)org.size, org.data,
             org.size > 0 ? "--" : "", (int)word.size, word.data);
    if (!path_join(repo, sizeof(repo), cache, folder, err)) return false;
    if (!path_is_folder(repo)) return true;
    *found = true;
    if (!find_commit(repo, name, revision, commit, err)) return false;
    snprintf(tail, sizeof(tail), "snapshots/%s", commit);
    if (!path_join(path, size, repo, tail, err)) return false;
    if (!path_is_folder(path)) {
        return err_set(err, DP_E_FILE, "%s: there is no snapshot %.300s: fetch it again", name,
                       path);
    }
    return check_snapshot(repo, path, name, err);
}
