// The package's worker with another engine: one that reads all of a model, as the wasm would, and
// hashes it, but computes nothing; its answers are numbers, one after the other. So loading
// and the page are tested in a browser at the speed of the disk.
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
        this.modelInfo = {name: 'read', vocabSize: 256, context: 1000, chatTemplate: 'any', digests};
    }

    sessions = [];

    newSession() {
        return this.sessions.push([]) - 1;
    }

    freeSession() {}

    sessionTokens(session) {
        return this.sessions[session];
    }

    rewind(session, n) {
        this.sessions[session].length = n;
    }

    chatTokens(messages) {
        return messages.map(({content}) => content.length % 256);
    }

    tokenize(text) {
        return [text.length % 256];
    }

    async evaluate(session, tokens) {
        this.sessions[session].push(...tokens);
    }

    async *generate(session, {signal, maxTokens = Infinity}) {
        for (let n = 1; n <= maxTokens; n++) {
            await new Promise((done) => setTimeout(done, 20));
            if (signal.aborted) return {finish: 'cancelled'};
            this.sessions[session].push(n % 256);
            this.counts.submits++;
            this.counts.bytesRead += 4;
            yield {text: `${n} `, tokens: [n % 256]};
        }
        return {finish: 'length'};
    }

    counts = {submits: 0, dispatches: 0, bytesRead: 0, deviceBytesPeak: 0};

    stats() {
        return {...this.counts};
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
