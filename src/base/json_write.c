/* json_write: JSON texts member by member. What comes before a member follows from the last byte of
 * the buffer, so that nobody keeps count. */
#include "base/base.h"

#include <inttypes.h>

void json_item(buf *b) {
    const char last = b->size > 0 ? b->data[b->size - 1] : '[';
    if (last != '[' && last != '{') buf_printf(b, ",");
}

void json_key(buf *b, const char *key) {
    json_item(b);
    json_add_string(b, str_of(key));
    buf_printf(b, ":");
}

void json_text(buf *b, const char *key, str value) {
    json_key(b, key);
    json_add_string(b, value);
}

void json_count_of(buf *b, const char *key, uint64_t value) {
    json_key(b, key);
    buf_printf(b, "%" PRIu64, value);
}

void json_real(buf *b, const char *key, double value) {
    json_key(b, key);
    json_add_f64(b, value);
}

void json_flag(buf *b, const char *key, bool value) {
    json_key(b, key);
    buf_printf(b, value ? "true" : "false");
}

void json_add_value(buf *b, const json_value *v) {
    str text;
    bool flag;
    uint64_t count;
    int64_t integer;
    double real;
    if (json_is_object(v) || json_is_array(v)) {
        buf_printf(b, json_is_object(v) ? "{" : "[");
        for (json_iter it = json_each(v); json_next(&it);) {
            json_item(b);
            if (json_is_object(v)) {
                json_add_string(b, it.key);
                buf_printf(b, ":");
            }
            json_add_value(b, it.value);
        }
        buf_printf(b, json_is_object(v) ? "}" : "]");
    } else if (json_string(v, &text)) {
        json_add_string(b, text);
    } else if (json_bool(v, &flag)) {
        buf_printf(b, flag ? "true" : "false");
    } else if (!json_is_real(v) && json_u64(v, &count)) {
        buf_printf(b, "%" PRIu64, count);
    } else if (!json_is_real(v) && json_i64(v, &integer)) {
        buf_printf(b, "%" PRId64, integer);
    } else if (json_f64(v, &real)) {
        const size_t from = b->size;
        json_add_f64(b, real);
        /* what was no integer stays none */
        if (b->size > from && strpbrk(b->data + from, ".e") == NULL) buf_printf(b, ".0");
    } else {
        buf_printf(b, "null");
    }
}
