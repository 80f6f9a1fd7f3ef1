// @ts-check
/**
 * record: what is written beside the kept bytes of a model, to know them again.
 */

import { Layout } from './layout.js';
import { HASH_BYTES, hexOf, sha256 } from './values.js';

/** @typedef {import('./plan.js').Plan} Plan */

const MIB = 1024 * 1024;

const MAGIC = 0x44505231; // "DPR1"
const HEAD_BYTES = 12; // magic, bytes of the plan, their checksum
export const LINE_BYTES = 44; // piece, flags, hash, checksum
export const RECORD_BYTES_MAX = 256 * MIB;

/** Flags of a line: compared with a hash of the source, or read again later and the same. */
export const CHECKED = 1;
/** Found damaged: as if it had never been there. */
export const GONE = 2;

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
export async function printOf(plan) {
    const rows = plan.files.map(({ name, size, tag, pieceBytes, hashBytes, hashes }) => (
        [name, size, pieceBytes, hashBytes, hashes ? hexOf(hashes) : tag]));
    const text = JSON.stringify([plan.kind, plan.path, rows]);
    return hexOf(await sha256(new TextEncoder().encode(text)));
}

/** @param {Omit<RecordOf, 'pieces'>} record */
export function packHead({ source, print, plan, salt }) {
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
export function packLine(piece, flags, hash, salt) {
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
export function unpackRecord(bytes) {
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

/**
 * The pieces of an older record that are the same in a newer plan, by their new numbers: those of
 * weights at the same place whose hashes, which both sources say, are equal.
 * @param {RecordOf} old @param {Plan} plan
 */
export function keptPieces(old, plan) {
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

/** @param {RecordOf} record */
export function isComplete({ plan, pieces }) {
    return pieces.size === new Layout(plan).count;
}
