/* check: `doppler check` for JavaScript: every kernel against its double reference on the browser's
 * device, row by row. In check.wasm alone, which is for tests. */
#include "base/base.h"
#include "ref/check.h"
#include "web/web.h"

static struct {
    check_walk walk;
    check_options options;
    char filter[64];
    buf row;
} web_check;

int EXPORT(web_check_begin)(const char *filter, size_t size, int brief);
int EXPORT(web_check_some)(void);

static bool keep_row(void *user, const check_row *row) {
    (void)user;
    buf *b = &web_check.row;
    buf_reset(b);
    buf_printf(b, "{");
    json_text(b, "kernel", str_of(row->kernel));
    json_text(b, "shape", str_of(row->shape));
    json_real(b, "error", row->error);
    json_real(b, "bound", row->bound);
    json_flag(b, "ok", row->ok);
    if (row->problem != NULL) json_text(b, "problem", str_of(row->problem));
    buf_printf(b, "}");
    return true;
}

/* Rows of kernels whose names hold the filter; one of each kernel if `brief`. */
int web_check_begin(const char *filter, size_t size, int brief) {
    web_begin();
    if (size >= sizeof(web_check.filter)) {
        err_set(&web_shared.err, DP_E_LIMIT, "filter: %zu bytes, at most %zu", size,
                sizeof(web_check.filter) - 1);
        return web_end(false);
    }
    memcpy(web_check.filter, filter, size);
    web_check.filter[size] = '\0';
    buf_init(&web_check.row, 1 << 16);
    web_check.options = (check_options){ .filter = size > 0 ? web_check.filter : NULL,
                                         .brief = brief != 0,
                                         .row = keep_row };
    web_check.walk = (check_walk){ .g = web_gpu(), .options = &web_check.options };
    return web_end(true);
}

/* What comes next, a check_stage; with a row in web_out() if one is complete. */
int web_check_some(void) {
    web_begin();
    const uint32_t before = web_check.walk.n;
    if (!check_some(&web_check.walk, &web_shared.err)) return web_end(false);
    if (web_check.walk.n > before) {
        buf_add(&web_shared.out, web_check.row.data, web_check.row.size);
    }
    const int end = web_end(true);
    return end < 0 ? end : (int)web_check.walk.stage;
}
