// @ts-check
/**
 * disk: what the browser offers to keep things: locks, files, handles.
 */

import { BlobEntry } from './files.js';
import { sleep } from './patience.js';
import { RECORD_BYTES_MAX, unpackRecord } from './record.js';

const HANDLE_TRIES = 10;
const HANDLE_PAUSE_MS = 200;
export const ROOT_FOLDER = 'doppler';

/**
 * The parts of `navigator` that keep things; tests give their own.
 * @typedef {object} StorageParts
 * @property {() => Promise<any>} getDirectory
 * @property {() => Promise<{quota?: number, usage?: number}>} [estimate]
 * @property {() => Promise<boolean>} [persist] pages have it, workers do not
 * @property {() => Promise<boolean>} [persisted]
 */

/** @param {any} error @param {string} name */
export const isNamed = (error, name) => error?.name === name;

/**
 * Holds a lock until the function that it answers is called, which resolves when the lock is free
 * for others: browsers take a moment. null if `ifAvailable` and it is not.
 * @param {any} locks @param {string} name @param {'shared' | 'exclusive'} mode
 * @param {{ifAvailable?: boolean}} [options]
 * @returns {Promise<(() => Promise<void>) | null>}
 */
export function holdLock(locks, name, mode, options = {}) {
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
export async function fileOf(folder, name) {
    try {
        return await (await folder.getFileHandle(name)).getFile();
    } catch (error) {
        if (isNamed(error, 'NotFoundError')) return null;
        throw error;
    }
}

/** @param {any} folder @returns {Promise<ReturnType<typeof unpackRecord>>} */
export async function readRecord(folder) {
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
export async function openForWriting(folder, name) {
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
export async function openForReading(folder) {
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
