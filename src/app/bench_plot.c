/* bench plot: tokens per second against the depth of the context, as an SVG picture.
 *
 * Two panels, decode and prefill, each from 0 with its own scale; a series is a test (tg128) of one
 * model on one device by one version, and its legend says what is not the same for all. A bar is
 * the standard deviation of the runs. Colours (those of Okabe and Ito, darker on white) come by
 * media query, so the picture reads on a light and on a dark page; markers differ too. Numbers are
 * written with a fixed number of decimals: the same results give the same bytes. */
#include "app/bench_internal.h"

#include <inttypes.h>
#include <math.h>

enum {
    SERIES_MAX = 8,
    WIDTH = 760,
    PANEL_HEIGHT = 250,
    LEFT = 76,
    RIGHT = 32,
    HEAD = 64,   /* title and what is the same for all */
    LEGEND = 18, /* a line of it */
    TICKS_MAX = 12,
};

/* One line of a panel, its points by depth. */
typedef struct {
    char label[400];
    const bench_result *points[RESULTS_MAX];
    size_t n;
} series;

typedef struct {
    const char *title;
    series list[SERIES_MAX];
    size_t n;
    double max_x, max_y;
} panel;

/* What all results share, and so no label needs. */
typedef struct {
    bool model, size, device, engine, settings[SETTINGS];
} common;

/* ---- series -------------------------------------------------------------------------------- */

static common find_common(const bench_results *list) {
    common c = { true, true, true, true, { true, true, true } };
    for (size_t i = 1; i < list->n; i++) {
        c.model &= strcmp(list->items[i].model, list->items[0].model) == 0;
        c.size &= list->items[i].model_size == list->items[0].model_size;
        c.device &= strcmp(list->items[i].device, list->items[0].device) == 0;
        c.engine &= strcmp(list->items[i].engine, list->items[0].engine) == 0;
    }
    for (size_t k = 0; k < SETTINGS; k++) {
        unsigned seen = 0;
        for (size_t i = 0; i < list->n; i++)
            seen |= 1U << list->items[i].settings[k];
        c.settings[k] = (seen & 1U << SETTING_OFF) == 0 || (seen & 1U << SETTING_ON) == 0;
    }
    return c;
}

static void make_label(const bench_result *r, const common *c, char *label, size_t size) {
    char test[128];
    if (r->named) {
        snprintf(test, sizeof(test), "%s", r->kind == RESULT_DECODE ? "named prompts" : r->test);
    } else {
        bench_test t = r->t;
        t.n_depth = 0;
        test_name(test, sizeof(test), &t);
    }
    const bool sized = !c->size && r->model_size > 0; /* two of one kind: "llama Q4_K" */
    snprintf(label, size, "%s%s%s%s%s%s%s%s%s", test, c->model ? "" : ", ",
             c->model ? "" : r->model, sized ? ", " : "",
             sized ? show_bytes(r->model_size).text : "", c->device ? "" : ", ",
             c->device ? "" : r->device, c->engine ? "" : ", ", c->engine ? "" : r->engine);
    for (size_t i = 0; i < SETTINGS; i++) {
        const size_t at = strlen(label);
        if (c->settings[i] || r->settings[i] == SETTING_UNKNOWN) continue;
        snprintf(label + at, size - at, ", %s", setting_texts[i][r->settings[i] == SETTING_ON]);
    }
}

static bool add_point(panel *p, const bench_result *r, const common *c, dp_error *err) {
    char label[400];
    size_t i = 0;
    make_label(r, c, label, sizeof(label));
    while (i < p->n && strcmp(p->list[i].label, label) != 0)
        i++;
    if (i == SERIES_MAX) {
        return err_set(err, DP_E_LIMIT,
                       "more than %d series in a panel: \"%.200s\" is one more; give fewer files, "
                       "say those of one version or of one model",
                       SERIES_MAX, label);
    }
    series *s = &p->list[i];
    if (i == p->n) {
        memcpy(s->label, label, sizeof(label));
        p->n++;
    }
    size_t at = s->n; /* results are at most RESULTS_MAX */
    for (; at > 0 && s->points[at - 1]->t.n_depth > r->t.n_depth; at--)
        s->points[at] = s->points[at - 1];
    s->points[at] = r;
    s->n++;
    p->max_x = fmax(p->max_x, (double)r->t.n_depth);
    p->max_y = fmax(p->max_y, r->mean + r->deviation);
    return true;
}

/* ---- scales -------------------------------------------------------------------------------- */

/* A step of 1, 2 or 5 times a power of ten, or of 1,024 tokens times a power of two, that cuts
 * 0..max into at most 8. */
static double nice_step(double max, bool tokens) {
    if (tokens && max >= 2048) {
        double step = 512;
        while (max / step > 8)
            step *= 2;
        return step;
    }
    static const double factors[] = { 1, 2, 5 };
    double unit = pow(10, floor(log10(max / 8)));
    while (true) {
        for (size_t i = 0; i < ARRAY_LEN(factors); i++) {
            if (max / (factors[i] * unit) <= 8) return factors[i] * unit;
        }
        unit *= 10;
    }
}

/* "12,000"; "0.25" where steps are small. */
static void number_text(double x, double step, char *text, size_t size) {
    char digits[64];
    const int decimals = step >= 1 ? 0 : (int)ceil(-log10(step) - 1e-9);
    snprintf(digits, sizeof(digits), "%.*f", decimals, x);
    const size_t whole = strcspn(digits, ".");
    size_t n = 0;
    for (size_t i = 0; digits[i] != '\0' && n + 2 < size; i++) {
        if (i > 0 && i < whole && (whole - i) % 3 == 0) text[n++] = ',';
        text[n++] = digits[i];
    }
    text[n] = '\0';
}

/* ---- drawing ------------------------------------------------------------------------------- */

static void add_xml(buf *b, const char *text) {
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '<':
            buf_printf(b, "&lt;");
            break;
        case '>':
            buf_printf(b, "&gt;");
            break;
        case '&':
            buf_printf(b, "&amp;");
            break;
        case '"':
            buf_printf(b, "&quot;");
            break;
        default:
            buf_add(b, text, 1);
        }
    }
}

static void add_label(buf *b, double x, double y, const char *kind, const char *text) {
    buf_printf(b, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">", x, y, kind);
    add_xml(b, text);
    buf_printf(b, "</text>\n");
}

static void add_line(buf *b, double x1, double y1, double x2, double y2, const char *kind) {
    buf_printf(b, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"%s\"/>\n", x1, y1,
               x2, y2, kind);
}

/* Circle, square, triangle, diamond, in turn. */
static void add_marker(buf *b, size_t i, double x, double y) {
    switch (i % 4) {
    case 0:
        buf_printf(b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" class=\"m c%zu\"/>\n", x, y, i);
        break;
    case 1:
        buf_printf(b, "<rect x=\"%.1f\" y=\"%.1f\" width=\"7\" height=\"7\" class=\"m c%zu\"/>\n",
                   x - 3.5, y - 3.5, i);
        break;
    case 2:
        buf_printf(b, "<path d=\"M%.1f %.1fl5 9h-10z\" class=\"m c%zu\"/>\n", x, y - 5.5, i);
        break;
    default:
        buf_printf(b, "<path d=\"M%.1f %.1fl5 5l-5 5l-5-5z\" class=\"m c%zu\"/>\n", x, y - 5, i);
    }
}

typedef struct {
    double x0, y0, width, height, max_x, max_y; /* y0: of the axis */
} frame;

static double at_x(const frame *f, double x) {
    return f->x0 + (f->max_x > 0 ? f->width * x / f->max_x : 0);
}

static double at_y(const frame *f, double y) {
    return f->y0 - f->height * y / f->max_y;
}

static void add_series(buf *b, const frame *f, const series *s, size_t i) {
    buf_printf(b, "<polyline class=\"s c%zu\" points=\"", i);
    for (size_t k = 0; k < s->n; k++) {
        buf_printf(b, k > 0 ? " %.1f,%.1f" : "%.1f,%.1f", at_x(f, (double)s->points[k]->t.n_depth),
                   at_y(f, s->points[k]->mean));
    }
    buf_printf(b, "\"/>\n");
    for (size_t k = 0; k < s->n; k++) {
        const bench_result *r = s->points[k];
        const double x = at_x(f, (double)r->t.n_depth);
        buf_printf(b, "<g><title>");
        add_xml(b, s->label);
        buf_printf(b, ", depth %" PRIu64 ": %.2f ± %.2f tok/s, %zu run%s</title>\n", r->t.n_depth,
                   r->mean, r->deviation, r->n_samples, plural(r->n_samples));
        if (r->deviation > 0) {
            const double low = at_y(f, fmax(r->mean - r->deviation, 0));
            const double high = at_y(f, r->mean + r->deviation);
            buf_printf(b,
                       "<path d=\"M%.1f %.1fV%.1fM%.1f %.1fh6M%.1f %.1fh6\" class=\"e c%zu\"/>\n",
                       x, low, high, x - 3, low, x - 3, high, i);
        }
        add_marker(b, i, x, at_y(f, r->mean));
        buf_printf(b, "</g>\n");
    }
}

/* Draws a panel with its top at `top`, returns where the next may begin. */
static double draw_panel(buf *b, const panel *p, double top) {
    const double step_y = nice_step(p->max_y, false);
    const double step_x = p->max_x > 0 ? nice_step(p->max_x, true) : 1;
    const frame f = {
        .x0 = LEFT,
        .y0 = top + 30 + PANEL_HEIGHT,
        .width = WIDTH - LEFT - RIGHT,
        .height = PANEL_HEIGHT,
        .max_x = p->max_x,
        .max_y = step_y * ceil(p->max_y / step_y),
    };
    char text[64];
    add_label(b, LEFT, top + 16, "h", p->title);
    for (int i = 0; i * step_y <= f.max_y * (1 + 1e-9); i++) {
        const double y = i * step_y;
        number_text(y, step_y, text, sizeof(text));
        add_line(b, f.x0, at_y(&f, y), f.x0 + f.width, at_y(&f, y), y > 0 ? "g" : "a");
        add_label(b, f.x0 - 8, at_y(&f, y) + 4, "y", text);
    }
    for (int i = 0; i * step_x <= f.max_x * (1 + 1e-9); i++) {
        const double x = i * step_x;
        number_text(x, step_x, text, sizeof(text));
        add_line(b, at_x(&f, x), f.y0, at_x(&f, x), f.y0 + 5, "a");
        add_label(b, at_x(&f, x), f.y0 + 19, "x", text);
    }
    buf_printf(b,
               "<text x=\"14\" y=\"%.1f\" class=\"x\" transform=\"rotate(-90 14 %.1f)\">tokens per "
               "second</text>\n",
               f.y0 - f.height / 2, f.y0 - f.height / 2);
    add_label(b, f.x0 + f.width / 2, f.y0 + 37, "x", "depth of the context, tokens");
    for (size_t i = 0; i < p->n; i++)
        add_series(b, &f, &p->list[i], i);
    double y = f.y0 + 58;
    for (size_t i = 0; i < p->n; i++, y += LEGEND) {
        buf_printf(b, "<polyline class=\"s c%zu\" points=\"%d,%.1f %d,%.1f\"/>\n", i, LEFT, y - 4,
                   LEFT + 24, y - 4);
        add_marker(b, i, LEFT + 12, y - 4);
        add_label(b, LEFT + 32, y, "l", p->list[i].label);
    }
    return y + 10;
}

static const char style[] =
    "<style>\n"
    ".b{fill:#fff}svg{font:12px system-ui,sans-serif}\n"
    "text{fill:#24292f}.t{font-size:16px;font-weight:600}.h{font-size:14px;font-weight:600}\n"
    ".x{text-anchor:middle}.y{text-anchor:end}.g{stroke:#d8dee4}.a{stroke:#57606a}\n"
    ".s{fill:none;stroke-width:2}.e{fill:none;stroke-width:1.2}.m{stroke-width:1}\n"
    ".c0{stroke:#0072b2}.c1{stroke:#d55e00}.c2{stroke:#007f5f}.c3{stroke:#b5548c}\n"
    ".c4{stroke:#3b8fc4}.c5{stroke:#a87400}.c6{stroke:#6a51a3}.c7{stroke:#57606a}\n"
    ".m.c0{fill:#0072b2}.m.c1{fill:#d55e00}.m.c2{fill:#007f5f}.m.c3{fill:#b5548c}\n"
    ".m.c4{fill:#3b8fc4}.m.c5{fill:#a87400}.m.c6{fill:#6a51a3}.m.c7{fill:#57606a}\n"
    "@media(prefers-color-scheme:dark){.b{fill:#0d1117}text{fill:#e6edf3}\n"
    ".g{stroke:#30363d}.a{stroke:#8b949e}\n"
    ".c0{stroke:#56b4e9}.c1{stroke:#ff9a4d}.c2{stroke:#2fc495}.c3{stroke:#e28cc0}\n"
    ".c4{stroke:#9ecbf0}.c5{stroke:#f0e442}.c6{stroke:#b8a4ea}.c7{stroke:#8b949e}\n"
    ".m.c0{fill:#56b4e9}.m.c1{fill:#ff9a4d}.m.c2{fill:#2fc495}.m.c3{fill:#e28cc0}\n"
    ".m.c4{fill:#9ecbf0}.m.c5{fill:#f0e442}.m.c6{fill:#b8a4ea}.m.c7{fill:#8b949e}}\n"
    "</style>\n";

static double panel_space(const panel *p) {
    return p->n > 0 ? 30 + PANEL_HEIGHT + 68 + (double)p->n * LEGEND : 0;
}

static void draw(buf *b, const panel panels[2], const bench_result *first, const common *c) {
    const double height = HEAD + panel_space(&panels[0]) + panel_space(&panels[1]);
    buf what;
    buf_init(&what, 4096);
    if (c->model) buf_printf(&what, "%s", first->model);
    if (c->device) buf_printf(&what, "%s%s", what.size > 0 ? ", " : "", first->device);
    if (c->engine && first->engine[0] != '\0') {
        buf_printf(&what, "%s%s", what.size > 0 ? ", " : "", first->engine);
    }
    buf_printf(b,
               "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %.0f\" width=\"%d\" "
               "height=\"%.0f\" role=\"img\">\n<title>Tokens per second against context</title>\n",
               WIDTH, height, WIDTH, height);
    buf_printf(b, "%s<rect width=\"100%%\" height=\"100%%\" class=\"b\"/>\n", style);
    add_label(b, 14, 26, "t", "Tokens per second against context");
    add_label(b, 14, 46, "l", what.data != NULL ? what.data : "");
    double top = HEAD;
    for (size_t i = 0; i < 2; i++) {
        if (panels[i].n > 0) top = draw_panel(b, &panels[i], top);
    }
    buf_printf(b, "</svg>\n");
    buf_free(&what);
}

/* ---- the command --------------------------------------------------------------------------- */

static bool write_picture(const bench_results *list, const char *path, dp_error *err) {
    static panel panels[2];
    assert(list->items != NULL && list->n > 0); /* results_read sees to it */
    const common c = find_common(list);
    panels[0].title = "Decode";
    panels[1].title = "Prefill";
    for (size_t i = 0; i < list->n; i++) {
        const bench_result *r = &list->items[i];
        if (r->kind != RESULT_DECODE && r->kind != RESULT_PREFILL) continue;
        if (!add_point(&panels[r->kind == RESULT_PREFILL], r, &c, err)) return false;
    }
    if (panels[0].n + panels[1].n == 0) {
        return err_set(err, DP_E_ARGUMENT, "bench plot: no test of decoding or prefill alone");
    }
    buf b;
    buf_init(&b, RESULT_BYTES_MAX);
    draw(&b, panels, &list->items[0], &c);
    const bool ok = buf_ok(&b, "the picture", err) && check_out_path(path, err) &&
                    file_write_atomic(path, b.data, b.size, err);
    buf_free(&b);
    return ok;
}

int bench_plot(const options *o) {
    dp_error err = { 0 };
    bench_results list = { 0 };
    bool ok = true;
    if (o->n_rest < 2) {
        ok = err_set(&err, DP_E_ARGUMENT, "bench plot: no file of results given");
    } else if (!o->output_given) {
        ok = err_set(&err, DP_E_ARGUMENT, "bench plot: -o FILE.svg says where the picture goes");
    }
    for (size_t i = 1; ok && i < o->n_rest; i++)
        ok = results_read(&list, o->rest[i], &err);
    ok = ok && write_picture(&list, o->output, &err);
    results_free(&list);
    if (!ok) return fail(&err);
    buf b;
    buf_init(&b, 8192);
    if (o->json) {
        buf_printf(&b, "{");
        json_text(&b, "file", str_of(o->output));
        buf_printf(&b, "}\n");
    }
    return out_result(&b);
}
