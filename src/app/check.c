/* check: every kernel against its double reference on this device. */
#include "app/app.h"
#include "ref/check.h"

#include <inttypes.h>

typedef struct {
    buf text;
    bool json, begun; /* begun: the heading is out */
    dp_error err;
} table;

static void row_json(buf *b, const check_row *row) {
    json_item(b);
    buf_printf(b, "{");
    json_text(b, "kernel", str_of(row->kernel));
    json_text(b, "shape", str_of(row->shape));
    json_text(b, "reason", str_of(row->reason));
    json_real(b, "error", row->error);
    json_real(b, "bound", row->bound);
    json_flag(b, "ok", row->ok);
    if (row->problem != NULL) json_text(b, "problem", str_of(row->problem));
    buf_printf(b, "}");
}

/* Rows are printed as they come; JSON is one object at the end. */
static bool print_row(void *user, const check_row *row) {
    table *t = user;
    if (t->json) {
        row_json(&t->text, row);
        return check_interrupted(&t->err);
    }
    buf_reset(&t->text);
    if (!t->begun) {
        buf_printf(&t->text, "%-6s  %-26s  %-60s  %9s  %9s\n", "", "kernel", "shape", "error",
                   "bound");
    }
    t->begun = true;
    buf_printf(&t->text, "%-6s  %-26s  %-60s  %9.2e  %9.2e", row->ok ? "ok" : "FAILED", row->kernel,
               row->shape, row->error, row->bound);
    if (row->problem != NULL) buf_printf(&t->text, "  %s", row->problem);
    buf_printf(&t->text, "\n");
    return buf_ok(&t->text, "the table", &t->err) &&
           out_write(t->text.data, t->text.size, &t->err) && check_interrupted(&t->err);
}

int cmd_check(const options *o) {
    table t = { .json = o->json };
    buf_init(&t.text, 16 << 20);
    dp_device_info info = { 0 };
    uint32_t n = 0, n_failed = 0;
    const dp_device_options how = device_options(o);
    const check_options what = {
        .filter = o->n_rest > 0 ? o->rest[0] : NULL,
        .row = print_row,
        .user = &t,
    };
    if (o->json) buf_printf(&t.text, "{\"rows\":[");
    /* The first failure stays: a row's comes before the device's. */
    if (!check_device(&how, &what, &info, &n, &n_failed, &t.err) || t.err.status != DP_OK) {
        buf_free(&t.text);
        return fail(&t.err);
    }
    if (n == 0) {
        buf_free(&t.text);
        err_set(&t.err, DP_E_ARGUMENT, "no kernel's name holds \"%.100s\"", what.filter);
        return fail(&t.err);
    }
    if (o->json) {
        buf_printf(&t.text, "]");
        json_text(&t.text, "device", str_of(info.name));
        json_flag(&t.text, "f16", info.f16);
        json_flag(&t.text, "subgroups", info.subgroups);
        json_count_of(&t.text, "n", n);
        json_count_of(&t.text, "failed", n_failed);
        buf_printf(&t.text, "}\n");
    } else {
        buf_reset(&t.text);
        buf_printf(&t.text,
                   "%" PRIu32 " checked on %s (half floats %s, subgroups %s), %" PRIu32 " failed\n",
                   n, info.name, info.f16 ? "yes" : "no", info.subgroups ? "yes" : "no", n_failed);
    }
    const int code = out_result(&t.text);
    return code != EXIT_OK ? code : n_failed > 0 ? EXIT_FAILED : EXIT_OK;
}
