/* generate_internal: a generation, as generate.c and scheduler.c share it. */
#ifndef MODEL_GENERATE_INTERNAL_H
#define MODEL_GENERATE_INTERNAL_H

#include "model/model.h"

enum { STOPS_MAX = 16, STOP_BYTES_MAX = 256 };

struct dp_generation {
    dp_session *s;
    dp_generate_options o; /* `stop` is not read after the start */
    str stop[STOPS_MAX];
    char stop_bytes[STOPS_MAX][STOP_BYTES_MAX];
    decoder decoder;
    buf text;      /* decoded and not given out yet */
    uint32_t room; /* tokens that may still be asked for */
    uint32_t n_tokens;
    uint32_t over_tokens, over_draws; /* made behind a stop string: to be taken back */
    bool stopped, cancelled, ended;
    bool telling_again; /* what dp_generate_options.n_answered counts */
    dp_error failure;
    double start, first_seconds, seconds;
    /* of the scheduler */
    dp_scheduler *of; /* NULL: none, or freed */
    dp_generation *next;
    bool member; /* of the chain under way */
};

/* Ready to run, or, with room 0, to end. The session is not looked at for logits. */
bool generation_init(dp_generation *g, dp_session *s, const dp_generate_options *options,
                     dp_error *err) CHECK_RESULT;
/* Gives out the beginning of the answer that the session holds. */
bool generation_tell_again(dp_generation *g, dp_error *err) CHECK_RESULT;
/* Takes the tokens of a submit in and gives their text out; the last of them is a stop token if
 * `ended`. After a stop string `stopped` is set and the session has to forget what came behind it:
 * generation_settle does that, when nothing of the session is under way. It also makes the logits
 * if there are none. */
bool generation_take(dp_generation *g, const dp_token *tokens, uint32_t n, bool ended,
                     dp_error *err) CHECK_RESULT;
bool generation_settle(dp_generation *g, dp_error *err) CHECK_RESULT;
/* How many tokens a submit makes that would make `asked`, 0: as many as keep the text flowing;
 * behind one of `last`, 0: the first. A step takes so many seconds (0: not known) and a submit by
 * itself. */
uint32_t steps_of_submit(double step, double submit, uint32_t asked, uint32_t last);
/* Gives out what was held back, unless it failed. Once. */
void generation_end(dp_generation *g);

#endif
