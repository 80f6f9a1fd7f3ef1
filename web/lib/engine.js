// @ts-check
/**
 * Engine: one wasm instance, one GPU device, one model. Typed calls over what src/web/web.c
 * exports; runs in a worker or in Node and knows no DOM.
 *
 * The wasm never waits. What it queues on the GPU it is asked about again when something there has
 * settled, and a file's bytes that are not here yet end a call, which is made again when they are.
 * Invariant: no call into the wasm happens from within another, and none after `close`. Whatever
 * the wasm refuses is thrown as a DopplerError with its sentence.
 */

import { ArgumentError, CancelledError, DeviceError, makeError, throwIfAborted } from './errors.js';
import { memoryFiles } from './files.js';
import { serveWasi } from './wasi.js';
import { openGpu, serveWebGpu } from './webgpu.js';

const MIB = 1024 * 1024;
/** Bytes of weights that may be under way to the GPU. */
const UNDER_WAY_MAX = 64 * MIB;
/** What the self-test lets logits be off by, in standard deviations of theirs. The engine's tests
 * hold 0.25 where activations are rounded to bytes; what a wrong kernel gives is off by more. */
const SELF_TEST_BOUND = 0.5;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Lets other tasks run, messages among them. Timers would wait for milliseconds. */
function breathe() {
    return new Promise((resolve) => {
        const channel = new MessageChannel();
        channel.port1.onmessage = () => {
            channel.port1.close();
            resolve(undefined);
        };
        channel.port2.postMessage(0);
    });
}

/**
 * @typedef {object} EngineParts
 * @property {WebAssembly.Module|ArrayBuffer|Uint8Array|Response} wasm
 * @property {any} gpu navigator.gpu, or that of a Node package
 * @property {Object<string, any>} [device] noF16, noSubgroups, noInt8, fallback, maxMemory,
 *     maxBinding
 * @property {(level: string, line: string) => void} [log]
 */

/** @param {EngineParts['wasm']} wasm @returns {Promise<WebAssembly.Module>} */
async function compile(wasm) {
    if (wasm instanceof WebAssembly.Module) return wasm;
    if (typeof Response !== 'undefined' && wasm instanceof Response) {
        return WebAssembly.compile(await wasm.arrayBuffer());
    }
    return WebAssembly.compile(/** @type {BufferSource} */ (wasm));
}

export class Engine {
    /** @param {EngineParts} parts @returns {Promise<Engine>} */
    static async open({ wasm, gpu, device = {}, log = () => {} }) {
        const [module, opened] = await Promise.all([
            compile(wasm),
            openGpu(gpu, { ...device, log: (line) => log('info', line) }),
        ]);
        const engine = new Engine(opened, log);
        try {
            await engine.#start(module, device);
        } catch (error) {
            opened.device.destroy();
            throw error;
        }
        return engine;
    }

    /** @type {any} */
    #files = memoryFiles({});
    /** @type {any} */
    #exports = null;
    /** @type {any} */
    #wasi = null;
    /** @type {Map<number, {take: (event: any) => void, fail: (error: Error) => void}>} */
    #runs = new Map();
    #stepping = false;
    #closed = false;
    /** When the newest pass of `evaluate` is done. */
    #evaluated = Promise.resolve();

    /** @param {any} opened @param {(level: string, line: string) => void} log */
    constructor(opened, log) {
        this.log = log;
        this.gpu = serveWebGpu(opened);
        this.opened = opened;
        /** Resolves with the reason when the device is lost. */
        this.lost = this.gpu.lost;
        /** @type {any} */
        this.deviceInfo = null;
        /** @type {any} */
        this.modelInfo = null;
        /** Whether generate takes `answered`: what a lost engine had answered. */
        this.resumes = true;
    }

    /** @param {WebAssembly.Module} module @param {Object<string, any>} device */
    async #start(module, device) {
        const wasi = this.#wasi = serveWasi({
            files: () => this.#files,
            log: (/** @type {string} */ line) => this.log('info', line),
        });
        const instance = await WebAssembly.instantiate(module, {
            wgpu: /** @type {any} */ (this.gpu.imports),
            wasi_snapshot_preview1: /** @type {any} */ (wasi.imports),
        }).catch((cause) => {
            if (!(cause instanceof RangeError)) throw cause;
            throw makeError('memory', `the wasm: ${cause.message}`, { cause });
        });
        this.#exports = instance.exports;
        wasi.bind(instance);
        this.gpu.bind(instance);
        this.#exports._initialize();
        const { noF16, noSubgroups, noInt8, maxMemory, maxBinding } = device;
        this.#call('web_open_device', {
            noF16, noSubgroups, noInt8, maxMemory, maxBinding, verbose: device.verbose,
        });
        this.deviceInfo = this.#describe(this.#json());
        await this.gpu.pipelines();
    }

    /** @param {any} info @returns {any} with the tier and its reasons */
    #describe(info) {
        const { info: gpu = {} } = this.opened;
        const why = [
            info.f16 ? 'half floats: the device has shader-f16'
                : 'no half floats: the device does not offer shader-f16, or they are switched off',
            info.subgroups ? `subgroups of ${info.subgroupSize} lanes, found by a probe`
                : 'no subgroups: the browser or the device does not offer them, or a probe failed',
            info.int8 ? 'activations in bytes where weights are quantised'
                : 'activations in floats',
        ];
        const tier = info.f16 ? info.subgroups ? 'f16 + subgroups' : 'f16'
            : info.subgroups ? 'f32 + subgroups' : 'f32';
        const name = [gpu.description, gpu.device, gpu.architecture, info.name]
            .find((text) => typeof text === 'string' && text !== '') ?? 'GPU';
        return { ...info, name, vendor: gpu.vendor || info.vendor, tier, why };
    }

    // --- calls into the wasm -----------------------------------------------------------------

    /** The bytes that the last call left, to be used before the next. */
    #out() {
        const at = this.#exports.web_out() >>> 0;
        return new Uint8Array(this.#exports.memory.buffer, at, this.#exports.web_out_size() >>> 0);
    }

    #json() {
        return JSON.parse(decoder.decode(this.#out()));
    }

    #tokens() {
        const bytes = this.#out().slice();
        return Array.from(new Uint32Array(bytes.buffer));
    }

    /** @returns {Error} what the last call failed with */
    #error() {
        const { status, message } = this.#json();
        return makeError(status, message);
    }

    /**
     * Calls an export. Texts and objects become a place and a size, arrays of tokens a place and a
     * count; throws what the call fails with.
     * @param {string} name @param {...any} args @returns {number}
     */
    #call(name, ...args) {
        if (this.#closed) throw new ArgumentError('the engine is closed');
        /** @type {number[]} */
        const taken = [];
        /** @type {number[]} */
        const flat = [];
        try {
            for (const arg of args) {
                if (typeof arg === 'number') flat.push(arg);
                else if (typeof arg === 'boolean') flat.push(arg ? 1 : 0);
                else flat.push(...this.#lend(arg, taken));
            }
            const result = this.#exports[name](...flat);
            if (result < 0) throw this.#error();
            return result;
        } finally {
            for (const place of taken) this.#exports.web_free(place);
        }
    }

    /** @param {any} arg @param {number[]} taken @returns {number[]} place, and size or count */
    #lend(arg, taken) {
        const tokens = Array.isArray(arg) || arg instanceof Uint32Array;
        const bytes = tokens ? new Uint8Array(Uint32Array.from(arg).buffer)
            : encoder.encode(typeof arg === 'string' ? arg : JSON.stringify(arg));
        const place = this.#exports.web_alloc(bytes.length) >>> 0;
        if (place === 0) throw makeError('memory', `${bytes.length} bytes for a message: no memory`);
        taken.push(place);
        new Uint8Array(this.#exports.memory.buffer, place, bytes.length).set(bytes);
        return [place, tokens ? arg.length : bytes.length];
    }

    /**
     * Makes a call that reads files, again as long as bytes are missed.
     * @template T @param {() => T} call @param {AbortSignal} [signal] @returns {Promise<T>}
     */
    async #withFiles(call, signal) {
        for (;;) {
            throwIfAborted(signal);
            try {
                return call();
            } catch (error) {
                const why = this.#wasi.takeError(); // of which C knows only that there was one
                if (!this.#files.missing) throw why ?? error;
            }
            await this.#files.arrived();
        }
    }

    // --- model -------------------------------------------------------------------------------

    /**
     * Opens a model: its memory is compared with what there is before more than its description is
     * read; then weights travel to the GPU while pipelines are compiled.
     * @param {any} files @param {string} path
     * @param {{context?: number, sessions?: number, batch?: number}} [options]
     * @param {{onProgress?: (done: number, total: number, phase: string) => void,
     *     signal?: AbortSignal}} [how]
     */
    async openModel(files, path, options = {}, { onProgress = () => {}, signal } = {}) {
        if (this.modelInfo) throw new ArgumentError('the engine has a model already');
        this.#files = files;
        try {
            await this.#withFiles(() => this.#call('web_begin_model', { ...options, path }), signal);
            const info = this.#json();
            onProgress(0, info.memory.weights, 'upload');
            await this.#load(onProgress, signal);
            onProgress(info.memory.weights, info.memory.weights, 'compile');
            await this.gpu.pipelines();
            await this.gpu.drained();
            this.#throwIfFaulty();
            this.modelInfo = info;
        } catch (error) {
            await this.closeModel();
            throw error;
        }
    }

    /** @param {(done: number, total: number, phase: string) => void} onProgress
     *  @param {AbortSignal} [signal] */
    async #load(onProgress, signal) {
        let before = 0;
        for (let done = 0; done === 0;) {
            done = await this.#withFiles(() => this.#call('web_load'), signal);
            const loaded = this.#exports.web_loaded();
            onProgress(loaded, this.#exports.web_to_load(), 'upload');
            await breathe();
            if (loaded - before < UNDER_WAY_MAX) continue;
            before = loaded;
            await this.gpu.drained();
        }
    }

    /** Memory that the device refused, or a call that it found wrong, shows after the fact. */
    #throwIfFaulty() {
        const [first] = this.gpu.errors();
        if (first === undefined) return;
        const memory = /out.of.memory|allocat/i.test(first);
        throw makeError(memory ? 'memory' : 'device', memory
            ? `the GPU has too little memory for the model: ${first}`
            : `the GPU reported: ${first}`);
    }

    /** Frees the model's memory on the GPU. */
    async closeModel() {
        if (this.#closed) return;
        await this.#settled();
        for (const run of this.#runs.values()) run.fail(new CancelledError('the model was closed'));
        this.#runs.clear();
        this.#exports.web_close_model();
        this.modelInfo = null;
        this.#files = memoryFiles({});
    }

    /** Waits until nothing is under way that the wasm would have to wait for. */
    async #settled() {
        while (this.#stepping) await breathe();
        for (let lost = false; !lost && this.gpu.stats().underWay > 0;) {
            lost = await Promise.race([
                this.gpu.mapped().then(() => false, () => false),
                this.lost.then(() => true),
            ]);
        }
    }

    /** Frees all memory on the GPU and the device. */
    async close() {
        if (this.#closed) return;
        await this.closeModel();
        this.#exports.web_close_device();
        this.#closed = true;
        this.gpu.destroy();
    }

    /** As when the driver resets: for tests. */
    loseDevice() {
        this.gpu.destroy();
    }

    // --- text --------------------------------------------------------------------------------

    /** @param {string} text @param {{addSpecial?: boolean, parseSpecial?: boolean}} [options] */
    tokenize(text, { addSpecial = true, parseSpecial = false } = {}) {
        this.#call('web_tokenize', text, addSpecial, parseSpecial);
        return this.#tokens();
    }

    /** @param {ArrayLike<number>} tokens @param {{special?: boolean}} [options] */
    detokenize(tokens, { special = false } = {}) {
        this.#call('web_detokenize', Uint32Array.from(tokens), special);
        return decoder.decode(this.#out());
    }

    /** @param {any} [options] */
    #chatOptions({ tools, variables, generationPrompt = true, chatTemplate, now } = {}) {
        return {
            tools: tools && JSON.stringify(tools),
            variables: variables && JSON.stringify(variables),
            noGenerationPrompt: !generationPrompt,
            chatTemplate,
            now,
        };
    }

    /** @param {any[]} messages @param {any} [options] @returns {string} */
    template(messages, options) {
        this.#call('web_template', JSON.stringify(messages), this.#chatOptions(options), 0);
        return decoder.decode(this.#out());
    }

    /** @param {any[]} messages @param {any} [options] @returns {number[]} */
    chatTokens(messages, options) {
        this.#call('web_template', JSON.stringify(messages), this.#chatOptions(options), 1);
        return this.#tokens();
    }

    // --- sessions ----------------------------------------------------------------------------

    /** @returns {number} */
    newSession() {
        return this.#call('web_new_session');
    }

    /** @param {number} session */
    freeSession(session) {
        if (!this.#closed) this.#exports.web_free_session(session);
    }

    /** @param {number} session @returns {number[]} */
    sessionTokens(session) {
        this.#call('web_tokens', session);
        return this.#tokens();
    }

    /** @param {number} session @param {number} n */
    rewind(session, n) {
        this.#call('web_rewind', session, n);
    }

    /**
     * Appends tokens, a batch in each pass.
     * @param {number} session @param {ArrayLike<number>} tokens @param {{signal?: AbortSignal}} [how]
     */
    async evaluate(session, tokens, { signal } = {}) {
        const all = Uint32Array.from(tokens);
        const { batch } = this.modelInfo ?? { batch: 16 };
        for (let i = 0; i < all.length; i += batch) {
            await this.#evaluated; // two passes ahead of the GPU would gain nothing
            throwIfAborted(signal);
            this.#call('web_evaluate', session, all.subarray(i, i + batch));
            this.#evaluated = this.gpu.drained().catch(() => {}); // a lost device says so elsewhere
        }
    }

    /** @param {number} session @returns {Promise<Float32Array>} of the last token */
    async logits(session) {
        this.#call('web_ask_logits', session);
        while (this.#call('web_take_logits', session) === 0) await this.gpu.mapped();
        return new Float32Array(this.#out().slice().buffer);
    }

    // --- generations -------------------------------------------------------------------------

    /**
     * Continues a session; several may run at once, and their rows share passes. Returns {finish,
     * count, seconds, firstSeconds}.
     * @param {number} session @param {any} [options]
     * @returns {AsyncGenerator<any, any, void>}
     */
    async *generate(session, options = {}) {
        const { signal, answered = [], logprobs = 0, stop = [], ...rest } = options;
        throwIfAborted(signal);
        /** @type {any[]} */
        const events = [];
        /** @type {Error|null} */
        let failure = null;
        let wake = () => {};
        const run = this.#call('web_generate', session, {
            ...rest, logprobs, stop, answered: answered.length,
        });
        this.#runs.set(run, {
            take: (event) => {
                events.push(event);
                wake();
            },
            fail: (error) => {
                failure = error;
                wake();
            },
        });
        const cancel = () => {
            if (this.#runs.has(run) && !this.#closed) this.#exports.web_cancel(run);
        };
        signal?.addEventListener('abort', cancel, { once: true });
        this.#drive();
        try {
            for (;;) {
                while (events.length > 0) {
                    const event = events.shift();
                    if (event.text !== '' || event.tokens.length > 0) yield pieceOf(event, logprobs);
                    if (event.error) throw makeError(event.error.status, event.error.message);
                    if (event.finish) return endOf(event);
                }
                if (failure) throw failure;
                await new Promise((resolve) => { wake = () => resolve(undefined); });
            }
        } finally {
            signal?.removeEventListener('abort', cancel);
            if (this.#runs.has(run)) { // nobody listens any more
                cancel();
                while (this.#runs.has(run) && !failure && !events.some((e) => e.finish || e.error)) {
                    await new Promise((resolve) => { wake = () => resolve(undefined); });
                }
            }
        }
    }

    /** Steps the generations as long as one runs. */
    async #drive() {
        if (this.#stepping) return;
        this.#stepping = true;
        try {
            for (;;) {
                const busy = this.#call('web_step');
                for (const event of this.#json()) this.#tell(event);
                if (busy === 0) break;
                await this.gpu.mapped();
            }
        } catch (error) {
            for (const run of this.#runs.values()) run.fail(/** @type {Error} */ (error));
            this.#runs.clear();
        } finally {
            this.#stepping = false;
        }
        // One may have begun while the last event was told.
        if (this.#runs.size > 0 && !this.#closed) this.#drive();
    }

    /** @param {any} event */
    #tell(event) {
        const run = this.#runs.get(event.run);
        if (event.finish || event.error) this.#runs.delete(event.run);
        run?.take(event);
    }

    // --- truth and figures -------------------------------------------------------------------

    /**
     * Holds a small model's logits on this device against those of its reference, in a pass of many
     * rows and in one of one: a driver that computes wrongly is named before it writes.
     * @param {{model: Uint8Array, tokens: number[], vocab: number, positions: number[],
     *     logits: Float32Array}} [vector]
     */
    async selfTest(vector) {
        if (!vector) return;
        const { tokens, positions, logits, vocab } = vector;
        const model = memoryFiles({ 'model.gguf': vector.model });
        await this.openModel(model, '/model/model.gguf', { context: 256, sessions: 1, batch: 64 });
        try {
            const session = this.newSession();
            for (const [pass, from, to] of /** @type {const} */ (
                [['a prompt', 0, 48], ['a token', 48, 49]])) {
                await this.evaluate(session, tokens.slice(from, to));
                const got = await this.logits(session);
                const row = positions.indexOf(to - 1) * vocab;
                const off = deviationsOff(got, logits.subarray(row, row + vocab));
                if (!(off <= SELF_TEST_BOUND)) {
                    throw new DeviceError(`${this.deviceInfo.name}: computes wrongly: logits of ` +
                        `${pass} are off by ${off.toFixed(2)} standard deviations, at most ` +
                        `${SELF_TEST_BOUND} expected (${this.deviceInfo.tier}); a newer driver or ` +
                        'browser may help');
                }
            }
        } finally {
            await this.closeModel();
        }
    }

    /** @returns {any} */
    stats() {
        this.#call('web_stats');
        return { ...this.#json(), wasmBytes: this.#exports.memory.buffer.byteLength,
            gpu: this.gpu.stats() };
    }
}

/** @param {any} event @param {number} logprobs */
function pieceOf(event, logprobs) {
    if (!logprobs) return { text: event.text, tokens: event.tokens };
    return {
        text: event.text,
        tokens: event.tokens.map((/** @type {number[]} */ each) => each[0]),
        logprobs: event.tokens.map((/** @type {number[]} */ [token, logprob, ...top]) => ({
            token,
            logprob,
            top: Array.from({ length: top.length / 2 },
                (_, i) => ({ token: top[2 * i], logprob: top[2 * i + 1] })),
        })),
    };
}

/** @param {any} event */
function endOf({ finish, count, seconds, firstSeconds }) {
    return { finish, count, seconds, firstSeconds };
}

/**
 * The largest difference, in standard deviations of what is wanted.
 * @param {Float32Array} got @param {Float32Array} want
 */
function deviationsOff(got, want) {
    const mean = want.reduce((sum, x) => sum + x, 0) / want.length;
    const deviation = Math.sqrt(want.reduce((sum, x) => sum + (x - mean) ** 2, 0) / want.length);
    let most = got.length === want.length ? 0 : Infinity;
    for (let i = 0; i < want.length; i++) {
        const off = Math.abs(got[i] - want[i]) / deviation;
        if (!(off <= most)) most = off;
    }
    return most;
}
