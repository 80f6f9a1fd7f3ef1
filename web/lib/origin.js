// @ts-check
/**
 * origin: where a model comes from. An origin answers for one folder: a server's (http.js), one of
 * picked files (BlobOrigin), or in Node one of this machine (DiskOrigin). It reads small files
 * whole, says sizes, and opens ranges.
 */

import { ArgumentError, DopplerError, FileError, LimitError } from './errors.js';
import { blobError, isPlainName } from './files.js';
import { HttpOrigin } from './http.js';
import { isGguf, suggestName } from './names.js';
import { defaultPatience } from './patience.js';
import { SHARDS_MAX, TEXT_FILES_MAX } from './plan.js';

/** @typedef {import('./patience.js').Patience} Patience */

/**
 * @typedef {{signal?: AbortSignal, fresh?: boolean, once?: boolean}} AskOptions `fresh`: past all
 *     caches; `once`: not again after a failure
 *
 * @typedef {object} Opened an answer whose bytes have not been read
 * @property {number} start of the bytes that follow in the file: as asked, or 0
 * @property {boolean} whole it is the whole file, whatever was asked for
 * @property {number | null} total bytes of the file, if that is known
 * @property {string} tag
 * @property {(target: Uint8Array) => Promise<number>} read some bytes, at least one; 0 at the end
 * @property {() => void} cancel
 *
 * @typedef {object} Origin
 * @property {string} name
 * @property {string} shown
 * @property {string} key what tells this source from others; '' for one that is never kept
 * @property {string} file the one file that was named, or ''
 * @property {boolean} remote
 * @property {number} connections at once
 * @property {(name: string, ceiling: number, options?: AskOptions) =>
 *     Promise<{bytes: Uint8Array, tag: string} | null>} readAll null: there is none
 * @property {(name: string, options?: AskOptions) =>
 *     Promise<{size: number | null, tag: string} | null>} probe
 * @property {(name: string, start: number, end: number, options?: AskOptions) =>
 *     Promise<Opened>} open
 * @property {(name: string) => Blob | null} blob
 * @property {() => string[] | null} names of the folder, if it can be listed
 */

/** A folder of files that the user picked. Nothing of it is kept: it is on this machine already. */
export class BlobOrigin {
    remote = false;
    connections = 2;
    key = '';
    #files;

    /**
     * @param {Map<string, Blob>} files @param {string} name @param {string} [file]
     */
    constructor(files, name, file = '') {
        this.#files = files;
        this.name = name;
        this.shown = name;
        this.file = file;
    }

    names() {
        return [...this.#files.keys()].sort();
    }

    /** @param {string} name */
    blob(name) {
        return this.#files.get(name) ?? null;
    }

    /** @param {string} name @param {number} ceiling */
    async readAll(name, ceiling) {
        const blob = this.#files.get(name);
        if (!blob) return null;
        if (blob.size > ceiling) {
            throw new LimitError(`${name}: ${blob.size} bytes, the limit is ${ceiling}`);
        }
        return { bytes: await bytesOf(blob, name), tag: '' };
    }

    /** @param {string} name */
    async probe(name) {
        const blob = this.#files.get(name);
        return blob ? { size: blob.size, tag: '' } : null;
    }

    /**
     * @param {string} name @param {number} start @param {number} end
     * @returns {Promise<Opened>}
     */
    async open(name, start, end) {
        const blob = this.#files.get(name);
        if (!blob) throw new FileError(`${name}: is not among the files`);
        let at = start;
        return {
            start, whole: false, total: blob.size, tag: '', cancel() {},
            async read(target) {
                const stop = Math.min(end, at + target.length);
                if (stop <= at) return 0;
                const bytes = await bytesOf(blob.slice(at, stop), name);
                target.set(bytes);
                at += bytes.length;
                return bytes.length;
            },
        };
    }
}

/** A folder of this machine, for Node. Nothing of it is kept, either. */
export class DiskOrigin {
    remote = false;
    connections = 2;
    key = '';
    file = '';
    #fs;
    #folder;

    /** @param {any} fs Node's node:fs @param {string} folder its path @param {string} name */
    constructor(fs, folder, name) {
        this.#fs = fs;
        this.#folder = folder;
        this.name = name;
        this.shown = name;
    }

    /** @returns {string[]} */
    names() {
        return this.#fs.readdirSync(this.#folder).filter(isPlainName).sort();
    }

    blob() {
        return null;
    }

    /** @param {string} name @param {number} ceiling */
    async readAll(name, ceiling) {
        const found = await this.probe(name);
        if (!found) return null;
        if (found.size > ceiling) {
            throw new LimitError(`${name}: ${found.size} bytes, the limit is ${ceiling}`);
        }
        const { read, cancel } = await this.open(name, 0, found.size);
        const bytes = new Uint8Array(found.size);
        try {
            for (let n = 0, got = 1; got > 0 && n < bytes.length; n += got) {
                got = await read(bytes.subarray(n));
                if (got === 0) throw new FileError(`${name}: ends at ${n} of ${found.size} bytes`);
            }
        } finally {
            cancel();
        }
        return { bytes, tag: '' };
    }

    /** @param {string} name */
    async probe(name) {
        const stat = this.#fs.statSync(`${this.#folder}/${name}`, { throwIfNoEntry: false });
        return stat?.isFile() ? { size: stat.size, tag: '' } : null;
    }

    /**
     * @param {string} name @param {number} start @param {number} end
     * @returns {Promise<Opened>}
     */
    async open(name, start, end) {
        const file = await this.#fs.promises.open(`${this.#folder}/${name}`)
            .catch((/** @type {unknown} */ cause) => { throw blobError(name, cause); });
        let at = start;
        return {
            start, whole: false, total: (await file.stat()).size, tag: '',
            cancel: () => void file.close().catch(() => {}),
            async read(target) {
                const length = Math.min(end - at, target.length);
                const { bytesRead } = await file.read(target, 0, length, at)
                    .catch((/** @type {unknown} */ cause) => { throw blobError(name, cause); });
                at += bytesRead;
                return bytesRead;
            },
        };
    }
}

/** @param {Blob} blob @param {string} name */
async function bytesOf(blob, name) {
    try {
        return new Uint8Array(await blob.arrayBuffer());
    } catch (cause) {
        throw blobError(name, cause);
    }
}

/**
 * What a list of files is: one GGUF file, a split one, or the files of one folder. Of a folder that
 * was picked whole, the files directly in it.
 * @param {File[]} list
 */
function originOfFiles(list) {
    if (list.length === 0) throw new ArgumentError('no file was picked');
    const files = new Map();
    let folder = '';
    for (const file of list) {
        const parts = (file.webkitRelativePath ?? '').split('/');
        if (parts.length > 2) continue;
        if (parts.length === 2) folder = parts[0];
        if (isPlainName(file.name)) files.set(file.name, file);
    }
    const names = [...files.keys()];
    if (names.length === 1 && isGguf(names[0])) {
        return new BlobOrigin(files, suggestName(names[0], []), names[0]);
    }
    return new BlobOrigin(files, folder || 'the picked files');
}

/** @param {any} handle a FileSystemDirectoryHandle */
async function originOfFolder(handle) {
    const files = new Map(), name = handle.name || 'the picked folder';
    try {
        for await (const entry of handle.values()) {
            if (entry.kind !== 'file' || !isPlainName(entry.name)) continue;
            if (files.size >= SHARDS_MAX + TEXT_FILES_MAX) {
                throw new LimitError(`${name}: more than ${files.size} files`);
            }
            files.set(entry.name, await fileOf(entry));
        }
    } catch (cause) {
        throw cause instanceof DopplerError ? cause : blobError(name, cause);
    }
    return new BlobOrigin(files, name);
}

/** @param {any} handle of a file, which may have gone, or is not allowed any more */
async function fileOf(handle) {
    try {
        return await handle.getFile();
    } catch (cause) {
        throw blobError(handle.name, cause);
    }
}

/** @param {any} list a FileList, or an array of files or handles of files */
async function filesOf(list) {
    const files = [];
    for (const item of list) {
        const file = typeof item?.getFile === 'function' ? await fileOf(item) : item;
        if (!(file instanceof Blob) || !('name' in file)) {
            throw new ArgumentError('a list of files holds something that is no file');
        }
        files.push(/** @type {File} */ (file));
    }
    return files;
}

/**
 * From what a caller names as the source to its origin.
 * @param {any} source a URL or its text, a File, files, a FileList, or a handle of file or folder
 * @param {{fetch?: typeof fetch, base?: string, patience?: Patience}} [options] `base`: what
 *     relative URLs are relative to
 * @returns {Promise<Origin>}
 */
export async function originOf(source, options = {}) {
    const { patience = defaultPatience } = options;
    const ask = options.fetch ?? globalThis.fetch.bind(globalThis);
    const base = options.base ?? globalThis.location?.href;
    if (typeof source === 'string' || source instanceof URL) {
        return new HttpOrigin(urlOf(source, base), ask, patience);
    }
    if (source instanceof Blob) return originOfFiles(await filesOf([source]));
    if (source?.kind === 'directory') return originOfFolder(source);
    if (source?.kind === 'file') return originOfFiles([await fileOf(source)]);
    if (typeof source?.[Symbol.iterator] === 'function') {
        return originOfFiles(await filesOf(source));
    }
    throw new ArgumentError('a source is a URL, a File, a list of files, or a handle of a file ' +
        'or a folder');
}

/** @param {string | URL} source @param {string} [base] */
function urlOf(source, base) {
    const text = String(source);
    let url;
    try {
        url = new URL(text, base);
    } catch (cause) {
        throw new ArgumentError(`"${text.slice(0, 200)}" is no URL`, { cause });
    }
    if (url.protocol !== 'http:' && url.protocol !== 'https:') {
        throw new ArgumentError(`"${text.slice(0, 200)}": a URL of a model begins with http or ` +
            'https');
    }
    if (url.username || url.password) {
        throw new ArgumentError(`${url.protocol}//${url.host}${url.pathname}: a page cannot ` +
            'fetch from a URL with a user or a password in it');
    }
    return url;
}
