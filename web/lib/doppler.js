// @ts-check
/**
 * Language models on the visitor's GPU: what a page imports.
 *
 *     import { load } from 'doppler-web';
 *     const model = await load('https://example.com/tale-8m/', { onProgress: console.log });
 *     for await (const { text } of model.generate('Once upon a time')) print(text);
 *     await model.close();
 *
 * Here are only the objects that a page holds; all work is done behind a Link, in a worker that is
 * started for each model. Nothing here waits for the GPU. Contracts stand in doppler.d.ts.
 */
import { ArgumentError } from './errors.js';
import { Link } from './link.js';
import { makeChat } from './openai.js';
import { checkArgs, isName, VERSION } from './protocol.js';

export {
    ArgumentError, CancelledError, DeviceError, DeviceLostError, DopplerError, FileError,
    FormatError, InternalError, LimitError, MemoryError, NetworkError, UnsupportedError,
    WorkerError,
} from './errors.js';
export { ApiError } from './openai.js';
export { VERSION as version };

/** @typedef {Object<string, any>} Data */

/** @param {string} text as the page means it: relative to the page, not to the worker */
function absolute(text) {
    const base = globalThis.document?.baseURI ?? globalThis.location?.href;
    return base === undefined ? text : new URL(text, base).href;
}

/** @param {any} source */
function resolveSource(source) {
    if (source instanceof URL) return source.href;
    if (typeof FileList === 'function' && source instanceof FileList) return Array.from(source);
    if (typeof source !== 'string' || isName(source) || source.startsWith('cache:')) return source;
    try {
        return absolute(source);
    } catch (error) {
        throw new ArgumentError(`source: ${JSON.stringify(source.slice(0, 200))} is no URL`,
            { cause: error });
    }
}

/**
 * What pages alone may ask.
 * @returns {Promise<string>} a note if the browser does not promise it
 */
async function askToKeep() {
    const { storage } = /** @type {any} */ (globalThis.navigator ?? {});
    const kept = await storage?.persist?.().catch(() => false);
    return kept ? '' : 'the browser does not promise to keep the model: it may clear it for room';
}

/**
 * @param {any} source @param {Data} [options]
 * @returns {Promise<Model>}
 */
export async function load(source, options = {}) {
    const { onProgress, onLog, onDevice, signal, worker, gpu, wasm, persist, ...rest } = options;
    const args = {
        source: resolveSource(source),
        options: wasm === undefined ? rest : { ...rest, wasm: absolute(String(wasm)) },
    };
    checkArgs('load', args); // before a worker is started for nothing
    /** @type {Model|null} */
    let model = null;
    const link = await Link.open({
        worker, gpu, onLog,
        onDevice: (info, recoveries) => {
            model?.replaceDevice(info, recoveries);
            onDevice?.(info, recoveries);
        },
    });
    try {
        const asked = persist ? askToKeep() : Promise.resolve('');
        const loaded = await link.call('load', args, { signal, onProgress });
        asked.then((note) => note && loaded.notes.push(note)); // some visitors never answer
        model = new Model(link, loaded);
        return model;
    } catch (error) {
        await link.close();
        throw error;
    }
}

/**
 * An answer that is being written: iterate it for its pieces, await it for the whole.
 * @implements {PromiseLike<any>}
 */
class Generation {
    #control = new AbortController();
    /** @type {Data[]} */
    #pieces = [];
    /** @type {(() => void)[]} */
    #waiting = [];
    #over = false;
    /** @type {Promise<Data>} */
    #result;

    /**
     * @param {(signal: AbortSignal, onPiece: (piece: Data) => void) => Promise<Data>} start
     * @param {AbortSignal} [signal]
     */
    constructor(start, signal) {
        const stop = () => this.#control.abort(signal?.reason);
        if (signal?.aborted) stop();
        signal?.addEventListener('abort', stop, { once: true });
        this.#result = start(this.#control.signal, (piece) => {
            this.#pieces.push(piece);
            this.#wake();
        }).finally(() => {
            this.#over = true;
            signal?.removeEventListener('abort', stop);
            this.#wake();
        });
        this.#result.catch(() => {}); // whoever iterates or awaits hears of it
    }

    #wake() {
        for (const wake of this.#waiting.splice(0)) wake();
    }

    /** Stops it within one submit; it ends with what it has, `finish` is 'cancelled'. */
    cancel() {
        this.#control.abort();
    }

    async *[Symbol.asyncIterator]() {
        let whole = false;
        try {
            for (let i = 0; ; i++) {
                while (i >= this.#pieces.length && !this.#over) {
                    await new Promise((resolve) => this.#waiting.push(() => resolve(undefined)));
                }
                if (i >= this.#pieces.length) break;
                yield this.#pieces[i];
            }
            whole = true;
            return await this.#result;
        } finally {
            if (!whole) this.cancel(); // the loop was left: nobody wants the rest
        }
    }

    /**
     * @template A, B
     * @param {((value: any) => A|PromiseLike<A>)|null} [onDone]
     * @param {((error: any) => B|PromiseLike<B>)|null} [onError]
     */
    then(onDone, onError) {
        return this.#result.then(onDone, onError);
    }

    /** @param {(error: any) => any} onError */
    catch(onError) {
        return this.#result.catch(onError);
    }

    /** @param {() => void} onEnd */
    finally(onEnd) {
        return this.#result.finally(onEnd);
    }
}

/**
 * @param {Link} link @param {number|undefined} session @param {any} prompt @param {Data} options
 */
function generate(link, session, prompt, { signal, ...options }) {
    return new Generation((stop, onPiece) =>
        link.call('generate', { session, prompt, options }, { signal: stop, onPiece }), signal);
}

/** What the store keeps. @param {(method: string, args?: Data) => Promise<any>} call */
function makeCache(call) {
    return {
        list: () => call('cacheList'),
        remove: (/** @type {string} */ name) => call('cacheRemove', { name }),
        purge: () => call('cachePurge'),
        estimate: () => call('cacheEstimate'),
    };
}

/** The cache without a model: a worker is started for each call. */
export const cache = makeCache(async (method, args = {}) => {
    const link = await Link.open({});
    try {
        return await link.call(method, args);
    } finally {
        await link.close();
    }
});

/** A model on the GPU. */
export class Model {
    #link;
    #info;
    #deviceInfo;
    #notes;
    #recoveries = 0;

    /** @param {Link} link @param {Data} loaded */
    constructor(link, { info, deviceInfo, notes }) {
        this.#link = link;
        this.#info = info;
        this.#deviceInfo = deviceInfo;
        this.#notes = notes;
        this.chat = makeChat(this);
        this.cache = makeCache((method, args = {}) => link.call(method, args));
    }

    get info() {
        return this.#info;
    }

    get deviceInfo() {
        return this.#deviceInfo;
    }

    get notes() {
        return this.#notes;
    }

    get recoveries() {
        return this.#recoveries;
    }

    /** @param {Data} info @param {number} recoveries */
    replaceDevice(info, recoveries) {
        this.#deviceInfo = info;
        this.#recoveries = recoveries;
    }

    /** @param {any} prompt @param {Data} [options] */
    generate(prompt, options = {}) {
        return generate(this.#link, undefined, prompt, options);
    }

    /** @param {string} text @param {Data} [options] */
    tokenize(text, { signal, ...options } = {}) {
        return this.#link.call('tokenize', { text, ...options }, { signal });
    }

    /** @param {any} tokens @param {Data} [options] */
    detokenize(tokens, { signal, ...options } = {}) {
        return this.#link.call('detokenize', { tokens, ...options }, { signal });
    }

    /** @param {any[]} messages @param {Data} [options] */
    template(messages, { signal, ...options } = {}) {
        return this.#link.call('template', { messages, options }, { signal });
    }

    /** @param {any[]} messages @param {Data} [options] */
    chatTokens(messages, { signal, ...options } = {}) {
        return this.#link.call('chatTokens', { messages, options }, { signal });
    }

    /** @param {any} prompt @param {Data} [options] */
    logits(prompt, { signal } = {}) {
        return this.#link.call('logits', { prompt }, { signal });
    }

    stats() {
        return this.#link.call('stats', {});
    }

    /** @param {Data} [options] */
    async newSession({ signal } = {}) {
        return new Session(this.#link, await this.#link.call('newSession', {}, { signal }));
    }

    loseDevice() {
        return this.#link.call('loseDevice', {});
    }

    close() {
        return this.#link.close();
    }
}

/** A conversation or a text that grows: keeps what the GPU has computed of it. */
export class Session {
    #link;
    #id;
    /** @type {Promise<void>|null} */
    #closing = null;

    /** @param {Link} link @param {number} id */
    constructor(link, id) {
        this.#link = link;
        this.#id = id;
    }

    /** @param {any} [prompt] @param {Data} [options] */
    generate(prompt = null, options = {}) {
        return generate(this.#link, this.#id, prompt, options);
    }

    /** @param {any} prompt @param {Data} [options] */
    append(prompt, { signal } = {}) {
        return this.#link.call('evaluate', { session: this.#id, prompt }, { signal });
    }

    /** @param {any} [prompt] @param {Data} [options] */
    logits(prompt = null, { signal } = {}) {
        return this.#link.call('logits', { session: this.#id, prompt }, { signal });
    }

    tokens() {
        return this.#link.call('sessionTokens', { session: this.#id });
    }

    /** @param {number} n */
    rewind(n) {
        return this.#link.call('rewind', { session: this.#id, n });
    }

    close() {
        this.#closing ??= this.#end();
        return this.#closing;
    }

    async #end() {
        const isGone = () => this.#link.failure || this.#link.closing; // with its model
        if (isGone()) return;
        try {
            await this.#link.call('closeSession', { session: this.#id });
        } catch (error) {
            if (!isGone()) throw error;
        }
    }
}
