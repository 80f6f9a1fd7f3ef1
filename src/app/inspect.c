/* inspect: what a model is and what it needs, from its files alone; no GPU, no weights. With --plan
 * how it would lie on a device and which dispatches it would run there; still no weights.
 *
 * Hyperparameters and memory come from the library; the raw metadata (GGUF keys, or config.json as
 * it stands) from the container itself. */
#include "app/app.h"
#include "format/format.h"

#include <inttypes.h>

enum { ARRAY_SHOWN = 16, TEXT_SHOWN = 60 }; /* elements; bytes of a text in the table */

const option inspect_options[] = {
    { "--tensors", NULL, "list the tensors too", OPT_FLAG, FIELD(tensors) },
    { "--plan", NULL, "on this device: its limits, what takes how much memory, every dispatch",
      OPT_FLAG, FIELD(plan) },
    { .name = NULL },
};

/* ---- metadata ------------------------------------------------------------------------------ */

static const char *meta_type_name(meta_type type) {
    static const char *const names[] = {
        [META_UINT] = "unsigned", [META_INT] = "integer", [META_FLOAT] = "float",
        [META_BOOL] = "bool",     [META_STRING] = "text", [META_ARRAY] = "array",
    };
    return names[type];
}

/* Element i of an array, as a value of its own. */
static meta_value meta_element(const meta_value *array, uint32_t i) {
    meta_value v = { .type = array->element };
    switch (array->element) {
    case META_STRING:
        v.s = array->strings[i];
        break;
    case META_FLOAT:
        v.f = array->floats[i];
        break;
    case META_BOOL:
        v.b = array->ints[i] != 0;
        break;
    default:
        v.type = META_INT, v.i = array->ints[i];
        break;
    }
    return v;
}

/* As JSON. Arrays longer than ARRAY_SHOWN are told by length and type. */
static void add_meta(buf *b, const meta_value *v, size_t text_max) {
    switch (v->type) {
    case META_UINT:
        buf_printf(b, "%" PRIu64, v->u);
        break;
    case META_INT:
        buf_printf(b, "%" PRId64, v->i);
        break;
    case META_FLOAT:
        json_add_f64(b, v->f);
        break;
    case META_BOOL:
        buf_printf(b, v->b ? "true" : "false");
        break;
    case META_STRING: {
        const size_t n = v->s.size < text_max ? v->s.size : text_max;
        json_add_string(b, (str){ v->s.data, n - utf8_incomplete_tail((str){ v->s.data, n }) });
        if (n < v->s.size) buf_printf(b, " (%zu bytes)", v->s.size);
        break;
    }
    case META_ARRAY:
        if (v->n > ARRAY_SHOWN || v->element == META_ARRAY) {
            buf_printf(b, "{\"array_of\":\"%s\",\"length\":%" PRIu32 "}",
                       meta_type_name(v->element), v->n);
            break;
        }
        buf_printf(b, "[");
        for (uint32_t i = 0; i < v->n; i++) {
            const meta_value element = meta_element(v, i);
            json_item(b);
            add_meta(b, &element, text_max);
        }
        buf_printf(b, "]");
        break;
    }
}

static void add_gguf_meta(buf *b, const container *c, bool as_json) {
    if (as_json) {
        json_key(b, "metadata");
        buf_printf(b, "{");
    } else {
        buf_printf(b, "\nmetadata\n");
    }
    for (uint32_t i = 0; i < container_n_meta(c); i++) {
        str key;
        const meta_value *v = container_meta_at(c, i, &key);
        if (as_json) {
            json_item(b);
            json_add_string(b, key);
            buf_printf(b, ":");
            add_meta(b, v, SIZE_MAX);
        } else {
            buf_printf(b, "  %-40.*s ", STR_ARG(key));
            add_meta(b, v, TEXT_SHOWN);
            buf_printf(b, "\n");
        }
    }
    if (as_json) buf_printf(b, "}");
}

/* A member of an object on a line of its own, a long value cut. */
static void add_member(buf *b, str key, const json_value *v) {
    buf value;
    buf_init(&value, TEXT_BYTES_MAX);
    json_add_value(&value, v);
    const size_t n = min_u64(value.size, TEXT_SHOWN);
    buf_printf(b, "  %-40.*s %.*s", STR_ARG(key),
               (int)(n - utf8_incomplete_tail((str){ value.data, n })), value.data);
    if (n < value.size) buf_printf(b, " (%zu bytes)", value.size);
    buf_printf(b, "\n");
    buf_free(&value);
}

/* config.json of a folder, or what a pack has in its place. */
static bool add_config(buf *b, container *c, bool as_json, dp_error *err) {
    const json_value *config = container_json(c, "config.json", err);
    if (config == NULL) return err->status == DP_OK;
    if (as_json) {
        json_key(b, "config");
        json_add_value(b, config);
    } else {
        buf_printf(b, "\nconfig.json\n");
        for (json_iter it = json_each(config); json_next(&it);)
            add_member(b, it.key, it.value);
    }
    return true;
}

/* What a pack's manifest says besides its tensors and hashes, hints for kernels included: they are
 * shown and change nothing. */
static void add_manifest(buf *b, const container *c, bool as_json) {
    static const char *const elsewhere[] = {
        "tensors", "shards", "files", "groups", "config", "pieceHashes", "integrityExtensions"
    };
    if (as_json) {
        json_key(b, "manifest");
        buf_printf(b, "{");
    } else {
        buf_printf(b, "\nmanifest\n");
    }
    for (json_iter it = json_each(container_manifest(c)); json_next(&it);) {
        bool shown = true;
        for (size_t i = 0; i < ARRAY_LEN(elsewhere); i++)
            shown = shown && !str_is(it.key, elsewhere[i]);
        if (!shown) continue;
        if (as_json) {
            json_item(b);
            json_add_string(b, it.key);
            buf_printf(b, ":");
            json_add_value(b, it.value);
            continue;
        }
        add_member(b, it.key, it.value);
    }
    if (as_json) buf_printf(b, "}");
}

/* ---- formats by role ----------------------------------------------------------------------- */

/* By parts of the names that files and folders use; the first that fits. */
static const char *role_by_name(str name) {
    static const struct {
        const char *part, *role;
    } parts[] = {
        { "norm", "norms" },
        { "ln_", "norms" },
        { "bias", "biases" },
        { "rope_f", "positions" },
        { "position_embd", "positions" },
        { "wpe", "positions" },
        { "sinks", "attention" },
        { "gate_inp", "router" },
        { "router", "router" },
        { "mlp.gate.", "router" },
        { "moe.gate.", "router" },
        { "experts", "experts" },
        { "_exps", "experts" },
        { "lm_head", "head" },
        { "embed", "embedding" },
        { "token_embd", "embedding" },
        { "wte", "embedding" },
        { "attn", "attention" },
        { "attention", "attention" },
        { "mlp", "feed-forward" },
        { "ffn", "feed-forward" },
        { "feed_forward", "feed-forward" },
    };
    char copy[256];
    snprintf(copy, sizeof(copy), "%.*s", STR_ARG(name));
    if (strcmp(copy, "output.weight") == 0) return "head";
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        if (strstr(copy, parts[i].part) != NULL) return parts[i].role;
    }
    return "other";
}

static void add_roles(buf *b, const container *c, bool as_json) {
    static const char *const roles[] = { "embedding", "positions", "attention", "feed-forward",
                                         "router",    "experts",   "norms",     "biases",
                                         "head",      "other" };
    if (container_n_tensors(c) == 0) return;
    if (as_json) {
        json_key(b, "roles");
        buf_printf(b, "[");
    } else {
        buf_printf(b, "\n%-14s %12s  formats\n", "role", "bytes");
    }
    for (size_t r = 0; r < ARRAY_LEN(roles); r++) {
        uint32_t count[DTYPE_COUNT] = { 0 };
        uint64_t bytes = 0, n = 0;
        for (uint32_t i = 0; i < container_n_tensors(c); i++) {
            const tensor *t = container_tensor(c, i);
            if (strcmp(role_by_name(t->name), roles[r]) != 0) continue;
            count[t->type]++, bytes += t->n_bytes, n++;
        }
        if (n == 0) continue;
        if (as_json) {
            json_item(b);
            buf_printf(b, "{");
            json_text(b, "role", str_of(roles[r]));
            json_count_of(b, "bytes", bytes);
            json_key(b, "formats");
            buf_printf(b, "{");
        } else {
            buf_printf(b, "%-14s %12s ", roles[r], show_bytes(bytes).text);
        }
        for (uint32_t type = 0; type < DTYPE_COUNT; type++) {
            if (count[type] == 0) continue;
            if (as_json) {
                json_count_of(b, dtype_get(type)->name, count[type]);
            } else {
                buf_printf(b, " %s (%" PRIu32 ")", dtype_get(type)->name, count[type]);
            }
        }
        buf_printf(b, as_json ? "}}" : "\n");
    }
    if (as_json) buf_printf(b, "]");
}

/* ---- the model ----------------------------------------------------------------------------- */

static void info_json(buf *b, const dp_model_info *m) {
    const struct {
        const char *key, *value;
    } texts[] = {
        { "path", m->path },           { "name", m->name },     { "architecture", m->architecture },
        { "container", m->container }, { "format", m->format }, { "tokenizer", m->tokenizer },
    };
    const struct {
        const char *key;
        uint64_t value;
    } counts[] = {
        { "n_parameters", m->n_parameters },
        { "weight_bytes", m->weight_bytes },
        { "n_tensors", m->n_tensors },
        { "n_layers", m->n_layers },
        { "dim", m->dim },
        { "n_heads", m->n_heads },
        { "n_kv_heads", m->n_kv_heads },
        { "head_dim", m->head_dim },
        { "ffn_dim", m->ffn_dim },
        { "vocab_size", m->vocab_size },
        { "context", m->context },
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        json_text(b, texts[i].key, str_of(texts[i].value));
    }
    for (size_t i = 0; i < ARRAY_LEN(counts); i++)
        json_count_of(b, counts[i].key, counts[i].value);
    json_text(b, "chat_template", str_of(m->chat_template));
    json_key(b, "generation");
    buf_printf(b, "{");
    if (m->temperature > 0) json_real(b, "temperature", (double)m->temperature);
    if (m->top_p > 0) json_real(b, "top_p", (double)m->top_p);
    if (m->top_k > 0) json_count_of(b, "top_k", m->top_k);
    buf_printf(b, "}");
}

static void add_token(buf *b, const char *key, dp_token token, bool as_json) {
    if (token == DP_NO_TOKEN) return;
    if (as_json) {
        json_count_of(b, key, token);
    } else {
        buf_printf(b, ", %s %" PRIu32, key, token);
    }
}

static void info_text(buf *b, const dp_model *model, const dp_model_info *m) {
    buf_printf(b, "model         %s\n", m->path);
    if (str_of(m->name).size > 0) buf_printf(b, "name          %s\n", m->name);
    buf_printf(b, "architecture  %s, from %s, weights mostly %s\n", m->architecture, m->container,
               m->format);
    buf_printf(b, "parameters    %" PRIu64 " in %" PRIu32 " tensors, %s\n", m->n_parameters,
               m->n_tensors, show_bytes(m->weight_bytes).text);
    buf_printf(b, "layers        %" PRIu32 " of width %" PRIu32 ", feed-forward %" PRIu32 "\n",
               m->n_layers, m->dim, m->ffn_dim);
    buf_printf(b, "heads         %" PRIu32 " of %" PRIu32 ", %" PRIu32 " of keys and values\n",
               m->n_heads, m->head_dim, m->n_kv_heads);
    buf_printf(b, "context       %" PRIu32 " tokens\n", m->context);
    buf_printf(b, "tokenizer     %s, %" PRIu32 " tokens",
               m->tokenizer[0] != '\0' ? m->tokenizer : "none", m->vocab_size);
    add_token(b, "bos", dp_model_bos(model), false);
    add_token(b, "eos", dp_model_eos(model), false);
    buf_printf(b, "\nchat template %s\n", str_of(m->chat_template).size > 0 ? "yes" : "no");
}

/* Memory on the device for a few contexts, up to the model's own or for -c alone. */
static bool add_memory(buf *b, const dp_model *model, const dp_model_info *m, const options *o,
                       dp_error *err) {
    static const uint32_t usual[] = { 2048, 8192, 32768, 131072 };
    uint32_t contexts[ARRAY_LEN(usual) + 1];
    size_t n = 0;
    if (o->context > 0) {
        contexts[n++] = (uint32_t)o->context;
    } else {
        for (size_t i = 0; i < ARRAY_LEN(usual) && usual[i] < m->context; i++) {
            contexts[n++] = usual[i];
        }
        contexts[n++] = m->context;
    }
    if (o->json) {
        json_key(b, "memory");
        buf_printf(b, "[");
    } else {
        buf_printf(b, "\n%10s %12s %12s %12s %12s\n", "context", "weights", "kv cache",
                   "activations", "total");
    }
    for (size_t i = 0; i < n; i++) {
        const dp_model_options how = {
            .context = contexts[i],
            .sessions = 1,
            .batch = (uint32_t)o->batch,
        };
        dp_memory need;
        if (!dp_model_memory(model, &how, !o->no_f16, &need, err)) return false;
        if (o->json) {
            json_item(b);
            buf_printf(b, "{");
            json_count_of(b, "context", contexts[i]);
            json_count_of(b, "weights", need.weights);
            json_count_of(b, "kv_cache", need.kv_cache);
            json_count_of(b, "activations", need.activations);
            json_count_of(b, "total", need.total);
            json_count_of(b, "kv_bytes_per_token", need.kv_bytes_per_token);
            buf_printf(b, "}");
        } else {
            buf_printf(b, "%10" PRIu32 " %12s %12s %12s %12s\n", contexts[i],
                       show_bytes(need.weights).text, show_bytes(need.kv_cache).text,
                       show_bytes(need.activations).text, show_bytes(need.total).text);
        }
    }
    if (o->json) buf_printf(b, "]");
    return true;
}

static void add_tensors(buf *b, const dp_model *model, bool as_json) {
    dp_tensor_info t;
    if (as_json) {
        json_key(b, "tensors");
        buf_printf(b, "[");
    } else {
        buf_printf(b, "\n%-48s %-8s %12s  shape\n", "tensor", "format", "bytes");
    }
    for (uint32_t i = 0; dp_model_get_tensor(model, i, &t); i++) {
        if (as_json) {
            json_item(b);
            buf_printf(b, "{");
            json_text(b, "name", str_of(t.name));
            json_text(b, "format", str_of(t.format));
            json_count_of(b, "bytes", t.n_bytes);
            json_key(b, "shape");
        } else {
            buf_printf(b, "%-48s %-8s %12" PRIu64 "  ", t.name, t.format, t.n_bytes);
        }
        buf_printf(b, "[");
        for (uint32_t d = 0; d < t.n_dims; d++) {
            buf_printf(b, d > 0 ? ", %" PRIu64 : "%" PRIu64, t.shape[d]);
        }
        buf_printf(b, as_json ? "]}" : "]\n");
    }
    if (as_json) buf_printf(b, "]");
}

/* ---- on a device --------------------------------------------------------------------------- */

enum { MEMORY_ROWS = 96, LINE_BYTES = 256 };

static void add_memory_rows(buf *b, const dp_model *model, bool as_json) {
    dp_memory_row rows[MEMORY_ROWS];
    size_t n = 0;
    uint64_t total = 0;
    dp_model_get_memory(model, rows, MEMORY_ROWS, &n);
    n = n < MEMORY_ROWS ? n : MEMORY_ROWS;
    if (as_json) {
        json_key(b, "groups");
        buf_printf(b, "[");
    } else {
        buf_printf(b, "\n%-12s %-22s %12s  buffers\n", "group", "of", "bytes");
    }
    for (size_t i = 0; i < n; i++) {
        const dp_memory_row *r = &rows[i];
        total += strcmp(r->group, "staging") != 0 ? r->bytes : 0;
        if (as_json) {
            json_item(b);
            buf_printf(b, "{");
            json_text(b, "group", str_of(r->group));
            json_text(b, "name", str_of(r->name));
            json_count_of(b, "bytes", r->bytes);
            json_count_of(b, "n", r->n);
            json_count_of(b, "cut", r->n_cut);
            buf_printf(b, "}");
            continue;
        }
        buf_printf(b, "%-12s %-22s %12s  %" PRIu32, r->group, r->name, show_bytes(r->bytes).text,
                   r->n);
        if (r->n_cut > 0) buf_printf(b, ", %" PRIu32 " of them cut into parts", r->n_cut);
        buf_printf(b, "\n");
    }
    if (as_json) {
        buf_printf(b, "]");
        json_count_of(b, "total", total);
    } else {
        buf_printf(b, "%-12s %-22s %12s  without staging\n", "total", "", show_bytes(total).text);
    }
}

static void add_dispatches(buf *b, const dp_model *model, bool as_json) {
    static const char *const names[] = {
        [DP_PASS_ONE] = "one_row",        [DP_PASS_FEW] = "few_rows", [DP_PASS_SOME] = "some_rows",
        [DP_PASS_SHORT] = "short_prompt", [DP_PASS_MANY] = "prompt",
    };
    static const char *const titles[] = {
        [DP_PASS_ONE] = "one row",          [DP_PASS_FEW] = "up to 8 rows",
        [DP_PASS_SOME] = "up to 16 rows",   [DP_PASS_SHORT] = "a short prompt, up to 64 rows",
        [DP_PASS_MANY] = "rows of prompts",
    };
    for (size_t pass = 0; pass < ARRAY_LEN(names); pass++) {
        char line[LINE_BYTES];
        uint32_t n = 0;
        while (dp_model_get_dispatch(model, (dp_pass)pass, n, line, sizeof(line)))
            n++;
        if (as_json) {
            json_key(b, names[pass]);
            buf_printf(b, "[");
        } else if (n > 0) {
            buf_printf(b, "\na pass of %s: %" PRIu32 " dispatches (n1: rows, n2: answers)\n",
                       titles[pass], n);
        }
        for (uint32_t i = 0; i < n; i++) {
            if (!dp_model_get_dispatch(model, (dp_pass)pass, i, line, sizeof(line))) break;
            if (as_json) {
                json_item(b);
                json_add_string(b, str_of(line));
            } else {
                buf_printf(b, "%5" PRIu32 "  %s\n", i, line);
            }
        }
        if (as_json) buf_printf(b, "]");
    }
}

/* The model as it would lie on the chosen device, for -c or the library's default context. */
static bool add_plan(buf *b, const char *path, const options *o, dp_error *err) {
    const dp_device_options on = device_options(o);
    const dp_model_options how = { .context = (uint32_t)o->context,
                                   .sessions = 1,
                                   .batch = (uint32_t)o->batch,
                                   .plan_only = true,
                                   .log = print_log,
                                   .log_user = log_user(o) };
    dp_device *device = dp_device_open(&on, err);
    dp_model *model = device != NULL ? dp_model_open(device, path, &how, err) : NULL;
    if (model != NULL) {
        dp_device_info d;
        dp_device_get_info(device, &d);
        if (o->json) {
            json_key(b, "plan");
            buf_printf(b, "{");
            json_text(b, "device", str_of(d.name));
            json_count_of(b, "max_binding", d.max_binding);
            json_count_of(b, "max_buffer", d.max_buffer);
        } else {
            buf_printf(b, "\non %s: a binding of up to %s, a buffer of up to %s\n", d.name,
                       show_bytes(d.max_binding).text, show_bytes(d.max_buffer).text);
        }
        add_memory_rows(b, model, o->json);
        add_dispatches(b, model, o->json);
        if (o->json) buf_printf(b, "}");
    }
    dp_model_close(model);
    dp_device_close(device);
    return model != NULL;
}

static bool describe(buf *b, const engine *e, container *c, const options *o, dp_error *err) {
    if (o->json) {
        buf_printf(b, "{");
        info_json(b, &e->info);
        add_token(b, "bos", dp_model_bos(e->model), true);
        add_token(b, "eos", dp_model_eos(e->model), true);
    } else {
        info_text(b, e->model, &e->info);
    }
    /* A vocabulary alone needs no memory on a device. */
    if (e->info.n_layers > 0 && !add_memory(b, e->model, &e->info, o, err)) return false;
    add_roles(b, c, o->json);
    if (o->tensors) add_tensors(b, e->model, o->json);
    if (o->plan && !add_plan(b, e->path, o, err)) return false;
    if (container_kind_of(c) == CONTAINER_RDRR) add_manifest(b, c, o->json);
    if (container_kind_of(c) == CONTAINER_GGUF) {
        add_gguf_meta(b, c, o->json);
    } else if (!add_config(b, c, o->json, err)) {
        return false;
    }
    if (o->json) buf_printf(b, "}\n");
    return true;
}

int cmd_inspect(const options *o) {
    dp_error err = { 0 };
    engine e;
    options with = *o;
    buf b;
    buf_init(&b, TEXT_BYTES_MAX);
    if (o->n_rest == 1 && o->model != NULL) {
        err_set(&err, DP_E_ARGUMENT, "inspect: one model at a time");
        return fail(&err);
    }
    if (o->n_rest == 1) with.model = o->rest[0];
    uint32_t context = 0;
    bool ok = engine_describe(&e, &with, &err) &&
              (o->context == 0 || engine_context(&e, o, o->context, &context, &err));
    container *c = ok ? container_open(e.path, true, &err) : NULL;
    ok = c != NULL && describe(&b, &e, c, &with, &err);
    container_close(c);
    engine_close(&e);
    if (ok) return out_result(&b);
    buf_free(&b);
    return fail(&err);
}
