/* test_store: finding, listing and removing models, and Hugging Face's cache.
 *
 * Folders are made for each case; models in them are links to the fixtures of the readers, or
 * files that no reader is asked to open. */
#include "store/store.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char commit_a[] = "0123456789abcdef0123456789abcdef01234567";
static const char commit_b[] = "89abcdef0123456789abcdef0123456789abcdef";

typedef struct {
    test *t;
    dp_store_options store;
} fixture;

static const char *make_folder(test *t, const char *name) {
    const char *path = test_printf(t, "%s/%s", test_folder(t), name);
    CHECK(t, folders_make(path, &t->err));
    return path;
}

static void write_text_file(test *t, const char *name, const char *text) {
    test_write(t, name, text, strlen(text));
}

/* `to` in the case's folder becomes a link. */
static void make_link(test *t, const char *target, const char *name) {
    CHECK(t, symlink(target, test_printf(t, "%s/%s", test_folder(t), name)) == 0);
}

static const char *absolute(test *t, const char *path) {
    char *real = realpath(path, NULL);
    CHECK(t, real != NULL);
    const char *copy = test_printf(t, "%s", real != NULL ? real : "");
    free(real);
    return copy;
}

static void begin(fixture *f, test *t) {
    *f = (fixture){ .t = t };
    f->store.bundled =
        test_printf(t, "%s:%s", make_folder(t, "bundled-1"), make_folder(t, "bundled-2"));
    f->store.folder = make_folder(t, "models");
    f->store.hf_cache = make_folder(t, "hub");
}

static bool find(const fixture *f, const char *name, char path[STORE_PATH_MAX]) {
    path[0] = '\0';
    return dp_store_find(&f->store, name, path, STORE_PATH_MAX, &f->t->err);
}

static void check_found(const fixture *f, const char *name, const char *tail) {
    char path[STORE_PATH_MAX];
    test_row(f->t, "%s", name);
    if (CHECK(f->t, find(f, name, path))) {
        CHECK_STR(f->t, str_of(path), test_printf(f->t, "%s/%s", test_folder(f->t), tail));
    }
    test_row(f->t, "%s", "");
}

static void check_lost(const fixture *f, const char *name, dp_status status, const char *part) {
    char path[STORE_PATH_MAX];
    test_row(f->t, "%s", name);
    CHECK(f->t, !find(f, name, path));
    CHECK_ERROR(f->t, &f->t->err, status, part);
    test_row(f->t, "%s", "");
}

/* ---- names --------------------------------------------------------------------------------- */

static void only_plain_names_are_used(test *t) {
    static const struct {
        str name;
        bool plain;
    } cases[] = {
        { { "model.gguf", 10 }, true }, { { "a b\xc3\xa4", 5 }, true }, { { "-x", 2 }, true },
        { { "", 0 }, false },           { { ".", 1 }, false },          { { "..", 2 }, false },
        { { ".x", 2 }, false },         { { "a/b", 3 }, false },        { { "a\\b", 3 }, false },
        { { "a\nb", 3 }, false },       { { "a\x7f", 2 }, false },      { { "a\0b", 3 }, false },
        { { "a\xc2\x85", 3 }, false }, /* U+0085, a control character */
        { { "\xff", 1 }, false },      /* no UTF-8 */
        { { "a\xc3", 2 }, false },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        CHECK_MSG(t, name_is_plain(cases[i].name) == cases[i].plain, "case %zu", i);
    }
    char longest[FILE_NAME_MAX + 1];
    memset(longest, 'a', sizeof(longest));
    CHECK(t, name_is_plain((str){ longest, FILE_NAME_MAX }));
    CHECK(t, !name_is_plain((str){ longest, FILE_NAME_MAX + 1 }));
}

static void split_names_are_recognised(test *t) {
    uint32_t index = 0, n = 0;
    size_t stem = 0;
    CHECK(t, name_is_split("a-b-00002-of-00013.gguf", &index, &n, &stem));
    CHECK_U64(t, index, 2);
    CHECK_U64(t, n, 13);
    CHECK_U64(t, stem, 3);
    static const char *const not [] = { "a.gguf",
                                        "-00001-of-00002.gguf",
                                        "a-0001-of-00002.gguf",
                                        "a-00001-of-0000x.gguf",
                                        "a-00001-of-00002.GGUF",
                                        "a-00001-of-00002.ggufx",
                                        "" };
    for (size_t i = 0; i < ARRAY_LEN(not ); i++) {
        CHECK_MSG(t, !name_is_split(not [i], &index, &n, &stem), "%s", not [i]);
    }
}

/* ---- finding ------------------------------------------------------------------------------- */

static void places_are_looked_at_in_order(test *t) {
    fixture f;
    begin(&f, t);
    char path[STORE_PATH_MAX];
    make_folder(t, "bundled-2/both");
    make_folder(t, "models/both");
    make_folder(t, "models/own");
    write_text_file(t, "models/file.gguf", "x");
    write_text_file(t, "bundled-1/first.gguf", "x");
    make_folder(t, "bundled-2/first");
    make_folder(t, "models/.hidden.part");
    make_folder(t, "hub/models--gpt2/snapshots");
    make_folder(t, test_printf(t, "hub/models--gpt2/snapshots/%s", commit_a));
    check_found(&f, "both", "bundled-2/both");
    check_found(&f, "first", "bundled-1/first.gguf");
    check_found(&f, "own", "models/own");
    check_found(&f, "file", "models/file.gguf");
    check_found(&f, "file.gguf", "models/file.gguf");
    check_found(&f, "gpt2", test_printf(t, "hub/models--gpt2/snapshots/%s", commit_a));
    /* A path that exists is before all of them; one that can only be a path is left as it is. */
    const char *own = test_printf(t, "%s/models/own", test_folder(t));
    if (CHECK(t, find(&f, own, path))) CHECK_STR(t, str_of(path), own);
    static const char *const paths[] = { "/no/such", "./x", "../x", "a/b/c", ".hidden/x" };
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        if (CHECK(t, find(&f, paths[i], path))) CHECK_STR(t, str_of(path), paths[i]);
    }
    if (CHECK(t, find(&f, "src", path))) CHECK_STR(t, str_of(path), "src");
    check_lost(&f, "", DP_E_ARGUMENT, "the model's name is empty");
    check_lost(&f, "none", DP_E_FILE, "none: no such file or folder, nor a bundled model in ");
    check_lost(&f, "none", DP_E_FILE, "/models, nor in Hugging Face's cache ");
    check_lost(&f, "org/none", DP_E_FILE, "org/none: no such file or folder, nor in Hugging");
    check_lost(&f, ".hidden.part", DP_E_FILE, "no such file");
    CHECK(t, !dp_store_find(NULL, "x", path, sizeof(path), &t->err));
    CHECK_ERROR(t, &t->err, DP_E_FILE, "x: no such file or folder");
    char small[8];
    CHECK(t, !dp_store_find(NULL, own, small, sizeof(small), &t->err));
    CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "the limit is 7");
}

/* ---- Hugging Face's cache ------------------------------------------------------------------ */

static void add_ref(test *t, const char *repo, const char *ref, const char *text) {
    const char *name = test_printf(t, "hub/%s/refs/%s", repo, ref);
    make_folder(t, test_printf(t, "%.*s", (int)(strrchr(name, '/') - name), name));
    write_text_file(t, name, text);
}

static void snapshots_are_found_by_reference(test *t) {
    fixture f;
    begin(&f, t);
    const char *a = test_printf(t, "hub/models--org--name/snapshots/%s", commit_a);
    const char *b = test_printf(t, "hub/models--org--name/snapshots/%s", commit_b);
    make_folder(t, a);
    check_found(&f, "org/name", a); /* the only one */
    make_folder(t, b);
    check_lost(&f, "org/name", DP_E_FILE, "has 2 snapshots and no refs/main: name one");
    add_ref(t, "models--org--name", "main", commit_b);
    add_ref(t, "models--org--name", "v1.0", test_printf(t, "%s\n", commit_a));
    add_ref(t, "models--org--name", "refs/pr/1", commit_a);
    check_found(&f, "org/name", b);
    check_found(&f, "org/name@main", b);
    check_found(&f, "org/name@v1.0", a);
    check_found(&f, "org/name@refs/pr/1", a);
    check_found(&f, test_printf(t, "org/name@%s", commit_a), a);
    check_lost(&f, "org/name@v2", DP_E_FILE, "org/name@v2: ");
    check_lost(&f, test_printf(t, "org/name@%.39s0", commit_a), DP_E_FILE, "there is no snapshot ");
    static const char *const texts[] = {
        "",
        "main",
        "../../../../etc",
        "0123456789abcdef0123456789abcdef0123456",
        "0123456789abcdef0123456789abcdef012345678",
        "0123456789ABCDEF0123456789abcdef01234567",
        "0123456789abcdef0123456789abcdef01234567\n\n",
        "../456789abcdef0123456789abcdef01234567a",
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        add_ref(t, "models--org--name", "odd", texts[i]);
        check_lost(&f, "org/name@odd", DP_E_FORMAT,
                   "refs/odd: names no commit of 40 hexadecimal digits");
    }
    char long_ref[400];
    memset(long_ref, 'a', sizeof(long_ref));
    long_ref[sizeof(long_ref) - 1] = '\0';
    add_ref(t, "models--org--name", "odd", long_ref);
    check_lost(&f, "org/name@odd", DP_E_LIMIT, "the limit is 256");
    make_folder(t, "hub/models--org--bare");
    check_lost(&f, "org/bare", DP_E_FILE, "has no snapshot of it: fetch it again");
    add_ref(t, "models--org--bare", "main", commit_a);
    check_lost(&f, "org/bare", DP_E_FILE, "there is no snapshot ");
}

static void names_of_repositories_are_held_to_their_form(test *t) {
    static const char *const good[] = { "gpt2",          "org/name",           "Org-1/Na_me.v2",
                                        "org/name@v1.0", "org/name@refs/pr/1", "gpt2@main",
                                        "org@a/b" };
    static const char *const bad[] = { "",
                                       "/",
                                       "org/",
                                       "/name",
                                       "org/name/x",
                                       "../name",
                                       "org/..",
                                       "org/.name",
                                       "org/-name",
                                       "org/na--me",
                                       "org--x/name",
                                       "org/na..me",
                                       "org/na me",
                                       "org/name@",
                                       "org/name@../x",
                                       "org/name@a//b",
                                       "org/name@/a",
                                       "org/name@a/",
                                       "org/name@a/../b",
                                       "org/name@a@b",
                                       "org/na\xc3\xa4me",
                                       "org/na\\me",
                                       "@main" };
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        CHECK_MSG(t, hub_is_name(good[i]), "%s", good[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        CHECK_MSG(t, !hub_is_name(bad[i]), "%s", bad[i]);
    }
    static const char *const folders[][2] = {
        { "models--gpt2", "gpt2" },     { "models--org--name", "org/name" },
        { "models--a--b--c", NULL },    { "models--..--x", NULL },
        { "models--a--b@main", NULL },  { "models--", NULL },
        { "datasets--org--name", NULL }
    };
    for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
        char name[256];
        const bool ok = hub_name_of(folders[i][0], name, sizeof(name));
        CHECK_MSG(t, ok == (folders[i][1] != NULL), "%s", folders[i][0]);
        if (ok && folders[i][1] != NULL) CHECK_STR(t, str_of(name), folders[i][1]);
    }
}

static void incomplete_snapshots_are_told(test *t) {
    fixture f;
    begin(&f, t);
    const char *repo = "hub/models--org--name";
    const char *snapshot = test_printf(t, "%s/snapshots/%s", repo, commit_a);
    make_folder(t, test_printf(t, "%s/blobs", repo));
    make_folder(t, snapshot);
    write_text_file(t, test_printf(t, "%s/blobs/abc", repo), "{}");
    make_link(t, "../../blobs/abc", test_printf(t, "%s/config.json", snapshot));
    make_link(t, "../../blobs/abc", test_printf(t, "%s/tokenizer.json", snapshot));
    check_found(&f, "org/name", snapshot); /* a tokenizer alone is something */
    write_text_file(t, test_printf(t, "%s/blobs/def.incomplete", repo), "");
    check_lost(&f, "org/name", DP_E_FILE, "is incomplete: a download was broken off");
    write_text_file(t, test_printf(t, "%s/model.safetensors.index.json", snapshot),
                    "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}");
    write_text_file(t, test_printf(t, "%s/one.safetensors", snapshot), "x");
    check_lost(&f, "org/name", DP_E_FILE, "is incomplete: a download was broken off");
    write_text_file(t, test_printf(t, "%s/two.safetensors", snapshot), "x");
    check_found(&f, "org/name", snapshot); /* what is half there belongs to another revision */
    make_link(t, "../../blobs/def", test_printf(t, "%s/three.json", snapshot));
    check_lost(&f, "org/name", DP_E_FILE,
               "org/name: its snapshot in Hugging Face's cache is incomplete: three.json leads to "
               "nothing");
}

/* ---- listing ------------------------------------------------------------------------------- */

typedef struct {
    test *t;
    buf out;
    uint32_t stop_after;
} listing;

static bool add_entry(void *user, const dp_store_entry *e) {
    listing *l = user;
    buf_printf(&l->out, "%d %s %s %s %llu %s\n", (int)e->place, e->name, e->container, e->format,
               (unsigned long long)e->bytes, e->problem[0] != '\0' ? "bad" : "good");
    return l->stop_after == 0 || --l->stop_after > 0;
}

static void all_models_are_listed(test *t) {
    fixture f;
    begin(&f, t);
    listing l = { .t = t };
    buf_init(&l.out, 1 << 16);
    const char *gguf = absolute(t, test_vector(t, "gguf/q8_0/model.gguf"));
    const char *q4 = absolute(t, test_vector(t, "gguf/q4_0"));
    const char *split = absolute(t, test_vector(t, "gguf/llama3-gqa-split"));
    const char *snapshot = test_printf(t, "hub/models--org--name/snapshots/%s", commit_a);
    make_link(t, gguf, "bundled-1/z.gguf");
    make_link(t, q4, "bundled-2/z"); /* nobody finds these two by their name */
    make_link(t, q4, "models/z");
    make_link(t, q4, "models/b");
    for (int i = 1; i <= 3; i++) {
        make_link(t, test_printf(t, "%s/model-%05d-of-00003.gguf", split, i),
                  test_printf(t, "models/a-%05d-of-00003.gguf", i));
    }
    write_text_file(t, "models/broken.gguf", "GGUF");
    write_text_file(t, "models/README.md", "x");
    make_link(t, q4, "models/.c.part");
    make_folder(t, snapshot);
    for (int i = 0; i < 2; i++) {
        static const char *const names[] = { "config.json", "model.safetensors" };
        const char *from = test_vector(t, test_printf(t, "models/llama-bias/%s", names[i]));
        make_link(t, absolute(t, from), test_printf(t, "%s/%s", snapshot, names[i]));
    }
    make_folder(t, "hub/models--org--bare");
    make_folder(t, "hub/datasets--org--name");
    CHECK(t, dp_store_list(&f.store, add_entry, &l, &t->err));
    struct stat q8_status, q4_status, config, model;
    CHECK(t, stat(gguf, &q8_status) == 0);
    CHECK(t, stat(test_printf(t, "%s/model.gguf", q4), &q4_status) == 0);
    CHECK(t, stat(test_vector(t, "models/llama-bias/config.json"), &config) == 0);
    CHECK(t, stat(test_vector(t, "models/llama-bias/model.safetensors"), &model) == 0);
    uint64_t split_bytes = disk_bytes(split), q4_bytes = disk_bytes(q4);
    CHECK(t, q4_bytes >= (uint64_t)q4_status.st_size);
    const uint64_t vectors = split_bytes; /* the folder has its vectors, too */
    split_bytes = 0;
    for (int i = 1; i <= 3; i++) {
        split_bytes += disk_bytes(test_printf(t, "%s/model-%05d-of-00003.gguf", split, i));
    }
    CHECK(t, split_bytes > 0 && split_bytes <= vectors);
    CHECK_STR(t, ((str){ l.out.data, l.out.size }),
              test_printf(t,
                          "0 z gguf q8_0 %llu good\n"
                          "1 a-00001-of-00003 gguf bf16 %llu good\n"
                          "1 b gguf q4_0 %llu good\n"
                          "1 broken   4 bad\n"
                          "2 org/bare   0 bad\n"
                          "2 org/name safetensors bf16 %llu good\n",
                          (unsigned long long)q8_status.st_size, (unsigned long long)split_bytes,
                          (unsigned long long)q4_bytes,
                          (unsigned long long)(config.st_size + model.st_size)));
    buf_reset(&l.out);
    l.stop_after = 2;
    CHECK(t, !dp_store_list(&f.store, add_entry, &l, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_CANCELLED, "cancelled");
    const dp_store_options nowhere = { .bundled = "/no/such:", .folder = "/no", .hf_cache = "/no" };
    buf_reset(&l.out);
    CHECK(t, dp_store_list(&nowhere, add_entry, &l, &t->err));
    CHECK(t, dp_store_list(NULL, add_entry, &l, &t->err));
    CHECK_U64(t, l.out.size, 0);
    buf_free(&l.out);
}

/* ---- removing ------------------------------------------------------------------------------ */

static bool remove_model(const fixture *f, const char *name) {
    return dp_store_remove(&f->store, name, &f->t->err);
}

static bool is_there(const fixture *f, const char *name) {
    return path_exists(test_printf(f->t, "%s/%s", test_folder(f->t), name));
}

static void removing_stays_in_the_folder(test *t) {
    fixture f;
    begin(&f, t);
    make_folder(t, "models/x/inner/deep");
    make_folder(t, "outside/folder");
    write_text_file(t, "outside/file", "x");
    write_text_file(t, "outside/folder/file", "x");
    write_text_file(t, "models/x/file", "x");
    write_text_file(t, "models/x/inner/deep/file", "x");
    make_link(t, "../../../outside/folder", "models/x/inner/link");
    make_link(t, "../../outside/file", "models/x/link");
    make_folder(t, "models/.x.part");
    write_text_file(t, "models/.x.part/.file.part", "x");
    make_folder(t, "models/.x.old");
    write_text_file(t, "models/.x.old/file", "x");
    make_folder(t, "models/xy");
    CHECK(t, remove_model(&f, "x"));
    CHECK(t, !is_there(&f, "models/x") && !is_there(&f, "models/.x.part"));
    CHECK(t, !is_there(&f, "models/.x.old") && !is_there(&f, "models/.x.lock"));
    CHECK(t, is_there(&f, "outside/folder/file") && is_there(&f, "outside/file"));
    CHECK(t, is_there(&f, "models/xy"));
    /* A link to a folder goes, the folder stays. */
    make_link(t, "../outside", "models/linked");
    CHECK(t, remove_model(&f, "linked"));
    CHECK(t, !is_there(&f, "models/linked") && is_there(&f, "outside/file"));
    /* A part alone; a file; the files of a split model. */
    make_folder(t, "models/.half.part");
    CHECK(t, remove_model(&f, "half"));
    CHECK(t, !is_there(&f, "models/.half.part"));
    write_text_file(t, "models/file.gguf", "x");
    CHECK(t, remove_model(&f, "file"));
    CHECK(t, !is_there(&f, "models/file.gguf"));
    for (int i = 1; i <= 3; i++) {
        write_text_file(t, test_printf(t, "models/s-%05d-of-00003.gguf", i), "x");
    }
    CHECK(t, remove_model(&f, "s-00001-of-00003"));
    for (int i = 1; i <= 3; i++) {
        CHECK(t, !is_there(&f, test_printf(t, "models/s-%05d-of-00003.gguf", i)));
    }
}

static void only_models_of_the_folder_are_removed(test *t) {
    fixture f;
    begin(&f, t);
    make_folder(t, "bundled-1/tale");
    make_folder(t, "models/x");
    make_folder(t, test_printf(t, "hub/models--org--name/snapshots/%s", commit_a));
    make_folder(t, test_printf(t, "hub/models--gpt2/snapshots/%s", commit_a));
    const struct {
        const char *name;
        dp_status status;
        const char *part;
    } cases[] = {
        { "tale", DP_E_ARGUMENT, "tale: is a bundled model" },
        { "org/name", DP_E_ARGUMENT, "neither paths nor models of Hugging Face's cache" },
        { "gpt2", DP_E_FILE, "gpt2: no model of " },
        { "none", DP_E_FILE, "none: no model of " },
        { test_printf(t, "%s/models/x", test_folder(t)), DP_E_ARGUMENT, "neither paths nor" },
        { "../models/x", DP_E_ARGUMENT, "neither paths nor" },
        { "..", DP_E_ARGUMENT, "is no name for a model" },
        { ".x.part", DP_E_ARGUMENT, "is no name for a model" },
        { "", DP_E_ARGUMENT, "is no name for a model" },
        { "-x", DP_E_ARGUMENT, "is no name for a model" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        test_row(t, "%s", cases[i].name);
        CHECK(t, !remove_model(&f, cases[i].name));
        CHECK_ERROR(t, &t->err, cases[i].status, cases[i].part);
    }
    test_row(t, "%s", "");
    CHECK(t, is_there(&f, "bundled-1/tale") && is_there(&f, "models/x"));
    CHECK(t, is_there(&f, "hub/models--org--name") && is_there(&f, "hub/models--gpt2"));
    const dp_store_options gone = { .folder = test_printf(t, "%s/no", test_folder(t)) };
    CHECK(t, !dp_store_remove(&gone, "x", &t->err));
    CHECK_ERROR(t, &t->err, DP_E_FILE, "there is no model folder");
    CHECK(t, !dp_store_remove(NULL, "x", &t->err));
    CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "there is no model folder");
}

static void locks_have_one_holder(test *t) {
    fixture f;
    begin(&f, t);
    const int lock = store_lock(f.store.folder, "x", &t->err);
    CHECK(t, lock >= 0 && is_there(&f, "models/.x.lock"));
    CHECK(t, store_lock(f.store.folder, "x", &t->err) < 0);
    CHECK_ERROR(t, &t->err, DP_E_FILE, "x: another process is pulling or removing it");
    const int other = store_lock(f.store.folder, "y", &t->err);
    CHECK(t, other >= 0);
    store_unlock(f.store.folder, "y", other);
    store_unlock(f.store.folder, "x", lock);
    CHECK(t, !is_there(&f, "models/.x.lock") && !is_there(&f, "models/.y.lock"));
    /* One that a crash has left is free. */
    write_text_file(t, "models/.x.lock", "");
    const int again = store_lock(f.store.folder, "x", &t->err);
    CHECK(t, again >= 0);
    store_unlock(f.store.folder, "x", again);
}

static const test_case cases[] = {
    { "only plain names are used", only_plain_names_are_used },
    { "split names are recognised", split_names_are_recognised },
    { "places are looked at in order", places_are_looked_at_in_order },
    { "snapshots are found by reference", snapshots_are_found_by_reference },
    { "names of repositories are held to their form",
      names_of_repositories_are_held_to_their_form },
    { "incomplete snapshots are told", incomplete_snapshots_are_told },
    { "all models are listed", all_models_are_listed },
    { "removing stays in the folder", removing_stays_in_the_folder },
    { "only models of the folder are removed", only_models_of_the_folder_are_removed },
    { "locks have one holder", locks_have_one_holder },
};

const test_group store_tests = { "store", cases, ARRAY_LEN(cases) };
