// @ts-check
/**
 * patience: which failures are tried again, when, and how often.
 */

import { cancelled, NetworkError, throwIfAborted } from './errors.js';

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
export async function withTries(patience, signal, work) {
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
