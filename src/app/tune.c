/* tune: measures which shapes of workgroups a model's matrix products and attention are fastest
 * with on this device, and keeps the choices where every later run finds them. */
#include "app/app.h"

typedef struct {
    buf out;
    bool as_json;
    char product[128]; /* of the last row */
} tune_report;

static void add_line(buf *b, const char *pass, const char *product, const char *shape,
                     const char *us, const char *verdict) {
    buf_printf(b, "%-14s %-42s %-45s %10s%s%s\n", pass, product, shape, us,
               verdict[0] != '\0' ? "  " : "", verdict);
}

static const char *pass_name(dp_pass pass) {
    static const char *const names[] = { [DP_PASS_ONE] = "a token",
                                         [DP_PASS_FEW] = "few rows",
                                         [DP_PASS_SOME] = "some rows",
                                         [DP_PASS_SHORT] = "a short prompt",
                                         [DP_PASS_MANY] = "a prompt" };
    return names[pass];
}

static const char *row_verdict(const dp_tuned *row) {
    return !row->is_right ? "wrong" : row->is_chosen ? "chosen" : "";
}

static void add_tuned_json(buf *b, const dp_tuned *row) {
    json_item(b);
    buf_printf(b, "\n{");
    json_text(b, "pass", str_of(pass_name(row->pass)));
    json_text(b, "product", str_of(row->product));
    json_count_of(b, "calls", row->calls);
    json_text(b, "shape", str_of(row->shape));
    json_real(b, "us", 1e-3 * row->nanoseconds);
    json_flag(b, "initial", row->is_initial);
    json_flag(b, "right", row->is_right);
    json_flag(b, "chosen", row->is_chosen);
    buf_printf(b, "}");
}

static bool add_tuned(void *user, const dp_tuned *row) {
    tune_report *r = user;
    const bool again = strcmp(r->product, row->product) == 0;
    if (!again) progress_line("tuned %s", row->product);
    if (r->as_json) {
        add_tuned_json(&r->out, row);
        return !interrupted();
    }
    char us[32] = "-";
    if (row->is_right) snprintf(us, sizeof(us), "%.2f", 1e-3 * row->nanoseconds);
    add_line(&r->out, again ? "" : pass_name(row->pass), again ? "" : row->product, row->shape, us,
             row_verdict(row));
    snprintf(r->product, sizeof(r->product), "%s", row->product);
    return !interrupted();
}

int cmd_tune(const options *given) {
    dp_error err = { 0 };
    options o = *given;
    engine e = { .model = NULL };
    model_places places;
    uint32_t context = 0;
    tune_report report = { .as_json = o.json };
    buf_init(&report.out, 1 << 24);
    o.no_tune = true; /* at opening */
    bool ok = engine_describe(&e, &o, &err) &&
              engine_context(&e, &o, e.info.default_context, &context, &err);
    if (ok) {
        o.profile = true; /* with timestamps where there are any */
        ok = engine_start(&e, &o, context, &err);
    }
    if (!ok && e.device == NULL && err.status == DP_E_UNSUPPORTED) {
        o.profile = false;
        err = (dp_error){ .status = DP_OK };
        ok = engine_start(&e, &o, context, &err);
    }
    if (ok) {
        dp_profile_set_mode(e.device, DP_PROFILE_STEPS);
        if (o.json) {
            buf_printf(&report.out, "[");
        } else {
            add_line(&report.out, "pass", "product", "shape", "us", "");
        }
        places_read(&places);
        progress_line("tuning");
        ok = dp_model_tune(e.model, places.tuning[0] != '\0' ? places.tuning : NULL,
                           o.n_rest > 0 ? o.rest[0] : NULL, add_tuned, &report, &err);
        progress_line("%s", "");
        if (o.json) {
            buf_printf(&report.out, "\n]\n");
        } else if (places.tuning[0] != '\0') {
            buf_printf(&report.out, "\nkept in %s\n", places.tuning);
        }
    }
    const int code = ok ? out_result(&report.out) : fail(&err);
    engine_close(&e);
    if (!ok) buf_free(&report.out);
    return code;
}
