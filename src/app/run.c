/* run: continues a prompt.
 *
 * Without --json the answer's text goes to stdout piece by piece as it comes and nothing else does;
 * with it stdout gets one object at the end. Ctrl-C ends either with what there is. Times:
 * `prompt_ms` is the prompt's evaluation, `first_ms` from its start to the first token,
 * `predicted_ms` the generation. */
#include "app/app.h"

#include <inttypes.h>
#include <unistd.h>

const option run_options[] = {
    { "-p", "TEXT", "the prompt; spelt-out control tokens in it count as tokens", OPT_TEXT,
      FIELD(prompt) },
    { "-f", "FILE", "a file with the prompt; without -p and -f standard input", OPT_TEXT,
      FIELD(file) },
    { "-n", "N", "at most so many tokens", OPT_COUNT, FIELD(n_predict), .initial = "256",
      .max = UINT32_MAX },
    { "--temp", "NUMBER", "temperature; 0 takes the most likely token", OPT_REAL,
      FIELD(temperature), .initial = "0", .max = 100 },
    { "--top-k", "N", "draw among the N most likely; 0: all", OPT_COUNT, FIELD(top_k),
      .initial = "0", .max = UINT32_MAX },
    { "--top-p", "NUMBER", "draw among the most likely that reach this probability", OPT_REAL,
      FIELD(top_p), .initial = "1", .max = 1 },
    { "--min-p", "NUMBER", "drop what is less likely than this times the most likely", OPT_REAL,
      FIELD(min_p), .initial = "0", .max = 1 },
    { "--repeat-penalty", "NUMBER", "divides the logits of tokens that occurred; 1: none", OPT_REAL,
      FIELD(repeat_penalty), .initial = "1", .max = 100 },
    { "--presence-penalty", "NUMBER", "subtracted from logits of tokens in the answer", OPT_REAL,
      FIELD(presence_penalty), .initial = "0", .min = -100, .max = 100 },
    { "--frequency-penalty", "NUMBER", "the same, times how often they occur", OPT_REAL,
      FIELD(frequency_penalty), .initial = "0", .min = -100, .max = 100 },
    { "--seed", "N", "of the random numbers; without it a new one each time", OPT_COUNT,
      FIELD(seed), .given = offsetof(options, seed_given), .max = 0x1p64 },
    { "--stop", "TEXT", "ends the answer in front of this text; up to 16 times", OPT_TEXTS,
      FIELD(stop), .min = 1, .max = 256 },
    { "--logprobs", "K", "with --json: log-probabilities of the K best at every token", OPT_COUNT,
      FIELD(logprobs), .min = 1, .max = 32 },
    { "--ignore-eos", NULL, "go on after end-of-generation tokens", OPT_FLAG, FIELD(ignore_eos) },
    { "--special", NULL, "spell special tokens out in the answer", OPT_FLAG, FIELD(special) },
    { "--no-bos", NULL, "do not add what the tokenizer puts around a text", OPT_FLAG,
      FIELD(no_bos) },
    { "--verbose", NULL, "times on standard error even if that is no terminal", OPT_FLAG,
      FIELD(verbose) },
    { .name = NULL },
};

/* What the callbacks of a generation fill. */
typedef struct {
    const options *o;
    const dp_model *model;
    buf text;     /* with --json */
    buf ids;      /* dp_token after dp_token */
    buf logprobs; /* elements of the JSON array */
    dp_error err; /* of writing */
} answer;

/* What a run measured. */
typedef struct {
    dp_generate_result result;
    dp_stats before, after; /* around the generation */
    double prompt_seconds;
} measures;

static bool take_text(void *user, const char *text, size_t size) {
    answer *a = user;
    if (!a->o->json) return out_write(text, size, &a->err);
    buf_add(&a->text, text, size);
    return buf_ok(&a->text, "the answer", &a->err);
}

static void add_logprob(answer *a, dp_token token, float logprob) {
    buf piece;
    buf_init(&piece, TEXT_BYTES_MAX);
    buf_printf(&a->logprobs, "{");
    json_count_of(&a->logprobs, "token", token);
    json_key(&a->logprobs, "logprob");
    json_add_f32(&a->logprobs, logprob);
    if (text_of_tokens(a->model, &token, 1, true, &piece, &a->err)) {
        json_text(&a->logprobs, "text", (str){ piece.data, piece.size });
    }
    buf_free(&piece);
}

static void take_token(void *user, dp_token token, float logprob, const dp_logprob *best) {
    answer *a = user;
    buf_add(&a->ids, &token, sizeof(token));
    if (best == NULL || a->o->logprobs == 0) return;
    if (a->logprobs.size > 0) buf_printf(&a->logprobs, ",");
    add_logprob(a, token, logprob);
    json_key(&a->logprobs, "top");
    buf_printf(&a->logprobs, "[");
    for (uint64_t i = 0; i < a->o->logprobs; i++) {
        json_item(&a->logprobs);
        add_logprob(a, best[i].token, best[i].logprob);
        buf_printf(&a->logprobs, "}");
    }
    buf_printf(&a->logprobs, "]}");
}

static const char *const finish_names[] = {
    [DP_FINISH_STOP] = "stop",
    [DP_FINISH_LENGTH] = "length",
    [DP_FINISH_CANCELLED] = "cancelled",
};

static double per_second(uint64_t n, double seconds) {
    return seconds > 0 ? (double)n / seconds : 0;
}

static int print_json(const engine *e, const token_list *prompt, answer *a, const measures *m,
                      uint64_t seed) {
    buf b;
    buf_init(&b, TEXT_BYTES_MAX);
    buf_printf(&b, "{");
    json_text(&b, "model", str_of(e->path));
    json_ids(&b, "prompt_tokens", prompt->ids, prompt->n);
    json_key(&b, "tokens");
    buf_printf(&b, "[");
    for (size_t i = 0; i < a->ids.size; i += sizeof(dp_token)) {
        dp_token id;
        memcpy(&id, a->ids.data + i, sizeof(id));
        json_item(&b);
        buf_printf(&b, "%" PRIu32, id);
    }
    buf_printf(&b, "]");
    json_text(&b, "text", (str){ a->text.data, a->text.size });
    json_text(&b, "finish_reason", str_of(finish_names[m->result.finish]));
    json_count_of(&b, "seed", seed);
    json_key(&b, "timings");
    buf_printf(&b, "{");
    json_real(&b, "load_ms", 1e3 * e->load_seconds);
    json_count_of(&b, "prompt_n", prompt->n);
    json_real(&b, "prompt_ms", 1e3 * m->prompt_seconds);
    json_real(&b, "prompt_per_second", per_second(prompt->n, m->prompt_seconds));
    json_real(&b, "first_ms", 1e3 * (m->prompt_seconds + m->result.first_seconds));
    json_count_of(&b, "predicted_n", m->result.n_tokens);
    json_real(&b, "predicted_ms", 1e3 * m->result.seconds);
    json_real(&b, "predicted_per_second", per_second(m->result.n_tokens, m->result.seconds));
    json_count_of(&b, "submits", m->after.submits - m->before.submits);
    json_count_of(&b, "dispatches", m->after.dispatches - m->before.dispatches);
    json_count_of(&b, "bytes_read", m->after.bytes_read - m->before.bytes_read);
    json_count_of(&b, "device_bytes_peak", m->after.device_bytes_peak);
    buf_printf(&b, "}");
    if (a->o->logprobs > 0) {
        json_key(&b, "logprobs");
        buf_printf(&b, "[");
        buf_add(&b, a->logprobs.data, a->logprobs.size);
        buf_printf(&b, "]");
    }
    buf_printf(&b, "}\n");
    return out_result(&b);
}

static void print_summary(const engine *e, const token_list *prompt, const measures *m) {
    fprintf(stderr, "\nprompt %zu tokens in %.1f ms, %.1f/s; ", prompt->n, 1e3 * m->prompt_seconds,
            per_second(prompt->n, m->prompt_seconds));
    fprintf(stderr, "answer %" PRIu32 " tokens in %.1f ms, %.1f/s; ", m->result.n_tokens,
            1e3 * m->result.seconds, per_second(m->result.n_tokens, m->result.seconds));
    fprintf(stderr, "first after %.1f ms; loaded in %.1f ms, %s on the device\n",
            1e3 * (m->prompt_seconds + m->result.first_seconds), 1e3 * e->load_seconds,
            show_bytes(m->after.device_bytes_peak).text);
}

/* Room for the prompt and the answer: -n is cut to what the context leaves. */
static bool plan_context(const engine *e, const options *o, const token_list *prompt,
                         uint32_t *context, uint32_t *max_tokens, dp_error *err) {
    if (!engine_context(e, o, prompt->n + o->n_predict, context, err)) return false;
    if (prompt->n > *context) {
        return err_set(err, DP_E_ARGUMENT, "the prompt has %zu tokens, the context holds %" PRIu32,
                       prompt->n, *context);
    }
    *max_tokens = (uint32_t)min_u64(o->n_predict, *context - prompt->n);
    return true;
}

static bool generate(const engine *e, const token_list *prompt, uint32_t max_tokens, uint64_t seed,
                     answer *a, measures *m, dp_error *err) {
    const options *o = a->o;
    const dp_sampling sampling = {
        .temperature = (float)o->temperature,
        .top_k = (uint32_t)o->top_k,
        .top_p = (float)o->top_p,
        .min_p = (float)o->min_p,
        .repeat_penalty = (float)o->repeat_penalty,
        .presence_penalty = (float)o->presence_penalty,
        .frequency_penalty = (float)o->frequency_penalty,
        .seed = seed,
    };
    const dp_generate_options how = {
        .max_tokens = max_tokens,
        .ignore_stops = o->ignore_eos,
        .special = o->special,
        .n_logprobs = (uint32_t)o->logprobs,
        .stop = o->stop.items,
        .n_stop = o->stop.n,
        .on_text = take_text,
        .on_token = take_token,
        .user = a,
    };
    const double start = now_seconds();
    if (!dp_session_eval(e->session, prompt->ids, prompt->n, err) ||
        !dp_session_set_sampling(e->session, &sampling, err)) {
        return false;
    }
    m->prompt_seconds = now_seconds() - start;
    dp_device_get_stats(e->device, &m->before);
    m->result.finish = DP_FINISH_LENGTH; /* should there be no room for any token */
    if (max_tokens > 0 && !dp_generate(e->session, &how, &m->result, err)) return false;
    dp_device_get_stats(e->device, &m->after);
    return true;
}

int cmd_run(const options *o) {
    dp_error err = { 0 };
    engine e;
    token_list prompt = { 0 };
    answer a = { .o = o };
    measures m = { 0 };
    uint64_t random[2];
    uint32_t context = 0, max_tokens = 0;
    int code = EXIT_OK;
    buf_init(&a.text, TEXT_BYTES_MAX);
    buf_init(&a.ids, TEXT_BYTES_MAX);
    buf_init(&a.logprobs, TEXT_BYTES_MAX);
    hash_key(random);
    const uint64_t seed = o->seed_given ? o->seed : random[0] >> 32; /* exact in any JSON reader */
    bool ok =
        o->logprobs == 0 || o->json || err_set(&err, DP_E_ARGUMENT, "--logprobs: needs --json");
    ok = ok && engine_describe(&e, o, &err);
    if (!ok) return fail(&err);
    ok = tokens_of_prompt(&e, o, &prompt, &err) &&
         plan_context(&e, o, &prompt, &context, &max_tokens, &err) &&
         engine_start(&e, o, context, &err);
    a.model = e.model;
    ok = ok && generate(&e, &prompt, max_tokens, seed, &a, &m, &err);
    interrupt_watch(NULL);
    if (ok && a.err.status != DP_OK) { /* the generation was ended by a failed write */
        err = a.err;
        ok = false;
    }
    if (ok && !o->json && isatty(STDOUT_FILENO)) ok = out_write("\n", 1, &err);
    if (!ok) {
        code = fail(&err);
    } else {
        if (o->json) code = print_json(&e, &prompt, &a, &m, seed);
        if (o->verbose || isatty(STDERR_FILENO)) print_summary(&e, &prompt, &m);
        if (o->profile) print_profile(e.device);
        if (code == EXIT_OK && m.result.finish == DP_FINISH_CANCELLED) code = EXIT_INTERRUPTED;
    }
    engine_close(&e);
    mem_free(prompt.ids);
    buf_free(&a.text);
    buf_free(&a.ids);
    buf_free(&a.logprobs);
    return code;
}
