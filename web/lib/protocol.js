// @ts-check
/**
 * What page and worker say to each other: the one table of calls with their arguments and results,
 * and of the messages around them. Both sides check every message against it, so neither acts on
 * what the other should not have said. No DOM, no engine.
 *
 *     page -> worker  start   {version, lock}        first; `lock`: a Web Lock that the worker
 *                                                    holds as long as it lives
 *                     call    {id, method, args}     ids rise
 *                     cancel  {id}                   of a call that has not been answered
 *     worker -> page  hello   {version, locked}      answers start; whether it holds the lock
 *                     piece   {id, value}            of calls that stream
 *                     progress {id, value}           of calls that tell progress
 *                     result  {id, value}  |  error {id, error}    once for every call
 *                     device  {info, recoveries}     a lost device was replaced
 *                     log     {level, line}
 */
import { ArgumentError, statuses } from './errors.js';

/** Both sides must be of one version: a cached page and a new worker would misunderstand. */
export const VERSION = '0.1.0';

const TOKEN_MAX = 0xfffffffe; // 0xffffffff is "no token"
const TEXT_MAX = 1 << 24; // UTF-16 units of a prompt or a text
const SHORT_MAX = 4096; // of names, URLs and lines
const TOKENS_MAX = 1 << 22;
const FILES_MAX = 65536;
const MESSAGES_MAX = 16384;
const BYTES_MAX = Number.MAX_SAFE_INTEGER;

/**
 * A check throws ArgumentError, with the value's place in the message, or returns.
 * @typedef {(value: any, place: string) => void} Check
 */

/** @param {unknown} value what a sentence shows of it */
function show(value) {
    if (typeof value === 'string') {
        return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}...` : value);
    }
    if (Array.isArray(value)) return `an array of ${value.length}`;
    if (typeof value === 'object' && value !== null) return 'an object';
    if (typeof value === 'function') return 'a function';
    return String(value);
}

/**
 * @param {unknown} value @param {string} place @param {string} expected
 * @returns {never}
 */
function refuse(value, place, expected) {
    throw new ArgumentError(`${place}: is ${show(value)}, expected ${expected}`);
}

/** @type {Check} */
const flag = (value, place) => {
    if (typeof value !== 'boolean') refuse(value, place, 'true or false');
};

/** A string of UTF-16 units. @param {number} max @param {number} [min] @returns {Check} */
const text = (max, min = 0) => (value, place) => {
    if (typeof value !== 'string') refuse(value, place, 'a text');
    if (value.length > max || value.length < min) {
        const bounds = min === 0 ? `at most ${max}` : `${min} to ${max}`;
        throw new ArgumentError(`${place}: has ${value.length} characters, expected ${bounds}`);
    }
};

/** @param {number} min @param {number} max @returns {Check} */
const whole = (min, max) => (value, place) => {
    if (!Number.isInteger(value) || value < min || value > max) {
        refuse(value, place, `a whole number from ${min} to ${max}`);
    }
};

/** @param {number} min @param {number} max @returns {Check} */
const real = (min, max) => (value, place) => {
    if (typeof value !== 'number' || !(value >= min && value <= max)) {
        refuse(value, place, `a number from ${min} to ${max}`);
    }
};

/** @param {string[]} names @returns {Check} */
const oneOf = (...names) => (value, place) => {
    if (!names.includes(value)) refuse(value, place, `one of ${names.join(', ')}`);
};

/** @param {Check} check @returns {Check} */
const optional = (check) => (value, place) => {
    if (value !== undefined) check(value, place);
};

/** @param {Check} check @param {number} max @param {number} [min] @returns {Check} */
const list = (check, max, min = 0) => (value, place) => {
    if (!Array.isArray(value)) refuse(value, place, 'an array');
    if (value.length > max || value.length < min) {
        throw new ArgumentError(`${place}: has ${value.length} elements, ` +
            `expected ${min} to ${max}`);
    }
    value.forEach((each, i) => check(each, `${place}[${i}]`));
};

/** @param {unknown} value @returns {value is Object<string, any>} */
function isPlain(value) {
    return typeof value === 'object' && value !== null && !Array.isArray(value) &&
        !ArrayBuffer.isView(value);
}

/** @type {Check} an object of data, of which the receiver reads what it knows */
const plain = (value, place) => {
    if (!isPlain(value)) refuse(value, place, 'an object');
};

/** @param {Object<string, Check>} fields @returns {Check} an object with these fields alone */
const record = (fields) => (value, place) => {
    if (!isPlain(value)) refuse(value, place, 'an object');
    for (const name of Object.keys(value)) {
        if (!Object.hasOwn(fields, name) && value[name] !== undefined) {
            throw new ArgumentError(`${place}: has no option ${show(name)}, it takes ` +
                Object.keys(fields).join(', '));
        }
    }
    for (const [name, check] of Object.entries(fields)) {
        check(value[name], place === '' ? name : `${place}.${name}`);
    }
};

/** @type {Check} numbers, as an array or packed */
const tokens = (value, place) => {
    if (value instanceof Uint32Array || value instanceof Int32Array) value = Array.from(value);
    list(whole(0, TOKEN_MAX), TOKENS_MAX)(value, place);
};

/** @param {Check} check @returns {Check} data that JSON can say, and that `check` takes */
const json = (check) => (value, place) => {
    check(value, place);
    let size = 0;
    try {
        size = JSON.stringify(value).length;
    } catch (error) {
        throw new ArgumentError(`${place}: cannot be written as JSON`, { cause: error });
    }
    if (size > TEXT_MAX) {
        throw new ArgumentError(`${place}: has ${size} characters as JSON, at most ${TEXT_MAX} go`);
    }
};

/** @type {Check} */
const message = (value, place) => {
    plain(value, place);
    text(SHORT_MAX, 1)(value.role, `${place}.role`);
};

const messages = json(list(message, MESSAGES_MAX, 1));

/** @type {Check} what a generation continues: a text, tokens, a conversation, or nothing new */
const prompt = (value, place) => {
    if (value === null) return;
    if (typeof value === 'string') return text(TEXT_MAX)(value, place);
    if (isMessages(value)) return messages(value, place);
    if (Array.isArray(value) || ArrayBuffer.isView(value)) return tokens(value, place);
    refuse(value, place, 'a text, an array of messages or an array of tokens');
};

/** @param {unknown} value whether a prompt is a conversation */
export function isMessages(value) {
    return Array.isArray(value) && value.length > 0 && isPlain(value[0]);
}

/** @param {unknown} value whether a source is a model's name: no path, no ending of a model file */
export function isName(value) {
    return typeof value === 'string' && /^[A-Za-z0-9][A-Za-z0-9._@-]*$/.test(value) &&
        !/\.(gguf|json|safetensors)$/i.test(value);
}

/** @param {unknown} value a File, a Blob or a FileSystemHandle, by what is used of them */
function isFile(value) {
    return isPlain(value) && (value.kind === 'file' || value.kind === 'directory' ||
        (typeof value.size === 'number' && typeof value.slice === 'function'));
}

/** @type {Check} */
const source = (value, place) => {
    if (typeof value === 'string') return text(SHORT_MAX, 1)(value, place);
    const all = Array.isArray(value) ? value : [value];
    if (all.length === 0 || all.length > FILES_MAX || !all.every(isFile)) {
        refuse(value, place, 'a URL, a name, files or a file handle');
    }
};

const deviceOptions = record({
    noF16: optional(flag),
    noSubgroups: optional(flag),
    noInt8: optional(flag),
    maxBinding: optional(whole(0, BYTES_MAX)),
    maxMemory: optional(whole(0, BYTES_MAX)),
    fallback: optional(flag),
});

const loadOptions = record({
    device: optional(deviceOptions),
    maxMemory: optional(whole(0, BYTES_MAX)),
    context: optional(whole(0, TOKENS_MAX)),
    sessions: optional(whole(1, 256)),
    batch: optional(whole(16, 65536)),
    cache: optional(flag),
    wasm: optional(text(SHORT_MAX, 1)),
});

/** What a call of the chat template takes. */
const templateFields = {
    tools: optional(json(list(plain, 1024))),
    variables: optional(json(plain)),
    generationPrompt: optional(flag),
    chatTemplate: optional(text(1 << 20, 1)),
    now: optional(whole(0, BYTES_MAX)), // seconds since 1970 where the template asks for the date
};

const generateOptions = record({
    ...templateFields,
    maxTokens: optional(whole(0, TOKENS_MAX)),
    temperature: optional(real(0, 100)),
    topK: optional(whole(0, 1 << 24)),
    topP: optional(real(0, 1)),
    minP: optional(real(0, 1)),
    repeatPenalty: optional(real(0.01, 100)),
    presencePenalty: optional(real(-100, 100)),
    frequencyPenalty: optional(real(-100, 100)),
    seed: optional(whole(0, BYTES_MAX)),
    stop: optional(list(text(256, 1), 16)),
    logprobs: optional(whole(0, 32)),
    ignoreStops: optional(flag),
    special: optional(flag),
    addSpecial: optional(flag),
    parseSpecial: optional(flag),
});

const logprobFields = {
    token: whole(0, TOKEN_MAX), text: text(TEXT_MAX), logprob: real(-1e9, 1e9),
};
const top = list(record(logprobFields), 32);
const logprobs = optional(list(record({ ...logprobFields, top }), TOKENS_MAX));

const piece = record({ text: text(TEXT_MAX), tokens, logprobs });

const seconds = real(0, 1e9);
const count = whole(0, BYTES_MAX);

const generated = record({
    text: text(TEXT_MAX),
    tokens,
    logprobs,
    finish: oneOf('stop', 'length', 'cancelled'),
    usage: record({
        promptTokens: count, cachedTokens: count, completionTokens: count, totalTokens: count,
    }),
    timings: record({
        promptSeconds: seconds, firstSeconds: seconds, seconds,
        promptPerSecond: seconds, tokensPerSecond: seconds,
    }),
    recoveries: count,
    seed: count,
});

/** @type {Check} */
const floats = (value, place) => {
    if (!(value instanceof Float32Array)) refuse(value, place, 'packed 32-bit floats');
};

/** @type {Check} */
const nothing = (value, place) => {
    if (value !== undefined) refuse(value, place, 'nothing');
};

const session = whole(1, BYTES_MAX);

const phases = ['device', 'open', 'download', 'verify', 'upload', 'compile', 'ready'];

const progress = record({
    phase: oneOf(...phases),
    loaded: count,
    total: count,
    text: text(SHORT_MAX),
    rate: optional(real(0, BYTES_MAX)),
});

/**
 * The calls: `args` checked by the worker and before sending by the page, `result` and `piece` by
 * the page. `cold`: goes without a model.
 * @type {Object<string, {args: Check, result: Check, piece?: Check, cold?: boolean}>}
 */
export const calls = {
    load: {
        cold: true,
        args: record({ source, options: loadOptions }),
        result: record({ info: plain, deviceInfo: plain, notes: list(text(SHORT_MAX), 64) }),
    },
    generate: {
        args: record({ session: optional(session), prompt, options: generateOptions }),
        piece,
        result: generated,
    },
    tokenize: {
        args: record({
            text: text(TEXT_MAX), addSpecial: optional(flag), parseSpecial: optional(flag),
        }),
        result: tokens,
    },
    detokenize: { args: record({ tokens, special: optional(flag) }), result: text(TEXT_MAX * 4) },
    template: {
        args: record({ messages, options: record(templateFields) }),
        result: text(TEXT_MAX * 4),
    },
    chatTokens: { args: record({ messages, options: record(templateFields) }), result: tokens },
    logits: {
        args: record({ session: optional(session), prompt }),
        result: floats,
    },
    newSession: { args: record({}), result: session },
    closeSession: { args: record({ session }), result: nothing },
    sessionTokens: { args: record({ session }), result: tokens },
    evaluate: { args: record({ session, prompt }), result: count },
    rewind: { args: record({ session, n: whole(0, TOKENS_MAX) }), result: nothing },
    stats: { args: record({}), result: plain },
    loseDevice: { args: record({}), result: nothing },
    cacheList: { cold: true, args: record({}), result: list(plain, 65536) },
    cacheRemove: { cold: true, args: record({ name: text(SHORT_MAX, 1) }), result: plain },
    cachePurge: { cold: true, args: record({}), result: plain },
    cacheEstimate: { cold: true, args: record({}), result: plain },
    close: { cold: true, args: record({}), result: nothing },
};

const id = whole(1, BYTES_MAX);
const method = oneOf(...Object.keys(calls));
const anything = () => {};
const error = record({
    kind: text(64),
    status: oneOf(...statuses),
    message: text(SHORT_MAX),
    detail: optional(plain),
});

/** @type {Object<string, Object<string, Check>>} */
const toWorker = {
    start: { version: text(64), lock: optional(text(256, 1)) },
    call: { id, method, args: plain },
    cancel: { id },
};

/** @type {Object<string, Object<string, Check>>} */
const toPage = {
    hello: { version: text(64), locked: flag },
    piece: { id, value: plain },
    progress: { id, value: progress },
    result: { id, value: anything },
    error: { id, error },
    device: { info: plain, recoveries: count },
    log: { level: oneOf('warning', 'info', 'debug'), line: text(SHORT_MAX) },
};

/**
 * @param {Object<string, Object<string, Check>>} table @param {any} value
 */
function checkMessage(table, value) {
    if (!isPlain(value)) refuse(value, 'message', 'an object');
    if (typeof value.type !== 'string' || !Object.hasOwn(table, value.type)) {
        refuse(value.type, 'message.type', `one of ${Object.keys(table).join(', ')}`);
    }
    record({ type: anything, ...table[value.type] })(value, 'message');
    return value;
}

/** Checks what the page said. @param {any} value */
export function checkToWorker(value) {
    return checkMessage(toWorker, value);
}

/** Checks what the worker said. @param {any} value */
export function checkToPage(value) {
    return checkMessage(toPage, value);
}

/**
 * Checks a call's arguments. The sentence names the option, not the call.
 * @param {string} name @param {any} args
 */
export function checkArgs(name, args) {
    calls[name].args(args, '');
    return args;
}

/** @param {string} name @param {any} value */
export function checkResult(name, value) {
    calls[name].result(value, `result of ${name}`);
    return value;
}

/** @param {string} name @param {any} value */
export function checkPiece(name, value) {
    const check = calls[name].piece;
    if (!check) throw new ArgumentError(`piece of ${name}: a call that does not stream`);
    check(value, `piece of ${name}`);
    return value;
}

/** @param {any} value a progress event @returns {boolean} */
export function isPhase(value) {
    return phases.includes(value);
}
