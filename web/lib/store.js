// @ts-check
/**
 * store: opens a source as a tree of files, with the cache in between, and answers for the cache.
 *
 * A model is cut into pieces of about 4 MiB. The Loader (loader.js) brings and checks them, the
 * Keeper (keeper.js) writes them to the browser's private files (OPFS):
 *
 *     doppler/NAME-KEY/data      all files of the model, one behind the other
 *     doppler/NAME-KEY/record    the plan, then 44 bytes for every piece that is there
 *     doppler/NAME-KEY/used      when it was used last
 *
 * Everything that waits can be stopped by the caller's signal.
 */

import { fileOf, holdLock, isNamed, readRecord, ROOT_FOLDER } from './disk.js';
import { ArgumentError, asError, FileError, throwIfAborted } from './errors.js';
import { Files, nodeFiles } from './files.js';
import { Shelf } from './keeper.js';
import { Layout } from './layout.js';
import { Loader } from './loader.js';
import { DiskOrigin, originOf } from './origin.js';
import { defaultPatience } from './patience.js';
import { makePlan } from './plan.js';
import { isComplete, printOf } from './record.js';
import { hexOf, sha256, sizeText } from './values.js';

/** @typedef {import('./disk.js').StorageParts} StorageParts */
/** @typedef {import('./meter.js').ProgressEvent} ProgressEvent */
/** @typedef {import('./origin.js').Origin} Origin */
/** @typedef {import('./patience.js').Patience} Patience */
/** @typedef {import('./plan.js').Plan} Plan */
/** @typedef {import('./record.js').RecordOf} RecordOf */

const MIB = 1024 * 1024;
const MEMORY_BYTES = 32 * MIB;
const MEMORY_BYTES_MIN = 8 * MIB;
const REVALIDATE_MS = 3000; // for asking whether a cached model is still the same
const SPARE_BYTES = 16 * MIB; // of quota that is left alone

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
    if (isNodePath(source)) return openPath(source, options);
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

/**
 * A pack is held against its manifest while it is read, as one from anywhere; what has no hashes is
 * read where it lies.
 * @param {string | URL} source @param {OpenOptions} options @returns {Promise<OpenedSource>}
 */
async function openPath(source, options) {
    const { fileURLToPath } = await import(/* webpackIgnore: true */ 'node:url');
    const { basename, dirname } = await import(/* webpackIgnore: true */ 'node:path');
    const fs = await import(/* webpackIgnore: true */ 'node:fs');
    const place = fileURLToPath(source);
    const folder = basename(place) === 'manifest.json' ? dirname(place) : place;
    if (fs.existsSync(`${folder}/manifest.json`)) {
        const origin = new DiskOrigin(fs, folder, basename(folder));
        const patience = { ...defaultPatience, ...options.patience };
        const plan = await makePlan(origin, options);
        return load(plan, origin, null, { ...options, storage: undefined, patience, notes: [] });
    }
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
export async function load(plan, origin, shelf, options) {
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
