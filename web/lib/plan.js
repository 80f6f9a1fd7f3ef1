// @ts-check
/**
 * plan: where a model comes from, and which files it consists of.
 *
 * An origin answers for one folder: a server's (HttpOrigin) or one of picked files (BlobOrigin). It
 * reads small files whole, says sizes, and opens ranges. makePlan asks it what the native pull
 * asks: manifest.json is a pack, config.json a safetensors model, and a GGUF file is named, with
 * all parts of a split one. The plan lists names, sizes and hashes; it has no bytes of weights.
 *
 * Servers differ, so nothing that one says is taken for granted: an answer is the range that was
 * asked for, the whole file, or refused with a sentence. What a server does not show to pages of
 * another site (Content-Range, ETag) is not missed where its length says the same. No header is
 * sent that would cost a question before the request (CORS): a plain Range is allowed without.
 */

import {
    ArgumentError, cancelled, FileError, FormatError, isAbort, LimitError, NetworkError,
    throwIfAborted, UnsupportedError,
} from './errors.js';
import { blobError, isPlainName, MODEL_FOLDER, plainName } from './files.js';

/** Bytes that are asked for, checked and recorded together, unless hashes cover other pieces. */
export const PIECE_BYTES = 4 * 1024 * 1024;

export const HASH_BYTES = 32;
const MIB = 1024 * 1024;
const MANIFEST_BYTES_MAX = 64 * MIB;
const JSON_BYTES_MAX = 256 * MIB;
const TEXT_BYTES_MAX = 16 * MIB;
const HASHED_BYTES_MIN = 4096;
const HASHED_BYTES_MAX = 64 * MIB; // one digest needs all its bytes at once
const SHARDS_MAX = 1 << 16;
const TEXT_FILES_MAX = 256;
const SPLIT_MAX = 4096;
const URL_CHARS_MAX = 4096;
const SCRATCH_BYTES = 256 * 1024;
const CONNECTIONS_MAX = 6;

/**
 * @typedef {object} PlanFile
 * @property {string} name plain
 * @property {number} size
 * @property {boolean} weights
 * @property {string} tag ETag or date at the source, '' if it says neither
 * @property {number} pieceBytes
 * @property {number} hashBytes bytes that one hash covers; divides pieceBytes; 0: no hashes
 * @property {Uint8Array | null} hashes SHA-256 of each, one behind the other
 * @property {Uint8Array} [bytes] the content, where planning had to read it
 *
 * @typedef {object} Plan
 * @property {'rdrr' | 'gguf' | 'safetensors'} kind
 * @property {string} name of the model, for people
 * @property {string} shown where it comes from, for messages: no user, password or query
 * @property {string} path what the engine opens
 * @property {PlanFile[]} files in the order in which they are wanted
 * @property {string[]} notes
 *
 * @typedef {{signal?: AbortSignal, fresh?: boolean, once?: boolean}} AskOptions `fresh`: past all
 *     caches; `once`: not again after a failure
 *
 * @typedef {object} Opened an answer whose bytes have not been read
 * @property {number} start of the bytes that follow in the file: as asked, or 0
 * @property {boolean} whole it is the whole file, whatever was asked for
 * @property {number | null} total bytes of the file, if that is known
 * @property {string} tag
 * @property {(target: Uint8Array) => Promise<number>} read some bytes, at least one; 0 at the end
 * @property {() => void} cancel
 *
 * @typedef {object} Origin
 * @property {string} name
 * @property {string} shown
 * @property {string} key what tells this source from others; '' for one that is never kept
 * @property {string} file the one file that was named, or ''
 * @property {boolean} remote
 * @property {number} connections at once
 * @property {(name: string, ceiling: number, options?: AskOptions) =>
 *     Promise<{bytes: Uint8Array, tag: string} | null>} readAll null: there is none
 * @property {(name: string, options?: AskOptions) =>
 *     Promise<{size: number | null, tag: string} | null>} probe
 * @property {(name: string, start: number, end: number, options?: AskOptions) =>
 *     Promise<Opened>} open
 * @property {(name: string) => Blob | null} blob
 * @property {() => string[] | null} names of the folder, if it can be listed
 */

// ---- small helpers ------------------------------------------------------------------------------

/** @param {number} bytes "1.5 GB" */
export function sizeText(bytes) {
    const units = ['bytes', 'kB', 'MB', 'GB', 'TB'];
    let i = 0, value = bytes;
    while (value >= 1000 && i < units.length - 1) value /= 1000, i++;
    return `${i === 0 ? value : value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ${units[i]}`;
}

/** @param {Uint8Array} bytes */
export function hexOf(bytes) {
    let text = '';
    for (const byte of bytes) text += byte.toString(16).padStart(2, '0');
    return text;
}

/**
 * SHA-256 of the bytes, which may be changed as soon as the call is made.
 * @param {Uint8Array} bytes
 */
export async function sha256(bytes) {
    const { subtle } = globalThis.crypto ?? {};
    if (!subtle) {
        throw new UnsupportedError('this page cannot check hashes: it has to come from https or ' +
            'from localhost');
    }
    return new Uint8Array(await subtle.digest('SHA-256', /** @type {any} */ (bytes)));
}

/**
 * 64 hexadecimal digits, "sha256:" before them or not, into `target` at `at`.
 * @param {unknown} text @param {Uint8Array} target @param {number} at
 */
function readHex(text, target, at) {
    const found = typeof text === 'string' && /^(?:sha256:)?([0-9a-fA-F]{64})$/.exec(text);
    if (!found) return false;
    for (let i = 0; i < HASH_BYTES; i++) {
        target[at + i] = parseInt(found[1].slice(2 * i, 2 * i + 2), 16);
    }
    return true;
}

/** @param {unknown} value @returns {value is number} */
function isCount(value) {
    return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

/** @param {unknown} value @returns {value is Object<string, any>} */
function isObject(value) {
    return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * @param {Uint8Array} bytes @param {string} where
 */
function parseJson(bytes, where) {
    let value;
    try {
        value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
    } catch (cause) {
        const why = cause instanceof Error ? cause.message : String(cause);
        throw new FormatError(`${where}: is no JSON: ${why.slice(0, 120)}`, { cause });
    }
    if (!isObject(value)) throw new FormatError(`${where}: is no JSON object`);
    return value;
}

/** @param {string} name "STEM-00002-of-00003.gguf" */
function splitOf(name) {
    const found = /^(.+)-(\d{5})-of-(\d{5})\.gguf$/.exec(name);
    return found && { stem: found[1], index: Number(found[2]), count: Number(found[3]) };
}

/** @param {string} name */
const isGguf = (name) => /.\.gguf$/i.test(name);

// ---- HTTP ---------------------------------------------------------------------------------------

/** A failure of one request; `again` if it may go better another time. */
export class RequestError extends NetworkError {
    /**
     * @param {string} message
     * @param {{again?: boolean, pauseMs?: number, cause?: unknown}} [how]
     */
    constructor(message, { again = false, pauseMs = 0, cause } = {}) {
        super(message, { cause });
        this.again = again;
        this.pauseMs = pauseMs;
    }
}

/** @param {unknown} error @returns {error is RequestError} */
export function mayGoBetter(error) {
    return error instanceof RequestError && error.again;
}

/**
 * How long to go on. Tries count from the last byte that arrived.
 * @typedef {object} Patience
 * @property {number} tries
 * @property {number} pauseMs before the second try; doubled for each after it, up to pauseMaxMs
 * @property {number} pauseMaxMs
 * @property {number} stallMs without a byte, after which a connection counts as broken
 */

/** @type {Patience} */
export const defaultPatience = { tries: 6, pauseMs: 500, pauseMaxMs: 30_000, stallMs: 30_000 };

/**
 * The pause before try number `n` (from 1): doubled each time, and between half of it and all of it
 * at random, so that many pages do not come back at the same moment.
 * @param {Pick<Patience, 'pauseMs' | 'pauseMaxMs'>} patience @param {number} n
 * @param {unknown} error
 */
export function pauseBefore(patience, n, error) {
    const asked = error instanceof RequestError ? error.pauseMs : 0;
    const most = Math.min(patience.pauseMs * 2 ** (n - 1), patience.pauseMaxMs);
    return Math.max(asked, most * (0.5 + 0.5 * Math.random()));
}

/**
 * @param {number} ms @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
export function sleep(ms, signal) {
    return new Promise((done, failed) => {
        if (signal?.aborted) return void failed(cancelled(signal));
        const stop = () => {
            clearTimeout(timer);
            if (signal) failed(cancelled(signal));
        };
        const timer = setTimeout(() => {
            signal?.removeEventListener('abort', stop);
            done();
        }, ms);
        signal?.addEventListener('abort', stop, { once: true });
    });
}

/**
 * Tries until it works, the tries are used up, or the failure is one that stays.
 * @template T
 * @param {Pick<Patience, 'tries' | 'pauseMs' | 'pauseMaxMs'>} patience
 * @param {AbortSignal | undefined} signal @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
async function withTries(patience, signal, work) {
    for (let n = 1;; n++) {
        throwIfAborted(signal);
        try {
            return await work();
        } catch (error) {
            if (!mayGoBetter(error) || n >= patience.tries) throw error;
            await sleep(pauseBefore(patience, n, error), signal);
        }
    }
}

/** Reads a response's body into memory of ours, and gives up on a line that brings nothing. */
class Body {
    #response;
    #stop;
    #shown;
    #stallMs;
    #signal;
    /** @type {ReadableStreamDefaultReader<Uint8Array> | ReadableStreamBYOBReader | null} */
    #reader = null;
    #byob = false;
    #scratch = new ArrayBuffer(0);
    /** @type {Uint8Array} */
    #left = new Uint8Array(0);

    /**
     * @param {Response} response @param {() => void} stop ends the request
     * @param {string} shown @param {number} stallMs @param {AbortSignal} [signal]
     */
    constructor(response, stop, shown, stallMs, signal) {
        this.#response = response;
        this.#stop = stop;
        this.#shown = shown;
        this.#stallMs = stallMs;
        this.#signal = signal;
    }

    /**
     * Some bytes; 0 at the end. Bytes that arrived before a failure have been given out by then.
     * @param {Uint8Array} target
     */
    async read(target) {
        if (this.#left.length === 0) this.#left = await this.#next(target.length);
        const n = Math.min(target.length, this.#left.length);
        target.set(this.#left.subarray(0, n));
        this.#left = this.#left.subarray(n);
        return n;
    }

    cancel() {
        this.#left = new Uint8Array(0);
        this.#stop();
        this.#reader?.cancel().catch(() => {});
    }

    /**
     * Does not rely on the stream to end with the request: what comes through a service worker
     * need not.
     * @param {number} most
     */
    async #next(most) {
        const signal = this.#signal;
        /** @type {any} */
        let timer = 0, onAbort = () => {}, isLate = false;
        const broken = new Promise((_, failed) => {
            timer = setTimeout(() => {
                isLate = true;
                failed(new Error('late'));
            }, this.#stallMs);
            onAbort = () => failed(new Error('aborted'));
            signal?.addEventListener('abort', onAbort, { once: true });
            if (signal?.aborted) onAbort();
        });
        try {
            const answer = this.#ask(most);
            answer.catch(() => {});
            const { done, value } = await Promise.race([answer, broken]);
            return done || !value ? new Uint8Array(0) : value;
        } catch (cause) {
            this.cancel();
            if (signal?.aborted) throw cancelled(signal);
            const why = isLate ? `brought nothing for ${this.#stallMs / 1000} s`
                : 'the connection broke';
            throw new RequestError(`${this.#shown}: ${why}`, { again: true, cause });
        } finally {
            clearTimeout(timer);
            signal?.removeEventListener('abort', onAbort);
        }
    }

    /**
     * One read of the stream, into the scratch buffer where the browser can.
     * @param {number} most
     */
    async #ask(most) {
        if (!this.#reader) {
            const { body } = this.#response;
            if (!body) return { done: true, value: undefined };
            try {
                this.#reader = body.getReader({ mode: 'byob' });
                this.#byob = true;
            } catch {
                this.#reader = body.getReader();
            }
        }
        if (!this.#byob) {
            const reader = /** @type {ReadableStreamDefaultReader<Uint8Array>} */ (this.#reader);
            for (;;) {
                const answer = await reader.read();
                if (answer.done || answer.value.length > 0) return answer;
            }
        }
        const reader = /** @type {ReadableStreamBYOBReader} */ (this.#reader);
        const buffer = this.#scratch.byteLength > 0 ? this.#scratch
            : new ArrayBuffer(SCRATCH_BYTES);
        const view = new Uint8Array(buffer, 0, Math.min(most, SCRATCH_BYTES));
        const answer = await reader.read(view);
        if (answer.value) this.#scratch = /** @type {ArrayBuffer} */ (answer.value.buffer);
        return answer;
    }
}

/** @param {string | null} text "bytes 0-9/100", "bytes *\/100" */
function parseContentRange(text) {
    const found = text && /^bytes (?:(\d+)-(\d+)|\*)\/(\d+|\*)$/.exec(text.trim());
    if (!found) return null;
    return {
        start: found[1] === undefined ? null : Number(found[1]),
        end: found[2] === undefined ? null : Number(found[2]) + 1,
        total: found[3] === '*' ? null : Number(found[3]),
    };
}

/**
 * ETag, else date. What compression and proxies do to a tag is taken off again.
 * @param {Headers} headers
 */
function tagOf(headers) {
    const tag = headers.get('etag')?.replace(/^W\//, '').replace(/-(?:gzip|br|zstd)"$/, '"');
    return (tag || headers.get('last-modified') || '').slice(0, 200);
}

/** @param {Headers} headers */
function lengthOf(headers) {
    const text = headers.get('content-length');
    const isPlain = (headers.get('content-encoding') ?? 'identity') === 'identity';
    return isPlain && text && /^\d{1,15}$/.test(text) ? Number(text) : null;
}

/** @param {Headers} headers */
function retryAfterMs(headers) {
    const seconds = Number(headers.get('retry-after') ?? NaN);
    return seconds > 0 ? Math.min(seconds, 60) * 1000 : 0;
}

/** Files whose URL stands for their folder's. */
const entryNames = [
    'manifest.json', 'config.json', 'model.safetensors', 'model.safetensors.index.json',
];

/** A folder on a server. */
export class HttpOrigin {
    remote = true;
    connections = CONNECTIONS_MAX;
    #base;
    #query;
    #fetch;
    #patience;
    #active = 0;
    /** @type {(() => void)[]} */
    #queue = [];

    /**
     * @param {URL} url of a folder, a manifest.json or a .gguf file
     * @param {typeof fetch} fetch @param {Patience} patience
     */
    constructor(url, fetch, patience) {
        if (url.href.length > URL_CHARS_MAX) {
            throw new ArgumentError(`a URL of ${url.href.length} characters, the limit is ` +
                `${URL_CHARS_MAX}`);
        }
        this.#fetch = fetch;
        this.#patience = patience;
        this.#query = url.search;
        const parts = url.pathname.split('/');
        const last = unescapePart(parts[parts.length - 1]);
        this.file = '';
        if (isGguf(last)) {
            this.file = plainName(last, 'the URL');
            parts.pop();
        } else if (last === '' || entryNames.includes(last)) {
            parts.pop();
        }
        this.#base = `${url.protocol}//${url.host}${parts.join('/')}/`;
        this.shown = this.#base;
        this.key = this.shown + this.file;
        this.name = suggestName(this.file, parts);
    }

    names() {
        return null;
    }

    blob() {
        return null;
    }

    /** @param {string} name */
    #show(name) {
        return this.shown + name;
    }

    /**
     * The whole file in memory. null if there is none; a page in its place counts as none, which
     * is what servers of single-page sites send for anything.
     * @param {string} name @param {number} ceiling @param {AskOptions} [options]
     */
    readAll(name, ceiling, { signal, fresh = false } = {}) {
        return withTries(this.#patience, signal, async () => {
            const cache = fresh ? 'reload' : 'no-cache';
            const got = await this.#ask(name, { signal, cache });
            if (!got) return null;
            const { response, body, free } = got;
            try {
                const said = lengthOf(response.headers);
                if (said !== null && said > ceiling) {
                    throw new LimitError(`${this.#show(name)}: ${said} bytes, the limit is ` +
                        `${ceiling}`);
                }
                const bytes = await readToEnd(body, said, ceiling, this.#show(name));
                return { bytes, tag: tagOf(response.headers) };
            } finally {
                free();
            }
        });
    }

    /**
     * Size and tag, by asking for the first byte: the answer also shows whether ranges work.
     * @param {string} name @param {AskOptions} [options]
     */
    probe(name, { signal, once = false } = {}) {
        const patience = once ? { ...this.#patience, tries: 1 } : this.#patience;
        return withTries(patience, signal, async () => {
            const got = await this.#ask(name, { signal, range: 'bytes=0-0', cache: 'no-store' });
            if (!got) return null;
            const { response: { status, headers }, free } = got;
            free();
            const tag = tagOf(headers);
            const range = parseContentRange(headers.get('content-range'));
            if (status === 416) return { size: range?.total ?? 0, tag };
            const size = status === 206 ? range?.total ?? null : lengthOf(headers);
            return { size: size ?? await this.#headSize(name, signal), tag };
        });
    }

    /**
     * By HEAD, for servers that do not show Content-Range to other sites.
     * @param {string} name @param {AbortSignal} [signal]
     */
    async #headSize(name, signal) {
        const got = await this.#ask(name, { signal, method: 'HEAD', cache: 'no-store' })
            .catch((error) => {
                if (isAbort(error)) throw error;
                return null;
            });
        got?.free();
        return got ? lengthOf(got.response.headers) : null;
    }

    /**
     * The bytes [start, end). A server without ranges sends all from 0 on: see `start`.
     * @param {string} name @param {number} start @param {number} end @param {AskOptions} [options]
     * @returns {Promise<Opened>}
     */
    async open(name, start, end, { signal, fresh = false } = {}) {
        const range = `bytes=${start}-${end - 1}`, shown = this.#show(name);
        const got = await this.#ask(name, { signal, range, cache: fresh ? 'reload' : 'no-store' });
        if (!got) throw new RequestError(`${shown}: is not there any more`);
        const { response: { status, headers }, body, free } = got;
        const said = parseContentRange(headers.get('content-range'));
        const tag = tagOf(headers);
        try {
            if (status === 416) {
                throw new RequestError(`${shown}: ends before byte ${start}` +
                    (said?.total ? `, it has ${said.total} bytes` : ''));
            }
            if (status !== 206) {
                return { start: 0, whole: true, total: lengthOf(headers), tag, ...bodyOf() };
            }
            // Not shown to other sites unless the server allows it; then the length has to do.
            if (!said) return this.#unseenRange(headers, shown, start, end, tag, bodyOf());
            if (said.start !== start || said.end !== end) {
                throw new RequestError(`${shown}: asked for the bytes ${start} to ${end - 1}, ` +
                    `the answer says "${headers.get('content-range')}"`);
            }
            return { start, whole: false, total: said.total, tag, ...bodyOf() };
        } catch (error) {
            free();
            throw error;
        }

        function bodyOf() {
            return { read: (/** @type {Uint8Array} */ target) => body.read(target), cancel: free };
        }
    }

    /**
     * @param {Headers} headers @param {string} shown @param {number} start @param {number} end
     * @param {string} tag @param {Pick<Opened, 'read' | 'cancel'>} body
     * @returns {Opened}
     */
    #unseenRange(headers, shown, start, end, tag, body) {
        const length = lengthOf(headers);
        if (headers.get('content-range') !== null || (length !== null && length !== end - start)) {
            throw new RequestError(`${shown}: asked for the ${end - start} bytes from ${start} ` +
                `on, the answer has ${length ?? 'no'} bytes and no range that can be read`);
        }
        return { start, whole: false, total: null, tag, ...body };
    }

    /**
     * One request. null: there is no such file. `free` ends it and must be called.
     * @param {string} name
     * @param {{signal?: AbortSignal, range?: string, method?: string, cache: RequestCache}} how
     */
    async #ask(name, { signal, range, method = 'GET', cache }) {
        const shown = this.#show(name);
        const url = this.#base + escapePart(name) + this.#query;
        await this.#enter(signal);
        const controller = new AbortController();
        const stop = () => controller.abort();
        signal?.addEventListener('abort', stop, { once: true });
        let isFree = false;
        const free = () => {
            if (isFree) return;
            isFree = true;
            signal?.removeEventListener('abort', stop);
            body?.cancel();
            this.#leave();
        };
        const timer = setTimeout(stop, this.#patience.stallMs);
        /** @type {Body | null} */
        let body = null;
        try {
            const response = await this.#fetch(url, {
                method, cache, headers: range ? { Range: range } : {}, signal: controller.signal,
            });
            body = new Body(response, stop, shown, this.#patience.stallMs, signal);
            if (judge(response, name, shown)) return { response, body, free };
            free();
            return null;
        } catch (cause) {
            free();
            if (signal?.aborted) throw cancelled(signal);
            if (cause instanceof NetworkError) throw cause;
            const why = isAbort(cause) ? `no answer in ${this.#patience.stallMs / 1000} s`
                : 'cannot be reached: no network, no such server, or it does not allow this page ' +
                    'to read it (CORS)';
            throw new RequestError(`${shown}: ${why}`, { again: true, cause });
        } finally {
            clearTimeout(timer);
        }
    }

    /** @param {AbortSignal} [signal] */
    async #enter(signal) {
        while (this.#active >= this.connections) {
            await new Promise((done) => this.#queue.push(() => done(undefined)));
        }
        throwIfAborted(signal);
        this.#active++;
    }

    #leave() {
        this.#active--;
        this.#queue.shift()?.();
    }
}

/**
 * False: there is no such file. Throws for what is no answer.
 * @param {Response} response @param {string} name @param {string} shown
 */
function judge(response, name, shown) {
    const { status, headers } = response;
    if (status === 404 || status === 410) return false;
    if (status === 416) return true;
    if (status !== 200 && status !== 206) {
        const again = status === 408 || status === 425 || status === 429 || status >= 500;
        throw new RequestError(`${shown}: the server answers ${status} ${response.statusText}`
            .trimEnd(), { again, pauseMs: retryAfterMs(headers) });
    }
    const isPage = /^text\/html\b/i.test(headers.get('content-type') ?? '');
    return !(isPage && status === 200 && !/\.html?$/i.test(name));
}

/**
 * @param {Body} body @param {number | null} said @param {number} ceiling @param {string} shown
 */
async function readToEnd(body, said, ceiling, shown) {
    let bytes = new Uint8Array(Math.min(said ?? 64 * 1024, ceiling)), n = 0;
    for (;;) {
        if (n === bytes.length) {
            const one = new Uint8Array(1);
            if (await body.read(one) === 0) return bytes;
            if (n === ceiling) throw new LimitError(`${shown}: more than ${ceiling} bytes`);
            const more = new Uint8Array(Math.min(Math.max(n * 2, 64 * 1024), ceiling));
            more.set(bytes);
            more[n++] = one[0];
            bytes = more;
            continue;
        }
        const got = await body.read(bytes.subarray(n));
        if (got === 0) break;
        n += got;
    }
    if (said !== null && n < said) {
        throw new RequestError(`${shown}: ended after ${n} of ${said} bytes`, { again: true });
    }
    return bytes.slice(0, n);
}

/** @param {string} part */
function unescapePart(part) {
    try {
        return decodeURIComponent(part);
    } catch {
        return '';
    }
}

/**
 * Every character that is not unreserved, so that no name can change the path.
 * @param {string} s
 */
function escapePart(s) {
    return encodeURIComponent(s).replace(/[!'()*]/g,
        (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
}

/**
 * A file without ".gguf" and its number, else the folder; of ".../NAME/resolve/REVISION", which is
 * how the Hugging Face hub serves files, NAME.
 * @param {string} file @param {string[]} parts
 */
function suggestName(file, parts) {
    if (file) return splitOf(file)?.stem ?? file.replace(/\.gguf$/i, '');
    const hub = parts.indexOf('resolve');
    const named = (hub > 0 ? parts.slice(0, hub) : parts).filter((part) => part !== '');
    return unescapePart(named[named.length - 1] ?? '') || 'model';
}

// ---- picked files -------------------------------------------------------------------------------

/** A folder of files that the user picked. Nothing of it is kept: it is on this machine already. */
export class BlobOrigin {
    remote = false;
    connections = 2;
    key = '';
    #files;

    /**
     * @param {Map<string, Blob>} files @param {string} name @param {string} [file]
     */
    constructor(files, name, file = '') {
        this.#files = files;
        this.name = name;
        this.shown = name;
        this.file = file;
    }

    names() {
        return [...this.#files.keys()].sort();
    }

    /** @param {string} name */
    blob(name) {
        return this.#files.get(name) ?? null;
    }

    /** @param {string} name @param {number} ceiling */
    async readAll(name, ceiling) {
        const blob = this.#files.get(name);
        if (!blob) return null;
        if (blob.size > ceiling) {
            throw new LimitError(`${name}: ${blob.size} bytes, the limit is ${ceiling}`);
        }
        return { bytes: await bytesOf(blob, name), tag: '' };
    }

    /** @param {string} name */
    async probe(name) {
        const blob = this.#files.get(name);
        return blob ? { size: blob.size, tag: '' } : null;
    }

    /**
     * @param {string} name @param {number} start @param {number} end
     * @returns {Promise<Opened>}
     */
    async open(name, start, end) {
        const blob = this.#files.get(name);
        if (!blob) throw new FileError(`${name}: is not among the files`);
        let at = start;
        return {
            start, whole: false, total: blob.size, tag: '', cancel() {},
            async read(target) {
                const stop = Math.min(end, at + target.length);
                if (stop <= at) return 0;
                const bytes = await bytesOf(blob.slice(at, stop), name);
                target.set(bytes);
                at += bytes.length;
                return bytes.length;
            },
        };
    }
}

/** @param {Blob} blob @param {string} name */
async function bytesOf(blob, name) {
    try {
        return new Uint8Array(await blob.arrayBuffer());
    } catch (cause) {
        throw blobError(name, cause);
    }
}

/**
 * What a list of files is: one GGUF file, a split one, or the files of one folder. Of a folder that
 * was picked whole, the files directly in it.
 * @param {File[]} list
 */
function originOfFiles(list) {
    if (list.length === 0) throw new ArgumentError('no file was picked');
    const files = new Map();
    let folder = '';
    for (const file of list) {
        const parts = (file.webkitRelativePath ?? '').split('/');
        if (parts.length > 2) continue;
        if (parts.length === 2) folder = parts[0];
        if (isPlainName(file.name)) files.set(file.name, file);
    }
    const names = [...files.keys()];
    if (names.length === 1 && isGguf(names[0])) {
        return new BlobOrigin(files, suggestName(names[0], []), names[0]);
    }
    return new BlobOrigin(files, folder || 'the picked files');
}

/** @param {any} handle a FileSystemDirectoryHandle */
async function originOfFolder(handle) {
    const files = new Map();
    for await (const entry of handle.values()) {
        if (entry.kind !== 'file' || !isPlainName(entry.name)) continue;
        if (files.size >= SHARDS_MAX + TEXT_FILES_MAX) {
            throw new LimitError(`${handle.name}: more than ${files.size} files`);
        }
        files.set(entry.name, await entry.getFile());
    }
    return new BlobOrigin(files, handle.name || 'the picked folder');
}

/** @param {any} list a FileList, or an array of files or handles of files */
async function filesOf(list) {
    const files = [];
    for (const item of list) {
        const file = typeof item?.getFile === 'function' ? await item.getFile() : item;
        if (!(file instanceof Blob) || !('name' in file)) {
            throw new ArgumentError('a list of files holds something that is no file');
        }
        files.push(/** @type {File} */ (file));
    }
    return files;
}

/**
 * From what a caller names as the source to its origin.
 * @param {any} source a URL or its text, a File, files, a FileList, or a handle of file or folder
 * @param {{fetch?: typeof fetch, base?: string, patience?: Patience}} [options] `base`: what
 *     relative URLs are relative to
 * @returns {Promise<Origin>}
 */
export async function originOf(source, options = {}) {
    const { patience = defaultPatience } = options;
    const ask = options.fetch ?? globalThis.fetch.bind(globalThis);
    const base = options.base ?? globalThis.location?.href;
    if (typeof source === 'string' || source instanceof URL) {
        return new HttpOrigin(urlOf(source, base), ask, patience);
    }
    if (source instanceof Blob) return originOfFiles(await filesOf([source]));
    if (source?.kind === 'directory') return originOfFolder(source);
    if (source?.kind === 'file') return originOfFiles([await source.getFile()]);
    if (typeof source?.[Symbol.iterator] === 'function') {
        return originOfFiles(await filesOf(source));
    }
    throw new ArgumentError('a source is a URL, a File, a list of files, or a handle of a file ' +
        'or a folder');
}

/** @param {string | URL} source @param {string} [base] */
function urlOf(source, base) {
    const text = String(source);
    let url;
    try {
        url = new URL(text, base);
    } catch (cause) {
        throw new ArgumentError(`"${text.slice(0, 200)}" is no URL`, { cause });
    }
    if (url.protocol !== 'http:' && url.protocol !== 'https:') {
        throw new ArgumentError(`"${text.slice(0, 200)}": a URL of a model begins with http or ` +
            'https');
    }
    if (url.username || url.password) {
        throw new ArgumentError(`${url.protocol}//${url.host}${url.pathname}: a page cannot ` +
            'fetch from a URL with a user or a password in it');
    }
    return url;
}

// ---- plans --------------------------------------------------------------------------------------

/** Collects the files of a plan; a name is taken once. */
class Planner {
    /** @type {PlanFile[]} */
    files = [];
    /** @type {string[]} */
    notes = [];
    #names = new Set();

    /** @param {Origin} origin @param {number} pieceBytes @param {AbortSignal} [signal] */
    constructor(origin, pieceBytes, signal) {
        this.origin = origin;
        this.pieceBytes = pieceBytes;
        this.signal = signal;
    }

    /** @param {Partial<PlanFile> & {name: string, size: number}} file @param {string} where */
    add(file, where) {
        plainName(file.name, where);
        if (this.#names.has(file.name)) {
            throw new FormatError(`${where}: the file ${file.name} is listed twice`);
        }
        this.#names.add(file.name);
        this.files.push({
            weights: false, tag: '', pieceBytes: this.pieceBytes, hashBytes: 0, hashes: null,
            ...file,
        });
    }

    /** @param {string} name */
    has(name) {
        return this.#names.has(name);
    }

    /**
     * Reads a small file whole and adds it. null: there is none.
     * @param {string} name @param {number} [ceiling]
     */
    async text(name, ceiling) {
        const file = await this.#read(name, ceiling);
        if (file) this.add(file, name);
        return file?.bytes ?? null;
    }

    /** @param {string} name @param {number} [ceiling] */
    async #read(name, ceiling = /\.(json|model)$/.test(name) ? JSON_BYTES_MAX : TEXT_BYTES_MAX) {
        const got = await this.origin.readAll(name, ceiling, { signal: this.signal });
        if (!got) return null;
        const { bytes, tag } = got, pieceBytes = Math.max(bytes.length, 1);
        const hashes = bytes.length > 0 ? await sha256(bytes) : null;
        const hashBytes = hashes ? pieceBytes : 0;
        return { name, size: bytes.length, tag, pieceBytes, hashBytes, hashes, bytes };
    }

    /** @param {string[]} names of files that need not be there */
    async optional(names) {
        const known = this.origin.names();
        const asked = names.filter((name) => !this.has(name) && (!known || known.includes(name)));
        const got = await Promise.all(asked.map((name) => this.#read(name)));
        for (const file of got) if (file) this.add(file, file.name);
    }

    /**
     * Adds files whose sizes only the source knows, in this order.
     * @param {string[]} names
     */
    async weights(names) {
        const { origin, signal } = this;
        const found = await Promise.all(names.map((name) => origin.probe(name, { signal })));
        found.forEach((answer, i) => {
            const name = names[i], shown = this.origin.remote ? this.origin.shown + name : name;
            if (!answer) throw absent(this.origin, name);
            if (answer.size === null) {
                throw new NetworkError(`${shown}: the server does not say how long it is; a page ` +
                    'of another site sees that if it sends Access-Control-Expose-Headers: ' +
                    'Content-Range, ETag');
            }
            if (answer.size === 0) throw new FormatError(`${shown}: is empty`);
            this.add({ name, size: answer.size, tag: answer.tag, weights: true }, name);
        });
    }
}

/** @param {Origin} origin @param {string} name */
function absent(origin, name) {
    return origin.remote ? new NetworkError(`${origin.shown}${name}: there is no such file`)
        : new FileError(`${name}: is not among the picked files`);
}

/** @param {Planner} p @param {string} name */
async function planGguf(p, name) {
    const split = splitOf(name);
    if (!split) {
        await p.weights([name]);
        return name;
    }
    const { stem, index, count } = split;
    if (index === 0 || index > count) {
        throw new FormatError(`${name}: is number ${index} of ${count}`);
    }
    if (count > SPLIT_MAX) {
        throw new LimitError(`${name}: ${count} parts, the limit is ${SPLIT_MAX}`);
    }
    const names = Array.from({ length: count }, (_, i) =>
        `${stem}-${String(i + 1).padStart(5, '0')}-of-${String(count).padStart(5, '0')}.gguf`);
    await p.weights(names);
    return names[0];
}

/** The GGUF model of a folder that can be listed. @param {Planner} p */
function ggufOfFolder(p) {
    const models = (p.origin.names() ?? [])
        .filter((name) => isGguf(name) && (splitOf(name)?.index ?? 1) === 1);
    if (models.length > 1) {
        throw new FileError(`${p.origin.shown}: holds ${models.length} GGUF models: pick one`);
    }
    return models[0] ?? null;
}

const safetensorsTexts = [
    'tokenizer_config.json', 'special_tokens_map.json', 'added_tokens.json',
    'generation_config.json', 'chat_template.jinja', 'chat_template.json',
];
const packTexts = [
    'tokenizer_config.json', 'special_tokens_map.json', 'generation_config.json',
    'chat_template.jinja',
];

/** @param {Planner} p */
async function planSafetensors(p) {
    const indexName = 'model.safetensors.index.json';
    if (!await p.text('tokenizer.json') && !await p.text('tokenizer.model')) {
        throw new UnsupportedError(`${p.origin.shown}: has a config.json but neither ` +
            'tokenizer.json nor tokenizer.model');
    }
    await p.optional(safetensorsTexts);
    const index = await p.text(indexName);
    if (!index) {
        await p.weights(['model.safetensors']);
        return;
    }
    const { weight_map: map } = parseJson(index, indexName);
    if (!isObject(map) || Object.keys(map).length === 0) {
        throw new FormatError(`${indexName}: weight_map is no object with entries`);
    }
    const names = [...new Set(Object.values(map))];
    for (const name of names) {
        plainName(name, `${indexName}: weight_map`);
        if (p.has(name) || name === 'config.json') {
            throw new FormatError(`${indexName}: weight_map: ${name} is no file of weights`);
        }
    }
    if (names.length > SHARDS_MAX) {
        throw new LimitError(`${indexName}: ${names.length} files, the limit is ${SHARDS_MAX}`);
    }
    await p.weights(names);
}

/** @param {unknown} name */
function algorithmOf(name) {
    const text = String(name ?? 'sha256').toLowerCase();
    if (text === 'sha256' || text === 'sha-256') return 'sha256';
    if (text === 'blake3') return 'blake3';
    throw new UnsupportedError(`manifest.json: hashAlgorithm "${text.slice(0, 40)}" is neither ` +
        'sha256 nor blake3');
}

/**
 * The hash of the whole file, if one digest may cover it.
 * @param {number} size @param {unknown} hex @param {string} where
 */
function wholeHash(size, hex, where) {
    const hashes = new Uint8Array(HASH_BYTES);
    if (!readHex(hex, hashes, 0)) {
        throw new FormatError(`manifest.json: ${where}: hash is not 64 hexadecimal digits`);
    }
    if (size === 0 || size > HASHED_BYTES_MAX) return { hashBytes: 0, hashes: null };
    return { hashBytes: size, pieceBytes: size, hashes };
}

/**
 * Hashes of the pieces of shard `i`.
 * @param {any} said pieceHashes @param {number} i @param {PlanFile} file
 * @param {number} pieceBytes
 */
function takePieceHashes(said, i, file, pieceBytes) {
    const { blockSize } = said, list = said.shards[i], where = `pieceHashes.shards[${i}]`;
    const count = Math.ceil(file.size / blockSize);
    if (!Array.isArray(list) || list.length !== count) {
        throw new FormatError(`manifest.json: ${where} has ${list?.length ?? 'no'} entries, ` +
            `${file.size} bytes have ${count} pieces`);
    }
    const hashes = new Uint8Array(count * HASH_BYTES);
    list.forEach((hex, j) => {
        if (!readHex(hex, hashes, j * HASH_BYTES)) {
            throw new FormatError(`manifest.json: ${where}: number ${j} is no SHA-256`);
        }
    });
    file.hashes = hashes;
    file.hashBytes = blockSize;
    file.pieceBytes = Math.max(1, Math.floor(pieceBytes / blockSize)) * blockSize;
}

/** @param {Planner} p @param {any} manifest */
function planShards(p, manifest) {
    const { shards, pieceHashes } = manifest;
    if (!Array.isArray(shards) || shards.length === 0) {
        throw new FormatError('manifest.json: shards is no array with entries');
    }
    if (shards.length > SHARDS_MAX) {
        throw new LimitError(`manifest.json: ${shards.length} shards, the limit is ${SHARDS_MAX}`);
    }
    const otherwise = algorithmOf(manifest.hashAlgorithm);
    const first = p.files.length;
    let sum = 0, n_blake3 = 0;
    shards.forEach((shard, i) => {
        const where = `shards[${i}]`, { size } = shard ?? {};
        if (!isCount(size) || size === 0) {
            throw new FormatError(`manifest.json: ${where}: size must be a count of at least 1`);
        }
        sum += size;
        const isSha = (shard.hashAlgorithm === undefined || shard.hashAlgorithm === null
            ? otherwise : algorithmOf(shard.hashAlgorithm)) === 'sha256';
        if (!isSha) n_blake3++;
        const hash = isSha && !pieceHashes
            ? wholeHash(size, shard.hash ?? shard.blake3, where) : {};
        p.add({ name: shard.filename ?? shard.fileName, size, weights: true, ...hash },
            `manifest.json: ${where}`);
    });
    if (!Number.isSafeInteger(sum)) {
        throw new LimitError(`manifest.json: the shards have ${sum} bytes`);
    }
    if (pieceHashes) planPieces(p, pieceHashes, first, shards.length);
    if (p.files.slice(first).some(({ hashes }) => !hashes)) {
        p.notes.push(n_blake3 > 0 && !pieceHashes
            ? 'the shards have BLAKE3 hashes, which are not compared in the browser'
            : `the manifest has no hashes for pieces, and one of a shard covers more than ${
                sizeText(HASHED_BYTES_MAX)}: not every shard is compared`);
    }
}

/** @param {Planner} p @param {any} said @param {number} first @param {number} count */
function planPieces(p, said, first, count) {
    const { blockSize, shards } = said;
    if (!isCount(blockSize) || blockSize < HASHED_BYTES_MIN) {
        throw new FormatError(`manifest.json: pieceHashes.blockSize must be at least ${
            HASHED_BYTES_MIN} bytes`);
    }
    if (!Array.isArray(shards) || shards.length !== count) {
        throw new FormatError(`manifest.json: pieceHashes.shards has ${shards?.length ?? 'no'} ` +
            `lists for ${count} shards`);
    }
    if (blockSize > HASHED_BYTES_MAX) {
        p.notes.push(`the manifest's hashes cover pieces of ${sizeText(blockSize)}, the limit is ${
            sizeText(HASHED_BYTES_MAX)}: they are not compared`);
        return;
    }
    for (let i = 0; i < count; i++) takePieceHashes(said, i, p.files[first + i], p.pieceBytes);
}

/** @param {Planner} p @param {any} manifest */
async function planPackTexts(p, manifest) {
    const { files, tensorsFile, tokenizer } = manifest;
    const named = [tensorsFile, tokenizer?.file, tokenizer?.sentencepieceModel]
        .filter((name) => name !== undefined && name !== null);
    if (Array.isArray(files)) {
        if (files.length > TEXT_FILES_MAX) {
            throw new LimitError(`manifest.json: ${files.length} files beside the shards, the ` +
                `limit is ${TEXT_FILES_MAX}`);
        }
        files.forEach((file, i) => {
            const where = `files[${i}]`, { name, size, hash } = file ?? {};
            if (!isCount(size) || size > JSON_BYTES_MAX) {
                throw new FormatError(`manifest.json: ${where}: size is no count of bytes up to ` +
                    `${JSON_BYTES_MAX}`);
            }
            p.add({ name, size, ...wholeHash(size, hash, where) }, `manifest.json: ${where}`);
        });
    }
    for (const name of new Set(named)) {
        plainName(name, 'manifest.json: tokenizer or tensorsFile');
        if (p.files.some((file) => file.name === name && file.weights)) {
            throw new FormatError(`manifest.json: ${name} is also a shard`);
        }
        const ceiling = name === tensorsFile ? MANIFEST_BYTES_MAX : JSON_BYTES_MAX;
        if (!p.has(name) && !await p.text(name, ceiling)) throw absent(p.origin, name);
    }
    if (files === undefined) await p.optional(packTexts);
}

/** @param {Planner} p @param {any} manifest */
async function planPack(p, manifest) {
    if (typeof manifest.schema === 'string' && manifest.schema.startsWith('doppler.pack/')) {
        throw new UnsupportedError(`manifest.json: is a "${manifest.schema.slice(0, 40)}", which ` +
            'only wraps a pack: open the manifest inside it');
    }
    planShards(p, manifest);
    await planPackTexts(p, manifest);
}

/** What a manifest is called if it says so. @param {any} manifest @param {string} otherwise */
function packName(manifest, otherwise) {
    const { modelId } = manifest;
    return isPlainName(modelId) ? modelId : otherwise;
}

/**
 * Which files the model consists of. Small ones that have to be read for this are in the plan with
 * their bytes.
 * @param {Origin} origin
 * @param {{signal?: AbortSignal, pieceBytes?: number}} [options] `pieceBytes`: smaller, for tests
 * @returns {Promise<Plan>}
 */
export async function makePlan(origin, { signal, pieceBytes = PIECE_BYTES } = {}) {
    const p = new Planner(origin, pieceBytes, signal);
    const { shown } = origin;
    const known = origin.names();
    /** @param {Plan['kind']} kind @param {string} path @param {string} name */
    const made = (kind, path, name) => (
        { kind, name, shown, path, files: inOrder(p), notes: p.notes });
    if (origin.file) {
        const first = await planGguf(p, origin.file);
        return made('gguf', `${MODEL_FOLDER}/${first}`, origin.name);
    }
    if (!known || known.includes('manifest.json')) {
        const got = await origin.readAll('manifest.json', MANIFEST_BYTES_MAX, { signal });
        const manifest = got && parseManifest(got.bytes, origin);
        // Web pages have files of that name, too.
        if (got && manifest) {
            const hashes = await sha256(got.bytes), size = got.bytes.length;
            p.add({ name: 'manifest.json', size, ...got, hashes, pieceBytes: size,
                hashBytes: size }, shown);
            await planPack(p, manifest);
            return made('rdrr', MODEL_FOLDER, packName(manifest, origin.name));
        }
    }
    if (await p.text('config.json')) {
        await planSafetensors(p);
        return made('safetensors', MODEL_FOLDER, origin.name);
    }
    const gguf = ggufOfFolder(p);
    if (gguf) {
        const first = await planGguf(p, gguf);
        return made('gguf', `${MODEL_FOLDER}/${first}`, suggestName(first, []));
    }
    const hint = known ? ' nor a .gguf file' : '; a GGUF model is loaded by the URL of its file';
    const message = `${shown}: has neither manifest.json nor config.json${hint}`;
    throw origin.remote ? new NetworkError(message) : new FileError(message);
}

/**
 * null: something else of that name.
 * @param {Uint8Array} bytes @param {Origin} origin
 */
function parseManifest(bytes, origin) {
    const manifest = parseJson(bytes, `${origin.shown}${origin.remote ? '' : ': '}manifest.json`);
    return manifest.shards !== undefined || manifest.tensors !== undefined ? manifest : null;
}

/** Texts first: the model is opened with them. @param {Planner} p */
function inOrder({ files }) {
    return [...files.filter((f) => !f.weights), ...files.filter((f) => f.weights)];
}
