/* args: command lines by table, and the help that the same tables give.
 *
 * An option is "--name VALUE", "--name=VALUE" or a flag; short ones are "-n VALUE" and "-n=VALUE".
 * The argument behind an option is its value whatever it looks like, so texts may begin with '-'
 * and a negative number meets its range. "--" ends the options. Defaults are texts in the table and
 * pass through the same parser as given values. */
#include "app/app.h"

/* ---- values -------------------------------------------------------------------------------- */

static bool check_range(const option *opt, const char *text, double value, dp_error *err) {
    if (value < opt->min) {
        return err_set(err, DP_E_ARGUMENT, "%s: %s is below %.15g", opt->name, text, opt->min);
    }
    if (value > opt->max) {
        return err_set(err, DP_E_ARGUMENT, "%s: %s is above %.15g", opt->name, text, opt->max);
    }
    return true;
}

/* A whole number. What is a number but not of this kind gets the sentence that says why. */
static bool parse_count(const option *opt, str text, uint64_t *out, dp_error *err) {
    char copy[64];
    snprintf(copy, sizeof(copy), "%.*s", STR_ARG(text));
    double real;
    if (str_to_u64(text, out)) return check_range(opt, copy, (double)*out, err);
    if (!str_to_f64(text, &real)) {
        return err_set(err, DP_E_ARGUMENT, "%s: \"%s\" is not a number", opt->name, copy);
    }
    if (!check_range(opt, copy, real, err)) return false;
    return err_set(err, DP_E_ARGUMENT, "%s: %s is not a whole number in digits alone", opt->name,
                   copy);
}

/* "1500", "64K", "2G": powers of 1,024. */
static bool parse_bytes(const option *opt, const char *text, uint64_t *out, dp_error *err) {
    str digits = str_of(text);
    unsigned shift = 0;
    if (digits.size > 1) {
        switch (digits.data[digits.size - 1]) {
        case 'K':
            shift = 10;
            break;
        case 'M':
            shift = 20;
            break;
        case 'G':
            shift = 30;
            break;
        default:
            break;
        }
    }
    if (shift != 0) digits.size--;
    option any = *opt; /* the range is that of the bytes */
    any.min = 0;
    any.max = 0x1p64;
    if (!parse_count(&any, digits, out, err)) return false;
    if (!mul_u64(*out, (uint64_t)1 << shift, out)) {
        return err_set(err, DP_E_ARGUMENT, "%s: %s is above 2^64 bytes", opt->name, text);
    }
    return check_range(opt, text, (double)*out, err);
}

/* "512", "512-2048", "512-2048+512" (step) or "512-2048*2" (factor), as llama-bench takes them. */
static bool parse_span(const option *opt, str text, count_list *list, dp_error *err) {
    const char *dash = memchr(text.data, '-', text.size);
    uint64_t first, last, step = 1;
    bool factor = false;
    if (dash == NULL || dash == text.data) { /* one number, which may be negative by mistake */
        if (!parse_count(opt, text, &first, err)) return false;
        last = first;
    } else {
        const size_t at = (size_t)(dash - text.data) + 1;
        str rest = { text.data + at, text.size - at };
        for (size_t i = 0; i < rest.size; i++) {
            if (rest.data[i] != '+' && rest.data[i] != '*') continue;
            factor = rest.data[i] == '*';
            if (!str_to_u64((str){ rest.data + i + 1, rest.size - i - 1 }, &step) ||
                step < 1 + (uint64_t)factor) {
                return err_set(err, DP_E_ARGUMENT,
                               "%s: \"%.*s\": the step behind %c is a whole number from %d",
                               opt->name, STR_ARG(text), rest.data[i], factor ? 2 : 1);
            }
            rest.size = i;
        }
        if (!parse_count(opt, (str){ text.data, at - 1 }, &first, err) ||
            !parse_count(opt, rest, &last, err)) {
            return false;
        }
        if (first > last) {
            return err_set(err, DP_E_ARGUMENT, "%s: \"%.*s\" ends before it begins", opt->name,
                           STR_ARG(text));
        }
        if (factor && first == 0) {
            return err_set(err, DP_E_ARGUMENT, "%s: \"%.*s\": no factor leads on from 0", opt->name,
                           STR_ARG(text));
        }
    }
    for (uint64_t n = first; n <= last;) {
        if (list->n == COUNTS_MAX) {
            return err_set(err, DP_E_ARGUMENT, "%s: \"%.*s\" makes more than %d numbers", opt->name,
                           STR_ARG(text), COUNTS_MAX);
        }
        list->items[list->n++] = n;
        if (factor ? !mul_u64(n, step, &n) : !add_u64(n, step, &n)) break;
    }
    return true;
}

/* An option that is given again adds to the list. */
static bool parse_counts(const option *opt, const char *text, bool again, count_list *list,
                         dp_error *err) {
    if (!again) list->n = 0;
    for (const char *at = text;; at++) {
        const size_t n = strcspn(at, ",");
        if (!parse_span(opt, (str){ at, n }, list, err)) return false;
        at += n;
        if (*at == '\0') return true;
    }
}

/* Texts without a range in the table may have any length. */
static bool check_length(const option *opt, const char *text, dp_error *err) {
    const size_t n = strlen(text);
    return opt->max == 0 || ((double)n >= opt->min && (double)n <= opt->max) ||
           err_set(err, DP_E_ARGUMENT, "%s: a text of %zu bytes, expected %g to %g", opt->name, n,
                   opt->min, opt->max);
}

static bool store_value(const option *opt, const char *text, options *o, dp_error *err) {
    void *field = (char *)o + opt->offset;
    switch (opt->kind) {
    case OPT_FLAG:
        *(bool *)field = true;
        return true;
    case OPT_TEXT:
        *(const char **)field = text;
        return check_length(opt, text, err);
    case OPT_TEXTS: {
        text_list *list = field;
        if (list->n == LIST_MAX) {
            return err_set(err, DP_E_ARGUMENT, "%s: given more than %d times", opt->name, LIST_MAX);
        }
        list->items[list->n++] = text;
        return check_length(opt, text, err);
    }
    case OPT_COUNT:
        return parse_count(opt, str_of(text), field, err);
    case OPT_COUNTS:
        return parse_counts(opt, text, opt->given != 0 && *(bool *)((char *)o + opt->given), field,
                            err);
    case OPT_BYTES:
        return parse_bytes(opt, text, field, err);
    case OPT_REAL:
        if (!str_to_f64(str_of(text), field)) {
            return err_set(err, DP_E_ARGUMENT, "%s: \"%s\" is not a number", opt->name, text);
        }
        return check_range(opt, text, *(double *)field, err);
    }
    return true;
}

/* ---- parsing ------------------------------------------------------------------------------- */

static const option *find_in_table(const option *table, str name) {
    for (; table != NULL && table->name != NULL; table++) {
        if (str_is(name, table->name)) return table;
    }
    return NULL;
}

static const option *find_option(const command *c, str name) {
    const option *opt = NULL;
    for (size_t i = 0; i < ARRAY_LEN(c->own) && opt == NULL; i++)
        opt = find_in_table(c->own[i], name);
    return opt != NULL ? opt : find_in_table(common_options, name);
}

static bool store_defaults(const option *table, options *o, dp_error *err) {
    for (; table != NULL && table->name != NULL; table++) {
        if (table->initial != NULL && !store_value(table, table->initial, o, err)) return false;
    }
    return true;
}

/* What a command line has given, for the options that are nothing without another. */
typedef struct {
    const option *items[64];
    size_t n;
} given_list;

static void add_given(given_list *given, const option *opt) {
    for (size_t i = 0; i < given->n; i++) {
        if (given->items[i] == opt) return;
    }
    assert(given->n < ARRAY_LEN(given->items)); /* no command has so many options */
    given->items[given->n++] = opt;
}

/* An option without effect is a mistake that would show only in what was measured. */
static bool check_companions(const given_list *given, const options *o, dp_error *err) {
    for (size_t i = 0; i < given->n; i++) {
        const char *with = given->items[i]->with;
        bool found = with == NULL || (o->n_rest > 0 && strcmp(o->rest[0], with) == 0);
        for (size_t k = 0; k < given->n && !found; k++)
            found = strcmp(given->items[k]->name, with) == 0;
        if (!found) {
            return err_set(err, DP_E_ARGUMENT, "%s: only with %s", given->items[i]->name, with);
        }
    }
    return true;
}

bool args_parse(const command *c, int n, char **argv, options *o, dp_error *err) {
    if (!store_defaults(common_options, o, err)) return false;
    for (size_t i = 0; i < ARRAY_LEN(c->own); i++) {
        if (!store_defaults(c->own[i], o, err)) return false;
    }
    given_list given = { .n = 0 };
    bool only_rest = false;
    for (int i = 0; i < n; i++) {
        char *arg = argv[i];
        if (only_rest || arg[0] != '-' || arg[1] == '\0') {
            if (c->arguments == NULL) {
                return err_set(err, DP_E_ARGUMENT,
                               "%s: \"%.100s\" is no option, and %s takes nothing else; see "
                               "doppler help %s",
                               c->name, arg, c->name, c->name);
            }
            argv[o->n_rest++] = arg; /* never ahead of i */
            continue;
        }
        if (strcmp(arg, "--") == 0) {
            only_rest = true;
            continue;
        }
        const size_t length = strcspn(arg, "=");
        const option *opt = find_option(c, (str){ arg, length });
        if (opt == NULL) {
            return err_set(err, DP_E_ARGUMENT, "%s: no option %.100s; see doppler help %s", c->name,
                           arg, c->name);
        }
        const char *value = arg[length] == '=' ? arg + length + 1 : NULL;
        if (opt->kind == OPT_FLAG && value != NULL) {
            return err_set(err, DP_E_ARGUMENT, "%s: takes no value", opt->name);
        }
        if (opt->kind != OPT_FLAG && value == NULL) {
            if (++i == n) {
                return err_set(err, DP_E_ARGUMENT, "%s: needs a value, %s", opt->name,
                               opt->argument);
            }
            value = argv[i];
        }
        if (!store_value(opt, value, o, err)) return false;
        if (opt->given != 0) *(bool *)((char *)o + opt->given) = true;
        add_given(&given, opt);
    }
    o->rest = (const char *const *)argv;
    const bool takes_one = c->arguments != NULL && strchr(c->arguments, ' ') == NULL;
    if (takes_one && o->n_rest > 1) {
        return err_set(err, DP_E_ARGUMENT, "%s: \"%.100s\" is an argument too many; it takes %s",
                       c->name, argv[1], c->arguments);
    }
    return o->help || check_companions(&given, o, err);
}

/* ---- help ---------------------------------------------------------------------------------- */

static const struct {
    int code;
    const char *meaning;
} exit_codes[] = {
    { EXIT_OK, "done" },
    { EXIT_FAILED, "failed; of `bench compare`: something became slower" },
    { EXIT_USAGE, "the command line makes no sense" },
    { EXIT_INPUT, "an input file is invalid or not supported" },
    { EXIT_GPU, "no usable GPU, or it was lost" },
    { EXIT_MEMORY, "out of memory, of the computer or of the GPU" },
    { EXIT_IO, "reading or writing failed, or the disk is full" },
    { EXIT_NETWORK, "a server could not be reached, or sent what it should not" },
    { EXIT_INTERRUPTED, "interrupted" },
};

static const char *const examples[][2] = {
    { "doppler run -p \"Once upon a time\"", "a tale by the bundled model" },
    { "doppler chat -m model.gguf --system \"Answer in French.\"", "a conversation" },
    { "doppler run -m model.gguf -p \"2 + 2 =\" -n 8 --temp 0 --json", "one JSON object" },
    { "doppler bench -m model.gguf -p 512 -n 128 -d 0,4096", "speed, also deep in a context" },
};

/* store.c reads the first three, and with libcurl, which reads proxies, the others. */
static const char *const variables[][2] = {
    { "DOPPLER_MODELS",
      "the model folder; without it doppler/models in $XDG_DATA_HOME or ~/.local/share" },
    { "HF_HUB_CACHE, HF_HOME",
      "Hugging Face's cache, or what holds its hub; without them in $XDG_CACHE_HOME or ~/.cache" },
    { "XDG_CACHE_HOME", "holds doppler, where what `tune` has found is kept; without it ~/.cache" },
    { "CURL_CA_BUNDLE, SSL_CERT_FILE, SSL_CERT_DIR", "certificates that `pull` trusts" },
    { "https_proxy, http_proxy, no_proxy", "the proxies of `pull`" },
};

static void help_options(const option *table, buf *out) {
    for (; table != NULL && table->name != NULL; table++) {
        char left[64];
        snprintf(left, sizeof(left), "%s %s", table->name,
                 table->argument != NULL ? table->argument : "");
        buf_printf(out, "  %-26s %s", left, table->help);
        if (table->initial != NULL) buf_printf(out, " (default %s)", table->initial);
        buf_printf(out, "\n");
    }
}

static void help_usage(const command *c, buf *out) {
    buf_printf(out, "doppler %s [options]%s%s", c->name, c->arguments != NULL ? " " : "",
               c->arguments != NULL ? c->arguments : "");
}

void help_command(const command *c, buf *out) {
    help_usage(c, out);
    buf_printf(out, "\n%s\n", c->summary);
    if (c->own[0] != NULL) buf_printf(out, "\nOptions:\n");
    for (size_t i = 0; i < ARRAY_LEN(c->own); i++)
        help_options(c->own[i], out);
    buf_printf(out, "\nCommon options:\n");
    help_options(common_options, out);
}

void help_all(buf *out) {
    buf_printf(out, "doppler %s: language models on any GPU through WebGPU\n\n", DP_VERSION);
    buf_printf(out, "doppler COMMAND [options]\n\n");
    for (const command *c = commands; c->name != NULL; c++) {
        buf_printf(out, "  %-12s %s\n", c->name, c->summary);
    }
    buf_printf(out, "\nCommon options:\n");
    help_options(common_options, out);
    buf_printf(out, "\nExit codes:");
    for (size_t i = 0; i < ARRAY_LEN(exit_codes); i++) {
        buf_printf(out, "\n  %-4d %s", exit_codes[i].code, exit_codes[i].meaning);
    }
    buf_printf(out, "\n\nEnvironment:\n");
    for (size_t i = 0; i < ARRAY_LEN(variables); i++)
        buf_printf(out, "  %s\n      %s\n", variables[i][0], variables[i][1]);
    buf_printf(out, "\nExamples:\n");
    for (size_t i = 0; i < ARRAY_LEN(examples); i++) {
        buf_printf(out, "  %s\n      %s\n", examples[i][0], examples[i][1]);
    }
}

/* Text for roff: no escapes, no hyphens that a typesetter may turn, no quotes that a macro takes
 * for its own, no control lines. */
static void add_roff(buf *out, const char *text) {
    if (*text == '.' || *text == '\'') buf_printf(out, "\\&");
    for (; *text != '\0'; text++) {
        if (*text == '\\') {
            buf_printf(out, "\\e");
        } else if (*text == '-') {
            buf_printf(out, "\\-");
        } else if (*text == '"') {
            buf_printf(out, "\\(dq");
        } else {
            buf_add(out, text, 1);
        }
    }
}

static void man_options(const option *table, buf *out) {
    for (; table != NULL && table->name != NULL; table++) {
        buf_printf(out, ".TP\n\\fB");
        add_roff(out, table->name);
        buf_printf(out, "\\fR");
        if (table->argument != NULL) {
            buf_printf(out, " \\fI");
            add_roff(out, table->argument);
            buf_printf(out, "\\fR");
        }
        buf_printf(out, "\n");
        add_roff(out, table->help);
        if (table->initial != NULL) {
            buf_printf(out, " (default ");
            add_roff(out, table->initial);
            buf_printf(out, ")");
        }
        buf_printf(out, "\n");
    }
}

void help_man(buf *out) {
    buf_printf(out, ".TH DOPPLER 1 \"\" \"doppler %s\" \"User Commands\"\n", DP_VERSION);
    buf_printf(out, ".SH NAME\ndoppler \\- language models on any GPU through WebGPU\n");
    buf_printf(out, ".SH SYNOPSIS\n.B doppler\n\\fICOMMAND\\fR [options]\n.SH DESCRIPTION\n");
    buf_printf(out, "Runs large language models on WebGPU. A model is a GGUF file, a Hugging Face "
                    "safetensors folder,\na pack, or the name of one: bundled, in the model "
                    "folder, or in Hugging Face's cache.\nResults go to standard "
                    "output, everything else to standard error.\n.SH COMMANDS\n");
    for (const command *c = commands; c->name != NULL; c++) {
        buf usage;
        buf_init(&usage, 4096);
        help_usage(c, &usage);
        buf_printf(out, ".SS ");
        add_roff(out, usage.data != NULL ? usage.data : "");
        buf_printf(out, "\n");
        add_roff(out, c->summary);
        buf_printf(out, "\n");
        for (size_t i = 0; i < ARRAY_LEN(c->own); i++)
            man_options(c->own[i], out);
        buf_free(&usage);
    }
    buf_printf(out, ".SH COMMON OPTIONS\n");
    man_options(common_options, out);
    buf_printf(out, ".SH EXIT STATUS\n");
    for (size_t i = 0; i < ARRAY_LEN(exit_codes); i++) {
        buf_printf(out, ".TP\n%d\n%s\n", exit_codes[i].code, exit_codes[i].meaning);
    }
    buf_printf(out, ".SH ENVIRONMENT\n");
    for (size_t i = 0; i < ARRAY_LEN(variables); i++) {
        buf_printf(out, ".TP\n.B ");
        add_roff(out, variables[i][0]);
        buf_printf(out, "\n");
        add_roff(out, variables[i][1]);
        buf_printf(out, "\n");
    }
    buf_printf(out, ".SH EXAMPLES\n");
    for (size_t i = 0; i < ARRAY_LEN(examples); i++) {
        buf_printf(out, ".TP\n.B ");
        add_roff(out, examples[i][0]);
        buf_printf(out, "\n%s\n", examples[i][1]);
    }
}

static void options_json(buf *b, const option *table) {
    for (; table != NULL && table->name != NULL; table++) {
        json_item(b);
        buf_printf(b, "{");
        json_text(b, "name", str_of(table->name));
        if (table->argument != NULL) json_text(b, "argument", str_of(table->argument));
        json_text(b, "help", str_of(table->help));
        if (table->initial != NULL) json_text(b, "default", str_of(table->initial));
        buf_printf(b, "}");
    }
}

void help_json(const command *only, buf *out) {
    buf_printf(out, "{");
    json_text(out, "version", str_of(DP_VERSION));
    json_key(out, "commands");
    buf_printf(out, "[");
    for (const command *c = commands; c->name != NULL; c++) {
        if (only != NULL && c != only) continue;
        json_item(out);
        buf_printf(out, "{");
        json_text(out, "name", str_of(c->name));
        json_text(out, "summary", str_of(c->summary));
        json_key(out, "options");
        buf_printf(out, "[");
        for (size_t i = 0; i < ARRAY_LEN(c->own); i++)
            options_json(out, c->own[i]);
        buf_printf(out, "]}");
    }
    buf_printf(out, "]");
    json_key(out, "common_options");
    buf_printf(out, "[");
    options_json(out, common_options);
    buf_printf(out, "]}\n");
}
