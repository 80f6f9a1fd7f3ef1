// @ts-check
/**
 * When the self-test runs: once for each device, driver, tier and version, as its kernels have to
 * be compiled for it. That it passed is remembered in the browser's storage, and only that; where
 * there is none (Node, private windows), as long as this thread lives.
 */
import { VERSION } from './protocol.js';

const FOLDER = 'doppler-selftest';
const FILES_MS = 30_000; // 180 kB, without which a load goes on

/** What was passed since this thread began, by name. @type {Set<string>} */
const passed = new Set();

/** @param {any} engine @returns {Promise<string>} a name for what would be tested */
async function nameOf(engine) {
    const { name, vendor, driver, tier, subgroupSize, int8 } = engine.deviceInfo;
    const about = [VERSION, globalThis.navigator?.userAgent ?? '', name, vendor, driver, tier,
        subgroupSize, int8].join('\n');
    const hash = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(about));
    return Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** @returns {Promise<any>} where it is kept; null where nothing can be */
async function openFolder() {
    try {
        const root = await navigator.storage.getDirectory();
        return await root.getDirectoryHandle(FOLDER, { create: true });
    } catch {
        return null;
    }
}

/**
 * Its bytes, which have their buffer to themselves.
 * @param {URL} url @param {AbortSignal} signal @returns {Promise<Uint8Array>}
 */
async function bring(url, signal) {
    if (url.protocol === 'file:') { // Node's fetch does not read them
        const { readFile } = await import(/* webpackIgnore: true */ 'node:fs/promises');
        return new Uint8Array(await readFile(url));
    }
    const response = await fetch(url, { signal });
    if (!response.ok) throw new Error(`${url}: the server answers ${response.status}`);
    return new Uint8Array(await response.arrayBuffer());
}

/** @param {number} limitMs */
async function fetchVector(limitMs) {
    const signal = AbortSignal.timeout(limitMs);
    // In so many words, by which bundlers know what to take along.
    const [about, logits, model] = await Promise.all([
        bring(new URL('../selftest/vectors.json', import.meta.url), signal),
        bring(new URL('../selftest/vectors.f32', import.meta.url), signal),
        bring(new URL('../selftest/model.gguf', import.meta.url), signal),
    ]);
    const { tokens, positions, vocab } = JSON.parse(new TextDecoder().decode(about));
    return {
        model,
        tokens,
        positions,
        vocab,
        logits: new Float32Array(logits.buffer),
    };
}

/**
 * Runs the engine's self-test if this device has not passed it before. A site that does not serve
 * its files in time goes without: it is there to name bad drivers, not to refuse good ones.
 * @param {any} engine
 * @param {(line: string) => void} log
 * @param {number} [limitMs] for the files
 */
export async function selfTest(engine, log, limitMs = FILES_MS) {
    const folder = await openFolder();
    const name = await nameOf(engine);
    if (passed.has(name)) return;
    try {
        await folder.getFileHandle(name);
        return;
    } catch {
        // Not passed yet, or nobody can tell.
    }
    let vector;
    try {
        vector = await fetchVector(limitMs);
    } catch (error) {
        log(`no self-test: ${/** @type {Error} */ (error).message}`);
        return;
    }
    await engine.selfTest(vector);
    passed.add(name);
    await folder?.getFileHandle(name, { create: true }).catch(() => {});
}
