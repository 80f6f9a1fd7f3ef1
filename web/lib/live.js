// @ts-check
/**
 * An engine as long as its device lives, and the small tools of waiting.
 *
 * Invariant: every wait on an engine goes through Live.wait, which ends when the device is lost.
 * Nothing hangs on a promise that a dead device will never keep, and nothing that a dead engine
 * still says is heard.
 */
import { asError, cancelled, DeviceLostError } from './errors.js';

const GRACE_MS = 250; // a call can fail some time before the device says that it is lost

/** @param {number} ms @returns {Promise<void>} */
export const sleepFor = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * The promise, or the signal's error if that comes first.
 * @template T @param {Promise<T>} promise @param {AbortSignal} [signal] @returns {Promise<T>}
 */
export function unlessAborted(promise, signal) {
    if (!signal) return promise;
    return new Promise((resolve, reject) => {
        const stop = () => reject(cancelled(signal));
        if (signal.aborted) stop();
        signal.addEventListener('abort', stop, { once: true });
        promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop));
    });
}

/**
 * Aborts with the first of two signals; `release` forgets them.
 * @param {AbortSignal} a @param {AbortSignal} b
 */
export function anyOf(a, b) {
    const both = new AbortController();
    const stop = (/** @type {any} */ event) => both.abort(event.target.reason);
    for (const signal of [a, b]) {
        if (signal.aborted) both.abort(signal.reason);
        signal.addEventListener('abort', stop);
    }
    const release = () => [a, b].forEach((signal) => signal.removeEventListener('abort', stop));
    return { signal: both.signal, release };
}

/** Lets one holder in at a time, in the order in which they came. */
export class Turns {
    constructor() {
        /** @type {Promise<void>} */
        this.last = Promise.resolve();
    }

    /**
     * @template T @param {AbortSignal|undefined} signal @param {() => Promise<T>} work
     * @returns {Promise<T>}
     */
    async take(signal, work) {
        const before = this.last;
        /** @type {() => void} */
        let done = () => {};
        this.last = new Promise((resolve) => { done = resolve; });
        try {
            await unlessAborted(before, signal);
            return await work();
        } finally {
            before.then(done); // one that left the queue early still keeps the order
        }
    }
}

export class Live {
    /** @param {any} engine */
    constructor(engine) {
        this.engine = engine;
        /** @type {string|null} why the device was lost */
        this.reason = null;
        /** @type {Set<() => void>} */
        this.waiting = new Set();
        /** @type {any} */
        this.files = null;
        this.lost = Promise.resolve(engine.lost).then((/** @type {unknown} */ reason) => {
            this.reason = String(reason || 'without a reason');
            for (const stop of [...this.waiting]) stop();
        });
    }

    /**
     * The promise, unless the device is lost before. Not Promise.race: that would leave a reaction
     * on `lost` for every call.
     * @template T @param {T|Promise<T>} promise @returns {Promise<T>}
     */
    wait(promise) {
        return new Promise((resolve, reject) => {
            const stop = () => {
                this.waiting.delete(stop);
                reject(new DeviceLostError(`the GPU was lost: ${this.reason}`));
            };
            const settle = (/** @type {() => void} */ then) => {
                if (this.waiting.delete(stop)) then();
            };
            this.waiting.add(stop);
            if (this.reason !== null) stop();
            Promise.resolve(promise).then((value) => settle(() => resolve(value)),
                (error) => settle(() => reject(error)));
        });
    }

    /**
     * Whether a failure was the loss of the device, which may be reported a little later. Code may
     * stumble over what a dead device gives it, so that is not foreseen either.
     * @param {unknown} error @param {(ms: number) => Promise<void>} sleep
     */
    async blames(error, sleep) {
        if (this.reason !== null) return true;
        const { status } = asError(error);
        if (status !== 'device' && status !== 'internal') return false;
        await Promise.race([this.lost, sleep(GRACE_MS)]);
        return this.reason !== null;
    }

    /** Frees engine and files; a lost device may fail to, and has nothing left to free. */
    async close() {
        const { engine, files } = this;
        this.files = null;
        await closeQuietly(engine);
        await closeQuietly(files);
    }
}

/** @param {any} thing something with a close that may fail because the thing is broken */
export async function closeQuietly(thing) {
    try {
        await thing?.close();
    } catch {
        // There is nobody left who could do anything about it.
    }
}
