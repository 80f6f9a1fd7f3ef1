// @ts-check
/**
 * values: sizes, hashes and JSON, read and spelt.
 */

import { FormatError, UnsupportedError } from './errors.js';

export const HASH_BYTES = 32;

/** @param {number} bytes "1.5 GB" */
export function sizeText(bytes) {
    const units = ['bytes', 'kB', 'MB', 'GB', 'TB'];
    let i = 0, value = bytes;
    while (value >= 1000 && i < units.length - 1) value /= 1000, i++;
    return `${i === 0 ? value : value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ${units[i]}`;
}

/** @param {Uint8Array} bytes */
export function hexOf(bytes) {
    let text = '';
    for (const byte of bytes) text += byte.toString(16).padStart(2, '0');
    return text;
}

/**
 * SHA-256 of the bytes, which may be changed as soon as the call is made.
 * @param {Uint8Array} bytes
 */
export async function sha256(bytes) {
    const { subtle } = globalThis.crypto ?? {};
    if (!subtle) {
        throw new UnsupportedError('this page cannot check hashes: it has to come from https or ' +
            'from localhost');
    }
    return new Uint8Array(await subtle.digest('SHA-256', /** @type {any} */ (bytes)));
}

/**
 * 64 hexadecimal digits, "sha256:" before them or not, into `target` at `at`.
 * @param {unknown} text @param {Uint8Array} target @param {number} at
 */
export function readHex(text, target, at) {
    const found = typeof text === 'string' && /^(?:sha256:)?([0-9a-fA-F]{64})$/.exec(text);
    if (!found) return false;
    for (let i = 0; i < HASH_BYTES; i++) {
        target[at + i] = parseInt(found[1].slice(2 * i, 2 * i + 2), 16);
    }
    return true;
}

/** @param {unknown} value @returns {value is number} */
export function isCount(value) {
    return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

/** @param {unknown} value @returns {value is Object<string, any>} */
export function isObject(value) {
    return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * @param {Uint8Array} bytes @param {string} where
 */
export function parseJson(bytes, where) {
    let value;
    try {
        value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
    } catch (cause) {
        const why = cause instanceof Error ? cause.message : String(cause);
        throw new FormatError(`${where}: is no JSON: ${why.slice(0, 120)}`, { cause });
    }
    if (!isObject(value)) throw new FormatError(`${where}: is no JSON object`);
    return value;
}
