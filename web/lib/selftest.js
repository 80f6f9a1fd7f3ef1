// @ts-check
/**
 * When the self-test runs: once for each device, driver, tier and version, as its kernels have to
 * be compiled for it. That it passed is remembered in the browser's storage, and only that.
 */
import { VERSION } from './protocol.js';

const FOLDER = 'doppler-selftest';

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

/** @param {string} file @param {URL} base */
async function bring(file, base) {
    const response = await fetch(new URL(file, base));
    if (!response.ok) throw new Error(`${file}: the server answers ${response.status}`);
    return response;
}

/** @param {URL} base */
async function fetchVector(base) {
    const [about, logits, model] = await Promise.all([
        bring('vectors.json', base).then((response) => response.json()),
        bring('vectors.f32', base).then((response) => response.arrayBuffer()),
        bring('model.gguf', base).then((response) => response.arrayBuffer()),
    ]);
    return {
        model: new Uint8Array(model),
        tokens: about.tokens,
        positions: about.positions,
        vocab: about.vocab,
        logits: new Float32Array(logits),
    };
}

/**
 * Runs the engine's self-test if this device has not passed it before. A site that does not serve
 * its files goes without: it is there to name bad drivers, not to refuse good ones.
 * @param {any} engine
 * @param {(line: string) => void} log
 */
export async function selfTest(engine, log) {
    const folder = await openFolder();
    const name = await nameOf(engine);
    try {
        await folder.getFileHandle(name);
        return;
    } catch {
        // Not passed yet, or nobody can tell.
    }
    let vector;
    try {
        vector = await fetchVector(new URL('../selftest/', import.meta.url));
    } catch (error) {
        log(`no self-test: ${/** @type {Error} */ (error).message}`);
        return;
    }
    await engine.selfTest(vector);
    await folder?.getFileHandle(name, { create: true }).catch(() => {});
}
