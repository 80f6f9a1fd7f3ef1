/* test_oom: fails allocation 1, 2, 3, ... of everything that opens.
 *
 * An attempt runs with allocation n and all later ones failing. It must fail with DP_E_MEMORY and
 * leave nothing behind (the sanitizers' run sees leaks), until n is beyond what it needs and it
 * succeeds. */
#include "format/format.h"
#include "tests/test.h"
#include "text/text.h"

typedef struct {
    const char *name;
    /* True if all went well. Gives back all that it took, in either case. */
    bool (*attempt)(const char *path, dp_error *err);
    const char *(*path)(test *t); /* made before allocations fail */
    uint32_t least;               /* allocations that it makes at least */
} walk;

static bool open_container(const char *path, dp_error *err) {
    container *c = container_open(path, false, err);
    container_close(c);
    return c != NULL;
}

static bool open_folder_with_json(const char *path, dp_error *err) {
    container *c = container_open(path, false, err);
    const bool ok = c != NULL && container_json(c, "config.json", err) != NULL;
    container_close(c);
    return ok;
}

static bool parse_json(const char *path, dp_error *err) {
    buf text;
    if (!file_read_all(path, JSON_BYTES_MAX, &text, err)) return false;
    json *doc = json_open((str){ text.data, text.size }, path, err);
    buf_free(&text);
    json_close(doc);
    return doc != NULL;
}

static bool write_text(const char *path, dp_error *err) {
    buf b;
    buf_init(&b, 10000);
    for (int i = 0; i < 1000; i++) json_add_f32(&b, (float)i);
    const bool ok = buf_ok(&b, "a text", err) && file_write_atomic(path, b.data, b.size, err);
    buf_free(&b);
    return ok;
}

/* A prompt with its marks, of a template that uses most of the interpreter. */
static bool render_template(const char *path, dp_error *err) {
    buf messages, prompt, marks;
    if (!file_read_all(path, JSON_BYTES_MAX, &messages, err)) return false;
    const chat_input in = { .messages = { messages.data, messages.size },
                            .tools = STR("[{\"name\": \"f\"}]"),
                            .variables = STR("{\"x\": 1}") };
    buf_init(&prompt, 1 << 16);
    buf_init(&marks, 1 << 16);
    const bool ok = chat_render(
        STR("{% macro f(a, b=1) %}{{ a ~ b }}{{ caller() }}{% endmacro %}"
            "{% set ns = namespace(l=[]) %}{% for m in messages %}{% set ns.l = ns.l + [m] %}"
            "{% call f(m.content, *[2]) %}{{ m | tojson(indent=2) }}{% endcall %}"
            "{{ m.content.split() | map('upper') | list }}{{ loop.nextitem }}{{ m.items() }}"
            "{% endfor %}{{ '%s' % x }}{{ '{}'.format(tools) }}{{ range(9) | list | sort }}"),
        path, &in, &prompt, &marks, err);
    buf_free(&messages);
    buf_free(&prompt);
    buf_free(&marks);
    return ok;
}

static const char *gguf_path(test *t) {
    return test_vector(t, "gguf/q8_0/model.gguf");
}

static const char *split_path(test *t) {
    return test_vector(t, "gguf/llama3-gqa-split/model-00001-of-00003.gguf");
}

static const char *folder_path(test *t) {
    return test_vector(t, "models/llama3-gqa");
}

static const char *shards_path(test *t) {
    return test_vector(t, "models/llama3-rope-parameters");
}

/* An object with more members than are compared each with each. */
static const char *json_path(test *t) {
    buf b;
    buf_init(&b, 10000);
    for (int i = 0; i < 100; i++) buf_printf(&b, "%s\"%d\":[{}]", i > 0 ? "," : "{", i);
    buf_add_str(&b, STR("}"));
    const char *path = test_write(t, "x.json", b.data, b.size);
    buf_free(&b);
    return path;
}

static const char *new_path(test *t) {
    return test_printf(t, "%s/new", test_folder(t));
}

static const char *messages_path(test *t) {
    buf b;
    buf_init(&b, 100000);
    for (int i = 0; i < 60; i++) {
        buf_printf(&b, "%s{\"role\":\"user\",\"content\":\"%d words\",\"a\":[],\"b\":1,"
                       "\"c\":2,\"d\":3,\"e\":4,\"f\":5,\"g\":6,\"h\":7}",
                   i > 0 ? "," : "[", i);
    }
    buf_add_str(&b, STR("]"));
    const char *path = test_write(t, "messages.json", b.data, b.size);
    buf_free(&b);
    return path;
}

static const walk walks[] = {
    { "GGUF", open_container, gguf_path, 8 },
    { "split GGUF", open_container, split_path, 15 },
    { "safetensors folder", open_folder_with_json, folder_path, 10 },
    { "safetensors shards", open_folder_with_json, shards_path, 20 },
    { "JSON", parse_json, json_path, 5 },
    { "a chat template", render_template, messages_path, 20 },
    { "a text written", write_text, new_path, 3 },
};

static void running_out_of_memory_is_an_error(test *t) {
    for (size_t i = 0; i < ARRAY_LEN(walks); i++) {
        const char *path = walks[i].path(t);
        uint64_t n = 1;
        for (bool ok = false; !ok && n < 100000; n++) {
            dp_error err = { 0 };
            test_row(t, "%s, allocation %llu", walks[i].name, (unsigned long long)n);
            mem_fail_from(n);
            ok = walks[i].attempt(path, &err);
            mem_fail_from(0);
            if (!ok && !CHECK_ERROR(t, &err, DP_E_MEMORY, "out of memory")) break;
            if (ok) CHECK(t, err.status == DP_OK);
        }
        CHECK_MSG(t, n > walks[i].least && n < 100000, "%llu allocations, expected at least %u",
                  (unsigned long long)n - 2, walks[i].least);
    }
}

static const test_case cases[] = {
    { "running out of memory is an error", running_out_of_memory_is_an_error },
};

const test_group oom_tests = { "oom", cases, ARRAY_LEN(cases) };
