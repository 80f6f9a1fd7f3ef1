// @ts-check
/**
 * keeper: the pieces of models on the disk, and who may write them.
 *
 * Who writes holds the exclusive Web Lock of the model, who reads a shared one; a lock dies with
 * its tab.
 *
 * Invariant: the record names a piece only after `data` with its bytes was flushed. It is only ever
 * added to, and each of its lines has a checksum that belongs to its plan; so a page that is killed
 * at any moment leaves a cache that is right, and loses what it had not recorded.
 */

import {
    fileOf, holdLock, openForReading, openForWriting, readRecord, ROOT_FOLDER,
} from './disk.js';
import { FileError, throwIfAborted } from './errors.js';
import { Layout } from './layout.js';
import { sleep } from './patience.js';
import {
    CHECKED, GONE, isComplete, keptPieces, LINE_BYTES, packHead, packLine, RECORD_BYTES_MAX,
    unpackRecord,
} from './record.js';
import { HASH_BYTES } from './values.js';

/** @typedef {import('./plan.js').Plan} Plan */
/** @typedef {import('./record.js').RecordOf} RecordOf */

const RECORD_PIECES = 8; // written at once
const RECORD_MS = 1000;
const FOLLOW_MS = 500;
const FOLLOW_STALL_MS = 60_000;

/** The folder in which one model is kept. */
export class Shelf {
    /**
     * @param {any} root a directory handle @param {any} locks @param {string} id
     */
    constructor(root, locks, id) {
        this.root = root;
        this.locks = locks;
        this.id = id;
        this.lockName = `${ROOT_FOLDER}:${id}`;
        /** @type {any} */
        this.folder = null;
    }

    /** What is there, as far as it is recorded. */
    async peek() {
        try {
            this.folder ??= await this.root.getDirectoryHandle(this.id);
        } catch {
            return null;
        }
        return readRecord(this.folder);
    }

    async remove() {
        await this.root.removeEntry(this.id, { recursive: true });
    }

    async create() {
        this.folder = await this.root.getDirectoryHandle(this.id, { create: true });
    }

    /**
     * Lock and Keeper for this plan. Another tab that is loading the model is waited for, as long
     * as it gets on. null: it does not.
     * @param {Plan} plan @param {string} print @param {string} source
     * @param {{signal?: AbortSignal, onWait: () => void, followMs?: number}} options
     * @returns {Promise<Keeper | null>}
     */
    async open(plan, print, source, { signal, onWait, followMs = FOLLOW_STALL_MS }) {
        let seen = -1, since = Date.now();
        for (let n = 0;; n++) {
            throwIfAborted(signal);
            // Pieces that were only ever written are read once more, by who can say so in the
            // record; if somebody else reads them, they are good enough.
            const keeper = await this.#tryRead(plan, print, n === 0) ??
                await this.#tryWrite(plan, print, source);
            if (keeper) return keeper;
            if (n === 0) continue;
            if (n === 1) onWait();
            const size = await this.#recordSize();
            if (size !== seen) since = Date.now();
            seen = size;
            if (Date.now() - since > followMs) return null;
            await sleep(FOLLOW_MS, signal);
        }
    }

    async #recordSize() {
        try {
            return (await fileOf(this.folder, 'record'))?.size ?? 0;
        } catch {
            return 0;
        }
    }

    /**
     * Everything is there, and only reading is left.
     * @param {Plan} plan @param {string} print @param {boolean} checked and nothing to look at
     */
    async #tryRead(plan, print, checked) {
        const look = async () => {
            const record = await this.peek();
            const isWhole = record?.print === print && isComplete(record) &&
                (!checked || [...record.pieces.values()].every(({ flags }) => flags & CHECKED));
            return isWhole ? record : null;
        };
        if (!await look()) return null;
        const release = await holdLock(this.locks, this.lockName, 'shared', { ifAvailable: true });
        if (!release) return null;
        try {
            const record = await look();
            if (record) {
                const keeper = new Keeper(this, plan, release);
                await keeper.openReading(record);
                return keeper;
            }
        } catch {
            // To be written again, which is tried next.
        }
        await release();
        return null;
    }

    /** @param {Plan} plan @param {string} print @param {string} source */
    async #tryWrite(plan, print, source) {
        const release = await holdLock(this.locks, this.lockName, 'exclusive',
            { ifAvailable: true });
        if (!release) return null;
        const keeper = new Keeper(this, plan, release);
        try {
            await this.create();
            await keeper.openWriting(print, source);
            return keeper;
        } catch (error) {
            await keeper.close();
            throw error;
        }
    }
}


/** The pieces of one model on the disk. Reading and writing answer at once. */
export class Keeper {
    #shelf;
    #release;
    /** @type {any} handles for writing */
    #data = null;
    /** @type {any} */
    #record = null;
    /** @type {Awaited<ReturnType<typeof openForReading>> | null} what reads go to */
    #reader = null;
    #recordEnd = 0;
    #salt = 0;
    /** @type {Uint8Array[]} lines whose bytes were written, but not flushed */
    #waiting = [];
    /** @type {any} */
    #timer = 0;
    /** @type {Map<number, {flags: number, hash: Uint8Array}>} */
    pieces = new Map();
    /** True while pieces may be added. */
    canWrite = false;
    /** Called when recording fails later than the write. @type {(error: unknown) => void} */
    onTrouble = () => {};
    /** @type {Promise<void>} while the handles are exchanged, reads fail until this resolves */
    ready = Promise.resolve();

    /**
     * @param {Shelf} shelf @param {Plan} plan @param {() => Promise<void>} release
     */
    constructor(shelf, plan, release) {
        this.#shelf = shelf;
        this.#release = release;
        this.layout = new Layout(plan);
        this.plan = plan;
    }

    /** @param {RecordOf} record */
    async openReading(record) {
        const { folder } = this.#shelf;
        const reader = await openForReading(folder);
        if (reader.size < this.layout.bytes) {
            reader.close();
            throw new FileError(`the cache has ${reader.size} of ${this.layout.bytes} bytes`);
        }
        this.#reader = reader;
        this.pieces = record.pieces;
    }

    /** @param {string} print @param {string} source */
    async openWriting(print, source) {
        const { folder } = this.#shelf;
        const data = await openForWriting(folder, 'data');
        this.#data = data;
        this.#record = await openForWriting(folder, 'record');
        this.#reader = {
            size: 0, close() {}, read: (offset, target) => data.read(target, { at: offset }),
        };
        const bytes = new Uint8Array(Math.min(this.#record.getSize(), RECORD_BYTES_MAX));
        this.#record.read(bytes, { at: 0 });
        const old = unpackRecord(bytes);
        this.canWrite = true;
        if (old && old.print === print) {
            this.#salt = old.salt;
            this.#recordEnd = old.bytes;
            this.pieces = old.pieces;
        } else {
            this.#begin(print, source, old ? keptPieces(old, this.plan) : new Map());
        }
        const size = data.getSize();
        for (const piece of [...this.pieces.keys()]) {
            const isThere = piece < this.layout.count &&
                this.layout.placeOf(piece) + this.layout.lengthOf(piece) <= size;
            if (!isThere) this.drop(piece);
        }
    }

    /**
     * A new record, in which only `kept` is there.
     * @param {string} print @param {string} source
     * @param {Map<number, {flags: number, hash: Uint8Array}>} kept
     */
    #begin(print, source, kept) {
        this.#salt = globalThis.crypto.getRandomValues(new Uint32Array(1))[0];
        const head = packHead({ source, print, plan: this.plan, salt: this.#salt });
        this.#record.truncate(0);
        this.#record.flush();
        if (kept.size === 0) this.#data.truncate(0);
        this.#put(this.#record, head, 0);
        this.#recordEnd = head.length;
        this.pieces = kept;
        for (const [piece, { flags, hash }] of kept) {
            this.#waiting.push(packLine(piece, flags, hash, this.#salt));
        }
        this.flush();
        this.#record.flush();
    }

    /**
     * @param {any} handle @param {Uint8Array} bytes @param {number} at
     */
    #put(handle, bytes, at) {
        for (let n = 0; n < bytes.length;) {
            const written = handle.write(bytes.subarray(n), { at: at + n });
            if (!(written > 0)) throw new DOMException('the disk is full', 'QuotaExceededError');
            n += written;
        }
    }

    /**
     * @param {number} piece @param {number} offset in the piece @param {Uint8Array} target
     * @returns {number} bytes; -1: the handles are being exchanged
     */
    read(piece, offset, target) {
        if (!this.#reader) return -1;
        return this.#reader.read(this.layout.placeOf(piece) + offset, target);
    }

    /** @param {number} piece @param {Uint8Array} target */
    readWhole(piece, target) {
        for (let n = 0; n < target.length;) {
            const got = this.read(piece, n, target.subarray(n));
            if (got <= 0) return false;
            n += got;
        }
        return true;
    }

    /**
     * Keeps a piece. Throws what the browser says where there is no room.
     * @param {number} piece @param {Uint8Array} bytes @param {number} flags
     * @param {Uint8Array} hash
     */
    write(piece, bytes, flags, hash) {
        this.#put(this.#data, bytes, this.layout.placeOf(piece));
        this.#line(piece, flags, hash);
    }

    /** What was computed when it came is still so. @param {number} piece */
    confirm(piece) {
        const line = this.pieces.get(piece);
        if (line && this.canWrite) this.#line(piece, line.flags | CHECKED, line.hash);
    }

    /** @param {number} piece that is damaged */
    drop(piece) {
        this.pieces.delete(piece);
        if (this.canWrite) this.#line(piece, GONE, new Uint8Array(HASH_BYTES));
    }

    /** @param {number} piece @param {number} flags @param {Uint8Array} hash */
    #line(piece, flags, hash) {
        if (!(flags & GONE)) this.pieces.set(piece, { flags, hash });
        this.#waiting.push(packLine(piece, flags, hash, this.#salt));
        if (this.#waiting.length >= RECORD_PIECES) return this.flush();
        this.#timer ||= setTimeout(() => {
            try {
                this.flush();
            } catch (error) {
                this.onTrouble(error);
            }
        }, RECORD_MS);
    }

    /** First the bytes, then the lines that say that they are there. */
    flush() {
        clearTimeout(this.#timer);
        this.#timer = 0;
        if (this.#waiting.length === 0 || !this.#record) return;
        const lines = new Uint8Array(this.#waiting.length * LINE_BYTES);
        this.#waiting.forEach((line, i) => lines.set(line, i * LINE_BYTES));
        this.#data.flush();
        this.#put(this.#record, lines, this.#recordEnd);
        this.#record.flush();
        this.#recordEnd += lines.length;
        this.#waiting = [];
    }

    /** After a failed write: what was recorded stays, nothing is added. */
    stopWriting() {
        if (!this.canWrite) return;
        this.canWrite = false;
        try {
            this.flush();
        } catch {
            this.#waiting = [];
        }
    }

    /**
     * Everything is there: lets other tabs read, too. A reader that finds the model removed in
     * between has to bring it again.
     */
    share() {
        if (!this.canWrite) return this.ready;
        this.flush();
        this.canWrite = false;
        this.ready = this.#exchange();
        return this.ready;
    }

    async #exchange() {
        const { locks, lockName, folder } = this.#shelf, release = this.#release;
        this.#closeHandles();
        // Queued before the other one is let go, so that only who waited longer comes between.
        const shared = holdLock(locks, lockName, 'shared');
        this.#release = async () => (await shared)?.();
        release().catch(() => {});
        await shared;
        try {
            this.#reader = await openForReading(folder);
        } catch {
            this.pieces = new Map();
        }
    }

    #closeHandles() {
        for (const handle of [this.#reader, this.#data, this.#record]) {
            try {
                handle?.close();
            } catch {
                // Closed by the browser already.
            }
        }
        this.#reader = this.#data = this.#record = null;
    }

    /** @param {boolean} [remove] also what is on the disk */
    async close(remove = false) {
        this.stopWriting();
        await this.ready.catch(() => {});
        this.#closeHandles();
        if (remove) await this.#shelf.remove().catch(() => {});
        await this.#release();
    }
}
