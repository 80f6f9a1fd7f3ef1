// @ts-check
/**
 * Files: the read-only file tree that the wasm reads synchronously.
 *
 * One folder, /model, with plain files in it. An entry answers at once with the bytes that are
 * here; bytes that are not are remembered as missed, and `arrived` waits for all that was missed
 * since it was last asked. So a reader that cannot wait calls `read`, gets -1, lets its caller
 * await `arrived`, and starts over.
 *
 * Invariant: a read never gives a byte that was not checked as far as its source can be checked,
 * and never one beyond the size that `stat` said.
 */

import { ArgumentError, FileError, FormatError } from './errors.js';

/** Where a model lies in the tree. */
export const MODEL_FOLDER = '/model';

/** Bytes of a file's name, which the C has for its paths, too. */
export const NAME_BYTES_MAX = 255;

/**
 * A file of the tree. `read` copies what is here from `offset` on, up to the target's length, and
 * returns the bytes copied: 0 at the end of the file, -1 if the first one is not here. An entry
 * that can answer -1 has `fetch`, which resolves when the range may be read (or as much of its
 * beginning as fits in memory), and rejects if that will never be.
 * @typedef {object} FileEntry
 * @property {number} size
 * @property {(offset: number, target: Uint8Array) => number} read
 * @property {(offset: number, length: number) => Promise<void>} [fetch]
 * @property {() => void} [close]
 */

/**
 * What stands behind a tree. All may be missing.
 * @typedef {object} FilesHooks
 * @property {() => void} [prefetch] begins to bring the rest, in file order
 * @property {() => Promise<void>} [finish] resolves when all bytes are here or were, and checked
 * @property {() => void | Promise<void>} [close]
 */

const utf8 = new TextEncoder();

/**
 * True for a name that leads nowhere else: no separator, no dot in front, no control characters,
 * 1 to NAME_BYTES_MAX bytes, whole characters only.
 * @param {unknown} name
 * @returns {name is string}
 */
export function isPlainName(name) {
    if (typeof name !== 'string' || name === '' || name.length > NAME_BYTES_MAX) return false;
    if (name[0] === '.' || /[\u0000-\u001f\u007f-\u009f/\\]/.test(name)) return false;
    if (/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/.test(name)) {
        return false;
    }
    return utf8.encode(name).length <= NAME_BYTES_MAX;
}

/**
 * The name itself; throws FormatError for one that is not plain.
 * @param {unknown} name @param {string} where what says the name
 */
export function plainName(name, where) {
    if (isPlainName(name)) return name;
    const shown = typeof name === 'string' ? JSON.stringify(name.slice(0, 80)) : typeof name;
    throw new FormatError(`${where}: ${shown} is no plain name of a file: 1 to ` +
        `${NAME_BYTES_MAX} bytes without "/", "\\", control characters and a dot in front`);
}

/** The tree. Paths are absolute; "." parts and doubled slashes are forgiven, ".." is not. */
export class Files {
    #entries;
    #hooks;
    /** @type {Map<FileEntry, {offset: number, length: number}[]>} */
    #missed = new Map();
    #closed = false;

    /**
     * @param {Map<string, FileEntry>} entries by plain name
     * @param {FilesHooks} [hooks]
     */
    constructor(entries, hooks = {}) {
        for (const name of entries.keys()) plainName(name, 'a tree of files');
        this.#entries = entries;
        this.#hooks = hooks;
    }

    /**
     * @param {string} path
     * @returns {{size: number, isFolder: boolean} | null}
     */
    stat(path) {
        const name = this.#nameOf(path);
        if (name === null) return null;
        if (name === '' || name === '/') return { size: 0, isFolder: true };
        const entry = this.#entries.get(name);
        return entry ? { size: entry.size, isFolder: false } : null;
    }

    /**
     * Names in a folder, sorted; none for what is no folder.
     * @param {string} path
     */
    list(path) {
        const name = this.#nameOf(path);
        if (name === '/') return [MODEL_FOLDER.slice(1)];
        return name === '' ? [...this.#entries.keys()].sort() : [];
    }

    /**
     * @param {string} path @param {number} offset @param {Uint8Array} target
     * @returns {number} bytes copied, fewer than asked for at the end of the file and where some
     *     are missing; -1: not here yet
     */
    read(path, offset, target) {
        if (this.#closed) throw new FileError(`${path}: the files are closed`);
        const entry = this.#entries.get(this.#nameOf(path) ?? '');
        if (!entry) throw new FileError(`${path}: no such file`);
        if (!Number.isSafeInteger(offset) || offset < 0) {
            throw new ArgumentError(`${path}: ${offset} is no offset`);
        }
        const length = Math.min(target.length, entry.size - offset);
        if (length <= 0) return 0;
        const n = entry.read(offset, length === target.length ? target
            : target.subarray(0, length));
        if (n < 0) this.#miss(entry, offset, length);
        return n;
    }

    /** Whether a read has missed something since `arrived` was last asked. */
    get missing() {
        return this.#missed.size > 0;
    }

    /** Resolves when what was missed is here; rejects with a DopplerError if it never will be. */
    async arrived() {
        const missed = [...this.#missed];
        this.#missed.clear();
        const waits = [];
        for (const [entry, ranges] of missed) {
            for (const { offset, length } of ranges) waits.push(entry.fetch?.(offset, length));
        }
        await Promise.all(waits);
        if (this.#closed) throw new FileError('the files are closed');
    }

    /** Begins to bring what was not asked for yet. Until then only what is missed is brought. */
    prefetch() {
        if (!this.#closed) this.#hooks.prefetch?.();
    }

    /** Resolves when every byte was brought and checked; rejects if one is wrong for good. */
    async finish() {
        this.prefetch();
        await this.#hooks.finish?.();
    }

    /** Lets go of all handles and memory, and stops what is still being brought. */
    async close() {
        if (this.#closed) return;
        this.#closed = true;
        this.#missed.clear();
        for (const entry of this.#entries.values()) entry.close?.();
        await this.#hooks.close?.();
    }

    /**
     * @param {FileEntry} entry @param {number} offset @param {number} length
     */
    #miss(entry, offset, length) {
        const ranges = this.#missed.get(entry) ?? [];
        if (ranges.some((r) => r.offset === offset && r.length >= length)) return;
        ranges.push({ offset, length });
        this.#missed.set(entry, ranges);
    }

    /**
     * The name in the model's folder; '' is that folder, '/' the root, null neither.
     * @param {string} path
     */
    #nameOf(path) {
        const parts = path.split('/').filter((part) => part !== '' && part !== '.');
        if (parts.length === 0) return '/';
        if (parts[0] !== MODEL_FOLDER.slice(1) || parts.length > 2) return null;
        return parts.length === 1 ? '' : parts[1];
    }
}

/** A file in memory. */
export class MemoryEntry {
    /** @param {Uint8Array} bytes kept as it is, not copied */
    constructor(bytes) {
        this.bytes = bytes;
        this.size = bytes.length;
    }

    /** @param {number} offset @param {Uint8Array} target */
    read(offset, target) {
        const part = this.bytes.subarray(offset, offset + target.length);
        target.set(part);
        return part.length;
    }

    close() {
        this.bytes = new Uint8Array(0);
    }
}

/** A file that the user picked, read by FileReaderSync, which only workers have. */
export class BlobEntry {
    #blob;
    #name;
    #reader;

    /** @param {Blob} blob @param {string} name for messages */
    constructor(blob, name) {
        this.#blob = blob;
        this.#name = name;
        this.#reader = new /** @type {any} */ (globalThis).FileReaderSync();
        this.size = blob.size;
    }

    static get isPossible() {
        return 'FileReaderSync' in globalThis;
    }

    /** @param {number} offset @param {Uint8Array} target */
    read(offset, target) {
        const length = Math.min(target.length, BLOB_READ_MAX);
        let bytes;
        try {
            bytes = this.#reader.readAsArrayBuffer(this.#blob.slice(offset, offset + length));
        } catch (cause) {
            throw blobError(this.#name, cause);
        }
        if (bytes.byteLength === 0) {
            throw new FileError(`${this.#name}: ends at ${offset}, was ${this.size} bytes long`);
        }
        target.set(new Uint8Array(bytes));
        return bytes.byteLength;
    }
}

/** A slice is copied once on its way; a bound keeps that copy small. */
const BLOB_READ_MAX = 4 * 1024 * 1024;

/**
 * @param {string} name @param {unknown} cause
 */
export function blobError(name, cause) {
    const why = cause instanceof Error ? cause.message || cause.name : String(cause);
    return new FileError(`${name}: cannot be read, it may have changed or gone: ${why}`, { cause });
}

/**
 * A tree of files in memory.
 * @param {Object<string, Uint8Array>} files by name
 */
export function memoryFiles(files) {
    const entries = new Map();
    for (const [name, bytes] of Object.entries(files)) entries.set(name, new MemoryEntry(bytes));
    return new Files(entries);
}

/**
 * A model of this machine, for Node: a folder, or a file with what lies beside it (a split model).
 * @param {string} place a path
 * @returns {Promise<{files: Files, path: string}>} `path` is the model's place in the tree
 */
export async function nodeFiles(place) {
    const fs = await import(/* webpackIgnore: true */ 'node:fs');
    const { basename, dirname, join } = await import(/* webpackIgnore: true */ 'node:path');
    const isFolder = fs.statSync(place).isDirectory();
    const folder = isFolder ? place : dirname(place);
    /** @type {number[]} */
    const open = [];
    const entries = new Map();
    for (const name of fs.readdirSync(folder)) {
        const path = join(folder, name), stat = fs.statSync(path, { throwIfNoEntry: false });
        if (stat?.isFile() && isPlainName(name)) entries.set(name, diskEntry(path, stat.size));
    }
    const files = new Files(entries, { close: () => open.forEach((fd) => fs.closeSync(fd)) });
    return { files, path: isFolder ? MODEL_FOLDER : `${MODEL_FOLDER}/${basename(place)}` };

    /**
     * Opened when it is read for the first time: a folder may hold thousands of files.
     * @param {string} path @param {number} size
     * @returns {FileEntry}
     */
    function diskEntry(path, size) {
        let fd = -1;
        return {
            size,
            read(offset, target) {
                if (fd < 0) {
                    fd = fs.openSync(path, 'r');
                    open.push(fd);
                }
                const n = fs.readSync(fd, target, 0, target.length, offset);
                if (n === 0) throw new FileError(`${path}: ends at ${offset}, was ${size} bytes`);
                return n;
            },
        };
    }
}
