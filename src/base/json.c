/* json: RFC 8259 texts, parsed by yyjson behind our limits, and a writer of literals.
 *
 * What yyjson does not refuse is refused here: nesting over JSON_DEPTH_MAX and sizes over
 * JSON_BYTES_MAX before it sees the text, duplicate keys (compared after unescaping) and numbers
 * beyond a double after it. Integers that do not fit 64 bits stay text inside the document, so they
 * never pass for a rounded integer. yyjson lays all values out in one array in the text's order,
 * which is what the check behind the parser walks. A json_value is a yyjson_val. */
#include "base/base.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <yyjson.h>

struct json {
    yyjson_doc *doc;
};

enum { FEW_MEMBERS = 16 }; /* up to here keys are compared each with each */

/* yyjson's readers take non-const values and change nothing. */
static yyjson_val *as_val(const json_value *v) {
    union {
        const json_value *v;
        yyjson_val *val;
    } cast = { .v = v };
    return cast.val;
}

static const json_value *as_value(yyjson_val *v) {
    return (const json_value *)v;
}

/* ---- parsing ------------------------------------------------------------------------------- */

static void *json_malloc(void *err, size_t size) {
    return mem_resize(NULL, size, 1, "a JSON text", err);
}

static void *json_realloc(void *err, void *old, size_t old_size, size_t size) {
    (void)old_size;
    return mem_resize(old, size, 1, "a JSON text", err);
}

static void json_release(void *err, void *memory) {
    (void)err; /* from another time: the caller's dp_error may be gone */
    mem_free(memory);
}

static bool refuse_at(dp_error *err, dp_status status, const char *name, str text, size_t pos,
                      const char *what) {
    size_t line = 1, column = 1;
    for (size_t i = 0; i < pos && i < text.size; i++) {
        column++;
        if (text.data[i] == '\n') line++, column = 1;
    }
    return err_set(err, status, "%s: line %zu, column %zu: %s", name, line, column, what);
}

/* Brackets outside strings. On texts that are no JSON the count may be off; then either this or the
 * parser refuses them. */
static bool check_depth(str text, const char *name, dp_error *err) {
    size_t depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < text.size; i++) {
        const char c = text.data[i];
        if (in_string) {
            if (c == '\\') i++;
            if (c == '"') in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            if (++depth > JSON_DEPTH_MAX) {
                char what[64];
                snprintf(what, sizeof(what), "nested deeper than the limit of %d", JSON_DEPTH_MAX);
                return refuse_at(err, DP_E_LIMIT, name, text, i, what);
            }
        } else if ((c == ']' || c == '}') && depth > 0) {
            depth--;
        }
    }
    return true;
}

/* Of a key, a string or a raw number. */
static str text_of(yyjson_val *v) {
    return (str){ unsafe_yyjson_get_str(v), unsafe_yyjson_get_len(v) };
}

static bool refuse_duplicate(dp_error *err, const char *name, str key) {
    return err_set(err, DP_E_FORMAT, "%s: duplicate key \"%.*s\"", name, STR_ARG(key));
}

static bool check_few_keys(yyjson_val *object, const char *name, dp_error *err) {
    yyjson_val *seen[FEW_MEMBERS], *key = object + 1;
    const size_t n = unsafe_yyjson_get_len(object);
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < i; k++) {
            if (str_equal(text_of(seen[k]), text_of(key))) {
                return refuse_duplicate(err, name, text_of(key));
            }
        }
        seen[i] = key;
        key = unsafe_yyjson_get_next(key + 1);
    }
    return true;
}

/* Linear in the number of members whatever the keys are: vocabularies have hundreds of thousands,
 * and the hash has a key of its own for each document. */
static bool check_keys(yyjson_val *object, const uint64_t hash_with[2], const char *name,
                       dp_error *err) {
    const size_t n = unsafe_yyjson_get_len(object);
    if (n <= FEW_MEMBERS) return check_few_keys(object, name, err);
    yyjson_val *key = object + 1;
    size_t n_slots = FEW_MEMBERS;
    while (n_slots < 2 * n) n_slots *= 2;
    yyjson_val **slots = mem_new(n_slots, sizeof(slots[0]), "the keys of a JSON object", err);
    if (slots == NULL) return false;
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++) {
        const str text = text_of(key);
        size_t at = (size_t)hash_bytes(hash_with, text.data, text.size) & (n_slots - 1);
        for (; slots[at] != NULL; at = (at + 1) & (n_slots - 1)) {
            if (str_equal(text_of(slots[at]), text)) {
                ok = refuse_duplicate(err, name, text);
                break;
            }
        }
        slots[at] = key;
        key = unsafe_yyjson_get_next(key + 1);
    }
    mem_free(slots);
    return ok;
}

static bool check_values(yyjson_doc *doc, const char *name, dp_error *err) {
    uint64_t hash_with[2];
    hash_key(hash_with);
    yyjson_val *v = yyjson_doc_get_root(doc);
    yyjson_val *end = v + yyjson_doc_get_val_count(doc);
    for (; v < end; v++) {
        if (unsafe_yyjson_get_type(v) == YYJSON_TYPE_OBJ) {
            if (!check_keys(v, hash_with, name, err)) return false;
        } else if (unsafe_yyjson_get_type(v) == YYJSON_TYPE_RAW) {
            double x;
            if (!json_f64(as_value(v), &x)) {
                return err_set(err, DP_E_FORMAT, "%s: the number %.*s is beyond a double", name,
                               STR_ARG(text_of(v)));
            }
        }
    }
    return true;
}

json *json_open(str text, const char *name, dp_error *err) {
    if (text.size > JSON_BYTES_MAX) {
        err_set(err, DP_E_LIMIT, "%s: %zu bytes of JSON, the limit is %d", name, text.size,
                JSON_BYTES_MAX);
        return NULL;
    }
    if (text.size == 0) {
        err_set(err, DP_E_FORMAT, "%s: an empty text is no JSON", name);
        return NULL;
    }
    if (!check_depth(text, name, err)) return NULL;
    json *doc = mem_new(1, sizeof(json), "a JSON text", err);
    if (doc == NULL) return NULL;
    dp_error memory = { 0 };
    const yyjson_alc alc = { json_malloc, json_realloc, json_release, &memory };
    yyjson_read_err failure = { 0 };
    union { /* without YYJSON_READ_INSITU the text is only read */
        const char *text;
        char *dat;
    } cast = { .text = text.data };
    doc->doc = yyjson_read_opts(cast.dat, text.size, YYJSON_READ_BIGNUM_AS_RAW, &alc, &failure);
    if (doc->doc == NULL) {
        if (memory.status != DP_OK) {
            err_set(err, memory.status, "%s: %s", name, memory.message);
        } else {
            refuse_at(err, DP_E_FORMAT, name, text, failure.pos,
                      failure.msg != NULL ? failure.msg : "no JSON");
        }
    } else if (check_values(doc->doc, name, err)) {
        return doc;
    }
    json_close(doc);
    return NULL;
}

void json_close(json *doc) {
    if (doc == NULL) return;
    yyjson_doc_free(doc->doc);
    mem_free(doc);
}

const json_value *json_root(const json *doc) {
    return doc == NULL ? NULL : as_value(yyjson_doc_get_root(doc->doc));
}

/* ---- values -------------------------------------------------------------------------------- */

bool json_is_object(const json_value *v) {
    return yyjson_is_obj(as_val(v));
}

bool json_is_array(const json_value *v) {
    return yyjson_is_arr(as_val(v));
}

bool json_is_string(const json_value *v) {
    return yyjson_is_str(as_val(v));
}

bool json_is_null(const json_value *v) {
    return yyjson_is_null(as_val(v));
}

bool json_is_bool(const json_value *v) {
    return yyjson_is_bool(as_val(v));
}

bool json_is_number(const json_value *v) {
    return yyjson_is_num(as_val(v)) || yyjson_is_raw(as_val(v));
}

bool json_is_real(const json_value *v) {
    return yyjson_is_real(as_val(v));
}

size_t json_count(const json_value *v) {
    return yyjson_is_ctn(as_val(v)) ? unsafe_yyjson_get_len(as_val(v)) : 0;
}

const json_value *json_get(const json_value *object, const char *key) {
    return as_value(yyjson_obj_get(as_val(object), key));
}

const json_value *json_at(const json_value *array, size_t i) {
    return as_value(yyjson_arr_get(as_val(array), i));
}

bool json_string(const json_value *v, str *out) {
    if (!json_is_string(v)) return false;
    *out = text_of(as_val(v));
    return true;
}

bool json_bool(const json_value *v, bool *out) {
    if (!json_is_bool(v)) return false;
    *out = yyjson_get_bool(as_val(v));
    return true;
}

bool json_u64(const json_value *v, uint64_t *out) {
    if (yyjson_is_uint(as_val(v))) {
        *out = unsafe_yyjson_get_uint(as_val(v));
        return true;
    }
    if (!yyjson_is_real(as_val(v))) return false; /* a raw number does not fit */
    const double x = unsafe_yyjson_get_real(as_val(v));
    if (!(x >= 0 && x < 0x1p64) || x != floor(x)) return false;
    *out = (uint64_t)x;
    return true;
}

bool json_i64(const json_value *v, int64_t *out) {
    if (yyjson_is_uint(as_val(v))) {
        const uint64_t u = unsafe_yyjson_get_uint(as_val(v));
        if (u > INT64_MAX) return false;
        *out = (int64_t)u;
        return true;
    }
    if (yyjson_is_sint(as_val(v))) {
        *out = unsafe_yyjson_get_sint(as_val(v));
        return true;
    }
    if (!yyjson_is_real(as_val(v))) return false;
    const double x = unsafe_yyjson_get_real(as_val(v));
    if (!(x >= -0x1p63 && x < 0x1p63) || x != floor(x)) return false;
    *out = (int64_t)x;
    return true;
}

bool json_f64(const json_value *v, double *out) {
    if (yyjson_is_num(as_val(v))) {
        *out = yyjson_get_num(as_val(v));
        return true;
    }
    return yyjson_is_raw(as_val(v)) && str_to_f64(text_of(as_val(v)), out);
}

json_iter json_each(const json_value *container) {
    json_iter it = { .container = container, .left = json_count(container) };
    if (it.left > 0) it.cursor = as_value(as_val(container) + 1);
    return it;
}

bool json_next(json_iter *it) {
    if (it->left == 0) {
        it->value = NULL;
        return false;
    }
    it->left--;
    yyjson_val *at = as_val(it->cursor);
    if (json_is_object(it->container)) it->key = text_of(at++);
    it->value = as_value(at);
    it->cursor = as_value(unsafe_yyjson_get_next(at));
    return true;
}

/* ---- writing ------------------------------------------------------------------------------- */

void json_add_string(buf *b, str s) {
    buf_add(b, "\"", 1);
    for (size_t i = 0; i < s.size;) {
        const size_t n = utf8_next((str){ s.data + i, s.size - i }, NULL);
        const unsigned char c = (unsigned char)s.data[i];
        if (n == 0) {
            buf_add_str(b, STR("\xef\xbf\xbd"));
        } else if (c == '"' || c == '\\') {
            buf_printf(b, "\\%c", c);
        } else if (c == '\n') {
            buf_add_str(b, STR("\\n"));
        } else if (c < 0x20 || c == 0x7f) {
            buf_printf(b, "\\u%04x", c);
        } else {
            buf_add(b, s.data + i, n);
        }
        i += n == 0 ? 1 : n;
    }
    buf_add(b, "\"", 1);
}

/* Adds a number as printf left it, with the locale's decimal point replaced. */
static void add_number(buf *b, const char *text) {
    const struct lconv *locale = localeconv();
    const char *point = locale != NULL && locale->decimal_point[0] ? locale->decimal_point : ".";
    const char *at = strstr(text, point);
    if (at == NULL) {
        buf_add_str(b, str_of(text));
    } else {
        buf_printf(b, "%.*s.%s", (int)(at - text), text, at + strlen(point));
    }
}

/* Whole numbers have all their digits: 10 and not 1e+01. */
static bool add_whole(buf *b, double x) {
    if (!(fabs(x) < 1e15) || x != trunc(x)) return false;
    buf_printf(b, "%.0f", x);
    return true;
}

void json_add_f32(buf *b, float x) {
    char text[64] = "null";
    if (add_whole(b, (double)x)) return;
    for (int digits = 1; isfinite(x) && digits <= 9; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, (double)x);
        if (strtof(text, NULL) == x) break;
    }
    add_number(b, text);
}

void json_add_f64(buf *b, double x) {
    char text[64] = "null";
    if (add_whole(b, x)) return;
    for (int digits = 1; isfinite(x) && digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, x);
        if (strtod(text, NULL) == x) break;
    }
    add_number(b, text);
}
