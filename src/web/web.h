/* web: what the files of this folder share: the wasm build's calls for JavaScript. Needs base, gpu
 * and model.
 *
 * Nothing here waits. A call returns 0 or more, or -1 with the error in web_out() as JSON
 * {"status", "message"}; results that are no numbers are in web_out() too, until the next call.
 * What JavaScript hands over (texts, JSON, tokens) lies in memory of web_alloc and is only read.
 * JavaScript calls one at a time and never from within a callback. */
#ifndef WEB_WEB_H
#define WEB_WEB_H

#include "base/base.h"
#include "gpu/gpu.h"

#define EXPORT(name) __attribute__((export_name(#name))) name

typedef struct {
    buf out;
    dp_error err;
} web_answer;
extern web_answer web_shared;

/* Empties web_out() and the error. */
void web_begin(void);
/* What a call returns: 0, or -1 with the error in web_out(). */
int web_end(bool ok);
gpu *web_gpu(void);

#endif
