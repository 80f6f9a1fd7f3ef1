// @ts-check
/**
 * http: a folder of a server, as the origin of a model.
 *
 * Servers differ, so nothing that one says is taken for granted: an answer is the range that was
 * asked for, the whole file, or refused with a sentence. What a server does not show to pages of
 * another site (Content-Range, ETag) is not missed where its length says the same. No header is
 * sent that would cost a question before the request (CORS): a plain Range is allowed without.
 */

import {
    ArgumentError, cancelled, isAbort, LimitError, NetworkError, throwIfAborted,
} from './errors.js';
import { plainName } from './files.js';
import { escapePart, isGguf, suggestName, unescapePart } from './names.js';
import { RequestError, withTries } from './patience.js';

/** @typedef {import('./origin.js').AskOptions} AskOptions */
/** @typedef {import('./origin.js').Opened} Opened */
/** @typedef {import('./patience.js').Patience} Patience */

const URL_CHARS_MAX = 4096;
const SCRATCH_BYTES = 256 * 1024;
const CONNECTIONS_MAX = 6;

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
export function judge(response, name, shown) {
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
