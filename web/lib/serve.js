// @ts-check
/**
 * The far end of the protocol: takes what the page says, checks it, lets the host do it and answers
 * once. A message that makes no sense is answered by a sentence if it has an id, and changes
 * nothing. Also finds what this place, a worker or Node, offers for the host to stand on.
 */
import { ArgumentError, asError, CancelledError, makeError, packError, UnsupportedError }
    from './errors.js';
import { Host } from './host.js';
import { checkArgs, checkToWorker, VERSION } from './protocol.js';

/**
 * @typedef {import('./life.js').Data} Data
 * @typedef {import('./life.js').Parts} Parts
 */

// In a name of its own: bundlers take along whatever a URL is made of with it, and fail without.
const HERE = import.meta.url;

class Server {
    /** @param {any} port @param {Parts} parts */
    constructor(port, parts) {
        this.port = port;
        this.host = new Host(parts, (message) => this.send(message));
        /** @type {Map<number, {control: AbortController, done: Promise<void>}>} */
        this.running = new Map();
        this.started = false;
        this.lastId = 0;
        /** @type {() => void} */
        this.unlock = () => {};
    }

    /** @param {Data} message @param {any[]} [transfer] */
    send(message, transfer = []) {
        this.port.postMessage(message, transfer);
    }

    /** @param {any} value whatever came in */
    receive(value) {
        try {
            const message = checkToWorker(value);
            if (message.type === 'start') this.start(message);
            else if (!this.started) {
                throw new ArgumentError(`message: ${message.type} before start`);
            } else if (message.type === 'cancel') this.running.get(message.id)?.control.abort();
            else this.call(message);
        } catch (error) {
            this.refuse(value, error);
        }
    }

    /** @param {any} value @param {unknown} error */
    refuse(value, error) {
        const id = value?.id;
        if (value?.type === 'call' && Number.isSafeInteger(id) && id > 0 && !this.running.has(id)) {
            this.send({ type: 'error', id, error: packError(error) });
        } else {
            this.host.life.log('warning', `refused: ${asError(error).message}`);
        }
    }

    /** @param {Data} message */
    start({ lock }) {
        if (this.started) throw new ArgumentError('message: start a second time');
        this.started = true;
        const hello = (/** @type {boolean} */ locked) =>
            this.send({ type: 'hello', version: VERSION, locked });
        const { locks } = globalThis.navigator ?? {};
        if (!lock || !locks) return hello(false);
        // Held until this thread ends, however it ends: the page waits for it and so learns of it.
        locks.request(lock, () => {
            hello(true);
            return new Promise((resolve) => { this.unlock = () => resolve(undefined); });
        }).catch(() => hello(false));
    }

    /** @param {Data} message */
    call({ id, method, args }) {
        if (id <= this.lastId) {
            throw new ArgumentError(`message.id: is ${id}, expected over ${this.lastId}`);
        }
        checkArgs(method, args);
        this.lastId = id;
        const control = new AbortController();
        const done = this.answer(id, method, args, control.signal);
        this.running.set(id, { control, done });
    }

    /** @param {number} id @param {string} method @param {Data} args @param {AbortSignal} signal */
    async answer(id, method, args, signal) {
        await null; // `running` has it before it can end
        const call = {
            signal,
            piece: (/** @type {Data} */ value) => this.send({ type: 'piece', id, value }),
            progress: (/** @type {Data} */ value) => this.send({ type: 'progress', id, value }),
        };
        try {
            const value = method === 'close' ? await this.close(id) :
                await /** @type {any} */ (this.host)[method](call, args);
            const transfer = value instanceof Float32Array ? [value.buffer] : [];
            this.running.delete(id);
            this.send({ type: 'result', id, value }, transfer);
        } catch (error) {
            this.running.delete(id);
            this.send({ type: 'error', id, error: packError(error) });
        }
    }

    /** @param {number} id of the call that closes */
    async close(id) {
        const others = [...this.running].filter(([other]) => other !== id).map(([, each]) => each);
        for (const { control } of others) control.abort(new CancelledError('the model was closed'));
        await this.host.close(Promise.all(others.map(({ done }) => done)));
        this.unlock();
    }
}

/**
 * Serves the protocol on a port: a worker's global scope, or one end of a pair.
 * @param {any} port @param {Parts} parts
 */
export function serve(port, parts) {
    const server = new Server(port, parts);
    port.addEventListener('message', (/** @type {any} */ { data }) => server.receive(data));
    port.start?.();
}

const { process } = /** @type {any} */ (globalThis);
const isNode = Boolean(process?.versions?.node);

const WASM_MS = 120_000; // a megabyte that takes longer does not come

/** @param {string|undefined} url @param {number} limitMs @returns {Promise<WebAssembly.Module>} */
async function compileWasm(url, limitMs) {
    // In so many words, by which bundlers know what to take along.
    const from = url === undefined ? new URL('../doppler.wasm', import.meta.url)
        : new URL(await nodePath(url));
    if (from.protocol === 'file:') return compileFile(from);
    const signal = AbortSignal.timeout(limitMs);
    const late = `did not come within ${limitMs / 1000} s`;
    const response = await fetch(from, { signal }).catch((cause) => {
        const why = signal.aborted ? late : cause.message;
        throw makeError('network', `${from.href}: ${why}`, { cause });
    });
    if (!response.ok) {
        throw makeError('network', `${from.href}: the server answered ${response.status}, ` +
            'expected 200');
    }
    const type = response.headers.get('content-type') ?? '';
    if (/^text\/html\b/i.test(type)) { // by servers of single-page sites, for what they do not have
        throw makeError('network', `${from.href}: the server sent a page in place of ` +
            'doppler.wasm: the option wasm of load() says where it is');
    }
    try {
        // Servers that do not know the type are common, and streaming insists on it.
        return await (type.startsWith('application/wasm') ? WebAssembly.compileStreaming(response)
            : WebAssembly.compile(await response.arrayBuffer()));
    } catch (cause) {
        const { message } = /** @type {Error} */ (cause);
        if (cause instanceof WebAssembly.CompileError) {
            throw makeError('unsupported', `${from.href}: this browser does not compile it: ` +
                message, { cause });
        }
        const why = signal.aborted ? late : `the connection broke: ${message}`;
        throw makeError('network', `${from.href}: ${why}`, { cause });
    }
}

/** @param {URL} from @returns {Promise<WebAssembly.Module>} */
async function compileFile(from) {
    const { readFile } = await import(/* webpackIgnore: true */ 'node:fs/promises');
    const bytes = await readFile(from).catch((/** @type {Error} */ error) => {
        throw makeError('file', `${from.href}: ${error.message}`, { cause: error });
    });
    return WebAssembly.compile(bytes);
}

/** @type {any} of npm `webgpu`: it works as long as somebody holds it */
let nodeGpu = null;

/** The browser's GPU, or in Node the one of npm `webgpu`. */
async function findGpu() {
    const { gpu } = /** @type {any} */ (globalThis.navigator ?? {});
    if (gpu || !isNode) return gpu;
    nodeGpu ??= await openNodeGpu();
    return nodeGpu;
}

async function openNodeGpu() {
    const name = 'webgpu'; // not a literal: bundlers would look for it
    const binding = await import(/* webpackIgnore: true */ /* @vite-ignore */ name)
        .catch((error) => {
            throw new UnsupportedError('Node has no WebGPU of its own: npm install webgpu, or ' +
                'give load() one as gpu', { cause: error });
        });
    Object.assign(globalThis, binding.globals);
    return binding.create([]);
}

/**
 * What this place offers.
 * @param {{Engine: any, openSource: any, openCache: any, selfTest: any}} modules
 * @param {{gpu?: any, wasmMs?: number}} [given]
 * @returns {Parts}
 */
export function standardParts({ Engine, openSource, openCache, selfTest },
    { gpu, wasmMs = WASM_MS } = {}) {
    return {
        Engine,
        openCache,
        selfTest,
        openSource: async (source, options) => openSource(await nodePath(source), options),
        wasm: (url) => compileWasm(url, wasmMs),
        gpu: async () => gpu ?? findGpu(),
        modelUrl: (name) => new URL(`../models/${name}/`, HERE).href,
    };
}

/** In Node, what is no URL is a path. @param {any} source */
async function nodePath(source) {
    if (!isNode || typeof source !== 'string' || /^[a-z][a-z0-9+.-]+:/i.test(source)) return source;
    const { pathToFileURL } = await import(/* webpackIgnore: true */ 'node:url');
    return pathToFileURL(source).href;
}
