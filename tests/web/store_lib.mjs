// What the store's tests share: models that are made up, a browser of one user, and a reader that
// does what the engine does: it reads file after file in steps, and does a step again when bytes
// were missing.
import assert from 'node:assert/strict';
import {createHash} from 'node:crypto';
import {DopplerError} from '../../web/lib/errors.js';
import {openSource} from '../../web/lib/store.js';
import {FakeDisk, FakeLocks} from './store-fakes.mjs';

export const PIECE = 8192;
export const BLOCK = 4096;
export const patience = {tries: 3, pauseMs: 1, pauseMaxMs: 4, stallMs: 15_000};

export const sha = (bytes) => createHash('sha256').update(bytes).digest('hex');

/** Bytes that differ from place to place, by a small generator of our own. */
export const noise = (n, seed = 1) => {
    const bytes = new Uint8Array(n);
    let x = seed * 2654435761 >>> 0 || 1;
    for (let i = 0; i < n; i++) {
        x ^= x << 13;
        x ^= x >>> 17;
        x ^= x << 5;
        bytes[i] = x;
    }
    return bytes;
};

export const text = (value) => new TextEncoder().encode(
    typeof value === 'string' ? value : JSON.stringify(value));

/** A pack of shards of these sizes: its files by name. */
export const pack = (sizes, {pieceHashes = true, files = true} = {}) => {
    const all = {}, shards = [], lists = [];
    let offset = 0;
    sizes.forEach((size, index) => {
        const filename = `shard_${String(index).padStart(5, '0')}.bin`;
        const bytes = noise(size, index + 1);
        all[filename] = bytes;
        shards.push({index, filename, size, hash: sha(bytes), offset});
        offset += size;
        const list = [];
        for (let at = 0; at < size; at += BLOCK) {
            list.push(sha(bytes.subarray(at, at + BLOCK)));
        }
        lists.push(list);
    });
    all['tokenizer.json'] = text({model: 'x'.repeat(3 * PIECE)});
    all['tokenizer_config.json'] = text({a: 1});
    const manifest = {
        version: 1, modelId: 'little', hashAlgorithm: 'sha256', shards, totalSize: offset,
        tensors: {}, tokenizer: {file: 'tokenizer.json'},
    };
    if (pieceHashes) {
        manifest.pieceHashes = {blockSize: BLOCK, shards: lists};
    }
    if (files) {
        manifest.files = ['tokenizer.json', 'tokenizer_config.json'].map((name) => (
            {name, size: all[name].length, hash: sha(all[name])}));
    }
    all['manifest.json'] = text(manifest);
    return all;
};

export const totalOf = (all) => Object.values(all).reduce((sum, {length}) => sum + length, 0);

/** A browser of one user: a disk and locks, for any number of tabs. */
export const browser = () => {
    const disk = new FakeDisk(), locks = new FakeLocks();
    return {disk, locks, storage: disk.storage()};
};

export const open = (source, {disk, locks, storage} = {}, options = {}) => openSource(source, {
    patience, pieceBytes: PIECE, storage: storage ?? {}, locks, followMs: 1000, ...options,
});

/** Reads a file to its end as the engine does; `step` bytes at a time. */
export const readFile = async (files, path, step = 3000) => {
    const {size} = files.stat(path);
    const bytes = new Uint8Array(size), window = new Uint8Array(step);
    for (let at = 0; at < size;) {
        const n = files.read(path, at, window.subarray(0, Math.min(step, size - at)));
        if (n < 0) {
            await files.arrived();
            continue;
        }
        assert.notEqual(n, 0, `${path} ended at ${at}`);
        bytes.set(window.subarray(0, n), at);
        at += n;
    }
    return bytes;
};

/** Opens with the texts, asks for the rest, reads it all in order, and compares every byte. */
export const readAll = async ({files}, all) => {
    const names = Object.keys(all).sort();
    assert.deepEqual(files.list('/model'), names);
    const compare = async (name) => {
        const got = await readFile(files, `/model/${name}`);
        assert.equal(sha(got), sha(all[name]), name);
    };
    const isWeights = (name) => /\.(bin|gguf|safetensors)$/.test(name);
    for (const name of names.filter((n) => !isWeights(n))) {
        await compare(name);
    }
    files.prefetch();
    for (const name of names.filter(isWeights)) {
        await compare(name);
    }
    await files.finish();
};

/** Opens, reads all, closes; what was opened. */
export const loadWhole = async (source, all, place, options) => {
    const opened = await open(source, place, options);
    try {
        await readAll(opened, all);
    } finally {
        await opened.files.close();
    }
    return opened;
};

export const fails = async (work, status, pattern) => {
    await assert.rejects(work, (error) => {
        assert.ok(error instanceof DopplerError, `${error.stack}`);
        assert.equal(error.status, status, error.message);
        assert.match(error.message, pattern);
        return true;
    });
};

/** A load that is expected to fail: closes what was opened. */
export const failsToLoad = (source, all, place, status, pattern, options) => fails(
    () => loadWhole(source, all, place, options), status, pattern);
