/* answer: what `run` and `chat` share: the options of a generation, the generation itself, and its
 * two outputs.
 *
 * Without --json the answer's text goes to stdout piece by piece as it comes and nothing else does;
 * with it stdout gets one object at the end. Times: `prompt_ms` and `first_ms` are from the start
 * of the prompt's evaluation (of the part that the session did not hold: all but `cached_n` tokens)
 * to the first token, which shows that it has ended; `predicted_ms` is the time of the tokens
 * behind that one. */
#include "app/app.h"

#include <inttypes.h>
#include <unistd.h>

const option answer_options[] = {
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
    { "--verbose", NULL, "times on standard error even if that is no terminal", OPT_FLAG,
      FIELD(verbose) },
    { .name = NULL },
};

/* ---- collecting ---------------------------------------------------------------------------- */

bool answer_init(answer *a, const options *o, dp_error *err) {
    uint64_t random[2];
    hash_key(random);
    *a = (answer){ .o = o };
    a->seed = o->seed_given ? o->seed : random[0] >> 32; /* exact in any JSON reader */
    buf_init(&a->text, TEXT_BYTES_MAX);
    buf_init(&a->ids, TEXT_BYTES_MAX);
    buf_init(&a->logprobs, TEXT_BYTES_MAX);
    return o->logprobs == 0 || o->json || err_set(err, DP_E_ARGUMENT, "--logprobs: needs --json");
}

void answer_free(answer *a) {
    buf_free(&a->text);
    buf_free(&a->ids);
    buf_free(&a->logprobs);
}

static bool take_text(void *user, const char *text, size_t size) {
    answer *a = user;
    buf_add(&a->text, text, size);
    return buf_ok(&a->text, "the answer", &a->err) &&
           (a->o->json || out_write(text, size, &a->err));
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

/* ---- generating ---------------------------------------------------------------------------- */

/* Evaluates what the session does not hold of the prompt, and the last token in any case: its
 * logits begin the answer. */
static bool evaluate_prompt(answer *a, const engine *e, const token_list *prompt, dp_error *err) {
    size_t held, same = 0;
    const dp_token *tokens = dp_session_tokens(e->session, &held);
    while (same < held && same + 1 < prompt->n && tokens[same] == prompt->ids[same])
        same++;
    a->n_cached = same;
    return dp_session_rewind(e->session, same, err) &&
           dp_session_eval(e->session, prompt->ids + same, prompt->n - same, err);
}

bool answer_generate(answer *a, const engine *e, const token_list *prompt, uint32_t max_tokens,
                     dp_error *err) {
    const options *o = a->o;
    const dp_sampling sampling = {
        .temperature = (float)o->temperature,
        .top_k = (uint32_t)o->top_k,
        .top_p = (float)o->top_p,
        .min_p = (float)o->min_p,
        .repeat_penalty = (float)o->repeat_penalty,
        .presence_penalty = (float)o->presence_penalty,
        .frequency_penalty = (float)o->frequency_penalty,
        .seed = a->seed,
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
    a->model = e->model;
    buf_reset(&a->text);
    buf_reset(&a->ids);
    buf_reset(&a->logprobs);
    const double start = now_seconds();
    if (!evaluate_prompt(a, e, prompt, err) ||
        !dp_session_set_sampling(e->session, &sampling, err)) {
        return false;
    }
    a->prompt_seconds = now_seconds() - start;
    dp_device_get_stats(e->device, &a->before);
    a->result = (dp_generate_result){ .finish = DP_FINISH_LENGTH }; /* no room for any token */
    if (max_tokens > 0 && !dp_generate(e->session, &how, &a->result, err)) return false;
    dp_logprob best;
    if (max_tokens == 0 && !dp_session_get_logprobs(e->session, &best, 1, err)) return false;
    /* the prompt is evaluated when its first results are there */
    if (max_tokens == 0) a->prompt_seconds = now_seconds() - start;
    a->prompt_seconds += a->result.first_seconds;
    a->result.seconds -= a->result.first_seconds;
    dp_device_get_stats(e->device, &a->after);
    if (a->err.status == DP_OK) return true;
    if (err != NULL) *err = a->err; /* a failed write ended the generation */
    return false;
}

/* ---- output -------------------------------------------------------------------------------- */

static const char *const finish_names[] = {
    [DP_FINISH_STOP] = "stop",
    [DP_FINISH_LENGTH] = "length",
    [DP_FINISH_CANCELLED] = "cancelled",
};

static double per_second(uint64_t n, double seconds) {
    return seconds > 0 ? (double)n / seconds : 0;
}

/* Tokens behind the first one, whose time is the prompt's. */
static uint64_t n_later(const answer *a) {
    return a->result.n_tokens > 0 ? a->result.n_tokens - 1 : 0;
}

int answer_print_json(const answer *a, const engine *e, const token_list *prompt) {
    const size_t n_new = prompt->n - a->n_cached;
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
    json_text(&b, "finish_reason", str_of(finish_names[a->result.finish]));
    json_count_of(&b, "seed", a->seed);
    json_key(&b, "timings");
    buf_printf(&b, "{");
    json_real(&b, "load_ms", 1e3 * e->load_seconds);
    json_count_of(&b, "prompt_n", prompt->n);
    json_count_of(&b, "cached_n", a->n_cached);
    json_real(&b, "prompt_ms", 1e3 * a->prompt_seconds);
    json_real(&b, "prompt_per_second", per_second(n_new, a->prompt_seconds));
    json_real(&b, "first_ms", 1e3 * a->prompt_seconds);
    json_count_of(&b, "predicted_n", a->result.n_tokens);
    json_real(&b, "predicted_ms", 1e3 * a->result.seconds);
    json_real(&b, "predicted_per_second", per_second(n_later(a), a->result.seconds));
    json_count_of(&b, "submits", a->after.submits - a->before.submits);
    json_count_of(&b, "dispatches", a->after.dispatches - a->before.dispatches);
    json_count_of(&b, "bytes_read", a->after.bytes_read - a->before.bytes_read);
    json_count_of(&b, "device_bytes_peak", a->after.device_bytes_peak);
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

void answer_print_end(const answer *a, const token_list *prompt, uint32_t context) {
    if (a->result.finish == DP_FINISH_LENGTH && prompt->n + a->result.n_tokens >= context) {
        fprintf(stderr, "doppler: the context of %" PRIu32 " tokens ended this answer\n", context);
    }
}

void answer_print_summary(const answer *a, const engine *e, const token_list *prompt) {
    const size_t n_new = prompt->n - a->n_cached;
    fprintf(stderr, "\nprompt %zu token%s in %.1f ms, %.1f/s; ", n_new, plural(n_new),
            1e3 * a->prompt_seconds, per_second(n_new, a->prompt_seconds));
    fprintf(stderr, "answer %" PRIu32 " token%s in %.1f ms, %.1f/s; ", a->result.n_tokens,
            plural(a->result.n_tokens), 1e3 * a->result.seconds,
            per_second(n_later(a), a->result.seconds));
    fprintf(stderr, "first after %.1f ms; loaded in %.1f ms, %s on the device\n",
            1e3 * a->prompt_seconds, 1e3 * e->load_seconds,
            show_bytes(a->after.device_bytes_peak).text);
}
