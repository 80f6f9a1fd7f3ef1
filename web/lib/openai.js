// @ts-check
/**
 * The shape of OpenAI's chat completions over a model: requests and answers have its fields, errors
 * its form. What would change the answer and cannot be done is refused by name; what concerns their
 * service alone (`user`, `store`, ...) is accepted and does nothing.
 */
import { asError } from './errors.js';
import { VERSION } from './protocol.js';

/** @typedef {Object<string, any>} Data */

const CHOICES_MAX = 128;
const STOPS_MAX = 16;
const STOP_BYTES_MAX = 256;
const LOGPROBS_MAX = 20;

/** Fields that do nothing here. */
const IGNORED = new Set(['model', 'user', 'metadata', 'store', 'service_tier', 'safety_identifier',
    'prompt_cache_key', 'prompt_cache_retention', 'parallel_tool_calls']);

/** Statuses as a server would say them. */
const httpStatuses = /** @type {Object<string, [number, string, string|null]>} */ ({
    argument: [400, 'invalid_request_error', null],
    format: [400, 'invalid_request_error', null],
    unsupported: [400, 'invalid_request_error', 'unsupported'],
    limit: [400, 'invalid_request_error', 'context_length_exceeded'],
    memory: [503, 'server_error', 'out_of_memory'],
    device: [503, 'server_error', 'device_unavailable'],
    file: [500, 'server_error', null],
    network: [502, 'server_error', null],
    internal: [500, 'server_error', 'internal_error'],
});

/** A failure in OpenAI's form: `status` is HTTP's, `error` the body that a server would send. */
export class ApiError extends Error {
    /**
     * @param {number} status @param {string} message
     * @param {{type?: string, param?: string|null, code?: string|null, cause?: unknown}} [more]
     */
    constructor(status, message, { type, param = null, code = null, cause } = {}) {
        super(message, cause === undefined ? undefined : { cause });
        this.name = 'ApiError';
        this.status = status;
        this.type = type ?? 'invalid_request_error';
        this.param = param;
        this.code = code;
        this.error = { message, type: this.type, param, code };
    }
}

/** @param {unknown} thrown @returns {Error} */
function asApiError(thrown) {
    if (thrown instanceof ApiError) return thrown;
    const error = asError(thrown);
    if (error.status === 'cancelled') return error;
    const [status, type, code] = httpStatuses[error.status] ?? [500, 'server_error', null];
    return new ApiError(status, error.message, { type, code, cause: error });
}

/** @param {string} param @param {string} message @param {string} [code] @returns {never} */
function refuse(param, message, code) {
    throw new ApiError(400, `${param}: ${message}`, { param, code });
}

/** @param {unknown} value @returns {value is Data} */
function isObject(value) {
    return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** @param {string} param @param {any} value @param {number} min @param {number} max */
function numberIn(param, value, min, max) {
    if (typeof value !== 'number' || !(value >= min && value <= max)) {
        refuse(param, `is ${JSON.stringify(value)}, expected a number from ${min} to ${max}`);
    }
    return value;
}

/** @param {string} param @param {any} value @param {number} min @param {number} max */
function wholeIn(param, value, min, max) {
    if (!Number.isInteger(numberIn(param, value, min, max))) {
        refuse(param, `is ${value}, expected a whole number`);
    }
    return value;
}

/** Content may be a list of parts; only text is read. @param {any} content @param {string} param */
function flatContent(content, param) {
    if (!Array.isArray(content)) return content;
    return content.map((part, i) => {
        if (part?.type !== 'text' || typeof part.text !== 'string') {
            const type = JSON.stringify(part?.type);
            refuse(`${param}[${i}]`, `is of type ${type}, only "text" is read`, 'unsupported');
        }
        return part.text;
    }).join('');
}

/**
 * Calls that an earlier answer made. Their arguments come as JSON in a text; templates, which write
 * them out as JSON, want the object.
 * @param {any} calls @param {string} param @returns {Data[]}
 */
function readToolCalls(calls, param) {
    if (!Array.isArray(calls)) refuse(param, 'expected an array of calls');
    return calls.map((/** @type {any} */ call, /** @type {number} */ i) => {
        const place = `${param}[${i}].function`;
        if (!isObject(call?.function) || typeof call.function.name !== 'string') {
            refuse(place, 'expected an object with a name');
        }
        const { arguments: said } = call.function;
        if (typeof said !== 'string') return call;
        let parsed;
        try {
            parsed = JSON.parse(said || '{}'); // no arguments are often said by no text
        } catch {
            // Refused below.
        }
        if (!isObject(parsed)) refuse(`${place}.arguments`, 'expected the text of a JSON object');
        return { ...call, function: { ...call.function, arguments: parsed } };
    });
}

/** @param {any} messages @returns {Data[]} */
function readMessages(messages) {
    if (!Array.isArray(messages) || messages.length === 0) {
        refuse('messages', 'expected an array of at least 1 message');
    }
    return messages.map((each, i) => {
        const param = `messages[${i}]`;
        if (!isObject(each) || typeof each.role !== 'string') {
            refuse(param, 'expected an object with a role');
        }
        const content = flatContent(each.content, `${param}.content`);
        if (content !== undefined && content !== null && typeof content !== 'string') {
            refuse(`${param}.content`, 'expected a text or an array of parts');
        }
        const role = each.role === 'developer' ? 'system' : each.role; // the newer name
        /** @type {Data} */
        const message = { ...each, role };
        if (content !== undefined) message.content = content;
        if (each.tool_calls === null) delete message.tool_calls;
        else if (each.tool_calls !== undefined) {
            message.tool_calls = readToolCalls(each.tool_calls, `${param}.tool_calls`);
        }
        return message;
    });
}

/** @param {any} stop @returns {string[]} */
function readStop(stop) {
    const all = typeof stop === 'string' ? [stop] : stop;
    if (!Array.isArray(all) || all.some((each) => typeof each !== 'string' || each === '')) {
        refuse('stop', 'expected a text or an array of texts, none of them empty');
    }
    if (all.length > STOPS_MAX) refuse('stop', `has ${all.length} texts, at most ${STOPS_MAX} go`);
    for (const each of all) {
        const { length } = new TextEncoder().encode(each);
        if (length > STOP_BYTES_MAX || each.includes('\0')) {
            refuse('stop', `a text has ${length} bytes, expected 1 to ${STOP_BYTES_MAX}, none 0`);
        }
    }
    return all;
}

/**
 * Each field of a request: what of the options of generate() it sets. `how` also holds what
 * concerns the answer's form.
 * @type {Object<string, (value: any, how: Data) => void>}
 */
const fields = {
    messages: (value, how) => { how.messages = readMessages(value); },
    stream: (value, how) => { how.stream = readFlag('stream', value); },
    stream_options: (value, how) => {
        if (!isObject(value)) refuse('stream_options', 'expected an object');
        how.includeUsage = readFlag('stream_options.include_usage', value.include_usage ?? false);
    },
    n: (value, how) => { how.n = wholeIn('n', value, 1, CHOICES_MAX); },
    max_tokens: (value, how) => {
        how.options.maxTokens ??= wholeIn('max_tokens', value, 1, 2 ** 22);
    },
    max_completion_tokens: (value, how) => {
        how.options.maxTokens = wholeIn('max_completion_tokens', value, 1, 2 ** 22);
    },
    temperature: (value, how) => {
        how.options.temperature = numberIn('temperature', value, 0, 2);
    },
    top_p: (value, how) => { how.options.topP = numberIn('top_p', value, 0, 1); },
    top_k: (value, how) => { how.options.topK = wholeIn('top_k', Math.max(value, 0), 0, 2 ** 24); },
    min_p: (value, how) => { how.options.minP = numberIn('min_p', value, 0, 1); },
    repetition_penalty: (value, how) => {
        how.options.repeatPenalty = numberIn('repetition_penalty', value, 0.01, 100);
    },
    presence_penalty: (value, how) => {
        how.options.presencePenalty = numberIn('presence_penalty', value, -2, 2);
    },
    frequency_penalty: (value, how) => {
        how.options.frequencyPenalty = numberIn('frequency_penalty', value, -2, 2);
    },
    seed: (value, how) => {
        how.options.seed = wholeIn('seed', value, 0, Number.MAX_SAFE_INTEGER - CHOICES_MAX);
    },
    stop: (value, how) => { how.options.stop = readStop(value); },
    logprobs: (value, how) => { how.logprobs = readFlag('logprobs', value); },
    top_logprobs: (value, how) => {
        how.topLogprobs = wholeIn('top_logprobs', value, 0, LOGPROBS_MAX);
    },
    tools: (value, how) => {
        if (!Array.isArray(value) || !value.every(isObject)) {
            refuse('tools', 'expected an array of objects');
        }
        how.options.tools = value;
    },
    tool_choice: (value, how) => {
        if (value !== 'auto' && value !== 'none') {
            refuse('tool_choice', `is ${JSON.stringify(value)}, only "auto" and "none" are done`,
                'unsupported');
        }
        how.noTools = value === 'none';
    },
    chat_template_kwargs: (value, how) => {
        if (!isObject(value)) refuse('chat_template_kwargs', 'expected an object');
        how.options.variables = value;
    },
    response_format: (value) => {
        const type = JSON.stringify(value?.type);
        if (type === '"text"') return;
        refuse('response_format', `is of type ${type}, only "text" is done`, 'unsupported');
    },
    logit_bias: (value) => {
        if (isObject(value) && Object.keys(value).length === 0) return;
        refuse('logit_bias', 'is not done', 'unsupported');
    },
};

/** @param {string} param @param {any} value */
function readFlag(param, value) {
    if (typeof value === 'boolean') return value;
    return refuse(param, `is ${JSON.stringify(value)}, expected true or false`);
}

/** @param {any} request @returns {Data} */
function readRequest(request) {
    if (!isObject(request)) refuse('request', 'expected an object');
    /** @type {Data} */
    const how = {
        n: 1, stream: false, includeUsage: false, logprobs: false, topLogprobs: 0, noTools: false,
        messages: null, options: {},
    };
    for (const [name, value] of Object.entries(request)) {
        if (value === null || value === undefined || IGNORED.has(name)) continue;
        if (!Object.hasOwn(fields, name)) refuse(name, 'is not done', 'unknown_parameter');
        fields[name](value, how);
    }
    if (!how.messages) refuse('messages', 'is missing');
    if (how.topLogprobs > 0 && !how.logprobs) refuse('top_logprobs', 'needs "logprobs": true');
    if (request.stream_options && !how.stream) refuse('stream_options', 'needs "stream": true');
    if (how.noTools) delete how.options.tools;
    how.options.temperature ??= 1;
    if (how.logprobs) how.options.logprobs = Math.max(how.topLogprobs, 1);
    return how;
}

/** @param {string} text @returns {number[]|null} null where the token is no whole characters */
function bytesOf(text) {
    return text.includes('\ufffd') ? null : Array.from(new TextEncoder().encode(text));
}

/** @param {Data[]|undefined} logprobs @param {Data} how */
function logprobsOf(logprobs, { logprobs: wanted, topLogprobs }) {
    if (!wanted) return null;
    const spell = (/** @type {Data} */ { text, logprob }) =>
        ({ token: text, logprob, bytes: bytesOf(text) });
    const content = (logprobs ?? []).map((each) => ({
        ...spell(each), top_logprobs: each.top.slice(0, topLogprobs).map(spell),
    }));
    return { content, refusal: null };
}

/** Prompt tokens count once, whatever the number of choices. @param {Data[]} results */
function usageOf(results) {
    const { promptTokens, cachedTokens } = results[0].usage;
    const written = results.reduce((sum, each) => sum + each.usage.completionTokens, 0);
    return {
        prompt_tokens: promptTokens,
        completion_tokens: written,
        total_tokens: promptTokens + written,
        prompt_tokens_details: { cached_tokens: cachedTokens },
    };
}

/** @param {any} model */
function headOf(model) {
    const random = globalThis.crypto.getRandomValues(new Uint32Array(4));
    const id = Array.from(random, (each) => each.toString(16).padStart(8, '0')).join('');
    return {
        id: `chatcmpl-${id}`,
        created: Math.floor(Date.now() / 1000),
        model: String(model.info?.name ?? ''),
        system_fingerprint: `doppler-${VERSION}`,
    };
}

/**
 * One generation for each choice.
 * @param {any} model @param {Data} how @param {AbortSignal} signal @returns {any[]}
 */
function startAll(model, how, signal) {
    return Array.from({ length: how.n }, (_, i) => {
        const { seed } = how.options;
        const options = seed === undefined ? how.options : { ...how.options, seed: seed + i };
        return model.generate(how.messages, { ...options, signal });
    });
}

/** @param {AbortSignal|undefined} signal a signal of our own that follows it */
function follow(signal) {
    const control = new AbortController();
    const stop = () => control.abort(signal?.reason);
    if (signal?.aborted) stop();
    signal?.addEventListener('abort', stop, { once: true });
    return { control, release: () => signal?.removeEventListener('abort', stop) };
}

/** @param {Data} result */
function refuseCancelled({ finish }) {
    if (finish === 'cancelled') throw asError(new DOMException('cancelled', 'AbortError'));
}

/** @param {any} model @param {Data} how @param {AbortSignal|undefined} signal */
async function complete(model, how, signal) {
    const head = headOf(model);
    const { control, release } = follow(signal);
    try {
        const results = await Promise.all(startAll(model, how, control.signal));
        results.forEach(refuseCancelled);
        return {
            ...head,
            object: 'chat.completion',
            choices: results.map((each, index) => ({
                index,
                message: { role: 'assistant', content: each.text, refusal: null },
                logprobs: logprobsOf(each.logprobs, how),
                finish_reason: each.finish,
            })),
            usage: usageOf(results),
        };
    } catch (error) {
        control.abort(); // one choice failed: nobody waits for the others
        throw asApiError(error);
    } finally {
        release();
    }
}

/**
 * The pieces of several generations as they come, each with its index; the last of each is its
 * result.
 * @param {any[]} all
 */
async function* merge(all) {
    const iterators = all.map((each) => each[Symbol.asyncIterator]());
    const advance = (/** @type {number} */ index) => iterators[index].next()
        .then((/** @type {any} */ { done, value }) => ({ index, done, value }));
    const next = new Map(iterators.map((_, index) => [index, advance(index)]));
    while (next.size > 0) {
        const step = await Promise.race(next.values());
        if (step.done) next.delete(step.index);
        else next.set(step.index, advance(step.index));
        yield step;
    }
}

/** @param {any} model @param {Data} how @param {AbortController} control */
async function* streamChunks(model, how, control) {
    const head = { ...headOf(model), object: 'chat.completion.chunk' };
    const chunk = (/** @type {any[]} */ choices, /** @type {any} */ usage = null) =>
        (how.includeUsage ? { ...head, choices, usage } : { ...head, choices });
    const choice = (/** @type {number} */ index, /** @type {Data} */ delta,
        /** @type {string|null} */ reason = null, /** @type {any} */ logprobs = null) =>
        ({ index, delta, logprobs, finish_reason: reason });
    /** @type {Data[]} */
    const results = [];
    try {
        const all = startAll(model, how, control.signal);
        for (let i = 0; i < how.n; i++) {
            yield chunk([choice(i, { role: 'assistant', content: '', refusal: null })]);
        }
        for await (const { index, done, value } of merge(all)) {
            if (!done) {
                if (value.text === '' && !how.logprobs) continue;
                yield chunk([choice(index, { content: value.text }, null,
                    logprobsOf(value.logprobs, how))]);
                continue;
            }
            refuseCancelled(value);
            results[index] = value;
            yield chunk([choice(index, {}, value.finish)]);
        }
        if (how.includeUsage) yield chunk([], usageOf(results));
    } catch (error) {
        throw asApiError(error);
    } finally {
        control.abort(); // of what still runs when the loop was left
    }
}

/** @param {any} model @param {Data} how @param {AbortSignal|undefined} signal */
function startStream(model, how, signal) {
    const { control, release } = follow(signal);
    const chunks = streamChunks(model, how, control);
    return {
        controller: control,
        async *[Symbol.asyncIterator]() {
            try {
                yield* chunks;
            } finally {
                release();
            }
        },
    };
}

/**
 * @param {any} model
 * @returns {{completions: {create(request: any, options?: Data): Promise<any>}}}
 */
export function makeChat(model) {
    return {
        completions: {
            async create(request, { signal } = {}) {
                const how = readRequest(request);
                if (signal?.aborted) throw asError(new DOMException('cancelled', 'AbortError'));
                return how.stream ? startStream(model, how, signal) : complete(model, how, signal);
            },
        },
    };
}
