// @ts-check
/**
 * plan: which files a model consists of.
 *
 * makePlan asks an origin what the native pull asks: manifest.json is a pack, config.json a
 * safetensors model, and a GGUF file is named, with all parts of a split one. The plan lists names,
 * sizes and hashes; it has no bytes of weights.
 */

import { FileError, FormatError, LimitError, NetworkError, UnsupportedError } from './errors.js';
import { isPlainName, MODEL_FOLDER, plainName } from './files.js';
import { isGguf, splitOf, suggestName } from './names.js';
import { HASH_BYTES, isCount, isObject, parseJson, readHex, sha256, sizeText } from './values.js';

/** @typedef {import('./origin.js').Origin} Origin */

/** Bytes that are asked for, checked and recorded together, unless hashes cover other pieces. */
export const PIECE_BYTES = 4 * 1024 * 1024;
export const SHARDS_MAX = 1 << 16;
export const TEXT_FILES_MAX = 256;
const MIB = 1024 * 1024;
const MANIFEST_BYTES_MAX = 64 * MIB;
const JSON_BYTES_MAX = 256 * MIB;
const TEXT_BYTES_MAX = 16 * MIB;
const HASHED_BYTES_MIN = 4096;
const HASHED_BYTES_MAX = 64 * MIB; // one digest needs all its bytes at once
const SPLIT_MAX = 4096;

/**
 * @typedef {object} PlanFile
 * @property {string} name plain
 * @property {number} size
 * @property {boolean} weights
 * @property {string} tag ETag or date at the source, '' if it says neither
 * @property {number} pieceBytes
 * @property {number} hashBytes bytes that one hash covers; divides pieceBytes; 0: no hashes
 * @property {Uint8Array | null} hashes SHA-256 of each, one behind the other
 * @property {Uint8Array} [bytes] the content, where planning had to read it
 *
 * @typedef {object} Plan
 * @property {'rdrr' | 'gguf' | 'safetensors'} kind
 * @property {string} name of the model, for people
 * @property {string} shown where it comes from, for messages: no user, password or query
 * @property {string} path what the engine opens
 * @property {PlanFile[]} files in the order in which they are wanted
 * @property {string[]} notes
 */

/** Collects the files of a plan; a name is taken once. */
class Planner {
    /** @type {PlanFile[]} */
    files = [];
    /** @type {string[]} */
    notes = [];
    #names = new Set();

    /** @param {Origin} origin @param {number} pieceBytes @param {AbortSignal} [signal] */
    constructor(origin, pieceBytes, signal) {
        this.origin = origin;
        this.pieceBytes = pieceBytes;
        this.signal = signal;
    }

    /** @param {Partial<PlanFile> & {name: string, size: number}} file @param {string} where */
    add(file, where) {
        plainName(file.name, where);
        if (this.#names.has(file.name)) {
            throw new FormatError(`${where}: the file ${file.name} is listed twice`);
        }
        this.#names.add(file.name);
        this.files.push({
            weights: false, tag: '', pieceBytes: this.pieceBytes, hashBytes: 0, hashes: null,
            ...file,
        });
    }

    /** @param {string} name */
    has(name) {
        return this.#names.has(name);
    }

    /**
     * Reads a small file whole and adds it. null: there is none.
     * @param {string} name @param {number} [ceiling]
     */
    async text(name, ceiling) {
        const file = await this.#read(name, ceiling);
        if (file) this.add(file, name);
        return file?.bytes ?? null;
    }

    /** @param {string} name @param {number} [ceiling] */
    async #read(name, ceiling = /\.(json|model)$/.test(name) ? JSON_BYTES_MAX : TEXT_BYTES_MAX) {
        const got = await this.origin.readAll(name, ceiling, { signal: this.signal });
        if (!got) return null;
        const { bytes, tag } = got, pieceBytes = Math.max(bytes.length, 1);
        const hashes = bytes.length > 0 ? await sha256(bytes) : null;
        const hashBytes = hashes ? pieceBytes : 0;
        return { name, size: bytes.length, tag, pieceBytes, hashBytes, hashes, bytes };
    }

    /** @param {string[]} names of files that need not be there */
    async optional(names) {
        const known = this.origin.names();
        const asked = names.filter((name) => !this.has(name) && (!known || known.includes(name)));
        const got = await Promise.all(asked.map((name) => this.#read(name)));
        for (const file of got) if (file) this.add(file, file.name);
    }

    /**
     * Adds files whose sizes only the source knows, in this order.
     * @param {string[]} names
     */
    async weights(names) {
        const { origin, signal } = this;
        const found = await Promise.all(names.map((name) => origin.probe(name, { signal })));
        found.forEach((answer, i) => {
            const name = names[i], shown = this.origin.remote ? this.origin.shown + name : name;
            if (!answer) throw absent(this.origin, name);
            if (answer.size === null) {
                throw new NetworkError(`${shown}: the server does not say how long it is; a page ` +
                    'of another site sees that if it sends Access-Control-Expose-Headers: ' +
                    'Content-Range, ETag');
            }
            if (answer.size === 0) throw new FormatError(`${shown}: is empty`);
            this.add({ name, size: answer.size, tag: answer.tag, weights: true }, name);
        });
    }
}

/** @param {Origin} origin @param {string} name */
function absent(origin, name) {
    return origin.remote ? new NetworkError(`${origin.shown}${name}: there is no such file`)
        : new FileError(`${name}: is not among the picked files`);
}

/** @param {Planner} p @param {string} name */
async function planGguf(p, name) {
    const split = splitOf(name);
    if (!split) {
        await p.weights([name]);
        return name;
    }
    const { stem, index, count } = split;
    if (index === 0 || index > count) {
        throw new FormatError(`${name}: is number ${index} of ${count}`);
    }
    if (count > SPLIT_MAX) {
        throw new LimitError(`${name}: ${count} parts, the limit is ${SPLIT_MAX}`);
    }
    const names = Array.from({ length: count }, (_, i) =>
        `${stem}-${String(i + 1).padStart(5, '0')}-of-${String(count).padStart(5, '0')}.gguf`);
    await p.weights(names);
    return names[0];
}

/** The GGUF model of a folder that can be listed. @param {Planner} p */
function ggufOfFolder(p) {
    const models = (p.origin.names() ?? [])
        .filter((name) => isGguf(name) && (splitOf(name)?.index ?? 1) === 1);
    if (models.length > 1) {
        throw new FileError(`${p.origin.shown}: holds ${models.length} GGUF models: pick one`);
    }
    return models[0] ?? null;
}

const safetensorsTexts = [
    'tokenizer_config.json', 'special_tokens_map.json', 'added_tokens.json',
    'generation_config.json', 'chat_template.jinja', 'chat_template.json',
];
const packTexts = [
    'tokenizer_config.json', 'special_tokens_map.json', 'generation_config.json',
    'chat_template.jinja',
];

/** @param {Planner} p */
async function planSafetensors(p) {
    const indexName = 'model.safetensors.index.json';
    if (!await p.text('tokenizer.json') && !await p.text('tokenizer.model')) {
        throw new UnsupportedError(`${p.origin.shown}: has a config.json but neither ` +
            'tokenizer.json nor tokenizer.model');
    }
    await p.optional(safetensorsTexts);
    const index = await p.text(indexName);
    if (!index) {
        await p.weights(['model.safetensors']);
        return;
    }
    const { weight_map: map } = parseJson(index, indexName);
    if (!isObject(map) || Object.keys(map).length === 0) {
        throw new FormatError(`${indexName}: weight_map is no object with entries`);
    }
    const names = [...new Set(Object.values(map))];
    for (const name of names) {
        plainName(name, `${indexName}: weight_map`);
        if (p.has(name) || name === 'config.json') {
            throw new FormatError(`${indexName}: weight_map: ${name} is no file of weights`);
        }
    }
    if (names.length > SHARDS_MAX) {
        throw new LimitError(`${indexName}: ${names.length} files, the limit is ${SHARDS_MAX}`);
    }
    await p.weights(names);
}

/** @param {unknown} name */
function algorithmOf(name) {
    const text = String(name ?? 'sha256').toLowerCase();
    if (text === 'sha256' || text === 'sha-256') return 'sha256';
    if (text === 'blake3') return 'blake3';
    throw new UnsupportedError(`manifest.json: hashAlgorithm "${text.slice(0, 40)}" is neither ` +
        'sha256 nor blake3');
}

/**
 * The hash of the whole file, if one digest may cover it.
 * @param {number} size @param {unknown} hex @param {string} where
 */
function wholeHash(size, hex, where) {
    const hashes = new Uint8Array(HASH_BYTES);
    if (!readHex(hex, hashes, 0)) {
        throw new FormatError(`manifest.json: ${where}: hash is not 64 hexadecimal digits`);
    }
    if (size === 0 || size > HASHED_BYTES_MAX) return { hashBytes: 0, hashes: null };
    return { hashBytes: size, pieceBytes: size, hashes };
}

/**
 * Hashes of the pieces of shard `i`.
 * @param {any} said pieceHashes @param {number} i @param {PlanFile} file
 * @param {number} pieceBytes
 */
function takePieceHashes(said, i, file, pieceBytes) {
    const { blockSize } = said, list = said.shards[i], where = `pieceHashes.shards[${i}]`;
    const count = Math.ceil(file.size / blockSize);
    if (!Array.isArray(list) || list.length !== count) {
        throw new FormatError(`manifest.json: ${where} has ${list?.length ?? 'no'} entries, ` +
            `${file.size} bytes have ${count} pieces`);
    }
    const hashes = new Uint8Array(count * HASH_BYTES);
    list.forEach((hex, j) => {
        if (!readHex(hex, hashes, j * HASH_BYTES)) {
            throw new FormatError(`manifest.json: ${where}: number ${j} is no SHA-256`);
        }
    });
    file.hashes = hashes;
    file.hashBytes = blockSize;
    file.pieceBytes = Math.max(1, Math.floor(pieceBytes / blockSize)) * blockSize;
}

/** @param {Planner} p @param {any} manifest */
function planShards(p, manifest) {
    const { shards, pieceHashes } = manifest;
    if (!Array.isArray(shards) || shards.length === 0) {
        throw new FormatError('manifest.json: shards is no array with entries');
    }
    if (shards.length > SHARDS_MAX) {
        throw new LimitError(`manifest.json: ${shards.length} shards, the limit is ${SHARDS_MAX}`);
    }
    const otherwise = algorithmOf(manifest.hashAlgorithm);
    const first = p.files.length;
    let sum = 0, n_blake3 = 0;
    shards.forEach((shard, i) => {
        const where = `shards[${i}]`, { size } = shard ?? {};
        if (!isCount(size) || size === 0) {
            throw new FormatError(`manifest.json: ${where}: size must be a count of at least 1`);
        }
        sum += size;
        const isSha = (shard.hashAlgorithm === undefined || shard.hashAlgorithm === null
            ? otherwise : algorithmOf(shard.hashAlgorithm)) === 'sha256';
        if (!isSha) n_blake3++;
        const hash = isSha && !pieceHashes
            ? wholeHash(size, shard.hash ?? shard.blake3, where) : {};
        p.add({ name: shard.filename ?? shard.fileName, size, weights: true, ...hash },
            `manifest.json: ${where}`);
    });
    if (!Number.isSafeInteger(sum)) {
        throw new LimitError(`manifest.json: the shards have ${sum} bytes`);
    }
    if (pieceHashes) planPieces(p, pieceHashes, first, shards.length);
    if (p.files.slice(first).some(({ hashes }) => !hashes)) {
        p.notes.push(n_blake3 > 0 && !pieceHashes
            ? 'the shards have BLAKE3 hashes, which are not compared in the browser'
            : `the manifest has no hashes for pieces, and one of a shard covers more than ${
                sizeText(HASHED_BYTES_MAX)}: not every shard is compared`);
    }
}

/** @param {Planner} p @param {any} said @param {number} first @param {number} count */
function planPieces(p, said, first, count) {
    const { blockSize, shards } = said;
    if (!isCount(blockSize) || blockSize < HASHED_BYTES_MIN) {
        throw new FormatError(`manifest.json: pieceHashes.blockSize must be at least ${
            HASHED_BYTES_MIN} bytes`);
    }
    if (!Array.isArray(shards) || shards.length !== count) {
        throw new FormatError(`manifest.json: pieceHashes.shards has ${shards?.length ?? 'no'} ` +
            `lists for ${count} shards`);
    }
    if (blockSize > HASHED_BYTES_MAX) {
        p.notes.push(`the manifest's hashes cover pieces of ${sizeText(blockSize)}, the limit is ${
            sizeText(HASHED_BYTES_MAX)}: they are not compared`);
        return;
    }
    for (let i = 0; i < count; i++) takePieceHashes(said, i, p.files[first + i], p.pieceBytes);
}

/** @param {Planner} p @param {any} manifest */
async function planPackTexts(p, manifest) {
    const { files, tensorsFile, tokenizer } = manifest;
    const named = [tensorsFile, tokenizer?.file, tokenizer?.sentencepieceModel]
        .filter((name) => name !== undefined && name !== null);
    if (Array.isArray(files)) {
        if (files.length > TEXT_FILES_MAX) {
            throw new LimitError(`manifest.json: ${files.length} files beside the shards, the ` +
                `limit is ${TEXT_FILES_MAX}`);
        }
        files.forEach((file, i) => {
            const where = `files[${i}]`, { name, size, hash } = file ?? {};
            if (!isCount(size) || size > JSON_BYTES_MAX) {
                throw new FormatError(`manifest.json: ${where}: size is no count of bytes up to ` +
                    `${JSON_BYTES_MAX}`);
            }
            p.add({ name, size, ...wholeHash(size, hash, where) }, `manifest.json: ${where}`);
        });
    }
    for (const name of new Set(named)) {
        plainName(name, 'manifest.json: tokenizer or tensorsFile');
        if (p.files.some((file) => file.name === name && file.weights)) {
            throw new FormatError(`manifest.json: ${name} is also a shard`);
        }
        const ceiling = name === tensorsFile ? MANIFEST_BYTES_MAX : JSON_BYTES_MAX;
        if (!p.has(name) && !await p.text(name, ceiling)) throw absent(p.origin, name);
    }
    if (files === undefined) await p.optional(packTexts);
}

/** @param {Planner} p @param {any} manifest */
async function planPack(p, manifest) {
    if (typeof manifest.schema === 'string' && manifest.schema.startsWith('doppler.pack/')) {
        throw new UnsupportedError(`manifest.json: is a "${manifest.schema.slice(0, 40)}", which ` +
            'only wraps a pack: open the manifest inside it');
    }
    planShards(p, manifest);
    await planPackTexts(p, manifest);
}

/** What a manifest is called if it says so. @param {any} manifest @param {string} otherwise */
function packName(manifest, otherwise) {
    const { modelId } = manifest;
    return isPlainName(modelId) ? modelId : otherwise;
}

/**
 * Which files the model consists of. Small ones that have to be read for this are in the plan with
 * their bytes.
 * @param {Origin} origin
 * @param {{signal?: AbortSignal, pieceBytes?: number}} [options] `pieceBytes`: smaller, for tests
 * @returns {Promise<Plan>}
 */
export async function makePlan(origin, { signal, pieceBytes = PIECE_BYTES } = {}) {
    const p = new Planner(origin, pieceBytes, signal);
    const { shown } = origin;
    const known = origin.names();
    /** @param {Plan['kind']} kind @param {string} path @param {string} name */
    const made = (kind, path, name) => (
        { kind, name, shown, path, files: inOrder(p), notes: p.notes });
    if (origin.file) {
        const first = await planGguf(p, origin.file);
        return made('gguf', `${MODEL_FOLDER}/${first}`, origin.name);
    }
    if (!known || known.includes('manifest.json')) {
        const got = await origin.readAll('manifest.json', MANIFEST_BYTES_MAX, { signal });
        const manifest = got && parseManifest(got.bytes, origin);
        // Web pages have files of that name, too.
        if (got && manifest) {
            const hashes = await sha256(got.bytes), size = got.bytes.length;
            p.add({ name: 'manifest.json', size, ...got, hashes, pieceBytes: size,
                hashBytes: size }, shown);
            await planPack(p, manifest);
            return made('rdrr', MODEL_FOLDER, packName(manifest, origin.name));
        }
    }
    if (await p.text('config.json')) {
        await planSafetensors(p);
        return made('safetensors', MODEL_FOLDER, origin.name);
    }
    const gguf = ggufOfFolder(p);
    if (gguf) {
        const first = await planGguf(p, gguf);
        return made('gguf', `${MODEL_FOLDER}/${first}`, suggestName(first, []));
    }
    const hint = known ? ' nor a .gguf file' : '; a GGUF model is loaded by the URL of its file';
    const message = `${shown}: has neither manifest.json nor config.json${hint}`;
    throw origin.remote ? new NetworkError(message) : new FileError(message);
}

/**
 * null: something else of that name.
 * @param {Uint8Array} bytes @param {Origin} origin
 */
function parseManifest(bytes, origin) {
    const manifest = parseJson(bytes, `${origin.shown}${origin.remote ? '' : ': '}manifest.json`);
    return manifest.shards !== undefined || manifest.tensors !== undefined ? manifest : null;
}

/** Texts first: the model is opened with them. @param {Planner} p */
function inOrder({ files }) {
    return [...files.filter((f) => !f.weights), ...files.filter((f) => f.weights)];
}
