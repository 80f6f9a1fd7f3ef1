/* web: one device, one model, its sessions and generations by number. web/lib/engine.js is the
 * other side and nothing else is. */
#include "model/model.h"
#include "web/web.h"

#include <stdio.h>

enum { RUNS_MAX = 64 };

/* A generation, and what of it has not been told. */
typedef struct {
    dp_generation *generation; /* NULL: free */
    dp_session *session;
    buf text, tokens; /* tokens: JSON, without brackets */
    bool logprobs;
    uint32_t n_logprobs;
} web_run;

static struct {
    dp_device *device;
    dp_model *model;
    dp_scheduler *scheduler;
    uint64_t loaded, to_load; /* bytes of weights */
    dp_session *sessions[SESSIONS_MAX];
    gpu_ticket logits[SESSIONS_MAX]; /* asked for; 0: not */
    web_run runs[RUNS_MAX];
} web;
web_answer web_shared;

/* ---- what goes out ------------------------------------------------------------------------- */

int EXPORT(web_alloc)(size_t size);
void EXPORT(web_free)(int memory);
int EXPORT(web_out)(void);
size_t EXPORT(web_out_size)(void);

int web_alloc(size_t size) {
    return (int)(uintptr_t)mem_new(size > 0 ? size : 1, 1, "a message", NULL);
}

void web_free(int memory) {
    mem_free((void *)(uintptr_t)memory);
}

int web_out(void) {
    return (int)(uintptr_t)web_shared.out.data;
}

size_t web_out_size(void) {
    return web_shared.out.size;
}

void web_begin(void) {
    if (web_shared.out.ceiling == 0) {
        buf_init(&web_shared.out, TEXT_BYTES_MAX);
    }
    buf_reset(&web_shared.out);
    web_shared.err = (dp_error){ 0 };
}

static buf *begin_out(void) {
    web_begin();
    return &web_shared.out;
}

static void add_error(buf *b, const dp_error *err) {
    buf_printf(b, "{");
    json_text(b, "status", str_of(dp_status_name(err->status)));
    json_text(b, "message", str_of(err->message));
    buf_printf(b, "}");
}

static int failed(void) {
    buf_reset(&web_shared.out);
    add_error(&web_shared.out, &web_shared.err);
    return -1;
}

int web_end(bool ok) {
    ok = ok && buf_ok(&web_shared.out, "an answer", &web_shared.err);
    return ok ? 0 : failed();
}

gpu *web_gpu(void) {
    return web.device != NULL ? device_gpu(web.device) : NULL;
}

/* ---- what comes in ------------------------------------------------------------------------- */

/* Options are objects that our own JavaScript writes: what is absent is 0. */
static double number_of(const json_value *o, const char *key) {
    double x = 0;
    (void)json_f64(json_get(o, key), &x);
    return x;
}

static uint32_t count_of(const json_value *o, const char *key) {
    const double x = number_of(o, key);
    return x >= 0 && x < 4294967296.0 ? (uint32_t)x : 0;
}

static bool flag_of(const json_value *o, const char *key) {
    bool x = false;
    (void)json_bool(json_get(o, key), &x);
    return x;
}

static bool text_of(const json_value *o, const char *key, buf *out) {
    str s = STR("");
    buf_init(out, JSON_BYTES_MAX);
    const bool there = json_string(json_get(o, key), &s);
    buf_add_str(out, s);
    return there && out->data != NULL;
}

static json *options_of(const char *text, size_t size) {
    return json_open((str){ text, size }, "options", &web_shared.err);
}

static dp_session *session_of(int id) {
    dp_session *s = id >= 0 && id < SESSIONS_MAX ? web.sessions[id] : NULL;
    if (s == NULL) err_set(&web_shared.err, DP_E_ARGUMENT, "there is no session %d", id);
    return s;
}

/* ---- device -------------------------------------------------------------------------------- */

int EXPORT(web_open_device)(const char *options, size_t size);
void EXPORT(web_close_device)(void);
void EXPORT(web_lose_device)(void);
int EXPORT(web_stats)(void);

static void log_text(void *user, dp_log_level level, const char *line) {
    (void)user, (void)level;
    (void)!fprintf(stderr, "%s\n", line);
}

int web_open_device(const char *options, size_t size) {
    buf *out = begin_out();
    json *doc = options_of(options, size);
    if (doc == NULL) return failed();
    const json_value *o = json_root(doc);
    const dp_device_options how = { .no_f16 = flag_of(o, "noF16"),
                                    .no_subgroups = flag_of(o, "noSubgroups"),
                                    .no_int8 = flag_of(o, "noInt8"),
                                    .max_memory = (uint64_t)number_of(o, "maxMemory"),
                                    .max_binding = (uint64_t)number_of(o, "maxBinding"),
                                    .log = flag_of(o, "verbose") ? log_text : NULL };
    web.device = dp_device_open(&how, &web_shared.err);
    json_close(doc);
    if (web.device == NULL) return failed();
    dp_device_info info;
    dp_device_get_info(web.device, &info);
    buf_printf(out, "{");
    json_text(out, "name", str_of(info.name));
    json_text(out, "vendor", str_of(info.vendor));
    json_text(out, "driver", str_of(info.driver));
    json_text(out, "type", str_of(info.type));
    json_flag(out, "f16", info.f16);
    json_flag(out, "subgroups", info.subgroups);
    json_flag(out, "int8", info.int8);
    json_count_of(out, "subgroupSize", info.subgroup_size);
    json_count_of(out, "maxBinding", info.max_binding);
    json_count_of(out, "maxBuffer", info.max_buffer);
    json_count_of(out, "maxWorkgroupMemory", info.max_workgroup_memory);
    json_count_of(out, "maxWorkgroupLanes", info.max_workgroup_lanes);
    json_count_of(out, "maxStorageBuffers", info.max_storage_buffers);
    buf_printf(out, "}");
    return web_end(true);
}

void web_lose_device(void) {
    if (web.device != NULL) gpu_lose(web_gpu());
}

int web_stats(void) {
    buf *out = begin_out();
    dp_stats s = { 0 };
    if (web.device != NULL) dp_device_get_stats(web.device, &s);
    buf_printf(out, "{");
    json_count_of(out, "submits", s.submits);
    json_count_of(out, "dispatches", s.dispatches);
    json_count_of(out, "bytesRead", s.bytes_read);
    json_count_of(out, "bytesWritten", s.bytes_written);
    json_count_of(out, "deviceBytes", s.device_bytes);
    json_count_of(out, "deviceBytesPeak", s.device_bytes_peak);
    json_count_of(out, "pipelines", s.pipelines);
    json_real(out, "encodeMs", 1e-6 * (double)s.encode_ns);
    json_real(out, "submitMs", 1e-6 * (double)s.submit_ns);
    buf_printf(out, "}");
    return web_end(true);
}

/* ---- model --------------------------------------------------------------------------------- */

int EXPORT(web_begin_model)(const char *options, size_t size);
int EXPORT(web_load)(void);
double EXPORT(web_loaded)(void);
double EXPORT(web_to_load)(void);
void EXPORT(web_close_model)(void);

static void add_token(buf *out, const char *key, dp_token token) {
    if (token != DP_NO_TOKEN) json_count_of(out, key, token);
}

static void describe_model(buf *out) {
    dp_model_info i;
    dp_model_get_info(web.model, &i);
    buf_printf(out, "{");
    json_text(out, "path", str_of(i.path));
    json_text(out, "name", str_of(i.name));
    json_text(out, "architecture", str_of(i.architecture));
    json_text(out, "container", str_of(i.container));
    json_text(out, "format", str_of(i.format));
    json_text(out, "tokenizer", str_of(i.tokenizer));
    json_text(out, "chatTemplate", str_of(i.chat_template));
    json_count_of(out, "layers", i.n_layers);
    json_count_of(out, "dim", i.dim);
    json_count_of(out, "vocabSize", i.vocab_size);
    json_count_of(out, "modelContext", i.context);
    json_count_of(out, "context", web.model->shapes.context);
    json_count_of(out, "sessions", web.model->shapes.sessions);
    json_count_of(out, "batch", web.model->shapes.batch);
    json_count_of(out, "parameters", i.n_parameters);
    json_count_of(out, "weightBytes", i.weight_bytes);
    json_real(out, "temperature", (double)i.temperature);
    json_real(out, "topP", (double)i.top_p);
    json_count_of(out, "topK", i.top_k);
    add_token(out, "bos", dp_model_bos(web.model));
    add_token(out, "eos", dp_model_eos(web.model));
    json_key(out, "memory");
    buf_printf(out, "{");
    json_count_of(out, "weights", web.model->memory.weights);
    json_count_of(out, "kvCache", web.model->memory.kv_cache);
    json_count_of(out, "activations", web.model->memory.activations);
    json_count_of(out, "total", web.model->memory.total);
    buf_printf(out, "}}");
}

static bool take_progress(void *user, uint64_t loaded, uint64_t total) {
    (void)user;
    web.loaded = loaded;
    web.to_load = total;
    return true;
}

double web_loaded(void) {
    return (double)web.loaded;
}

double web_to_load(void) {
    return (double)web.to_load;
}

int web_begin_model(const char *options, size_t size) {
    buf *out = begin_out();
    json *doc = options_of(options, size);
    if (doc == NULL) return failed();
    const json_value *o = json_root(doc);
    const dp_model_options how = { .context = count_of(o, "context"),
                                   .sessions = count_of(o, "sessions"),
                                   .batch = count_of(o, "batch"),
                                   .no_verify = true, /* pieces are verified as they arrive */
                                   .progress = take_progress,
                                   .log = flag_of(o, "verbose") ? log_text : NULL };
    buf path;
    if (text_of(o, "path", &path)) {
        web.model = model_begin(web.device, path.data, &how, &web_shared.err);
    } else {
        err_set(&web_shared.err, DP_E_ARGUMENT, "options: no path");
    }
    buf_free(&path);
    json_close(doc);
    if (web.model == NULL) return failed();
    describe_model(out);
    return web_end(true);
}

/* A piece of the weights: 1 when all are sent, else 0. May be repeated after a failure. */
int web_load(void) {
    begin_out();
    bool all = false;
    if (!model_load_some(web.model, &all, &web_shared.err)) return failed();
    if (!all) return 0;
    web.scheduler = dp_scheduler_new(web.model, &web_shared.err);
    return web.scheduler != NULL ? 1 : failed();
}

static void free_run(web_run *r) {
    dp_generation_free(r->generation);
    buf_free(&r->text);
    buf_free(&r->tokens);
    *r = (web_run){ 0 };
}

void web_close_model(void) {
    for (size_t i = 0; i < RUNS_MAX; i++)
        free_run(&web.runs[i]);
    dp_scheduler_free(web.scheduler);
    for (size_t i = 0; i < SESSIONS_MAX; i++) {
        if (web.logits[i] != 0) gpu_drop(web.model->gpu, web.logits[i]);
        web.logits[i] = 0;
        dp_session_free(web.sessions[i]);
        web.sessions[i] = NULL;
    }
    dp_model_close(web.model);
    web.scheduler = NULL;
    web.model = NULL;
}

void web_close_device(void) {
    web_close_model();
    dp_device_close(web.device);
    web.device = NULL;
}

/* ---- text ---------------------------------------------------------------------------------- */

int EXPORT(web_tokenize)(const char *text, size_t size, int add_special, int parse_special);
int EXPORT(web_detokenize)(const dp_token *tokens, size_t n, int special);
int EXPORT(web_template)(const char *messages, size_t size, const char *options,
                         size_t options_size, int as_tokens);

/* Room for n items of a size behind what is there. */
static void *grow_out(size_t n, size_t size) {
    buf *out = begin_out();
    out->data = mem_resize(out->data, n + 1, size, "an answer", &web_shared.err);
    if (out->data == NULL) {
        *out = (buf){ 0 };
        return NULL;
    }
    out->capacity = (n + 1) * size;
    return out->data;
}

int web_tokenize(const char *text, size_t size, int add_special, int parse_special) {
    size_t n = 0;
    begin_out();
    if (!dp_tokenize(web.model, text, size, add_special, parse_special, NULL, 0, &n,
                     &web_shared.err)) {
        return failed();
    }
    dp_token *tokens = grow_out(n, sizeof *tokens);
    const bool ok = tokens != NULL && dp_tokenize(web.model, text, size, add_special, parse_special,
                                                  tokens, n, &n, &web_shared.err);
    web_shared.out.size = ok ? n * sizeof *tokens : 0;
    return web_end(ok);
}

int web_detokenize(const dp_token *tokens, size_t n, int special) {
    size_t size = 0;
    begin_out();
    if (!dp_detokenize(web.model, tokens, n, special, NULL, 0, &size, &web_shared.err))
        return failed();
    char *text = grow_out(size, 1);
    const bool ok = text != NULL && dp_detokenize(web.model, tokens, n, special, text, size, &size,
                                                  &web_shared.err);
    web_shared.out.size = ok ? size : 0;
    return web_end(ok);
}

typedef struct {
    buf chat_template, tools, variables;
    dp_chat_options o;
} chat_request;

static void read_chat(chat_request *r, const json_value *o) {
    *r = (chat_request){ .o = { .no_generation_prompt = flag_of(o, "noGenerationPrompt"),
                                .now = (int64_t)number_of(o, "now") } };
    if (text_of(o, "chatTemplate", &r->chat_template)) r->o.chat_template = r->chat_template.data;
    if (text_of(o, "tools", &r->tools)) r->o.tools = r->tools.data;
    if (text_of(o, "variables", &r->variables)) r->o.variables = r->variables.data;
}

static bool render(const chat_request *r, str messages, bool as_tokens) {
    size_t n = 0;
    if (as_tokens) {
        if (!dp_chat_tokenize(web.model, messages.data, messages.size, &r->o, NULL, 0, &n,
                              &web_shared.err)) {
            return false;
        }
        dp_token *tokens = grow_out(n, sizeof *tokens);
        const bool ok = tokens != NULL && dp_chat_tokenize(web.model, messages.data, messages.size,
                                                           &r->o, tokens, n, &n, &web_shared.err);
        web_shared.out.size = ok ? n * sizeof *tokens : 0;
        return ok;
    }
    if (!dp_chat_render(web.model, messages.data, messages.size, &r->o, NULL, 0, &n,
                        &web_shared.err)) {
        return false;
    }
    char *text = grow_out(n, 1);
    const bool ok = text != NULL && dp_chat_render(web.model, messages.data, messages.size, &r->o,
                                                   text, n, &n, &web_shared.err);
    web_shared.out.size = ok ? n : 0;
    return ok;
}

int web_template(const char *messages, size_t size, const char *options, size_t options_size,
                 int as_tokens) {
    begin_out();
    json *doc = options_of(options, options_size);
    if (doc == NULL) return failed();
    chat_request r;
    read_chat(&r, json_root(doc));
    json_close(doc);
    const bool ok = render(&r, (str){ messages, size }, as_tokens);
    buf_free(&r.chat_template);
    buf_free(&r.tools);
    buf_free(&r.variables);
    return web_end(ok);
}

/* ---- sessions ------------------------------------------------------------------------------ */

int EXPORT(web_new_session)(void);
void EXPORT(web_free_session)(int id);
int EXPORT(web_evaluate)(int id, const dp_token *tokens, size_t n);
int EXPORT(web_tokens)(int id);
int EXPORT(web_rewind)(int id, size_t n);
int EXPORT(web_ask_logits)(int id);
int EXPORT(web_take_logits)(int id);

int web_new_session(void) {
    begin_out();
    for (int i = 0; i < SESSIONS_MAX; i++) {
        if (web.sessions[i] != NULL) continue;
        web.sessions[i] = dp_session_new(web.model, &web_shared.err);
        return web.sessions[i] != NULL ? i : failed();
    }
    err_set(&web_shared.err, DP_E_LIMIT, "all %d sessions are taken", SESSIONS_MAX);
    return failed();
}

void web_free_session(int id) {
    dp_session *s = session_of(id);
    if (s == NULL) return;
    for (size_t i = 0; i < RUNS_MAX; i++) {
        if (web.runs[i].session == s) free_run(&web.runs[i]);
    }
    if (web.logits[id] != 0) gpu_drop(web.model->gpu, web.logits[id]);
    web.logits[id] = 0;
    dp_session_free(s);
    web.sessions[id] = NULL;
}

/* At most a batch of tokens: one pass. The one before it has finished, so that nothing waits. */
int web_evaluate(int id, const dp_token *tokens, size_t n) {
    begin_out();
    dp_session *s = session_of(id);
    if (s == NULL) return failed();
    if (n > web.model->shapes.batch) {
        err_set(&web_shared.err, DP_E_LIMIT, "%zu tokens: a pass has at most %u", n,
                web.model->shapes.batch);
        return failed();
    }
    return web_end(dp_session_eval(s, tokens, n, &web_shared.err));
}

int web_tokens(int id) {
    begin_out();
    const dp_session *s = session_of(id);
    if (s == NULL) return failed();
    size_t n = 0;
    const dp_token *tokens = dp_session_tokens(s, &n);
    buf_add(&web_shared.out, tokens, n * sizeof *tokens);
    return web_end(true);
}

int web_rewind(int id, size_t n) {
    begin_out();
    dp_session *s = session_of(id);
    return web_end(s != NULL && dp_session_rewind(s, n, &web_shared.err));
}

int web_ask_logits(int id) {
    begin_out();
    dp_session *s = session_of(id);
    if (s == NULL) return failed();
    return web_end(web.logits[id] != 0 || session_ask_logits(s, &web.logits[id], &web_shared.err));
}

/* 1: in web_out(), 0: not there yet. */
int web_take_logits(int id) {
    begin_out();
    dp_session *s = session_of(id);
    if (s == NULL) return failed();
    if (web.logits[id] == 0) {
        err_set(&web_shared.err, DP_E_ARGUMENT, "session %d: no logits were asked for", id);
        return failed();
    }
    if (!gpu_poll(web.model->gpu, web.logits[id])) return 0;
    const gpu_ticket ticket = web.logits[id];
    web.logits[id] = 0;
    const uint32_t vocab = web.model->config.vocab_size;
    float *logits = grow_out(vocab, sizeof *logits);
    const bool ok = logits != NULL && session_take_logits(s, ticket, logits, &web_shared.err);
    web_shared.out.size = ok ? vocab * sizeof *logits : 0;
    return web_end(ok) == 0 ? 1 : -1;
}

/* ---- generations --------------------------------------------------------------------------- */

int EXPORT(web_generate)(int id, const char *options, size_t size);
int EXPORT(web_step)(void);
void EXPORT(web_cancel)(int run);

static bool take_text(void *user, const char *text, size_t size) {
    web_run *r = user;
    buf_add(&r->text, text, size);
    return true;
}

static void take_token(void *user, dp_token token, float logprob, const dp_logprob *best) {
    web_run *r = user;
    json_item(&r->tokens);
    if (!r->logprobs) {
        buf_printf(&r->tokens, "%u", token);
        return;
    }
    buf_printf(&r->tokens, "[%u,", token);
    json_add_f32(&r->tokens, logprob);
    for (uint32_t i = 0; best != NULL && i < r->n_logprobs; i++) {
        buf_printf(&r->tokens, ",%u,", best[i].token);
        json_add_f32(&r->tokens, best[i].logprob);
    }
    buf_printf(&r->tokens, "]");
}

static bool set_sampling(dp_session *s, const json_value *o) {
    const dp_sampling how = { .temperature = (float)number_of(o, "temperature"),
                              .top_k = count_of(o, "topK"),
                              .top_p = (float)number_of(o, "topP"),
                              .min_p = (float)number_of(o, "minP"),
                              .repeat_penalty = (float)number_of(o, "repeatPenalty"),
                              .presence_penalty = (float)number_of(o, "presencePenalty"),
                              .frequency_penalty = (float)number_of(o, "frequencyPenalty"),
                              .seed = (uint64_t)number_of(o, "seed") };
    const uint32_t answered = count_of(o, "answered");
    return dp_session_set_sampling(s, &how, &web_shared.err) &&
           (answered == 0 || dp_session_resume(s, answered, &web_shared.err));
}

static bool start_run(web_run *r, const json_value *o) {
    enum { MAX = 16, BYTES = 257 };
    static char stops[MAX][BYTES];
    static const char *stop[MAX];
    dp_generate_options how = { .max_tokens = count_of(o, "maxTokens"),
                                .steps = count_of(o, "steps"),
                                .ignore_stops = flag_of(o, "ignoreStops"),
                                .special = flag_of(o, "special"),
                                .n_logprobs = count_of(o, "logprobs"),
                                .n_answered = count_of(o, "answered"),
                                .stop = stop,
                                .on_text = take_text,
                                .on_token = take_token,
                                .user = r };
    for (json_iter it = json_each(json_get(o, "stop")); json_next(&it); how.n_stop++) {
        str s = STR("");
        if (how.n_stop == MAX || !json_string(it.value, &s) || s.size >= BYTES ||
            memchr(s.data, '\0', s.size) != NULL) {
            return err_set(&web_shared.err, DP_E_ARGUMENT,
                           "stop string %zu: at most %d of 1 to %d bytes expected", how.n_stop + 1,
                           MAX, BYTES - 1);
        }
        memcpy(stops[how.n_stop], s.data, s.size);
        stops[how.n_stop][s.size] = '\0';
        stop[how.n_stop] = stops[how.n_stop];
    }
    r->logprobs = how.n_logprobs > 0;
    r->n_logprobs = how.n_logprobs;
    buf_init(&r->text, TEXT_BYTES_MAX);
    buf_init(&r->tokens, TEXT_BYTES_MAX);
    r->generation = dp_generation_new(web.scheduler, r->session, &how, &web_shared.err);
    return r->generation != NULL;
}

/* The number of the run. */
int web_generate(int id, const char *options, size_t size) {
    begin_out();
    int run = 0;
    while (run < RUNS_MAX && web.runs[run].generation != NULL)
        run++;
    dp_session *s = session_of(id);
    json *doc = options_of(options, size);
    bool ok = s != NULL && doc != NULL;
    if (run == RUNS_MAX) {
        ok = err_set(&web_shared.err, DP_E_LIMIT, "%d generations run already", RUNS_MAX);
    }
    if (ok) {
        web_run *r = &web.runs[run];
        r->session = s;
        ok = set_sampling(s, json_root(doc)) && start_run(r, json_root(doc));
        if (!ok) free_run(r);
    }
    json_close(doc);
    return ok ? run : failed();
}

static void tell_end(buf *out, web_run *r) {
    static const char *const finishes[] = { "stop", "length", "cancelled" };
    dp_generate_result result = { .finish = DP_FINISH_STOP };
    dp_error err = { 0 };
    if (!dp_generation_result(r->generation, &result, &err)) {
        json_key(out, "error");
        add_error(out, &err);
        return;
    }
    json_text(out, "finish", str_of(finishes[result.finish]));
    json_count_of(out, "count", result.n_tokens);
    json_real(out, "firstSeconds", result.first_seconds);
    json_real(out, "seconds", result.seconds);
}

static void tell_run(buf *out, web_run *r) {
    const bool ended = dp_generation_ended(r->generation);
    if (!ended && r->text.size == 0 && r->tokens.size == 0) return;
    json_item(out);
    buf_printf(out, "{");
    json_count_of(out, "run", (uint64_t)(r - web.runs));
    json_text(out, "text", (str){ r->text.data, r->text.size });
    json_key(out, "tokens");
    buf_printf(out, "[");
    buf_add(out, r->tokens.data, r->tokens.size);
    buf_printf(out, "]");
    if (ended) tell_end(out, r);
    buf_printf(out, "}");
    buf_reset(&r->text);
    buf_reset(&r->tokens);
    if (ended) free_run(r);
}

/* Goes on as far as it can without waiting: 1 if the device is at work for a generation, 0 if none
 * runs. web_out() is an array of what is new, by run. */
int web_step(void) {
    buf *out = begin_out();
    const bool busy = web.scheduler != NULL && dp_scheduler_step(web.scheduler, false);
    buf_printf(out, "[");
    for (size_t i = 0; i < RUNS_MAX; i++) {
        if (web.runs[i].generation != NULL) tell_run(out, &web.runs[i]);
    }
    buf_printf(out, "]");
    return web_end(true) == 0 ? busy : -1;
}

void web_cancel(int run) {
    if (run >= 0 && run < RUNS_MAX && web.runs[run].session != NULL) {
        dp_session_cancel(web.runs[run].session);
    }
}
