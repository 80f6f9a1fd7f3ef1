// @ts-check
/**
 * store: brings the pieces of a model here, checks them, and keeps them for the next time.
 *
 * A model is cut into pieces of about 4 MiB. The Loader decides which is brought next (what was
 * missed first, then file order), holds the bytes that nobody has read yet in a bounded memory, and
 * gives out only what was checked. The Keeper writes them to the browser's private files (OPFS):
 *
 *     doppler/NAME-KEY/data      all files of the model, one behind the other
 *     doppler/NAME-KEY/record    the plan, then 44 bytes for every piece that is there
 *     doppler/NAME-KEY/used      when it was used last
 *
 * Invariant: the record names a piece only after `data` with its bytes was flushed. It is only ever
 * added to, and each of its lines has a checksum that belongs to its plan; so a page that is killed
 * at any moment leaves a cache that is right, and loses what it had not recorded.
 *
 * Who writes holds the exclusive Web Lock of the model, who reads a shared one; a lock dies with
 * its tab. Everything that waits can be stopped by the caller's signal.
 */

import {
    ArgumentError, asError, cancelled, DopplerError, FileError, FormatError, NetworkError,
    throwIfAborted,
} from './errors.js';
import { BlobEntry, Files, nodeFiles } from './files.js';
import {
    defaultPatience, HASH_BYTES, hexOf, makePlan, mayGoBetter, originOf, pauseBefore, PIECE_BYTES,
    RequestError, sha256, sizeText, sleep,
} from './plan.js';

/** @typedef {import('./plan.js').Plan} Plan */
/** @typedef {import('./plan.js').PlanFile} PlanFile */
/** @typedef {import('./plan.js').Origin} Origin */
/** @typedef {import('./plan.js').Opened} Opened */
/** @typedef {import('./plan.js').Patience} Patience */
/** @typedef {import('./files.js').FileEntry} FileEntry */

const MIB = 1024 * 1024;
const MEMORY_BYTES = 32 * MIB;
const MEMORY_BYTES_MIN = 8 * MIB;
const RUN_PIECES = 4; // of one request, where pieces do not have to wait in memory
const CHECKS_MAX = 4; // digests at once: browsers spread them over cores
const WRONG_MAX = 2; // times that a wrong piece is fetched again
const RECENT_PIECES = 2; // that are not dropped: a tensor may begin in one and end in the next
const PROGRESS_MS = 100;
const RATE_MS = 3000;
const RECORD_PIECES = 8; // written at once
const RECORD_MS = 1000;
const REVALIDATE_MS = 3000; // for asking whether a cached model is still the same
const FOLLOW_MS = 500;
const FOLLOW_STALL_MS = 60_000;
const HANDLE_TRIES = 10;
const HANDLE_PAUSE_MS = 200;
const SPARE_BYTES = 16 * MIB; // of quota that is left alone

// ---- the record ---------------------------------------------------------------------------------

const ROOT_FOLDER = 'doppler';
const MAGIC = 0x44505231; // "DPR1"
const HEAD_BYTES = 12; // magic, bytes of the plan, their checksum
const LINE_BYTES = 44; // piece, flags, hash, checksum
const RECORD_BYTES_MAX = 256 * MIB;

/** Flags of a line: compared with a hash of the source, or read again later and the same. */
const CHECKED = 1;
/** Found damaged: as if it had never been there. */
const GONE = 2;

/**
 * @typedef {object} RecordOf
 * @property {string} source what the caller gave, without a query
 * @property {string} print of the plan
 * @property {Plan} plan
 * @property {number} salt that its lines are checked with
 * @property {Map<number, {flags: number, hash: Uint8Array}>} pieces
 */

const crcTable = Uint32Array.from({ length: 256 }, (_, n) => {
    for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
    return n;
});

/**
 * CRC-32, which tells a torn write from a whole one.
 * @param {Uint8Array} bytes @param {number} [start] a value to begin with
 */
function crc32(bytes, start = 0) {
    let crc = ~start;
    for (let i = 0; i < bytes.length; i++) crc = crcTable[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
    return ~crc >>> 0;
}

/** @param {Uint8Array | null} hashes */
const packHashes = (hashes) => hashes && hexOf(hashes);

/** @param {any} text @returns {Uint8Array | null} */
function unpackHashes(text) {
    if (typeof text !== 'string') return null;
    const length = text.length / 2;
    return Uint8Array.from({ length }, (_, i) => parseInt(text.slice(2 * i, 2 * i + 2), 16));
}

/** @param {Plan} plan what of it is kept: everything but the bytes */
function packPlan(plan) {
    const files = plan.files.map(({ bytes, hashes, ...rest }) => (
        { ...rest, hashes: packHashes(hashes) }));
    return { ...plan, files };
}

/**
 * What tells a plan from another one of the same source: names, sizes and hashes, and the tag where
 * nothing but the tag tells one content from another.
 * @param {Plan} plan
 */
async function printOf(plan) {
    const rows = plan.files.map(({ name, size, tag, pieceBytes, hashBytes, hashes }) => (
        [name, size, pieceBytes, hashBytes, hashes ? hexOf(hashes) : tag]));
    const text = JSON.stringify([plan.kind, plan.path, rows]);
    return hexOf(await sha256(new TextEncoder().encode(text)));
}

/** @param {Omit<RecordOf, 'pieces'>} record */
function packHead({ source, print, plan, salt }) {
    const text = JSON.stringify({ source, print, salt, plan: packPlan(plan) });
    const json = new TextEncoder().encode(text);
    const bytes = new Uint8Array(HEAD_BYTES + json.length), view = new DataView(bytes.buffer);
    view.setUint32(0, MAGIC);
    view.setUint32(4, json.length);
    view.setUint32(8, crc32(json));
    bytes.set(json, HEAD_BYTES);
    return bytes;
}

/**
 * @param {number} piece @param {number} flags @param {Uint8Array} hash @param {number} salt
 */
function packLine(piece, flags, hash, salt) {
    const bytes = new Uint8Array(LINE_BYTES), view = new DataView(bytes.buffer);
    view.setUint32(0, piece);
    view.setUint32(4, flags);
    bytes.set(hash, 8);
    view.setUint32(LINE_BYTES - 4, crc32(bytes.subarray(0, LINE_BYTES - 4), salt));
    return bytes;
}

/**
 * What a record says; null for one that is torn or of another version. Lines are read up to the
 * first that is not whole.
 * @param {Uint8Array} bytes
 * @returns {RecordOf & {bytes: number} | null} `bytes`: up to where it is whole
 */
function unpackRecord(bytes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (bytes.length < HEAD_BYTES || view.getUint32(0) !== MAGIC) return null;
    const end = HEAD_BYTES + view.getUint32(4);
    if (end > bytes.length) return null;
    const json = bytes.subarray(HEAD_BYTES, end);
    if (crc32(json) !== view.getUint32(8)) return null;
    /** @type {any} */
    let head;
    try {
        head = JSON.parse(new TextDecoder().decode(json));
        for (const file of head.plan.files) file.hashes = unpackHashes(file.hashes);
    } catch {
        return null;
    }
    const pieces = new Map();
    let at = end;
    for (; at + LINE_BYTES <= bytes.length; at += LINE_BYTES) {
        const line = bytes.subarray(at, at + LINE_BYTES);
        const sum = crc32(line.subarray(0, LINE_BYTES - 4), head.salt);
        if (sum !== view.getUint32(at + LINE_BYTES - 4)) break;
        const piece = view.getUint32(at), flags = view.getUint32(at + 4);
        if (flags & GONE) pieces.delete(piece);
        else pieces.set(piece, { flags, hash: line.slice(8, 8 + HASH_BYTES) });
    }
    return { ...head, pieces, bytes: at };
}

// ---- pieces -------------------------------------------------------------------------------------

/**
 * Where the pieces of a plan are: in their files, and in `data`, where weights come first so that
 * another text beside them does not move them.
 */
class Layout {
    /** @param {Plan} plan */
    constructor(plan) {
        this.files = plan.files.map((file) => (
            { file, first: 0, count: Math.ceil(file.size / file.pieceBytes), place: 0 }));
        this.count = 0;
        this.bytes = 0;
        for (const part of this.files) {
            part.first = this.count;
            this.count += part.count;
            this.bytes += part.file.size;
        }
        let place = 0;
        for (const isWeights of [true, false]) {
            for (const part of this.files) {
                if (part.file.weights !== isWeights) continue;
                part.place = place;
                place += part.file.size;
            }
        }
        this.fileOf = new Uint32Array(this.count);
        this.files.forEach(({ first, count }, i) => this.fileOf.fill(i, first, first + count));
    }

    /** @param {number} piece */
    partOf(piece) {
        return this.files[this.fileOf[piece]];
    }

    /** First byte in the file. @param {number} piece */
    startOf(piece) {
        const { file, first } = this.partOf(piece);
        return (piece - first) * file.pieceBytes;
    }

    /** @param {number} piece */
    lengthOf(piece) {
        const { file } = this.partOf(piece);
        return Math.min(file.pieceBytes, file.size - this.startOf(piece));
    }

    /** First byte in `data`. @param {number} piece */
    placeOf(piece) {
        return this.partOf(piece).place + this.startOf(piece);
    }

    /** "shard_00000.bin, piece 3 of 8" @param {number} piece */
    show(piece) {
        const { file, first, count } = this.partOf(piece);
        return `${file.name}, piece ${piece - first + 1} of ${count}`;
    }
}

/**
 * The pieces of an older record that are the same in a newer plan, by their new numbers: those of
 * weights at the same place whose hashes, which both sources say, are equal.
 * @param {RecordOf} old @param {Plan} plan
 */
function keptPieces(old, plan) {
    const from = new Layout(old.plan), to = new Layout(plan), kept = new Map();
    for (const part of to.files) {
        const { file, place } = part;
        const twin = from.files.find((p) => p.place === place && p.file.weights && file.weights &&
            p.file.size === file.size && p.file.pieceBytes === file.pieceBytes &&
            p.file.hashBytes === file.hashBytes && p.file.hashes && file.hashes &&
            hexOf(p.file.hashes) === hexOf(file.hashes));
        for (let i = 0; twin && i < part.count; i++) {
            const line = old.pieces.get(twin.first + i);
            if (line && line.flags & CHECKED) kept.set(part.first + i, line);
        }
    }
    return kept;
}

// ---- what the browser offers --------------------------------------------------------------------

/**
 * The parts of `navigator` that keep things; tests give their own.
 * @typedef {object} StorageParts
 * @property {() => Promise<any>} getDirectory
 * @property {() => Promise<{quota?: number, usage?: number}>} [estimate]
 * @property {() => Promise<boolean>} [persist] pages have it, workers do not
 * @property {() => Promise<boolean>} [persisted]
 */

/** @param {any} error @param {string} name */
const isNamed = (error, name) => error?.name === name;

/**
 * Holds a lock until the function that it answers is called, which resolves when the lock is free
 * for others: browsers take a moment. null if `ifAvailable` and it is not.
 * @param {any} locks @param {string} name @param {'shared' | 'exclusive'} mode
 * @param {{ifAvailable?: boolean}} [options]
 * @returns {Promise<(() => Promise<void>) | null>}
 */
function holdLock(locks, name, mode, options = {}) {
    return new Promise((done, failed) => {
        const ended = locks.request(name, { mode, ...options }, (/** @type {any} */ lock) => {
            if (!lock) return void done(null);
            return new Promise((letGo) => done(async () => {
                letGo(undefined);
                await ended;
            }));
        });
        ended.catch(failed);
    });
}

/** @param {any} folder @param {string} name @returns {Promise<File | null>} */
async function fileOf(folder, name) {
    try {
        return await (await folder.getFileHandle(name)).getFile();
    } catch (error) {
        if (isNamed(error, 'NotFoundError')) return null;
        throw error;
    }
}

/** @param {any} folder @returns {Promise<ReturnType<typeof unpackRecord>>} */
async function readRecord(folder) {
    try {
        const file = await fileOf(folder, 'record');
        if (!file || file.size > RECORD_BYTES_MAX) return null;
        return unpackRecord(new Uint8Array(await file.arrayBuffer()));
    } catch {
        return null; // being written, or gone: as good as none
    }
}

/**
 * Another tab's handle may live a moment longer than its lock.
 * @param {any} folder @param {string} name
 */
async function openForWriting(folder, name) {
    const handle = await folder.getFileHandle(name, { create: true });
    for (let n = 1;; n++) {
        try {
            return await handle.createSyncAccessHandle();
        } catch (error) {
            if (!isNamed(error, 'NoModificationAllowedError') || n === HANDLE_TRIES) throw error;
            await sleep(HANDLE_PAUSE_MS);
        }
    }
}

/**
 * For reading beside other readers: a shared handle where the browser has them, an exclusive one
 * where nobody else has it, else a snapshot, which is slower.
 * @param {any} folder
 * @returns {Promise<{read: (offset: number, target: Uint8Array) => number, size: number,
 *     close: () => void}>}
 */
async function openForReading(folder) {
    const handle = await folder.getFileHandle('data');
    try {
        const open = await handle.createSyncAccessHandle({ mode: 'read-only' });
        return {
            size: open.getSize(),
            read: (offset, target) => open.read(target, { at: offset }),
            close: () => open.close(),
        };
    } catch (error) {
        if (!isNamed(error, 'NoModificationAllowedError') || !BlobEntry.isPossible) throw error;
    }
    const file = new BlobEntry(await handle.getFile(), 'the cache');
    return {
        size: file.size, close() {},
        read: (offset, target) => file.read(offset, target.subarray(0, file.size - offset)),
    };
}

/** The folder in which one model is kept. */
class Shelf {
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

/** @param {RecordOf} record */
function isComplete({ plan, pieces }) {
    return pieces.size === new Layout(plan).count;
}

/** The pieces of one model on the disk. Reading and writing answer at once. */
class Keeper {
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

// ---- the loader ---------------------------------------------------------------------------------

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

/**
 * @typedef {{phase: 'download' | 'verify', loaded: number, total: number, rate: number,
 *     text?: string}} ProgressEvent `rate` in bytes a second
 */

/** Brings, checks and gives out the pieces of one plan. */
class Loader {
    #layout;
    #origin;
    #keeper;
    #patience;
    #onProgress;
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
    #counted;
    #loaded = 0;
    #partial = 0;
    #arrivals = [{ at: Date.now(), bytes: 0 }];
    #received = 0;
    #told = 0;
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
        this.#onProgress = onProgress;
        this.totalBytes = this.#layout.bytes;
        this.#states = new Uint8Array(this.#layout.count);
        this.#counted = new Uint8Array(this.#layout.count);
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
        this.#failure = asError(reason, 'network');
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
            this.#partial -= run.filled;
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
            const before = this.#received;
            try {
                return await this.#stream(run, signal);
            } catch (error) {
                if (signal.aborted || !mayGoBetter(error)) throw error;
                n = this.#received > before ? 1 : n + 1;
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

    /**
     * The answer is of the file that was planned. What has hashes is told from another by them.
     * @param {Layout['files'][number]} part @param {Opened} opened
     */
    #judge({ file }, { total, tag }) {
        const shown = `${this.#origin?.shown ?? ''}${file.name}`;
        if (total !== null && total !== file.size) {
            throw new NetworkError(`${shown}: has ${total} bytes at the source, ${file.size} are ` +
                'expected: it changed, or is not what the manifest describes');
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
        this.#partial -= run.filled;
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
        return new RequestError(`${this.#origin?.shown ?? ''}${file.name}: the answer ended at ` +
            `byte ${at} of ${file.size}`, { again: true });
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
            this.#partial += n;
            this.#received += n;
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
        this.#partial -= run.filled;
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

    /** Counts it once, however often it comes. @param {number} piece */
    #count(piece) {
        if (this.#counted[piece]) return;
        this.#counted[piece] = 1;
        this.#loaded += this.#layout.lengthOf(piece);
    }

    /**
     * @param {boolean} always @param {'download' | 'verify'} [phase] @param {string} [text]
     */
    #tell(always, phase = 'download', text) {
        const now = Date.now();
        const total = this.totalBytes, loaded = Math.min(this.#loaded + this.#partial, total);
        const isLast = loaded === total;
        if (!this.#onProgress || this.#failure) return;
        if (!always && !isLast && now - this.#told < PROGRESS_MS) return;
        this.#told = now;
        this.#arrivals.push({ at: now, bytes: this.#received });
        while (this.#arrivals.length > 2 && now - this.#arrivals[0].at > RATE_MS) {
            this.#arrivals.shift();
        }
        const { at, bytes } = this.#arrivals[0];
        const rate = now > at ? (this.#received - bytes) * 1000 / (now - at) : 0;
        this.#onProgress({ phase, loaded, total, rate, ...text ? { text } : {} });
    }
}

// ---- opening ------------------------------------------------------------------------------------

/**
 * The place in which models are kept; null, with the reason in `notes`, if there is none.
 * @param {StorageParts | undefined} storage @param {any} locks @param {string[]} notes
 */
async function openRoot(storage, locks, notes) {
    const why = 'the model is not kept for the next time: ';
    if (!storage?.getDirectory || !locks) {
        notes.push(`${why}this browser has no private files (OPFS) or no locks`);
        return null;
    }
    try {
        const top = await storage.getDirectory();
        return await top.getDirectoryHandle(ROOT_FOLDER, { create: true });
    } catch (error) {
        notes.push(`${why}private files are not allowed here: ${asError(error).message}`);
        return null;
    }
}

/** @param {string} name @param {string} key */
async function idOf(name, key) {
    const digest = await sha256(new TextEncoder().encode(key));
    const plain = name.replace(/[^A-Za-z0-9._-]+/g, '_').replace(/^\.+/, '').slice(0, 60);
    return `${plain || 'model'}-${hexOf(digest.subarray(0, 8))}`;
}

/**
 * Whether the source still has what the record describes: 'same', 'other', or 'away' if it cannot
 * be asked and the model is whole.
 * @param {Origin} origin @param {RecordOf} record @param {AbortSignal} [signal]
 * @returns {Promise<'same' | 'other' | 'away'>}
 */
async function compareSource(origin, record, signal) {
    const { plan } = record, isWhole = isComplete(record);
    if (isWhole && globalThis.navigator?.onLine === false) return 'away';
    const witnesses = plan.kind === 'rdrr' ? plan.files.filter((f) => f.name === 'manifest.json')
        : plan.files.filter((f) => f.weights || f.name === 'config.json');
    const limits = isWhole ? [AbortSignal.timeout(REVALIDATE_MS)] : [];
    const patience = AbortSignal.any([...limits, ...signal ? [signal] : []]);
    try {
        const answers = await Promise.all(witnesses.map(
            ({ name }) => origin.probe(name, { signal: patience, once: isWhole })));
        if (answers.some((answer) => !answer)) return isWhole ? 'away' : 'other';
        const isSame = witnesses.every(({ size, tag, hashes }, i) => {
            const answer = /** @type {{size: number | null, tag: string}} */ (answers[i]);
            const isDated = answer.tag !== '' && tag !== '';
            // A text without a tag is cheaper to fetch than to be wrong about.
            return (answer.size === null || answer.size === size) &&
                (isDated ? answer.tag === tag : !hashes);
        });
        return isSame ? 'same' : 'other';
    } catch {
        throwIfAborted(signal);
        return isWhole ? 'away' : 'other';
    }
}

/**
 * False, with a sentence, if the browser has too little room for what is still missing.
 * @param {StorageParts} storage @param {number} bytes @param {string[]} notes
 */
async function hasRoom(storage, bytes, notes) {
    const { quota, usage = 0 } = /** @type {{quota?: number, usage?: number}} */ (
        await storage.estimate?.().catch(() => ({})) ?? {});
    if (quota === undefined || bytes === 0 || quota - usage >= bytes + SPARE_BYTES) return true;
    notes.push(`the model is not kept for the next time: it needs ${sizeText(bytes)}, and the ` +
        `browser has room for ${sizeText(Math.max(quota - usage, 0))}`);
    return false;
}

/**
 * @typedef {object} OpenOptions
 * @property {typeof fetch} [fetch]
 * @property {StorageParts} [storage] as navigator.storage
 * @property {any} [locks] as navigator.locks
 * @property {AbortSignal} [signal]
 * @property {(event: ProgressEvent) => void} [onProgress]
 * @property {boolean} [cache] false: nothing is kept, nor read from what was
 * @property {boolean} [verify] hash everything that is kept once more
 * @property {number} [maxMemory] bytes of pieces in memory; never more than 32 MiB
 * @property {Partial<Patience>} [patience]
 * @property {string} [base] what relative URLs are relative to
 * @property {number} [followMs] how long another tab may bring nothing
 * @property {number} [pieceBytes] smaller ones for tests
 *
 * @typedef {object} OpenedSource
 * @property {Files} files
 * @property {string} path what the engine opens
 * @property {string} name of the model
 * @property {number} totalBytes
 * @property {boolean} fromCache nothing has to be fetched
 * @property {string[]} notes what is not as it should be, a sentence each; grows while it loads
 */

/**
 * Opens a source: a URL, picked files, a handle, or "cache:NAME" for what is kept. Nothing but what
 * planning needs and the small texts is fetched before `files.prefetch`.
 * @param {any} source @param {OpenOptions} [options]
 * @returns {Promise<OpenedSource>}
 */
export async function openSource(source, options = {}) {
    throwIfAborted(options.signal);
    if (isNodePath(source)) return openPath(source);
    const { cache = true, signal } = options;
    const storage = options.storage ?? globalThis.navigator?.storage;
    const locks = options.locks ?? globalThis.navigator?.locks;
    const patience = { ...defaultPatience, ...options.patience };
    /** @type {string[]} */
    const notes = [];
    if (typeof source === 'string' && source.startsWith('cache:')) {
        return openKept(source.slice('cache:'.length), { ...options, storage, locks, notes });
    }
    const origin = await originOf(source, { fetch: options.fetch, base: options.base, patience });
    const isKept = cache && origin.key !== '';
    const root = isKept ? await openRoot(storage, locks, notes) : null;
    const shelf = root && new Shelf(root, locks, await idOf(origin.name, origin.key));
    const record = await shelf?.peek() ?? null;
    const found = record ? await compareSource(origin, record, signal) : 'other';
    if (found === 'away') notes.push(`${origin.shown}: cannot be asked: what is kept is used`);
    const plan = record && found !== 'other' ? record.plan : await makePlan(origin, options);
    return load(plan, origin, shelf, { ...options, storage, patience, notes });
}

/** Node: a file URL is a folder or file of this machine. @param {any} source */
function isNodePath(source) {
    return 'process' in globalThis && !('window' in globalThis) &&
        /^file:/.test(typeof source === 'string' ? source
            : source instanceof URL ? source.href : '');
}

/** @param {string | URL} source @returns {Promise<OpenedSource>} */
async function openPath(source) {
    const { fileURLToPath } = await import(/* webpackIgnore: true */ 'node:url');
    const { basename } = await import(/* webpackIgnore: true */ 'node:path');
    const place = fileURLToPath(source);
    let opened;
    try {
        opened = await nodeFiles(place);
    } catch (cause) {
        throw new FileError(`${place}: ${/** @type {Error} */ (cause).message}`, { cause });
    }
    const { files, path } = opened;
    const names = files.list('/model');
    const sizeOf = (/** @type {string} */ name) => files.stat(`/model/${name}`)?.size ?? 0;
    const totalBytes = names.reduce((sum, name) => sum + sizeOf(name), 0);
    return { files, path, name: basename(place), totalBytes, fromCache: true, notes: [] };
}

/**
 * A model by the name under which it is kept, without asking its source.
 * @param {string} name
 * @param {OpenOptions & {storage: any, locks: any, notes: string[]}} options
 */
async function openKept(name, options) {
    const { storage, locks, notes } = options;
    const root = await openRoot(storage, locks, notes);
    const entries = root ? await listModels(root) : [];
    const found = entries.filter((entry) => entry.name === name || entry.id === name);
    if (!root || found.length === 0) {
        throw new FileError(`cache:${name}: no such model is kept in this browser`);
    }
    const shelf = new Shelf(root, locks, found[0].id), record = await shelf.peek();
    if (!record) throw new FileError(`cache:${name}: its record is gone`);
    const patience = { ...defaultPatience, ...options.patience };
    const origin = record.source === '' ? null
        : await originOf(record.source, { fetch: options.fetch, patience });
    return load(record.plan, origin, shelf, { ...options, patience });
}

/**
 * @param {Plan} plan @param {Origin | null} origin @param {Shelf | null} shelf
 * @param {OpenOptions & {storage: any, patience: Patience, notes: string[]}} options
 * @returns {Promise<OpenedSource>}
 */
async function load(plan, origin, shelf, options) {
    const { signal, onProgress, patience, notes, verify = false } = options;
    notes.push(...plan.notes);
    const keeper = shelf && await openKeeper(shelf, plan, origin, options);
    const budget = Math.max(MEMORY_BYTES_MIN,
        Math.min(options.maxMemory || MEMORY_BYTES, MEMORY_BYTES));
    /** @type {Loader | null} */
    let made = null;
    try {
        const loader = made = new Loader(plan, {
            origin, keeper, patience, budget, verify, notes, signal, onProgress,
        });
        const { totalBytes, fromCache } = loader, { path, name } = plan;
        const files = new Files(loader.entries(), {
            prefetch: () => loader.prefetch(),
            finish: () => loader.finish(),
            close: () => loader.close(),
        });
        loader.begin();
        return { files, path, name, totalBytes, fromCache, notes };
    } catch (error) {
        await (made ? made.close() : keeper?.close());
        throw error;
    }
}

/**
 * null, with a note, where the model cannot be kept: that is no reason not to load it.
 * @param {Shelf} shelf @param {Plan} plan @param {Origin | null} origin
 * @param {OpenOptions & {storage: any, notes: string[]}} options
 */
async function openKeeper(shelf, plan, origin, { signal, storage, notes, onProgress, followMs }) {
    const total = plan.files.reduce((sum, { size }) => sum + size, 0);
    const text = 'another tab is loading this model: waiting for it';
    const onWait = () => onProgress?.({ phase: 'download', loaded: 0, total, rate: 0, text });
    const { FileSystemFileHandle: Kind } = /** @type {any} */ (globalThis);
    if (Kind && !('createSyncAccessHandle' in Kind.prototype)) {
        notes.push('the model is loaded without the cache: files are written in workers only');
        return null;
    }
    try {
        const print = await printOf(plan), source = origin?.key || '';
        const keeper = await shelf.open(plan, print, source, { signal, onWait, followMs });
        if (!keeper) {
            notes.push('another tab holds this model in the cache and brings nothing: it is ' +
                'loaded without the cache');
            return null;
        }
        const missing = [...keeper.layout.fileOf.keys()].filter((p) => !keeper.pieces.has(p))
            .reduce((sum, piece) => sum + keeper.layout.lengthOf(piece), 0);
        if (!await hasRoom(storage, missing, notes)) {
            keeper.stopWriting();
            if (keeper.pieces.size === 0) {
                await keeper.close(true);
                return null;
            }
        }
        await markUsed(shelf);
        if (missing > 0) await storage.persist?.().catch(() => false);
        return keeper;
    } catch (error) {
        throwIfAborted(signal);
        const why = isNamed(error, 'QuotaExceededError') ? 'the browser gives no room (quota)'
            : asError(error).message;
        notes.push(`the model is loaded without the cache: ${why}`);
        return null;
    }
}

/** When it was used last, for lists. @param {Shelf} shelf */
async function markUsed({ folder }) {
    try {
        const handle = await folder.getFileHandle('used', { create: true });
        const file = await handle.createSyncAccessHandle();
        const text = new TextEncoder().encode(String(Date.now()));
        file.truncate(0);
        file.write(text, { at: 0 });
        file.close();
    } catch {
        // Two tabs at once, or no room for a line: not worth a word.
    }
}

// ---- the cache as a whole -----------------------------------------------------------------------

/**
 * @typedef {object} CacheEntry
 * @property {string} id
 * @property {string} name
 * @property {string} source where it came from
 * @property {number} bytes of the whole model
 * @property {number} stored bytes that are there
 * @property {boolean} complete
 * @property {number} lastUsed milliseconds since 1970, 0 if that is not known
 */

/** @param {any} root @returns {Promise<CacheEntry[]>} */
async function listModels(root) {
    const entries = [];
    for await (const folder of root.values()) {
        if (folder.kind === 'directory') entries.push(await describe(folder));
    }
    return entries.sort((a, b) => b.lastUsed - a.lastUsed || (a.name < b.name ? -1 : 1));
}

/** @param {any} folder @returns {Promise<CacheEntry>} */
async function describe(folder) {
    const id = folder.name, record = await readRecord(folder);
    const lastUsed = Number(await textOf(folder, 'used')) || 0;
    if (!record) {
        const stored = (await fileOf(folder, 'data').catch(() => null))?.size ?? 0;
        return { id, name: id, source: '', bytes: stored, stored, complete: false, lastUsed };
    }
    const layout = new Layout(record.plan);
    let stored = 0;
    for (const piece of record.pieces.keys()) {
        if (piece < layout.count) stored += layout.lengthOf(piece);
    }
    return {
        id, name: record.plan.name, source: record.source, bytes: layout.bytes, stored,
        complete: isComplete(record), lastUsed,
    };
}

/** @param {any} folder @param {string} name */
async function textOf(folder, name) {
    try {
        return await (await fileOf(folder, name))?.text() ?? '';
    } catch {
        return '';
    }
}

/**
 * What is kept in this browser, for the page's origin.
 * @param {{storage?: StorageParts, locks?: any}} [options]
 */
export async function openCache(options = {}) {
    const storage = options.storage ?? globalThis.navigator?.storage;
    const locks = options.locks ?? globalThis.navigator?.locks;
    /** @type {string[]} */
    const notes = [];
    const root = await openRoot(storage, locks, notes);

    /** @param {CacheEntry} entry */
    async function removeEntry({ id, name }) {
        const release = await holdLock(locks, `${ROOT_FOLDER}:${id}`, 'exclusive',
            { ifAvailable: true });
        if (!release) throw new FileError(`${name}: is in use, in this tab or another one`);
        try {
            await root.removeEntry(id, { recursive: true });
        } catch (cause) {
            if (isNamed(cause, 'NotFoundError')) return;
            throw new FileError(`${name}: cannot be removed: ${asError(cause).message}`, { cause });
        } finally {
            await release();
        }
    }

    /** @param {CacheEntry[]} entries */
    async function removeAll(entries) {
        let removed = 0, bytes = 0;
        for (const entry of entries) {
            await removeEntry(entry);
            removed++;
            bytes += entry.stored;
        }
        return { removed, bytes };
    }

    return {
        /** Why nothing can be kept; empty if it can. */
        notes,
        /** What is kept, the latest used first. */
        list: async () => (root ? listModels(root) : []),
        /**
         * Removes what has this name, id or source.
         * @param {string} name
         */
        async remove(name) {
            if (typeof name !== 'string' || name === '') {
                throw new ArgumentError('a model of the cache is removed by its name');
            }
            const entries = root ? await listModels(root) : [];
            const found = entries.filter((e) => [e.name, e.id, e.source].includes(name));
            if (found.length === 0) throw new FileError(`${name}: is not in the cache`);
            return removeAll(found);
        },
        /** Removes everything that is not in use; FileError if something is. */
        purge: async () => removeAll(root ? await listModels(root) : []),
        /** Bytes: what the browser allows and has, and what models take of it. */
        async estimate() {
            const { quota = 0, usage = 0 } = /** @type {{quota?: number, usage?: number}} */ (
                await storage?.estimate?.().catch(() => ({})) ?? {});
            const entries = root ? await listModels(root) : [];
            const models = entries.reduce((sum, { stored }) => sum + stored, 0);
            const persisted = await storage?.persisted?.().catch(() => false) ?? false;
            return { quota, usage, models, persisted };
        },
    };
}
