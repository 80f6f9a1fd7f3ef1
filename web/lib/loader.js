// @ts-check
/**
 * loader: decides which piece is brought next (what was missed first, then file order), holds the
 * bytes that nobody has read yet in a bounded memory, and gives out only what was checked.
 */

import { isNamed } from './disk.js';
import {
    asError, cancelled, FileError, FormatError, NetworkError, throwIfAborted,
} from './errors.js';
import { BlobEntry } from './files.js';
import { Layout } from './layout.js';
import { Meter } from './meter.js';
import { mayGoBetter, pauseBefore, RequestError, sleep } from './patience.js';
import { PIECE_BYTES } from './plan.js';
import { CHECKED } from './record.js';
import { HASH_BYTES, hexOf, sha256 } from './values.js';

/** @typedef {import('./errors.js').DopplerError} DopplerError */
/** @typedef {import('./files.js').FileEntry} FileEntry */
/** @typedef {import('./keeper.js').Keeper} Keeper */
/** @typedef {import('./meter.js').ProgressEvent} ProgressEvent */
/** @typedef {import('./origin.js').Opened} Opened */
/** @typedef {import('./origin.js').Origin} Origin */
/** @typedef {import('./patience.js').Patience} Patience */
/** @typedef {import('./plan.js').Plan} Plan */
/** @typedef {import('./plan.js').PlanFile} PlanFile */

const RUN_PIECES = 4; // of one request, where pieces do not have to wait in memory
const CHECKS_MAX = 4; // digests at once: browsers spread them over cores
const WRONG_MAX = 2; // times that a wrong piece is fetched again
const RECENT_PIECES = 2; // that are not dropped: a tensor may begin in one and end in the next

const MISSING = 0, COMING = 1, HERE = 2, KEPT = 3, SPENT = 4, UNREAD = 5;
// MISSING: nowhere. COMING: asked for. HERE: in memory. KEPT: in the cache, and right. SPENT: was
// read and dropped, comes again only if it is missed. UNREAD: in the cache, to be hashed first.

/**
 * One request in flight: pieces [next, end) of a file.
 * @typedef {object} Run
 * @property {Layout['files'][number]} part
 * @property {number} next piece that is being filled
 * @property {number} end
 * @property {number} filled bytes of it
 * @property {Uint8Array | null} bytes of it
 * @property {number} reserved bytes of the budget
 * @property {boolean} fresh past all caches
 * @property {boolean} serial it takes the whole file, whose server has no ranges
 * @property {AbortController} stop
 */

/** Brings, checks and gives out the pieces of one plan. */
export class Loader {
    #layout;
    #origin;
    #keeper;
    #patience;
    #notes;
    #budget;
    #stop = new AbortController();
    #states;
    #hashed; // files whose pieces are compared or recorded
    /** @type {Map<number, {bytes: Uint8Array, touched: boolean}>} oldest use first */
    #held = new Map();
    #heldBytes = 0;
    #reserved = 0;
    /** @type {number[]} missed pieces, the latest first, until somebody reads them */
    #wanted = [];
    /** @type {Set<Run>} */
    #runs = new Set();
    #checks = 0;
    #cursor = 0; // no piece before it is MISSING or UNREAD
    #isPrefetching = false;
    /** @type {DopplerError | null} */
    #failure = null;
    /** @type {{pieces: number[], done: () => void, failed: (error: unknown) => void}[]} */
    #waiters = [];
    /** @type {(() => void)[]} */
    #roomWaiters = [];
    /** @type {Set<number>} files whose server sends all or nothing */
    #serial = new Set();
    /** @type {Map<number, number>} times that a piece was wrong */
    #wrong = new Map();
    /** @type {ArrayBuffer[]} */
    #spare = [];
    #meter;
    /** @type {(() => void) | null} */
    #unlisten = null;

    /**
     * @param {Plan} plan
     * @param {{origin: Origin | null, keeper: Keeper | null, patience: Patience, budget: number,
     *     verify: boolean, notes: string[], signal?: AbortSignal,
     *     onProgress?: (event: ProgressEvent) => void}} options
     */
    constructor(plan, options) {
        const { origin, keeper, patience, budget, verify, notes, signal, onProgress } = options;
        this.#layout = new Layout(plan);
        this.#origin = origin;
        this.#keeper = keeper;
        this.#patience = patience;
        this.#budget = budget;
        this.#notes = notes;
        this.totalBytes = this.#layout.bytes;
        this.#states = new Uint8Array(this.#layout.count);
        this.#meter = new Meter(this.#layout.count, this.#layout.bytes, onProgress);
        this.#hashed = plan.files.map(({ hashes }) => hashes !== null);
        if (keeper) keeper.onTrouble = (error) => this.#stopKeeping(error);
        this.#takeKept(verify);
        this.#takeGiven(plan);
        this.fromCache = this.#states.every((state) => state === KEPT || state === UNREAD);
        if (signal) this.#listen(signal);
    }

    /** @param {AbortSignal} signal */
    #listen(signal) {
        const onAbort = () => this.#fail(cancelled(signal));
        signal.addEventListener('abort', onAbort, { once: true });
        this.#unlisten = () => signal.removeEventListener('abort', onAbort);
        if (signal.aborted) onAbort();
    }

    /** @param {boolean} verify */
    #takeKept(verify) {
        for (const [piece, { flags }] of this.#keeper?.pieces ?? []) {
            const isTrusted = !verify && (flags & CHECKED || !this.#keeper?.canWrite);
            this.#states[piece] = isTrusted ? KEPT : UNREAD;
            if (isTrusted) this.#count(piece);
        }
    }

    /** What planning has read already. @param {Plan} plan */
    #takeGiven(plan) {
        plan.files.forEach(({ bytes }, i) => {
            if (!bytes) return;
            const { first, count } = this.#layout.files[i];
            if (count === 1 && this.#states[first] === MISSING) {
                this.#keep(first, bytes, CHECKED, new Uint8Array(HASH_BYTES));
            }
            plan.files[i].bytes = undefined;
        });
    }

    /** The files of the tree, by name. @returns {Map<string, FileEntry>} */
    entries() {
        const entries = new Map();
        this.#layout.files.forEach((part, i) => {
            const { file } = part, blob = this.#origin?.blob(file.name);
            if (blob && !this.#hashed[i] && BlobEntry.isPossible) {
                entries.set(file.name, new BlobEntry(blob, file.name));
                for (let k = 0; k < part.count; k++) this.#states[part.first + k] = SPENT;
                return;
            }
            entries.set(file.name, {
                size: file.size,
                read: (/** @type {number} */ offset, /** @type {Uint8Array} */ target) => (
                    this.#read(part, offset, target)),
                fetch: (/** @type {number} */ offset, /** @type {number} */ length) => (
                    this.#fetch(part, offset, length)),
            });
        });
        return entries;
    }

    /** Texts are read whole by whoever opens a model, so they are asked for at once. */
    begin() {
        const texts = [];
        for (const { file, first, count } of this.#layout.files) {
            if (file.weights) continue;
            for (let i = 0; i < count; i++) texts.push(first + i);
        }
        this.#wanted.push(...texts.filter((piece) => !this.#isReadable(piece)));
        this.#pump();
    }

    prefetch() {
        if (this.#isPrefetching) return;
        this.#isPrefetching = true;
        this.#roomCame();
    }

    /** Resolves when all is in the cache; without one there is nothing to wait for. */
    async finish() {
        if (this.#failure) throw this.#failure;
        if (!this.#keeper) return;
        const rest = [];
        for (let piece = 0; piece < this.#layout.count; piece++) {
            if (this.#states[piece] !== SPENT && !this.#isReadable(piece)) rest.push(piece);
        }
        if (rest.length > 0 && this.#keeper.canWrite) await this.#until(rest);
        await this.#settle();
    }

    async close() {
        this.#unlisten?.();
        this.#fail(new FileError('the files are closed'));
        this.#held.clear();
        this.#spare = [];
        await this.#keeper?.close();
    }

    // ---- reading --------------------------------------------------------------------------------

    /** @param {number} piece */
    #isReadable(piece) {
        return this.#states[piece] === HERE || this.#states[piece] === KEPT;
    }

    /**
     * @param {Layout['files'][number]} part @param {number} offset @param {Uint8Array} target
     */
    #read({ file, first, count }, offset, target) {
        let n = 0;
        while (n < target.length) {
            const at = offset + n, i = Math.floor(at / file.pieceBytes);
            if (i >= count) break;
            const got = this.#readPiece(first + i, at - i * file.pieceBytes, target.subarray(n));
            if (got < 0) return n > 0 ? n : -1;
            n += got;
        }
        return n;
    }

    /**
     * @param {number} piece @param {number} offset @param {Uint8Array} target
     * @returns {number} bytes, -1: not here
     */
    #readPiece(piece, offset, target) {
        const length = Math.min(target.length, this.#layout.lengthOf(piece) - offset);
        const part = target.subarray(0, length);
        if (this.#states[piece] === KEPT) return this.#readKept(piece, offset, part);
        const held = this.#held.get(piece);
        if (!held) return -1;
        part.set(held.bytes.subarray(offset, offset + length));
        this.#held.delete(piece); // and back in as the latest
        this.#held.set(piece, held);
        held.touched = true;
        this.#unwant(piece);
        if (this.#isPrefetching && this.#evict(false)) this.#roomCame();
        return length;
    }

    /**
     * @param {number} piece @param {number} offset @param {Uint8Array} target
     */
    #readKept(piece, offset, target) {
        const keeper = /** @type {Keeper} */ (this.#keeper);
        let n = 0;
        try {
            while (n < target.length) {
                const got = keeper.read(piece, offset + n, target.subarray(n));
                if (got < 0) return -1;
                if (got === 0) break;
                n += got;
            }
        } catch {
            // As if it were short: whatever happened to the cache, the source has the bytes.
        }
        this.#unwant(piece);
        if (n === target.length) return n;
        this.#lose(piece);
        return -1;
    }

    /** A piece of the cache is not what it was. @param {number} piece */
    #lose(piece) {
        this.#states[piece] = MISSING;
        this.#cursor = Math.min(this.#cursor, piece);
        try {
            this.#keeper?.drop(piece);
        } catch (error) {
            this.#stopKeeping(error);
        }
        this.#note(`${this.#layout.show(piece)}: is damaged in the cache and is brought again`);
    }

    /**
     * @param {Layout['files'][number]} part @param {number} offset @param {number} length
     */
    async #fetch(part, offset, length) {
        if (this.#failure) throw this.#failure;
        await this.#keeper?.ready;
        const { file, first, count } = part;
        const from = file.weights ? Math.floor(offset / file.pieceBytes) : 0;
        const end = file.weights ? Math.ceil((offset + length) / file.pieceBytes) : count;
        const need = [];
        let bytes = 0;
        for (let i = from; i < Math.min(end, count); i++) {
            bytes += this.#layout.lengthOf(first + i);
            if (file.weights && need.length > 0 && bytes > this.#budget / 2) break;
            need.push(first + i);
        }
        const missing = need.filter((piece) => !this.#isReadable(piece));
        if (missing.length === 0) return;
        this.#wanted = [...missing, ...this.#wanted.filter((piece) => !missing.includes(piece))];
        await this.#until(missing);
    }

    /**
     * Resolves when the pieces can be read.
     * @param {number[]} pieces
     * @returns {Promise<void>}
     */
    #until(pieces) {
        return new Promise((done, failed) => {
            if (this.#failure) return void failed(this.#failure);
            this.#waiters.push({ pieces, done, failed });
            this.#roomCame(); // for a stream that is held up, too
        });
    }

    #wake() {
        this.#waiters = this.#waiters.filter(({ pieces, done }) => {
            const isHere = pieces.every((piece) => this.#isReadable(piece));
            if (isHere) done();
            return !isHere;
        });
    }

    /** @param {number} piece */
    #unwant(piece) {
        if (this.#wanted.length === 0) return;
        const i = this.#wanted.indexOf(piece);
        if (i >= 0) this.#wanted.splice(i, 1);
    }

    /** Ends everything; the first reason counts. @param {unknown} reason */
    #fail(reason) {
        if (this.#failure) return;
        this.#failure = asError(reason);
        this.#stop.abort();
        for (const { failed } of this.#waiters) failed(this.#failure);
        this.#waiters = [];
        this.#roomCame();
        try {
            this.#keeper?.flush();
        } catch {
            // What is not recorded is brought again.
        }
    }

    // ---- memory ---------------------------------------------------------------------------------

    /**
     * Room for `bytes` more. A piece that somebody waits for gets it from those that nobody has
     * asked for, and in the end without asking.
     * @param {number} bytes @param {boolean} urgent
     */
    #reserve(bytes, urgent) {
        const isOver = () => this.#reserved + this.#heldBytes + bytes > this.#budget;
        if (this.#isPrefetching) {
            while (isOver() && this.#evict(urgent));
            if (isOver() && this.#reserved > 0) return false;
            if (isOver() && this.#heldBytes > 0 && !urgent) return false;
        }
        this.#reserved += bytes;
        return true;
    }

    /** Drops one piece. @param {boolean} urgent also one that was never read */
    #evict(urgent) {
        const touched = [...this.#held].filter(([, held]) => held.touched);
        if (touched.length > RECENT_PIECES) {
            this.#dropHeld(touched[0][0], SPENT);
            return true;
        }
        if (!urgent) return false;
        const others = [...this.#held.keys()].filter((piece) => !this.#wanted.includes(piece) &&
            !this.#held.get(piece)?.touched);
        if (others.length === 0) return false;
        const last = Math.max(...others);
        this.#dropHeld(last, MISSING);
        this.#cursor = Math.min(this.#cursor, last);
        return true;
    }

    /** @param {number} piece @param {number} state */
    #dropHeld(piece, state) {
        const held = this.#held.get(piece);
        if (!held) return;
        this.#held.delete(piece);
        this.#heldBytes -= held.bytes.length;
        this.#states[piece] = state;
        this.#giveBack(held.bytes);
    }

    /** Memory for a piece: buffers go round, so that the collector has nothing to do. */
    #take(/** @type {number} */ length) {
        if (length > PIECE_BYTES) return new Uint8Array(length);
        return new Uint8Array(this.#spare.pop() ?? new ArrayBuffer(PIECE_BYTES), 0, length);
    }

    /** @param {Uint8Array} bytes */
    #giveBack({ buffer }) {
        const isOurs = buffer instanceof ArrayBuffer && buffer.byteLength === PIECE_BYTES;
        if (isOurs && this.#spare.length < 4) this.#spare.push(buffer);
    }

    #roomCame() {
        const waiters = this.#roomWaiters;
        this.#roomWaiters = [];
        for (const wake of waiters) wake();
        this.#pump();
    }

    // ---- what comes next ------------------------------------------------------------------------

    #pump() {
        while (!this.#failure) {
            const piece = this.#nextPiece();
            if (piece < 0 || !this.#start(piece)) return;
        }
    }

    /** The next piece to be asked for, -1: none, or nobody to ask. */
    #nextPiece() {
        const connections = this.#origin?.connections ?? 1;
        const canBring = this.#runs.size < connections, canCheck = this.#checks < CHECKS_MAX;
        const isNext = (/** @type {number} */ piece, /** @type {boolean} */ missed) => {
            const state = this.#states[piece];
            if (state === UNREAD) return canCheck;
            return (state === MISSING || (missed && state === SPENT)) && canBring &&
                !this.#isServed(piece, missed);
        };
        for (const piece of this.#wanted) if (isNext(piece, true)) return piece;
        // What was missed and found no room goes first.
        if (!this.#isPrefetching) return -1;
        const { count } = this.#layout;
        const isOpen = (/** @type {number} */ piece) => (
            this.#states[piece] === MISSING || this.#states[piece] === UNREAD);
        while (this.#cursor < count && !isOpen(this.#cursor)) this.#cursor++;
        for (let piece = this.#cursor; piece < count; piece++) {
            if (isOpen(piece) && isNext(piece, false)) return piece;
            if (!canBring && !canCheck) return -1;
        }
        return -1;
    }

    /**
     * A file that is only sent whole has one request, which comes by every piece. One that was
     * missed and lies behind it ends it, to begin again.
     * @param {number} piece @param {boolean} missed
     */
    #isServed(piece, missed) {
        const at = this.#layout.fileOf[piece];
        if (!this.#serial.has(at)) return false;
        for (const run of this.#runs) {
            if (run.part !== this.#layout.files[at]) continue;
            if (missed && piece < run.next) run.stop.abort();
            return true;
        }
        return false;
    }

    /** @param {number} piece @returns {boolean} it was begun, or given up for good */
    #start(piece) {
        const urgent = this.#wanted.includes(piece);
        const length = this.#layout.lengthOf(piece);
        if (!this.#reserve(length, urgent)) return false;
        if (this.#states[piece] === UNREAD) {
            this.#states[piece] = COMING;
            this.#checks++;
            this.#recheck(piece, length).catch((error) => this.#fail(error));
            return true;
        }
        if (!this.#origin) {
            this.#reserved -= length;
            this.#fail(new FileError(`${this.#layout.show(piece)}: is not in the cache, and ` +
                'where it came from is not known: load the model from there'));
            return false;
        }
        const { first, count } = this.#layout.partOf(piece), part = this.#layout.partOf(piece);
        const fresh = this.#wrong.has(piece);
        const most = this.#keeper?.canWrite && !fresh ? RUN_PIECES : 1;
        let end = piece + 1;
        while (end < Math.min(piece + most, first + count) && this.#isPrefetching &&
            this.#states[end] === MISSING && !this.#wrong.has(end)) end++;
        for (let i = piece; i < end; i++) this.#states[i] = COMING;
        /** @type {Run} */
        const run = { part, next: piece, end, filled: 0, bytes: null, reserved: length, fresh,
            serial: false, stop: new AbortController() };
        this.#runs.add(run);
        this.#go(run);
        return true;
    }

    // ---- bringing -------------------------------------------------------------------------------

    /** @param {Run} run */
    async #go(run) {
        try {
            await this.#persevere(run);
        } catch (error) {
            // Before the clean-up below, which looks for the next piece to ask for.
            if (!run.stop.signal.aborted) this.#fail(error);
        } finally {
            const { first, count } = run.part;
            const from = run.serial ? first : run.next, end = run.serial ? first + count : run.end;
            for (let i = from; i < end; i++) {
                if (this.#states[i] === COMING) this.#states[i] = MISSING;
            }
            this.#cursor = Math.min(this.#cursor, from);
            this.#meter.partial -= run.filled;
            this.#reserved -= run.reserved;
            if (run.bytes) this.#giveBack(run.bytes);
            this.#runs.delete(run);
            this.#roomCame();
        }
    }

    /** Goes on where a broken connection stopped. @param {Run} run */
    async #persevere(run) {
        const signal = AbortSignal.any([this.#stop.signal, run.stop.signal]);
        for (let n = 1;;) {
            const before = this.#meter.received;
            try {
                return await this.#stream(run, signal);
            } catch (error) {
                if (signal.aborted || !mayGoBetter(error)) throw error;
                n = this.#meter.received > before ? 1 : n + 1;
                if (n > this.#patience.tries) {
                    throw new NetworkError(`${/** @type {Error} */ (error).message}; ` +
                        `${this.#patience.tries} tries in a row brought nothing`, { cause: error });
                }
                await sleep(pauseBefore(this.#patience, n, error), signal);
            }
        }
    }

    /** @param {Run} run @param {AbortSignal} signal */
    async #stream(run, signal) {
        const { part } = run, { file, first } = part, origin = /** @type {Origin} */ (this.#origin);
        const from = this.#layout.startOf(run.next) + run.filled;
        const to = Math.min((run.end - first) * file.pieceBytes, file.size);
        const opened = await origin.open(file.name, from, to, { signal, fresh: run.fresh });
        try {
            this.#judge(part, opened);
            if (opened.whole && !this.#makeSerial(run)) return;
            let at = opened.start;
            while (run.next < run.end) {
                const start = this.#layout.startOf(run.next);
                at = await this.#skip(opened, at, start + run.filled, file);
                at = await this.#fill(run, opened, at, file);
                if (!await this.#step(run, signal)) return;
            }
        } finally {
            opened.cancel();
        }
    }

    /** What messages call it: of a server by its URL. @param {PlanFile} file */
    #show({ name }) {
        return this.#origin?.remote ? this.#origin.shown + name : name;
    }

    /**
     * The answer is of the file that was planned. What has hashes is told from another by them.
     * @param {Layout['files'][number]} part @param {Opened} opened
     */
    #judge({ file }, { total, tag }) {
        const shown = this.#show(file);
        if (total !== null && total !== file.size) {
            const Kind = this.#origin?.remote ? NetworkError : FormatError;
            throw new Kind(`${shown}: has ${total} bytes, ${file.size} are expected: it changed, ` +
                'or is not what the manifest describes');
        }
        if (!file.hashes && tag && file.tag && tag !== file.tag) {
            throw new NetworkError(`${shown}: changed at the source while it was loaded: it is ` +
                `marked ${tag} now and was ${file.tag}: load it again`);
        }
    }

    /**
     * The server sends the whole file: one run takes all of it, any other one ends.
     * @param {Run} run
     */
    #makeSerial(run) {
        const { part } = run, { first, count, file } = part;
        if (count === 1 || run.serial) return true;
        const at = this.#layout.fileOf[first];
        if (!this.#serial.has(at)) {
            this.#serial.add(at);
            this.#note(`${file.name}: the server has no ranges, so it is loaded in one go, and ` +
                'from its beginning after a break');
        }
        for (const other of this.#runs) {
            if (other === run || other.part !== part) continue;
            if (other.serial) return false;
            other.stop.abort();
        }
        for (let i = run.next; i < run.end; i++) this.#states[i] = MISSING;
        this.#meter.partial -= run.filled;
        run.filled = 0;
        if (run.bytes) this.#giveBack(run.bytes);
        run.bytes = null;
        run.serial = true;
        run.end = first + count;
        run.next = first - 1;
        return this.#advance(run);
    }

    /** On to the next piece that is needed; false: there is none. @param {Run} run */
    #advance(run) {
        run.next++;
        if (!run.serial) return run.next < run.end;
        const isNeeded = (/** @type {number} */ piece) => this.#states[piece] === MISSING ||
            (this.#states[piece] === SPENT && this.#wanted.includes(piece));
        while (run.next < run.end && !isNeeded(run.next)) run.next++;
        if (run.next < run.end) this.#states[run.next] = COMING;
        return run.next < run.end;
    }

    /**
     * @param {Opened} opened @param {number} at @param {number} to @param {PlanFile} file
     */
    async #skip(opened, at, to, file) {
        const scratch = at < to ? new Uint8Array(Math.min(64 * 1024, to - at)) : null;
        while (scratch && at < to) {
            const n = await opened.read(scratch.subarray(0, Math.min(scratch.length, to - at)));
            if (n === 0) throw this.#ended(file, at);
            at += n;
        }
        return at;
    }

    /** @param {PlanFile} file @param {number} at */
    #ended(file, at) {
        return new RequestError(`${this.#show(file)}: the answer ended at byte ${at} of ` +
            `${file.size}`, { again: true });
    }

    /**
     * @param {Run} run @param {Opened} opened @param {number} at @param {PlanFile} file
     */
    async #fill(run, opened, at, file) {
        const length = this.#layout.lengthOf(run.next);
        run.bytes ??= this.#take(length);
        while (run.filled < length) {
            const n = await opened.read(run.bytes.subarray(run.filled));
            if (n === 0) throw this.#ended(file, at);
            run.filled += n;
            at += n;
            this.#meter.partial += n;
            this.#meter.received += n;
            this.#tell(false);
        }
        return at;
    }

    /**
     * The piece is full: checks and keeps it, and goes on to the next one.
     * @param {Run} run @param {AbortSignal} signal
     * @returns {Promise<boolean>} there is a next one, and room for it
     */
    async #step(run, signal) {
        const bytes = /** @type {Uint8Array} */ (run.bytes), piece = run.next;
        await this.#accept(piece, bytes);
        throwIfAborted(signal);
        this.#meter.partial -= run.filled;
        this.#reserved -= run.reserved;
        run.filled = run.reserved = 0;
        if (this.#held.get(piece)?.bytes !== bytes) this.#giveBack(bytes);
        run.bytes = null;
        if (!this.#advance(run)) return false;
        const length = this.#layout.lengthOf(run.next);
        const isMissed = () => this.#wanted.some((p) => p >= run.next && p < run.end);
        if (!run.serial) {
            if (!this.#reserve(length, this.#wanted.includes(run.next))) return false;
        } else {
            // A stream that cannot begin anywhere is better held up than given up.
            while (!(this.#isPrefetching || isMissed()) || !this.#reserve(length, isMissed())) {
                await new Promise((wake) => this.#roomWaiters.push(() => wake(undefined)));
                throwIfAborted(signal);
            }
        }
        run.reserved = length;
        return true;
    }

    // ---- checking and keeping -------------------------------------------------------------------

    /**
     * Where the piece differs from the hashes of the source; null: nowhere, or there are none.
     * @param {number} piece @param {Uint8Array} bytes
     */
    async #difference(piece, bytes) {
        const { file, first } = this.#layout.partOf(piece), { hashes, hashBytes } = file;
        if (!hashes) return null;
        const number = (piece - first) * (file.pieceBytes / hashBytes);
        const parts = [];
        for (let at = 0; at < bytes.length; at += hashBytes) {
            parts.push(sha256(bytes.subarray(at, at + hashBytes)));
        }
        const found = await Promise.all(parts);
        for (let i = 0; i < found.length; i++) {
            const at = (number + i) * HASH_BYTES;
            const got = hexOf(found[i]), want = hexOf(hashes.subarray(at, at + HASH_BYTES));
            if (got !== want) return { got, want };
        }
        return null;
    }

    /** @param {number} piece @param {Uint8Array} bytes */
    async #accept(piece, bytes) {
        const { file } = this.#layout.partOf(piece);
        const difference = await this.#difference(piece, bytes);
        if (difference) return this.#refuse(piece, difference);
        const isPlain = !file.hashes && this.#keeper?.canWrite;
        const hash = isPlain ? await sha256(bytes) : new Uint8Array(HASH_BYTES);
        if (this.#failure) return;
        this.#keep(piece, bytes, file.hashes ? CHECKED : 0, hash);
        this.#tell(false);
        this.#wake();
        await this.#settleIfWhole();
    }

    /**
     * @param {number} piece @param {{got: string, want: string}} difference
     */
    #refuse(piece, { got, want }) {
        const times = (this.#wrong.get(piece) ?? 0) + 1;
        const message = `${this.#layout.show(piece)}: SHA-256 is ${got}, the manifest says ${want}`;
        if (times > WRONG_MAX || !this.#origin?.remote) {
            const tries = times > 1 ? `; it was fetched ${times} times` : '';
            throw new FormatError(message + tries);
        }
        this.#wrong.set(piece, times);
        this.#states[piece] = MISSING;
        this.#cursor = Math.min(this.#cursor, piece);
        if (!this.#wanted.includes(piece)) this.#wanted.unshift(piece);
        this.#note(`${message}; it is fetched again`);
    }

    /**
     * @param {number} piece @param {Uint8Array} bytes @param {number} flags
     * @param {Uint8Array} hash
     */
    #keep(piece, bytes, flags, hash) {
        if (this.#keeper?.canWrite) {
            try {
                this.#keeper.write(piece, bytes, flags, hash);
                this.#states[piece] = KEPT;
                this.#count(piece);
                return;
            } catch (error) {
                this.#stopKeeping(error);
            }
        }
        this.#held.set(piece, { bytes, touched: false });
        this.#heldBytes += bytes.length;
        this.#states[piece] = HERE;
        this.#count(piece);
    }

    /** @param {unknown} error of a write */
    #stopKeeping(error) {
        const why = isNamed(error, 'QuotaExceededError') ? 'the browser gives no more room (quota)'
            : asError(error).message;
        this.#keeper?.stopWriting();
        this.#note(`the rest of the model is loaded without being kept: ${why}`);
    }

    /** Reads a kept piece once more. @param {number} piece @param {number} length */
    async #recheck(piece, length) {
        const keeper = /** @type {Keeper} */ (this.#keeper), bytes = this.#take(length);
        try {
            const { hashes } = this.#layout.partOf(piece).file;
            let isRight = false;
            try {
                isRight = keeper.readWhole(piece, bytes);
            } catch {
                // The same as wrong.
            }
            if (isRight && hashes) isRight = await this.#difference(piece, bytes) === null;
            else if (isRight) isRight = this.#isRecorded(piece, await sha256(bytes));
            if (this.#failure) return;
            if (!isRight) return this.#lose(piece);
            keeper.confirm(piece);
        } catch (error) {
            if (this.#failure) return;
            this.#stopKeeping(error);
        } finally {
            if (this.#states[piece] === COMING) {
                this.#states[piece] = KEPT;
                this.#count(piece);
            }
            this.#checks--;
            this.#reserved -= length;
            this.#giveBack(bytes);
            this.#tell(false, 'verify');
            this.#wake();
            this.#roomCame();
        }
        await this.#settleIfWhole();
    }

    /** @param {number} piece @param {Uint8Array} hash */
    #isRecorded(piece, hash) {
        const line = this.#keeper?.pieces.get(piece);
        return line !== undefined && hexOf(line.hash) === hexOf(hash);
    }

    /** As soon as all is kept, other tabs may read it. */
    async #settleIfWhole() {
        if (this.#keeper?.canWrite && this.#states.every((state) => state === KEPT)) {
            await this.#settle();
        }
    }

    async #settle() {
        const keeper = this.#keeper;
        if (!keeper) return;
        if (keeper.canWrite && this.#states.every((state) => state === KEPT)) {
            try {
                await keeper.share();
            } catch (error) {
                this.#stopKeeping(error);
            }
            if (keeper.pieces.size === 0) this.#states.fill(SPENT); // removed in between
        }
        this.#tell(true);
    }

    // ---- telling --------------------------------------------------------------------------------

    /** @param {string} text */
    #note(text) {
        if (this.#notes.length < 64) this.#notes.push(text);
        this.#tell(true, 'download', text);
    }

    /** @param {number} piece */
    #count(piece) {
        this.#meter.count(piece, this.#layout.lengthOf(piece));
    }

    /**
     * @param {boolean} always @param {'download' | 'verify'} [phase] @param {string} [text]
     */
    #tell(always, phase = 'download', text) {
        if (!this.#failure) this.#meter.tell(always, phase, text);
    }
}
