// The package's worker with another engine: one that reads all of a model, as the wasm would, and
// hashes it, but computes nothing. So loading is tested in a browser at the speed of the disk.
import {serve, standardParts} from '/lib/serve.js';
import {openCache, openSource} from '/lib/store.js';

const PART = 1 << 20;
const patience = {tries: 4, pauseMs: 200, pauseMaxMs: 1600, stallMs: 5000};

class Reader {
    static async open() {
        return new Reader();
    }

    lost = new Promise(() => {});
    deviceInfo = {name: 'none', tier: 'none', why: []};
    modelInfo = null;

    async openModel(files, path, options, {onProgress, signal}) {
        const names = files.list(path);
        const sizes = names.map((name) => files.stat(`${path}/${name}`).size);
        const total = sizes.reduce((a, b) => a + b, 0);
        const digests = {};
        let done = 0;
        onProgress(0, total, 'upload');
        for (const [i, name] of names.entries()) {
            const bytes = new Uint8Array(sizes[i]);
            for (let at = 0; at < bytes.length;) {
                signal?.throwIfAborted();
                const n = files.read(`${path}/${name}`, at, bytes.subarray(at, at + PART));
                if (n < 0) {
                    await files.arrived();
                    continue;
                }
                at += n;
                done += n;
                onProgress(done, total, 'upload');
            }
            const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
            digests[name] = [...digest].map((x) => x.toString(16).padStart(2, '0')).join('');
        }
        this.modelInfo = {name: 'read', vocabSize: 1, context: 1, digests};
    }

    stats() {
        return {};
    }

    async closeModel() {}

    async close() {}
}

const source = (from, options) => openSource(from, {...options, patience});
serve(globalThis, {
    ...standardParts({Engine: Reader, openSource: source, openCache, selfTest: async () => {}}),
    wasm: async () => null,
    gpu: async () => null,
});
