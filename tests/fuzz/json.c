/* fuzz json: any bytes as a JSON text. What is accepted is walked by every accessor and written
 * anew; from the second writing on (an integer over 64 bits is a double after the first) it must
 * read back to the same text. */
#include "base/base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds) {
    if (!holds) __builtin_trap();
}

static void add_value(buf *b, const json_value *v, int depth) {
    str s;
    bool truth;
    uint64_t u;
    int64_t i;
    double f;
    const bool is_u = json_u64(v, &u), is_i = json_i64(v, &i), is_f = json_f64(v, &f);
    require(depth <= JSON_DEPTH_MAX && is_f == json_is_number(v) && (is_f || (!is_u && !is_i)));
    if (is_u && is_i) require(u == (uint64_t)i);
    if (json_is_object(v) || json_is_array(v)) {
        size_t n = 0;
        buf_add_str(b, json_is_object(v) ? STR("{") : STR("["));
        for (json_iter it = json_each(v); json_next(&it); n++) {
            if (n > 0) buf_add_str(b, STR(","));
            if (json_is_object(v)) {
                json_add_string(b, it.key);
                buf_add_str(b, STR(":"));
                /* By C string, which finds the same member unless the key holds a zero. */
                if (n < 8 && memchr(it.key.data, '\0', it.key.size) == NULL) {
                    require(json_get(v, it.key.data) == it.value);
                }
            } else if (n < 8) {
                require(json_at(v, n) == it.value);
            }
            add_value(b, it.value, depth + 1);
        }
        require(n == json_count(v));
        buf_add_str(b, json_is_object(v) ? STR("}") : STR("]"));
    } else if (json_string(v, &s)) {
        for (size_t at = 0; at < s.size;) {
            const size_t n = utf8_next((str){ s.data + at, s.size - at }, NULL);
            require(n > 0);
            at += n;
        }
        json_add_string(b, s);
    } else if (json_bool(v, &truth)) {
        buf_printf(b, truth ? "true" : "false");
    } else if (is_u) {
        buf_printf(b, "%llu", (unsigned long long)u);
    } else if (is_i) {
        buf_printf(b, "%lld", (long long)i);
    } else if (is_f) {
        json_add_f64(b, f);
    } else {
        require(json_is_null(v));
        buf_add_str(b, STR("null"));
    }
}

/* Parses and writes; false if it is no JSON. */
static bool rewrite(str text, buf *out) {
    dp_error err = { 0 };
    json *doc = json_open(text, "input", &err);
    require((doc == NULL) == (err.status != DP_OK));
    if (doc == NULL) {
        require(strncmp(err.message, "input: ", 7) == 0);
        return false;
    }
    add_value(out, json_root(doc), 0);
    json_close(doc);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    buf copies[3];
    for (size_t k = 0; k < ARRAY_LEN(copies); k++) buf_init(&copies[k], 1 << 26);
    if (rewrite((str){ (const char *)data, size }, &copies[0])) {
        require(rewrite((str){ copies[0].data, copies[0].size }, &copies[1]));
        require(rewrite((str){ copies[1].data, copies[1].size }, &copies[2]));
        require(str_is((str){ copies[1].data, copies[1].size }, copies[2].data));
    }
    for (size_t k = 0; k < ARRAY_LEN(copies); k++) buf_free(&copies[k]);
    double f;
    uint64_t u;
    int64_t i;
    const str text = { (const char *)data, size };
    const bool is_u = str_to_u64(text, &u), is_i = str_to_i64(text, &i);
    if ((is_u || is_i) && size < 300) require(str_to_f64(text, &f));
    utf8_incomplete_tail(text);
    return 0;
}
