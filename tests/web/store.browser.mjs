// The store in a browser: private files, locks between tabs, quota, and workers that are killed.
// The worker below is one tab's reader; it answers with what came of each load.
import {createHash} from 'node:crypto';
import path from 'node:path';

const PIECE = 256 << 10; // smaller than the real ones, for the sake of time

/** Runs in a dedicated worker: loads a source, reads every file in order, hashes what it read. */
const workerCode = `
    import { openCache, openSource } from '/lib/store.js';

    const hex = (bytes) => [...new Uint8Array(bytes)].map((b) => b.toString(16).padStart(2, '0'))
        .join('');
    let opened = null;

    async function readAll(files, events) {
        const hashes = {}, window = new Uint8Array(4 << 20);
        files.prefetch();
        for (const name of files.list('/model')) {
            const path = '/model/' + name, { size } = files.stat(path), sums = [];
            for (let at = 0; at < size;) {
                const n = files.read(path, at, window);
                if (n < 0) {
                    await files.arrived();
                    continue;
                }
                sums.push([at, n]);
                at += n;
            }
            const whole = new Uint8Array(size);
            for (let at = 0; at < size;) {
                const n = files.read(path, at, whole.subarray(at));
                if (n < 0) await files.arrived();
                else at += n;
            }
            hashes[name] = hex(await crypto.subtle.digest('SHA-256', whole));
        }
        await files.finish();
        return hashes;
    }

    const calls = {
        async load({ source, options = {}, stay = false }) {
            const texts = [], phases = new Set();
            const began = performance.now();
            const onProgress = ({ phase, text, loaded }) => {
                phases.add(phase);
                if (text) texts.push(text);
                postMessage({ loaded });
            };
            opened = await openSource(source, { ...options, onProgress });
            const { files, fromCache, notes, totalBytes } = opened;
            try {
                const hashes = await readAll(files, texts);
                const ms = Math.round(performance.now() - began);
                return { hashes, fromCache, notes, totalBytes, texts, phases: [...phases], ms };
            } finally {
                if (!stay) await files.close();
            }
        },
        close: () => opened.files.close(),
        list: async () => (await openCache()).list(),
        purge: async () => (await openCache()).purge(),
        remove: async ({ name }) => (await openCache()).remove(name),
        async handles() {
            const root = await navigator.storage.getDirectory();
            const file = await root.getFileHandle('probe', { create: true });
            const first = await file.createSyncAccessHandle({ mode: 'read-only' });
            let shared = true, snapshot = true;
            try {
                (await file.createSyncAccessHandle({ mode: 'read-only' })).close();
            } catch {
                shared = false;
            }
            try {
                new FileReaderSync().readAsArrayBuffer(await file.getFile());
            } catch {
                snapshot = false;
            }
            first.close();
            const persist = typeof navigator.storage.persist;
            return { shared, snapshot, persist };
        },
    };

    onmessage = async ({ data: { id, call, args } }) => {
        try {
            postMessage({ id, value: await calls[call](args ?? {}) });
        } catch (error) {
            const { name, status, message, stack } = error;
            postMessage({ id, error: { name, status, message, stack } });
        }
    };
    postMessage({ ready: true });
`;

/** In the page: starts a worker as `tabs[name]`, and calls it. */
const pageCode = () => {
    const tabs = {};
    let next = 1;
    globalThis.start = (name) => new Promise((done, failed) => {
        const worker = new Worker('/store-worker.js', {type: 'module'});
        const waits = new Map();
        tabs[name] = {worker, waits, loaded: 0};
        worker.onerror = (event) => failed(new Error(event.message));
        worker.onmessage = ({data}) => {
            if (data.ready) {
                done();
            } else if (data.id) {
                waits.get(data.id)(data.error ? {error: data.error} : {value: data.value});
            } else {
                tabs[name].loaded = data.loaded;
            }
        };
    });
    globalThis.call = (name, call, args) => new Promise((done) => {
        const id = next++;
        tabs[name].waits.set(id, done);
        tabs[name].worker.postMessage({id, call, args});
    });
    globalThis.kill = (name) => tabs[name].worker.terminate();
    globalThis.loadedOf = (name) => tabs[name].loaded;
};

const sha = (bytes) => createHash('sha256').update(bytes).digest('hex');

/** A pack of one shard of `n` pieces, and what its files hash to. */
const makePack = (n, seed = 1) => {
    const bytes = Buffer.alloc(n * PIECE + 1000);
    for (let at = 0; at < bytes.length; at += 4096) {
        bytes.writeUInt32LE((at / 4096 + 1) * seed * 2654435761 % 2 ** 32, at);
    }
    const list = [];
    for (let at = 0; at < bytes.length; at += PIECE) {
        list.push(sha(bytes.subarray(at, at + PIECE)));
    }
    const tokenizer = Buffer.from(JSON.stringify({model: {}}));
    const manifest = Buffer.from(JSON.stringify({
        version: 1, modelId: 'probe', hashAlgorithm: 'sha256', tensors: {},
        shards: [{index: 0, filename: 'shard_00000.bin', size: bytes.length, offset: 0,
            hash: sha(bytes)}],
        pieceHashes: {blockSize: PIECE, shards: [list]},
        files: [{name: 'tokenizer.json', size: tokenizer.length, hash: sha(tokenizer)}],
    }));
    const files = {'shard_00000.bin': bytes, 'tokenizer.json': tokenizer,
        'manifest.json': manifest};
    const hashes = Object.fromEntries(Object.entries(files).sort()
        .map(([name, content]) => [name, sha(content)]));
    return {files, hashes, size: bytes.length};
};

const options = {pieceBytes: PIECE};

const begin = async (t, {pieces = 6, seed = 1} = {}) => {
    t.server.roots['/lib/'] = path.join(t.root, 'web/lib');
    const pack = makePack(pieces, seed);
    t.server.put('/store-worker.js', workerCode);
    for (const [name, bytes] of Object.entries(pack.files)) {
        t.server.put(`/m/${name}`, bytes);
    }
    const tab = async (name = 'tab') => {
        const page = await t.open('/test/blank.html', {early: pageCode});
        await page.evaluate((n) => start(n), name);
        const ask = (call, args) => page.evaluate((n, c, a) => globalThis.call(n, c, a), name,
            call, args);
        const load = () => ask('load', {source: `${t.server.origin}/m/`, options});
        return {page, ask, load};
    };
    return {...pack, tab, url: `${t.server.origin}/m/`};
};

/** A load that went well, with the right bytes. */
const right = (t, {value, error}, {hashes}, what) => {
    t.ok(!error, `${what}: ${error?.message}`);
    const sorted = Object.fromEntries(Object.entries(value.hashes).sort());
    t.equal(sorted, hashes, `${what}: hashes of what was read`);
    return value;
};

const loadTwice = async (t) => {
    const pack = await begin(t), {ask, load} = await pack.tab();
    const offered = (await ask('handles')).value;
    const first = right(t, await load(), pack, 'first load');
    t.equal([first.fromCache, first.notes], [false, []], 'the first load');
    t.equal(t.server.asked('.bin').bytes, pack.size, 'bytes of the shard');
    t.server.forget();
    const second = right(t, await load(), pack, 'second load');
    t.equal([second.fromCache, second.notes], [true, []], 'the second load');
    t.equal(t.server.asked('.bin').count, 0, 'questions for the shard');
    await t.server.down();
    const third = right(t, await load(), pack, 'load without a network');
    t.equal(third.fromCache, true, 'without a network');
    const [entry] = (await ask('list')).value;
    t.equal([entry.name, entry.complete, entry.stored], ['probe', true, third.totalBytes],
        'the list');
    t.equal((await ask('remove', {name: 'probe'})).value, {removed: 1, bytes: third.totalBytes},
        'removed');
    t.equal((await ask('list')).value, [], 'the list after it');
    return `shared handles ${offered.shared}, snapshots ${offered.snapshot}, persist ` +
        `${offered.persist}; ${first.ms} and ${second.ms} ms`;
};

const twoTabs = async (t) => {
    const pack = await begin(t, {pieces: 20}), a = await pack.tab('a'), b = await pack.tab('b');
    const [one, two] = await Promise.all([a.load(), b.load()]);
    right(t, one, pack, 'first tab');
    right(t, two, pack, 'second tab');
    t.equal(t.server.asked('.bin').bytes, pack.size, 'bytes of the shard');
    // One keeps its files open: the other reads beside it, and may not remove them.
    const stays = await a.ask('load', {source: pack.url, options, stay: true});
    right(t, stays, pack, 'a tab that stays');
    const beside = right(t, await b.load(), pack, 'a tab beside it');
    t.equal([beside.fromCache, beside.notes], [true, []], 'the tab beside it');
    const refused = await b.ask('remove', {name: 'probe'});
    t.ok(/probe: is in use/.test(refused.error?.message), 'removing what is in use');
    await a.ask('close');
    t.equal((await b.ask('purge')).value?.removed, 1, 'models purged');
};

/** Waits until a tab has loaded some bytes, and not all. */
const halfWay = async (page, size) => {
    await page.waitForFunction((least) => loadedOf('tab') >= least, {polling: 5},
        Math.floor(size * 0.4));
};

const killed = async (t) => {
    const pack = await begin(t, {pieces: 40}), {page, load} = await pack.tab();
    t.server.spoil({match: '.bin', rate: 2e6});
    load().catch(() => {});
    await halfWay(page, pack.size);
    await page.evaluate(() => kill('tab'));
    const again = await pack.tab();
    t.server.heal();
    const {value: [entry]} = await again.ask('list');
    t.ok(!entry.complete, 'the list knows that it is not whole');
    t.server.forget();
    right(t, await again.load(), pack, 'after the kill');
    const {bytes} = t.server.asked('.bin');
    t.ok(bytes < pack.size, `${bytes} of ${pack.size} bytes came again`);
    return `${entry.stored >> 10} of ${pack.size >> 10} KiB were kept`;
};

const reloaded = async (t) => {
    const pack = await begin(t, {pieces: 40}), {page, load} = await pack.tab();
    t.server.spoil({match: '.bin', rate: 2e6});
    load().catch(() => {});
    await halfWay(page, pack.size);
    t.server.heal();
    await page.reload();
    await page.evaluate(() => start('tab'));
    t.server.forget();
    right(t, await load(), pack, 'after the reload');
    t.ok(t.server.asked('.bin').bytes < pack.size, 'what was kept is not brought again');
};

const quota = async (t) => {
    const pack = await begin(t, {pieces: 40}), {page, load, ask} = await pack.tab();
    const devtools = await t.devtools(page), {origin} = t.server;
    const allow = (quotaSize) => devtools.send('Storage.overrideQuotaForOrigin',
        {origin, quotaSize});
    await allow(5e6);
    const small = right(t, await load(), pack, 'too little room');
    // Chromium reports 10 GiB whatever the quota is, so mostly the write is what tells.
    t.ok(/needs 10.5 MB, and the browser has room for|without being kept/.test(small.notes.join()),
        `a note says that it is not kept: ${small.notes}`);
    t.ok((await ask('list')).value.every((entry) => !entry.complete), 'it is not whole');
    await ask('purge');
    await allow(100e6);
    t.server.spoil({match: '.bin', rate: 2e6});
    const running = load();
    await halfWay(page, pack.size);
    await allow(1e6);
    const full = right(t, await running, pack, 'full in the middle');
    await allow(200e6);
    t.server.heal();
    right(t, await load(), pack, 'room again');
    const last = right(t, await load(), pack, 'the last load');
    t.equal(last.fromCache, true, 'kept at last');
    const isFull = full.notes.some((n) => /without being kept/.test(n));
    return `"${small.notes[0].slice(0, 60)}"; when the room ended in the middle, writes were ` +
        (isFull ? 'refused' : 'let through');
};

const picked = async (t) => {
    const pack = await begin(t), {page} = await pack.tab();
    const load = () => page.evaluate(async () => {
        const files = [];
        for (const name of ['manifest.json', 'tokenizer.json', 'shard_00000.bin']) {
            const response = await fetch(`/m/${name}`);
            files.push(new File([await response.blob()], name));
        }
        return call('tab', 'load', {source: files, options: {pieceBytes: 262144}});
    });
    right(t, await load(), pack, 'picked files');
    t.server.spoil({match: '.bin', wrongAt: 5 * PIECE + 1});
    const {error} = await load();
    t.ok(/shard_00000.bin, piece 6 of 7: SHA-256 is/.test(error?.message), `${error?.message}`);
    t.server.heal();
    const gguf = await page.evaluate(async () => {
        const response = await fetch('/m/shard_00000.bin');
        return call('tab', 'load', {source: new File([await response.blob()], 'a.gguf')});
    });
    t.equal(gguf.value?.hashes, {'a.gguf': pack.hashes['shard_00000.bin']}, 'a picked GGUF file');
};

const tests = [
    {name: 'loaded, kept, read again, and without a network', run: loadTwice},
    {name: 'two tabs at once', run: twoTabs},
    {name: 'a worker killed in the middle', run: killed},
    {name: 'a page reloaded in the middle', run: reloaded},
    {name: 'quota', run: quota},
    {name: 'picked files', run: picked},
];

export default [
    ...tests,
    ...tests.filter(({run}) => run !== quota).map((test) => ({
        ...test, name: `Firefox, ${test.name}`, firefox: true, seconds: 120,
        byHand: test.run !== loadTwice && test.run !== twoTabs,
    })),
];
