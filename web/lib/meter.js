// @ts-check
/**
 * meter: how much of a model is here, how fast it comes, and when that is told: not for every
 * network packet, but always for the last byte.
 */

const PROGRESS_MS = 100;
const RATE_MS = 3000;

/**
 * @typedef {{phase: 'download' | 'verify', loaded: number, total: number, rate: number,
 *     text?: string}} ProgressEvent `rate` in bytes a second
 */

export class Meter {
    /** Bytes of pieces that are not whole yet. */
    partial = 0;
    /** Bytes that came, also of pieces that come again. */
    received = 0;
    #total;
    #onProgress;
    #counted;
    #loaded = 0;
    #arrivals = [{ at: Date.now(), bytes: 0 }];
    #told = 0;

    /**
     * @param {number} pieces @param {number} total bytes
     * @param {(event: ProgressEvent) => void} [onProgress]
     */
    constructor(pieces, total, onProgress) {
        this.#total = total;
        this.#onProgress = onProgress;
        this.#counted = new Uint8Array(pieces);
    }

    /** Counts a piece once, however often it comes. @param {number} piece @param {number} bytes */
    count(piece, bytes) {
        if (this.#counted[piece]) return;
        this.#counted[piece] = 1;
        this.#loaded += bytes;
    }

    /**
     * @param {boolean} always @param {'download' | 'verify'} phase @param {string} [text]
     */
    tell(always, phase, text) {
        const now = Date.now();
        const total = this.#total, loaded = Math.min(this.#loaded + this.partial, total);
        if (!this.#onProgress) return;
        if (!always && loaded < total && now - this.#told < PROGRESS_MS) return;
        this.#told = now;
        this.#arrivals.push({ at: now, bytes: this.received });
        while (this.#arrivals.length > 2 && now - this.#arrivals[0].at > RATE_MS) {
            this.#arrivals.shift();
        }
        const { at, bytes } = this.#arrivals[0];
        const rate = now > at ? (this.received - bytes) * 1000 / (now - at) : 0;
        this.#onProgress({ phase, loaded, total, rate, ...text ? { text } : {} });
    }
}
