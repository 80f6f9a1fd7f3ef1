// Loading and the cache in a browser, with faults: the real package, worker and store over a real
// server and OPFS. The engine only reads and hashes (pages/reader-worker.js), so that no test pays
// for a GPU. Every test ends by comparing all bytes that the engine got with the files.
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import {serve} from './harness.mjs';

const MODEL = '/models/tale-8m/';
const SHARD = 'shard_00000.bin';
const PIECE = 4 << 20;

/** Names and hashes of the files that a load of the bundled pack reads. */
const expected = (t) => {
    const folder = path.join(t.programDir, MODEL);
    const hash = (name) => crypto.createHash('sha256')
        .update(fs.readFileSync(path.join(folder, name))).digest('hex');
    return Object.fromEntries(fs.readdirSync(folder).map((name) => [name, hash(name)]));
};

const shardSize = (t) => fs.statSync(path.join(t.programDir, MODEL, SHARD)).size;

const openPage = async (t) => {
    const page = await t.open();
    await page.waitForFunction('window.ready');
    return page;
};

/** Loads in the page by the reading engine and closes it again; {value} or {error}. */
const read = (page, source = MODEL, options = {}) => page.evaluate(async (source, options) => {
    const result = await load('read', source, {...options, worker: '/test/reader-worker.js'});
    await models.read?.close();
    return result;
}, source, options);

/** A load that must have gone well: every file of the pack that was read has its bytes. */
const whole = (t, result) => {
    t.ok(!result.error, `load: ${result.error?.name}: ${result.error?.message}`);
    const files = expected(t);
    const {digests} = result.value.info;
    t.ok(digests[SHARD] && digests['tokenizer.json'] && digests['manifest.json'],
        `files that were read: ${Object.keys(digests)}`);
    for (const [name, digest] of Object.entries(digests)) {
        t.equal(digest, files[name], `bytes of ${name}`);
    }
    return result.value;
};

/** Waits until so many bytes of the shard have been sent. */
const sentAtLeast = async (t, bytes) => {
    const until = Date.now() + 30_000;
    while (t.server.asked(SHARD).bytes < bytes) {
        t.ok(Date.now() < until, `${t.server.asked(SHARD).bytes} bytes asked for after 30 s`);
        await new Promise((done) => setTimeout(done, 20));
    }
};

const keepsWhatItLoaded = async (t) => {
    const page = await openPage(t);
    whole(t, await read(page));
    t.server.forget();
    const again = whole(t, await read(page));
    t.equal(t.server.asked(SHARD).bytes, 0, 'bytes of the shard asked for by the second load');
    t.ok(!again.phases.some((p) => p.phase === 'verify'), 'the second load hashed again');
    t.server.spoil({match: /^\/models\//, drop: true});
    whole(t, await read(page));
    t.server.heal();
    t.server.spoil({match: /^\/models\//, hang: true});
    const began = performance.now();
    whole(t, await read(page));
    const seconds = (performance.now() - began) / 1000;
    t.ok(seconds < 10, `a server that says nothing was waited for ${seconds.toFixed(1)} s`);
    t.server.heal();
    t.server.spoil({match: /^\/models\//, drop: true});
    const cache = await page.evaluate(async () => {
        const before = await doppler.cache.list();
        await doppler.cache.remove(before[0].name);
        return {before, after: await doppler.cache.list()};
    });
    t.equal(cache.before.length, 1, 'models in the cache');
    t.equal(cache.after, [], 'the cache after removing it');
    const gone = await read(page);
    t.equal(gone.error?.status, 'network', 'loading without cache and network');
};

const resumesAfterACut = async (t) => {
    const page = await openPage(t);
    const size = shardSize(t);
    t.server.spoil({match: SHARD, times: 1, downAfter: Math.floor(0.3 * size)});
    const loading = read(page);
    await sentAtLeast(t, Math.floor(0.3 * size));
    await new Promise((done) => setTimeout(done, 300));
    await t.server.up();
    whole(t, await loading);
    const {bytes} = t.server.asked(SHARD);
    t.ok(bytes < size + 6 * PIECE, `${bytes} bytes were sent for a shard of ${size}`);
};

const saysThatTheNetworkIsGone = async (t) => {
    const page = await openPage(t);
    const size = shardSize(t);
    t.server.spoil({match: SHARD, downAfter: Math.floor(0.9 * size)});
    const {error} = await read(page);
    t.equal(error?.status, 'network', 'status of the error');
    t.ok(error.message.includes('shard_00000.bin'), `the sentence: ${error.message}`);
    t.server.heal();
    t.server.forget();
    await t.server.up();
    whole(t, await read(page));
    const {bytes} = t.server.asked(SHARD);
    t.ok(bytes > 0 && bytes < 0.65 * size, `the second load asked for ${bytes} bytes of ${size}`);
    return `${(bytes / size * 100).toFixed(0)}% asked for again`;
};

const mendsAWrongByte = async (t) => {
    const page = await openPage(t);
    t.server.spoil({match: SHARD, times: 1, wrongAt: PIECE + 77});
    whole(t, await read(page));
    const covering = t.server.asked(SHARD).list.filter(({range}) => {
        const [, from, to] = /bytes=(\d+)-(\d*)/.exec(range) ?? [0, 0, ''];
        return Number(from) <= PIECE + 77 && (to === '' || Number(to) >= PIECE + 77);
    });
    t.ok(covering.length >= 2, `the piece was asked for ${covering.length} times`);
};

const refusesBytesThatStayWrong = async (t) => {
    const page = await openPage(t);
    t.server.spoil({match: SHARD, wrongAt: PIECE + 77});
    const {error} = await read(page);
    t.ok(error, 'a pack with a wrong byte was loaded');
    t.ok(error.message.includes(SHARD) && /piece 2 of 4/.test(error.message) &&
        (error.message.match(/[0-9a-f]{8,}/g) ?? []).length >= 2, `the sentence: ${error.message}`);
    t.server.heal();
    whole(t, await read(page));
    return error.message.replace(/[0-9a-f]{56}(?=[^0-9a-f])/g, '...').slice(0, 160);
};

const worksWithAFullDisk = async (t) => {
    const page = await openPage(t);
    const devtools = await t.devtools(page);
    await devtools.send('Storage.overrideQuotaForOrigin',
        {origin: t.server.origin, quotaSize: 6_000_000});
    const {notes} = whole(t, await read(page));
    t.ok(notes.some((note) => /without being kept/.test(note)), `notes: ${JSON.stringify(notes)}`);
    await devtools.send('Storage.overrideQuotaForOrigin', {origin: t.server.origin});
    whole(t, await read(page));
    t.server.forget();
    whole(t, await read(page));
    t.equal(t.server.asked(SHARD).bytes, 0, 'bytes asked for once there was room');
    return notes.join(' ').slice(0, 160);
};

const survivesAReload = async (t) => {
    const page = await openPage(t);
    const size = shardSize(t);
    t.server.spoil({match: SHARD, rate: 1.5e6});
    page.evaluate(() => load('read', '/models/tale-8m/', {worker: '/test/reader-worker.js'}))
        .catch(() => {}); // the page goes while it loads
    await sentAtLeast(t, 1.3 * PIECE);
    await new Promise((done) => setTimeout(done, 4000)); // at least a piece is whole and recorded
    await page.reload();
    await page.waitForFunction('window.ready');
    t.server.heal();
    t.server.forget();
    whole(t, await read(page));
    const {bytes} = t.server.asked(SHARD);
    t.ok(bytes > 0 && bytes < size, `after the reload ${bytes} bytes of ${size} were asked for`);
    return `${(bytes / size * 100).toFixed(0)}% asked for again`;
};

const survivesAKilledWorker = async (t) => {
    const page = await openPage(t);
    t.server.spoil({match: SHARD, rate: 4e6});
    await page.evaluate(() => {
        globalThis.worker = new Worker('/test/reader-worker.js', {type: 'module'});
        globalThis.loading = load('read', '/models/tale-8m/', {worker});
    });
    await sentAtLeast(t, 6e6);
    const {error} = await page.evaluate(() => {
        worker.terminate();
        return loading;
    });
    t.ok(error && /worker/.test(error.message), `the error: ${JSON.stringify(error)}`);
    t.server.heal();
    whole(t, await read(page));
    return error.message.slice(0, 120);
};

const servesTwoTabs = async (t) => {
    const [one, two] = [await openPage(t), await openPage(t)];
    t.server.spoil({match: SHARD, rate: 8e6});
    const both = await Promise.all([read(one), read(two)]);
    both.forEach((result) => whole(t, result));
    const {bytes} = t.server.asked(SHARD);
    t.server.forget();
    whole(t, await read(two));
    t.equal(t.server.asked(SHARD).bytes, 0, 'bytes asked for by a third load');
    return `${(bytes / shardSize(t)).toFixed(1)} times the shard was sent to both`;
};

const takesAServerAsItIs = async (t) => {
    const page = await openPage(t);
    t.server.spoil({match: SHARD, times: 2, status: 503});
    t.server.spoil({match: /./, noRanges: true});
    whole(t, await read(page));
    t.server.heal();
    await page.evaluate(() => doppler.cache.purge());
    t.server.spoil({match: /shard/, skip: 1, etag: '"other"'});
    const {error, value} = await read(page);
    t.ok(value ? whole(t, {value}) : error.message.includes('changed'),
        `a file that changes in the middle: ${error?.message}`);
    return error ? error.message.slice(0, 120) : 'hashes decide where the tag changes';
};

/** As from a CDN, which pages use without a bundler: workers must be of the page's own origin. */
const comesFromElsewhere = async (t) => {
    const page = await openPage(t);
    const other = await serve(t.programDir);
    try {
        other.headers['Access-Control-Allow-Origin'] = '*';
        other.put('/lib/worker.js',
            fs.readFileSync(path.join(import.meta.dirname, 'pages/reader-worker.js')));
        // The whole package, or, as of a bundle on a CDN, the worker alone.
        for (const [lib, options] of [[`${other.origin}/lib/doppler.js`, {}],
            ['/lib/doppler.js', {worker: `${other.origin}/lib/worker.js`}]]) {
            other.forget();
            const digests = await page.evaluate(async (lib, source, options) => {
                const {load} = await import(lib);
                const model = await load(source, options);
                await model.close();
                return model.info.digests;
            }, lib, MODEL, options);
            t.equal(digests[SHARD], expected(t)[SHARD], 'bytes of the shard');
            t.equal([t.server.asked('worker.js').count, other.asked('worker.js').count > 0],
                [0, true], 'where the worker came from');
        }
    } finally {
        await other.stop();
    }
};

const letsGoOfTheFiles = async (t) => {
    const page = await openPage(t);
    const got = await page.evaluate(async (source) => {
        const loaded = await load('read', source, {worker: '/test/reader-worker.js'});
        const left = async () => (await navigator.locks.query()).held
            .filter(({name}) => name.startsWith('doppler:')).length;
        for (let n = 0; n < 100 && await left() > 0; n++) {
            await new Promise((done) => setTimeout(done, 50));
        }
        const removed = await outcome(doppler.cache.purge());
        return {loaded, locks: await left(), removed, list: await doppler.cache.list()};
    }, MODEL);
    whole(t, got.loaded);
    t.equal(got.locks, 0, 'locks that an open model holds');
    t.ok(!got.removed.error, `removing it: ${got.removed.error?.message}`);
    t.equal(got.list, [], 'the cache after that');
};

/** Files without which a load goes on do not hold it up. */
const isNotHeldUpByTheSelfTest = async (t) => {
    t.server.spoil({match: /selftest\//, hang: true});
    const page = await t.open();
    const lines = await page.evaluate(async () => {
        const {selfTest} = await import('/lib/selftest.js');
        const lines = [];
        await selfTest({deviceInfo: {name: 'none'}}, (line) => lines.push(line), 500);
        return lines;
    });
    t.equal(lines.length, 1, 'lines');
    t.ok(/^no self-test: .*time/.test(lines[0]), lines[0]);
};

export default [
    {name: 'a second load needs no network, a removed model does', run: keepsWhatItLoaded},
    {name: 'the network is cut at 30% and comes back', run: resumesAfterACut},
    {name: 'the network is cut at 90% and stays away', run: saysThatTheNetworkIsGone},
    {name: 'a wrong byte is fetched again', run: mendsAWrongByte},
    {name: 'bytes that stay wrong are refused', run: refusesBytesThatStayWrong},
    {name: 'no room in the cache', run: worksWithAFullDisk},
    {name: 'the page is reloaded in the middle', run: survivesAReload},
    {name: 'the worker is killed in the middle', run: survivesAKilledWorker},
    {name: 'two tabs at once', run: servesTwoTabs},
    {name: 'a model that was loaded can be removed', run: letsGoOfTheFiles},
    {name: 'a silent server of the self-test', run: isNotHeldUpByTheSelfTest},
    {name: 'the package of another server', run: comesFromElsewhere},
    {name: 'errors, no ranges, a changing tag', run: takesAServerAsItIs},
];
