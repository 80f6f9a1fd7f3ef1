// @ts-check
/**
 * The near end of the protocol: starts the worker, makes calls of it, and notices when it ends.
 *
 * Invariant: every call is answered. If the worker does not start, is ended from outside or says
 * what the protocol does not know, all calls reject with one sentence, and so do later ones.
 */
import { asError, cancelled, CancelledError, unpackError, WorkerError } from './errors.js';
import { checkArgs, checkPiece, checkResult, checkToPage, VERSION } from './protocol.js';

const CLOSE_MS = 3000; // for the worker to free the GPU's memory, which its end would do later

/**
 * @typedef {Object<string, any>} Data
 * @typedef {{postMessage(value: any, transfer?: any[]): void,
 *     addEventListener(type: string, listener: (event: any) => void): void,
 *     terminate?(): void, start?(): void}} Port
 * @typedef {{method: string, resolve: (value: any) => void, reject: (error: unknown) => void,
 *     onPiece?: (value: any) => void, onProgress?: (value: any) => void}} Pending
 * @typedef {{worker?: any, gpu?: any, onLog?: (level: string, line: string) => void,
 *     onDevice?: (info: Data, recoveries: number) => void}} LinkOptions
 */

export class Link {
    /**
     * @param {Port} port @param {boolean} own whether it ends with the link
     * @param {LinkOptions} options
     */
    constructor(port, own, options) {
        this.port = port;
        this.own = own;
        this.options = options;
        this.lastId = 0;
        /** @type {Map<number, Pending>} */
        this.pending = new Map();
        /** @type {Error|null} why nothing can be asked any more */
        this.failure = null;
        this.over = new AbortController();
        /** @type {Promise<void>|null} */
        this.closing = null;
        this.met = false; // the worker has started
        port.addEventListener('message', (event) => this.receive(event.data));
        port.addEventListener('error', (event) => this.fail(startError(event)));
        port.addEventListener('messageerror', () =>
            this.fail(new WorkerError('the worker sent a message that could not be read')));
        port.start?.();
        this.lock = lockName();
        this.send({ type: 'start', version: VERSION, ...(this.lock && { lock: this.lock }) });
    }

    /**
     * Starts a worker, or what serves instead. Calls may be made at once.
     * @param {LinkOptions} options @returns {Promise<Link>}
     */
    static async open(options) {
        const { worker } = options;
        if (worker && typeof worker.postMessage === 'function') {
            return new Link(worker, false, options);
        }
        const hasWorkers = typeof globalThis.Worker === 'function';
        if (worker === false || (worker === undefined && !hasWorkers)) {
            return new Link(await serveHere(options), false, options);
        }
        try {
            return new Link(startWorker(worker), true, options);
        } catch (error) {
            throw new WorkerError(`the worker could not be started: ${asError(error).message}`,
                { cause: error });
        }
    }

    /** @param {Data} message @param {any[]} [transfer] */
    send(message, transfer = []) {
        this.port.postMessage(message, transfer);
    }

    /**
     * Calls a method of the protocol. An aborted signal is told to the worker, whose answer counts,
     * if it has started; one that has not hears of it when it does.
     * @param {string} method @param {Data} args
     * @param {{signal?: AbortSignal, onPiece?: (value: any) => void,
     *     onProgress?: (value: any) => void}} [options]
     * @returns {Promise<any>}
     */
    async call(method, args, { signal, onPiece, onProgress } = {}) {
        if (this.failure) throw this.failure;
        checkArgs(method, args);
        const id = ++this.lastId;
        const cancel = () => {
            this.send({ type: 'cancel', id });
            if (this.met) return;
            this.pending.get(id)?.reject(cancelled(/** @type {AbortSignal} */ (signal)));
        };
        try {
            return await new Promise((resolve, reject) => {
                this.pending.set(id, { method, resolve, reject, onPiece, onProgress });
                try {
                    this.send({ type: 'call', id, method, args });
                } catch (error) { // not to be cloned: a function among the messages, say
                    throw asError(error, 'argument');
                }
                if (signal?.aborted) cancel();
                signal?.addEventListener('abort', cancel, { once: true });
            });
        } finally {
            this.pending.delete(id);
            signal?.removeEventListener('abort', cancel);
        }
    }

    /** @param {any} value whatever the worker said */
    receive(value) {
        if (this.failure) return;
        try {
            const message = checkToPage(value);
            if (message.type === 'hello') this.meet(message);
            else if (message.type === 'log') this.tell('onLog', message.level, message.line);
            else if (message.type === 'device') {
                this.tell('onDevice', message.info, message.recoveries);
            } else this.answer(message);
        } catch (error) {
            this.fail(new WorkerError('the worker sent what it should not: ' +
                asError(error).message, { cause: error }));
        }
    }

    /** @param {Data} message */
    meet({ version, locked }) {
        if (version !== VERSION) {
            this.fail(new WorkerError(`the worker is of version ${version}, the page of ` +
                `${VERSION}: reload the page`));
            return;
        }
        this.met = true;
        if (!locked) return;
        const { signal } = this.over;
        const ended = () => this.fail(new WorkerError('the worker was ended from outside, by the ' +
            'browser or for want of memory'));
        navigator.locks.request(this.lock, { signal }, ended).catch(() => {});
    }

    /**
     * @param {'onLog'|'onDevice'} name @param {...any} args
     */
    tell(name, ...args) {
        tellSafely(this.options[name], ...args);
    }

    /** @param {Data} message */
    answer({ type, id, value, error }) {
        const call = this.pending.get(id);
        if (!call) return; // of a call that is over for the page
        if (type === 'piece') {
            const piece = checkPiece(call.method, value);
            call.onPiece?.(piece);
        } else if (type === 'progress') tellSafely(call.onProgress, value);
        else if (type === 'result') call.resolve(checkResult(call.method, value));
        else call.reject(unpackError(error));
    }

    /** Ends everything with an error. @param {Error} error */
    fail(error) {
        if (this.failure) return;
        this.failure = error;
        this.over.abort();
        for (const { reject } of [...this.pending.values()]) reject(error);
        this.pending.clear();
        if (this.own) this.port.terminate?.();
    }

    /** Frees what the worker holds, and ends it. Fine after a failure and a second time. */
    close() {
        this.closing ??= this.end();
        return this.closing;
    }

    async end() {
        this.over.abort(); // its end is no surprise any more
        if (!this.failure) {
            const closed = this.call('close', {}).catch(() => {});
            if (this.met) await unlessLate(closed, CLOSE_MS);
        }
        this.fail(new CancelledError('the model was closed'));
    }
}

/** @param {Promise<any>} promise @param {number} ms */
async function unlessLate(promise, ms) {
    /** @type {any} */
    let timer;
    const late = new Promise((resolve) => { timer = setTimeout(resolve, ms); });
    await Promise.race([promise, late]);
    clearTimeout(timer);
}

/**
 * A listener's own mistake is its own: reported as uncaught, without ending the link.
 * @param {((...args: any[]) => void)|undefined} listener @param {...any} args
 */
function tellSafely(listener, ...args) {
    try {
        listener?.(...args);
    } catch (error) {
        if (typeof globalThis.reportError === 'function') globalThis.reportError(error);
        else setTimeout(() => { throw error; });
    }
}

/** A name that nobody else has, or '' without Web Locks. */
function lockName() {
    const { locks } = /** @type {any} */ (globalThis.navigator ?? {});
    if (!locks) return '';
    const random = globalThis.crypto.getRandomValues(new Uint32Array(4));
    return `doppler-worker-${Array.from(random, (each) => each.toString(36)).join('-')}`;
}

/** @param {any} event of a worker */
function startError(event) {
    const { message, filename, lineno } = event;
    const where = filename ? ` (${filename}:${lineno})` : '';
    const why = message ? `${message}${where}` : 'its script or a module of it could not be loaded';
    return new WorkerError(`the worker failed: ${why}`);
}

/** @param {any} [given] a URL instead of the package's own */
function startWorker(given) {
    const { location } = globalThis;
    // A bundler makes a file's URL of it, or would take worker.js along once more, but for the name.
    const here = import.meta.url;
    const url = given === undefined ? new URL('./worker.js', here)
        : new URL(given, globalThis.document?.baseURI ?? location?.href);
    if (location && /^https?:$/.test(url.protocol) && url.origin !== location.origin) {
        // A script of another origin cannot be a worker, but a worker may import it.
        const text = `import ${JSON.stringify(url.href)};`;
        const blob = URL.createObjectURL(new Blob([text], { type: 'text/javascript' }));
        return new Worker(blob, { type: 'module', name: 'doppler' });
    }
    if (given !== undefined) return new Worker(given, { type: 'module', name: 'doppler' });
    return new Worker(new URL('./worker.js', import.meta.url), { type: 'module' });
}

/** The same beside the caller, where there are no workers. @param {LinkOptions} options */
async function serveHere({ gpu }) {
    const [{ Engine }, { openCache, openSource }, { selfTest }, { serve, standardParts }] =
        await Promise.all([
            import('./engine.js'), import('./store.js'), import('./selftest.js'),
            import('./serve.js'),
        ]);
    const [near, far] = makePair();
    serve(far, standardParts({ Engine, openSource, openCache, selfTest }, { gpu }));
    return near;
}

/**
 * Two connected ports in one thread. Messages arrive in a later task, and are not copied.
 * @returns {[Port, Port]}
 */
export function makePair() {
    /** @param {() => EventTarget} other @returns {any} */
    const end = (other) => Object.assign(new EventTarget(), {
        postMessage(/** @type {any} */ data) {
            const event = Object.assign(new Event('message'), { data });
            queueMicrotask(() => other().dispatchEvent(event));
        },
    });
    /** @type {any} */
    const near = end(() => far);
    /** @type {any} */
    const far = end(() => near);
    return [near, far];
}
