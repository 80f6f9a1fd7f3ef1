// @ts-check
/**
 * The life of the engine: opens GPU, source and model, watches the device, and opens everything
 * again when it is lost, at most LOSSES times in LOSSES_MS. What works with the engine asks for it
 * by `use`, and is done again from its beginning on the next engine if the device goes.
 */
import {
    ArgumentError, asError, CancelledError, DeviceLostError, makeError, throwIfAborted,
} from './errors.js';
import { closeQuietly, Live, sleepFor, unlessAborted } from './live.js';
import { isName, isPhase } from './protocol.js';

const LOSSES = 3; // lost devices that are replaced ...
const LOSSES_MS = 60_000; // ... in this time
const REOPEN_MS = [0, 500, 2000]; // pauses: a GPU process that died takes a moment to come back
const PROGRESS_MS = 50; // between two events of the same phase
const CLOSE_MS = 1000; // for an engine to free what it holds
/** What phases are called for people. @type {Object<string, string>} */
const texts = {
    device: 'opening the GPU',
    open: 'reading the model',
    download: 'downloading',
    verify: 'checking what was kept',
    upload: 'filling the GPU',
    compile: 'compiling kernels',
    ready: 'ready',
};

const FOLDER_NAME = 'model'; // what a model without a name is called after: its place in the tree
const FOLDER = /^\/model(\/?)(?=\b|:)/; // where a sentence of the engine says it

export const SESSIONS = 8; // places, where the caller does not say

/**
 * @typedef {Object<string, any>} Data
 * @typedef {{signal: AbortSignal, piece: (value: Data) => void, progress: (value: Data) => void}}
 *     Call a call of the page's that is being answered
 * @typedef {{
 *     Engine: {open(options: Data): Promise<any>},
 *     openSource(source: any, options: Data): Promise<any>,
 *     openCache(): Promise<any>,
 *     wasm(url?: string): Promise<any>,
 *     gpu(): Promise<any>,
 *     selfTest(engine: any, log: (line: string) => void): Promise<void>,
 *     modelUrl(name: string): string,
 *     now?(): number,
 *     sleep?(ms: number): Promise<void>,
 * }} Parts what a host is made of
 */

export class Life {
    /**
     * @param {Parts} parts @param {(message: Data) => void} tell messages that answer no call
     * @param {{forget: () => void,
     *     replay: (live: Live, signal: AbortSignal) => Promise<void>}} sessions
     */
    constructor(parts, tell, sessions) {
        this.parts = parts;
        this.tell = tell;
        this.sessions = sessions;
        this.now = parts.now ?? (() => performance.now());
        this.sleep = parts.sleep ?? sleepFor;
        /** @type {Data|null} of load */
        this.wanted = null;
        /** @type {Live|null} */
        this.live = null;
        /** @type {Promise<void>|null} */
        this.reviving = null;
        /** @type {Error|null} why there will be no engine again */
        this.fatal = null;
        this.ended = new AbortController();
        /** @type {number[]} when devices were lost */
        this.losses = [];
        this.recoveries = 0;
        /** @type {Promise<any>|null} */
        this.module = null;
        this.name = ''; // of the model, as its source says
        /** @type {string[]} */
        this.notes = [];
    }

    /** @param {Call} call @param {any} source @param {Data} options */
    async load(call, source, options) {
        if (this.wanted) throw new ArgumentError('load: this worker has a model already');
        this.wanted = { source, options };
        try {
            await this.bring(call, null);
        } catch (error) {
            this.fatal = asError(error);
            throw error;
        }
        const { engine } = /** @type {Live} */ (this.live);
        const { path, ...info } = engine.modelInfo; // in the tree of files, of which nobody knows
        if (!info.name || info.name === FOLDER_NAME) info.name = this.name;
        return { info, deviceInfo: engine.deviceInfo, notes: this.notes };
    }

    /**
     * Opens device and model until they stand. Fails when devices are lost too often, and at once
     * for what another device would not cure.
     * @param {Call} call @param {string|null} lost why the last device went
     */
    async bring(call, lost) {
        let reason = lost;
        for (let tries = 0; ; tries++) {
            if (reason !== null) this.countLoss(reason);
            const pause = REOPEN_MS[Math.min(tries, REOPEN_MS.length - 1)];
            if (pause > 0) await unlessAborted(this.sleep(pause), call.signal);
            /** @type {{live: Live|null}} */
            const slot = { live: null };
            try {
                await this.open(call, slot);
                const live = /** @type {Live} */ (slot.live);
                await this.sessions.replay(live, call.signal);
                if (live.reason !== null) throw new DeviceLostError(live.reason);
                this.live = live;
                live.lost.then(() => this.revive(live));
                return;
            } catch (error) {
                const gone = slot.live !== null && await slot.live.blames(error, this.sleep);
                reason = slot.live?.reason ?? asError(error).message;
                if (slot.live) await this.put(slot.live);
                if (!gone && (lost === null || asError(error).status !== 'device')) throw error;
            }
        }
    }

    /** @param {string} reason */
    countLoss(reason) {
        const now = this.now();
        this.losses = this.losses.filter((at) => now - at < LOSSES_MS);
        if (this.losses.length >= LOSSES) {
            throw new DeviceLostError(`the GPU was lost ${LOSSES + 1} times within ` +
                `${LOSSES_MS / 1000} seconds, at most ${LOSSES} are recovered from: ${reason}`);
        }
        this.losses.push(now);
    }

    /**
     * Device, source and model, into slot.live as soon as there is something to close. The source
     * is opened while the GPU is.
     * @param {Call} call @param {{live: Live|null}} slot
     */
    async open(call, slot) {
        const { source, options } = /** @type {Data} */ (this.wanted);
        const { signal } = call;
        const progress = this.progressOf(call);
        throwIfAborted(signal);
        progress({ phase: 'device', loaded: 0, total: 1 });
        const opening = this.openSource(source, options, { signal, onProgress: progress });
        opening.catch(() => {}); // thrown below, unless the device fails first
        let handed = false;
        try {
            const live = await this.openDevice(options, signal);
            slot.live = live;
            const testing = this.parts.selfTest(live.engine, (line) => this.log('info', line));
            // Whoever named a model that is not there hears of it now, not after the kernels.
            const failing = opening.then(() => testing);
            await Promise.race([unlessAborted(live.wait(testing), signal), failing]);
            progress({ phase: 'device', loaded: 1, total: 1 });
            const opened = await unlessAborted(opening, signal);
            live.files = opened.files;
            handed = true;
            await this.openModel(live, opened, options, { signal, progress });
        } catch (error) {
            if (!handed) opening.then((opened) => closeQuietly(opened.files), () => {});
            throw error;
        }
    }

    /**
     * What a slow network, browser or driver does here cannot be stopped; it is not waited for.
     * @param {Data} options @param {AbortSignal} signal @returns {Promise<Live>}
     */
    async openDevice(options, signal) {
        const { parts } = this;
        this.module ??= parts.wasm(options.wasm).catch((error) => {
            this.module = null;
            throw error;
        });
        const opening = Promise.all([this.module, parts.gpu()]).then(([wasm, gpu]) => {
            throwIfAborted(signal);
            return parts.Engine.open({
                wasm,
                gpu,
                device: deviceOptions(options),
                log: (/** @type {string} */ level, /** @type {string} */ line) =>
                    this.log(level, line),
            });
        });
        try {
            return new Live(await unlessAborted(opening, signal));
        } catch (error) {
            opening.then(closeQuietly, () => {});
            throw error;
        }
    }

    /** @param {Live} live @param {any} opened @param {Data} options @param {Data} how */
    async openModel(live, opened, options, { signal, progress }) {
        const { context, sessions = SESSIONS, batch } = options;
        const total = opened.totalBytes ?? 0;
        let begun = false;
        progress({ phase: 'open', loaded: 0, total });
        const onProgress = (/** @type {number} */ done, /** @type {number} */ all,
            /** @type {unknown} */ phase) => {
            // The engine has compared need and room by now, so the rest may be asked for.
            if (!begun) opened.files.prefetch?.();
            begun = true;
            progress({ phase: isPhase(phase) ? phase : 'upload', loaded: done, total: all });
        };
        this.name = String(opened.name ?? '');
        const opening = live.engine.openModel(opened.files, opened.path,
            { context, sessions, batch }, { onProgress, signal });
        // Not left to the engine alone: compiling takes long, and cannot be stopped.
        await unlessAborted(live.wait(opening), signal).catch((error) => {
            throw this.named(error);
        });
        this.notes = Array.from(opened.notes ?? [], String).slice(0, 64);
        progress({ phase: 'ready', loaded: total, total });
        this.letGo(live);
    }

    /**
     * The engine has read all that it will. Open files hold memory and keep the model from being
     * removed, so they are closed as soon as what is kept is whole; answers do not wait for that.
     * @param {Live} live
     */
    async letGo(live) {
        const { files } = live;
        try {
            await files.finish?.();
        } catch (error) {
            // Not if it was put away meanwhile, which ends what is still being brought.
            if (live.files) {
                this.log('warning', `the model is not kept whole: ${asError(error).message}`);
            }
        }
        live.files = null;
        await closeQuietly(files);
    }

    /**
     * The engine's sentence with the model's own name instead of its place in the tree of files.
     * @param {unknown} error
     */
    named(error) {
        const { status, message, detail } = asError(error);
        const plain = message.replace(FOLDER, (_, slash) => (slash ? '' : this.name));
        return plain === message ? error : makeError(status, plain, { cause: error, detail });
    }

    /** @param {any} source @param {Data} options @param {Data} how */
    async openSource(source, { cache = true }, how) {
        const from = isName(source) ? await this.findName(source) : source;
        return this.parts.openSource(from, { ...how, cache });
    }

    /**
     * A name means a model that is kept, or else one that lies beside the package.
     * @param {string} name @returns {Promise<string>}
     */
    async findName(name) {
        const url = this.parts.modelUrl(name);
        try {
            const entries = await (await this.parts.openCache()).list();
            const entry = entries.find((/** @type {Data} */ each) => each.name === name);
            // Its own models it asks for by their URL: there may be newer ones.
            if (entry && !url.startsWith(entry.source)) return `cache:${name}`;
        } catch {
            // Without a cache only the package's own models have names.
        }
        return url;
    }

    /**
     * Tells the progress of a call: of a phase at most one event in PROGRESS_MS, but always the
     * first and the last. Phases overlap; none goes back, though pieces may be fetched again.
     * @param {Call} call
     */
    progressOf(call) {
        /** @type {Map<string, {at: number, loaded: number, text: string}>} */
        const told = new Map();
        return (/** @type {Data} */ event) => {
            const { phase, loaded = 0, total = 0, text = texts[phase], rate } = event;
            const at = this.now();
            const before = told.get(phase);
            const most = Math.max(loaded, before?.loaded ?? 0);
            if (before && before.text === text) {
                const news = most >= total ? before.loaded < most : at - before.at >= PROGRESS_MS;
                if (!news) return;
            }
            told.set(phase, { at, loaded: most, text });
            call.progress({ phase, loaded: most, total, text, rate });
        };
    }

    /** @param {unknown} level @param {unknown} line */
    log(level, line) {
        const known = ['warning', 'info', 'debug'].includes(String(level)) ? String(level) : 'info';
        this.tell({ type: 'log', level: known, line: String(line ?? level).slice(0, 4096) });
    }

    /** @param {Live} live whose device was lost */
    revive(live) {
        if (this.live !== live || this.ended.signal.aborted) return;
        this.live = null;
        const reason = live.reason ?? '';
        this.sessions.forget();
        this.log('warning', `the GPU was lost (${reason}), opening it again`);
        const call = { signal: this.ended.signal, piece: () => {}, progress: () => {} };
        this.reviving = this.put(live).then(() => this.bring(call, reason)).then(() => {
            this.recoveries++;
            const { engine } = /** @type {Live} */ (this.live);
            this.tell({ type: 'device', info: engine.deviceInfo, recoveries: this.recoveries });
        }).catch((error) => {
            this.fatal ??= lostForGood(error, reason);
        }).finally(() => { this.reviving = null; });
    }

    /** Puts an engine away; one that does not get done is not waited for. @param {Live} live */
    async put(live) {
        await Promise.race([live.close(), this.sleep(CLOSE_MS)]);
    }

    /** The engine that lives, as soon as there is one. @param {AbortSignal} [signal] */
    async alive(signal) {
        for (;;) {
            if (this.ended.signal.aborted) throw new CancelledError('the model was closed');
            if (this.fatal) throw this.fatal;
            throwIfAborted(signal);
            if (this.live?.reason === null) return this.live;
            if (!this.live && !this.reviving) throw new ArgumentError('no model was loaded');
            await unlessAborted(this.reviving ?? this.sleep(0), signal);
        }
    }

    /**
     * Does something with the engine, again from its beginning if the device is lost on the way.
     * @template T @param {AbortSignal|undefined} signal @param {(live: Live) => Promise<T>} work
     * @returns {Promise<T>}
     */
    async use(signal, work) {
        for (;;) {
            const live = await this.alive(signal);
            try {
                return await work(live);
            } catch (error) {
                if (!await live.blames(error, this.sleep)) throw error;
            }
        }
    }

    /** From now on nobody gets an engine. */
    end() {
        if (!this.ended.signal.aborted) {
            this.ended.abort(new CancelledError('the model was closed'));
        }
    }

    /** Frees everything, after `end`. */
    async close() {
        await this.reviving;
        const { live } = this;
        this.live = null;
        if (live) await this.put(live);
    }
}

/** @param {unknown} error @param {string} reason */
function lostForGood(error, reason) {
    const known = asError(error);
    if (known instanceof DeviceLostError || known.status === 'cancelled') return known;
    return makeError(known.status, `the GPU was lost (${reason}) and the model could not be ` +
        `opened again: ${known.message}`, { cause: error, detail: known.detail });
}

/** @param {Data} options */
function deviceOptions({ device = {}, maxMemory }) {
    return maxMemory === undefined ? device : { ...device, maxMemory };
}
