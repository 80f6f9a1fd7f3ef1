// The store: plans, downloads from a server with faults, the cache on a fake disk that can lose
// power, picked files, and in Node those of this machine.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import {join} from 'node:path';
import {after, before, beforeEach, test} from 'node:test';
import {pathToFileURL} from 'node:url';
import {DopplerError} from '../../web/lib/errors.js';
import {isPlainName, memoryFiles} from '../../web/lib/files.js';
import {originOf} from '../../web/lib/origin.js';
import {makePlan} from '../../web/lib/plan.js';
import {openCache, openSource} from '../../web/lib/store.js';
import {TestServer} from './server.mjs';
import {FakeFileReaderSync, FakeLocks, Snapshot} from './store-fakes.mjs';
import {PIECE, BLOCK, patience, sha, noise, text, pack, totalOf, browser, open, readFile,
    readAll, loadWhole, fails, failsToLoad} from './store_lib.mjs';

let server;
before(async () => {
    server = await new TestServer({}).start();
});
after(() => server.stop());
beforeEach(async () => {
    if (!server.http.listening) {
        await server.up();
    }
    server.heal();
    server.forget();
    server.memory.clear();
});

const put = (all, folder = '/m/') => {
    for (const [name, bytes] of Object.entries(all)) {
        server.put(folder + name, bytes);
    }
    return server.origin + folder;
};

// ---- the tree -----------------------------------------------------------------------------------

test('names that lead elsewhere are no names', () => {
    for (const name of ['', '.', '..', '.x', 'a/b', 'a\\b', '/', 'a\0b', 'a\nb', '\ud800',
        'x'.repeat(256), 'ä'.repeat(128), 7, null, undefined, {}]) {
        assert.equal(isPlainName(name), false, JSON.stringify(name));
    }
    for (const name of ['a', 'a..b', 'a b.bin', 'ä'.repeat(127), '模型', 'x'.repeat(255), '😀']) {
        assert.equal(isPlainName(name), true, name);
    }
});

test('a tree of files answers at once, and refuses what is not in it', async () => {
    const files = memoryFiles({'a.bin': Uint8Array.of(1, 2, 3)});
    assert.deepEqual(files.stat('/'), {size: 0, isFolder: true});
    assert.deepEqual(files.stat('/model/'), {size: 0, isFolder: true});
    assert.deepEqual(files.stat('/model/./a.bin'), {size: 3, isFolder: false});
    for (const path of ['/x', '/model/b', '/model/a.bin/c', '/model/../model/a.bin', 'x']) {
        assert.equal(files.stat(path), null, path);
    }
    assert.deepEqual([files.list('/'), files.list('/model'), files.list('/x')],
        [['model'], ['a.bin'], []]);
    const target = new Uint8Array(5);
    assert.equal(files.read('/model/a.bin', 1, target), 2);
    assert.deepEqual([...target], [2, 3, 0, 0, 0]);
    assert.equal(files.read('/model/a.bin', 3, target), 0);
    assert.equal(files.read('/model/a.bin', 2 ** 40, target), 0);
    assert.throws(() => files.read('/model/a.bin', -1, target), DopplerError);
    assert.throws(() => files.read('/model/none', 0, target), DopplerError);
    await files.arrived(); // nothing was missed
    await files.close();
    assert.throws(() => files.read('/model/a.bin', 0, target), DopplerError);
});

// ---- downloads ----------------------------------------------------------------------------------

test('a pack: loaded, kept, and read again without asking for its bytes', async () => {
    const all = pack([10 * PIECE, 3 * PIECE + 77]), url = put(all), place = browser();
    const events = [];
    const first = await loadWhole(url, all, place, {onProgress: (e) => events.push(e)});
    assert.deepEqual([first.name, first.path, first.fromCache, first.notes],
        ['little', '/model', false, []]);
    assert.equal(first.totalBytes, totalOf(all));
    assert.deepEqual([events.at(-1).loaded, events.at(-1).total], [totalOf(all), totalOf(all)]);
    for (let i = 1; i < events.length; i++) {
        assert.ok(events[i].loaded >= events[i - 1].loaded, 'progress goes forward');
    }
    const {bytes} = server.asked('.bin');
    assert.equal(bytes, 13 * PIECE + 77, 'every byte of a shard came once');
    server.forget();
    const second = await loadWhole(`${url}manifest.json`, all, place);
    assert.equal(second.fromCache, true);
    assert.equal(server.requests.length, 1, 'one question: is it still the same');
    assert.equal(server.asked('manifest.json').bytes, 1);
});

test('nothing of the weights is asked for before prefetch, unless it is missed', async () => {
    const all = pack([40 * PIECE]), {files} = await open(put(all), browser());
    await readFile(files, '/model/tokenizer.json');
    assert.equal(server.asked('.bin').count, 0);
    const window = new Uint8Array(100);
    assert.equal(files.missing, false);
    assert.equal(files.read('/model/shard_00000.bin', 20 * PIECE - 50, window), -1);
    assert.equal(files.missing, true);
    await files.arrived();
    assert.equal(files.missing, false);
    assert.equal(files.read('/model/shard_00000.bin', 20 * PIECE - 50, window), 100);
    assert.equal(server.asked('.bin').bytes, 2 * PIECE, 'the two pieces of that range');
    await files.close();
});

test('the source is gone: what is kept is used, and said to be', async () => {
    const all = pack([5 * PIECE]), url = put(all), place = browser();
    await loadWhole(url, all, place);
    await server.down();
    const began = Date.now();
    const {fromCache, notes} = await loadWhole(url, all, place);
    assert.equal(fromCache, true);
    assert.match(notes.join(), /cannot be asked/);
    assert.ok(Date.now() - began < 2000, 'without long tries');
    const named = await loadWhole('cache:little', all, place);
    assert.equal(named.fromCache, true);
    await fails(() => open('cache:other', place), 'file', /other: no such model/);
});

test('a wrong piece is fetched again', async () => {
    const all = pack([6 * PIECE]), url = put(all);
    for (const times of [1, 2]) {
        const place = browser();
        server.heal();
        server.spoil({match: '.bin', wrongAt: 3 * PIECE + 5, times: 99});
        // A run has several pieces: the rule ends after so many wrong ones were sent.
        let sent = 0;
        const fetchIt = async (address, init) => {
            const [, from, to] = /bytes=(\d+)-(\d+)/.exec(init.headers.Range ?? '') ?? [];
            const hits = address.endsWith('.bin') && from <= 3 * PIECE + 5 && to >= 3 * PIECE + 5;
            if (hits && ++sent > times) {
                server.heal();
            }
            return fetch(address, init);
        };
        const {notes} = await loadWhole(url, all, place, {fetch: fetchIt});
        assert.equal(notes.filter((n) => /fetched again/.test(n)).length, times);
        const {fromCache} = await loadWhole(url, all, place, {verify: true});
        assert.equal(fromCache, true);
    }
});

test('a piece that stays wrong: shard, piece and both hashes, after three times', async () => {
    const all = pack([6 * PIECE]), url = put(all), place = browser();
    server.spoil({match: '.bin', wrongAt: 3 * PIECE + 5});
    const wrong = all['shard_00000.bin'].slice(3 * PIECE, 3 * PIECE + BLOCK);
    const right = sha(wrong);
    wrong[5] ^= 1;
    await failsToLoad(url, all, place, 'format', new RegExp('shard_00000.bin, piece 4 of 6: ' +
        `SHA-256 is ${sha(wrong)}, the manifest says ${right}; it was fetched 3 times`));
    const hits = server.asked('.bin').list.filter(({range}) => {
        const [, from, to] = /bytes=(\d+)-(\d+)/.exec(range);
        return from <= 3 * PIECE + 5 && to >= 3 * PIECE + 5;
    });
    assert.equal(hits.length, 3, hits.map(({range}) => range).join());
    server.heal();
    server.forget();
    await loadWhole(url, all, place);
    assert.ok(server.asked('.bin').bytes <= 6 * PIECE);
});

test('a text that stays wrong, too: nothing behind the loader hashes it again', async () => {
    const all = pack([2 * PIECE]), url = put(all);
    server.spoil({match: 'tokenizer.json', wrongAt: 7});
    await failsToLoad(url, all, browser(), 'format',
        new RegExp(`tokenizer.json, piece 1 of 1: SHA-256 is .*says ${sha(all['tokenizer.json'])}`));
    server.heal();
});

test('the network goes at 30 % and at 90 %: an error, and the next load brings the rest',
    async () => {
        const pieceBytes = 8 * PIECE, size = 30 * pieceBytes;
        const all = pack([size]), url = put(all);
        for (const share of [0.3, 0.9]) {
            const place = browser();
            // Slow enough that what was sent has arrived.
            server.forget();
            server.spoil({match: '.bin', downAfter: Math.floor(size * share), rate: 3e6});
            await failsToLoad(url, all, place, 'network', /3 tries in a row brought nothing/,
                {pieceBytes});
            server.heal();
            await server.up();
            server.forget();
            const [{stored}] = await (await openCache(place)).list();
            assert.equal((await loadWhole(url, all, place, {pieceBytes})).fromCache, false);
            const {bytes} = server.asked('.bin');
            // What six connections had in the middle of a piece comes again, and no more.
            assert.ok(bytes <= size * (1 - share) + 7 * pieceBytes, `${bytes} at ${share}`);
            assert.ok(bytes > 0 && bytes <= totalOf(all) - stored);
        }
    });

test('broken connections go on where they broke', async () => {
    const all = pack([16 * PIECE]), url = put(all);
    let n = 0;
    // Every other answer breaks off in the middle of a piece.
    const broken = async (address, init) => {
        const response = await fetch(address, init);
        if (!address.endsWith('.bin') || n++ % 2) {
            return response;
        }
        const reader = response.body.getReader();
        let left = 3000;
        const body = new ReadableStream({
            async pull(controller) {
                const {value} = await reader.read();
                if (left <= 0) {
                    return controller.error(new TypeError('network error'));
                }
                controller.enqueue(value.subarray(0, left));
                left -= value.length;
            },
        });
        return new Response(body, {status: response.status, headers: response.headers});
    };
    await loadWhole(url, all, browser(), {fetch: broken});
    const ranges = server.asked('.bin').list.map(({range}) => Number(/\d+/.exec(range)[0]));
    assert.ok(ranges.some((start) => start % PIECE === 3000), 'from the middle of a piece');
});

test('answers that may go better another time are waited for, others are not', async () => {
    const all = pack([4 * PIECE]), url = put(all);
    server.spoil({match: '.bin', status: 503, times: 2});
    await loadWhole(url, all, browser());
    server.spoil({match: '.bin', status: 500});
    await failsToLoad(url, all, browser(), 'network', /answers 500.*3 tries/);
    server.heal();
    server.forget();
    server.spoil({match: '.bin', status: 403});
    await failsToLoad(url, all, browser(), 'network', /answers 403/);
    assert.ok(server.asked('.bin').count <= 6, 'no second try');
    server.heal();
    server.spoil({match: '.bin', hang: true});
    await failsToLoad(url, all, browser(), 'network', /no answer in 0.05 s/,
        {patience: {...patience, tries: 1, stallMs: 50}});
});

test('a line that brings nothing counts as broken', async () => {
    const all = pack([4 * PIECE]), url = put(all);
    const silent = async (address, init) => {
        const response = await fetch(address, init);
        if (!address.endsWith('.bin')) {
            return response;
        }
        const body = new ReadableStream({start() {}}); // and never a byte
        return new Response(body, {status: response.status, headers: response.headers});
    };
    await failsToLoad(url, all, browser(), 'network', /brought nothing for 0.4 s/,
        {fetch: silent, patience: {...patience, tries: 1, stallMs: 400}});
});

test('servers without ranges: one go, and from the beginning after a break', async () => {
    const all = pack([20 * PIECE, 5 * PIECE]), url = put(all);
    server.spoil({match: /./, noRanges: true});
    const kept = browser();
    const {notes} = await loadWhole(url, all, kept);
    assert.equal(notes.filter((n) => /no ranges/.test(n)).length, 2);
    assert.equal((await loadWhole(url, all, kept)).fromCache, true);
    await loadWhole(url, all, {}); // and without a cache
    server.spoil({match: '00000.bin', cutAt: 12 * PIECE + 100, times: 3});
    await loadWhole(url, all, browser());
});

test('a server without ranges and a reader that jumps', async () => {
    const all = pack([40 * PIECE]), url = put(all);
    server.spoil({match: /./, noRanges: true});
    for (const place of [browser(), {}]) {
        const {files} = await open(url, place, {maxMemory: 1});
        const window = new Uint8Array(64);
        for (const at of [30, 2, 39, 0, 17]) {
            const path = '/model/shard_00000.bin';
            while (files.read(path, at * PIECE, window) < 0) {
                await files.arrived();
            }
            assert.deepEqual([...window], [...all['shard_00000.bin'].subarray(at * PIECE,
                at * PIECE + 64)]);
        }
        await readAll({files}, all);
        await files.close();
    }
});

test('answers that are not what was asked for are refused', async () => {
    const all = pack([4 * PIECE]), url = put(all);
    server.spoil({match: '.bin', rangeShift: 1});
    await failsToLoad(url, all, browser(), 'network', /asked for the bytes 0 to .*answer says/);
    server.heal();
    server.put('/m/shard_00000.bin', noise(5 * PIECE, 1));
    await failsToLoad(url, all, browser(), 'network', /has 40960 bytes, 32768 are/);
    server.memory.delete('/m/shard_00000.bin');
    await failsToLoad(url, all, browser(), 'network', /shard_00000.bin: is not there any more/);
    await failsToLoad(`${server.origin}/none/`, all, browser(), 'network', /neither manifest.json/);
});

test('ranges that a page may not see are known by their length', async () => {
    const all = pack([9 * PIECE]), url = put(all);
    const hidden = async (address, init) => {
        const response = await fetch(address, init);
        const headers = new Headers(response.headers);
        headers.delete('content-range');
        headers.delete('etag');
        return new Response(response.body, {status: response.status, headers});
    };
    await loadWhole(url, all, browser(), {fetch: hidden});
    put({'a.gguf': noise(5 * PIECE)});
    await loadWhole(`${url}a.gguf`, {'a.gguf': noise(5 * PIECE)}, browser(), {fetch: hidden});
});

test('a server without ranges and a reader that goes back, without a cache', async () => {
    const bytes = new Uint8Array(28 * 1024 * 1024).map((_, i) => i >> 12);
    const url = `${put({'a.gguf': bytes})}a.gguf`;
    server.spoil({match: /./, noRanges: true});
    const {files} = await openSource(url, {patience, storage: {}, maxMemory: 1});
    files.prefetch();
    const window = new Uint8Array(1000), mib = 1024 * 1024;
    for (const at of [0, 4, 8, 12, 16, 1, 13, 27, 0]) {
        while (files.read('/model/a.gguf', at * mib, window) < 0) {
            await files.arrived();
        }
        assert.equal(sha(window), sha(bytes.subarray(at * mib, at * mib + 1000)), `at ${at} MiB`);
    }
    assert.ok(server.asked('a.gguf').count >= 4, 'it began again');
    await files.close();
});

// ---- GGUF and safetensors -----------------------------------------------------------------------

test('a GGUF file, and a split one by any of its parts', async () => {
    const one = {'a model.gguf': noise(7 * PIECE + 5)}, url = put(one);
    const fetchIt = (address, init) => {
        assert.ok(address.endsWith('/m/a%20model.gguf?download=true'), address);
        return fetch(address, init);
    };
    const opened = await loadWhole(`${url}a%20model.gguf?download=true`, one, browser(),
        {fetch: fetchIt});
    assert.deepEqual([opened.name, opened.path], ['a model', '/model/a model.gguf']);
    const parts = {};
    for (const i of [1, 2, 3]) {
        parts[`b-0000${i}-of-00003.gguf`] = noise(2 * PIECE + i, i);
    }
    put(parts);
    const split = await loadWhole(`${url}b-00002-of-00003.gguf`, parts, browser());
    assert.deepEqual([split.name, split.path], ['b', '/model/b-00001-of-00003.gguf']);
    server.memory.delete('/m/b-00003-of-00003.gguf');
    await fails(() => open(`${url}b-00001-of-00003.gguf`), 'network', /00003.gguf: there is no/);
    await fails(() => open(`${url}b-00004-of-00003.gguf`), 'format', /is number 4 of 3/);
});

test('a file without hashes: what was computed is compared once, at the second load', async () => {
    const all = {'a.gguf': noise(9 * PIECE)}, url = `${put(all)}a.gguf`, place = browser();
    await loadWhole(url, all, place);
    const phases = new Set();
    const onProgress = ({phase}) => phases.add(phase);
    await loadWhole(url, all, place, {onProgress});
    assert.ok(phases.has('verify'));
    phases.clear();
    await loadWhole(url, all, place, {onProgress});
    assert.ok(!phases.has('verify'), 'and not at the third');
    await loadWhole(url, all, place, {onProgress, verify: true});
    assert.ok(phases.has('verify'), 'unless it is asked for');
});

test('a damaged cache is noticed, and mended', async () => {
    const all = {'a.gguf': noise(9 * PIECE)}, url = `${put(all)}a.gguf`, place = browser();
    await loadWhole(url, all, place);
    place.disk.file('data').bytes[4 * PIECE + 9] ^= 4;
    server.forget();
    const {notes} = await loadWhole(url, all, place);
    assert.match(notes.join(), /a.gguf, piece 5 of 9: is damaged in the cache/);
    assert.equal(server.asked('.gguf').bytes, PIECE + 1);
    const {file} = {file: place.disk.file('data')};
    file.bytes = file.bytes.slice(0, 6 * PIECE + 1); // shorter than it is said to be
    server.forget();
    await loadWhole(url, all, place);
    assert.equal(server.asked('.gguf').bytes, 3 * PIECE + 1);
    place.disk.file('data').bytes[0] ^= 1;
    place.disk.file('record').bytes[20] ^= 1; // a record that cannot be read is none
    await loadWhole(url, all, place);
});

test('a source that changed: between loads it is loaded anew, in the middle it is refused',
    async () => {
        const old = {'a.gguf': noise(9 * PIECE)}, url = `${put(old)}a.gguf`, place = browser();
        await loadWhole(url, old, place);
        const fresh = {'a.gguf': noise(10 * PIECE, 3)};
        put(fresh);
        await loadWhole(url, fresh, place);
        const same = {'a.gguf': noise(10 * PIECE, 4)}; // of the same size
        put(same);
        server.spoil({match: '.gguf', etag: '"newer"'});
        await loadWhole(url, same, place);
        put(fresh);
        server.heal();
        const {files} = await open(url, browser());
        server.spoil({match: '.gguf', etag: '"another"'});
        await fails(() => readAll({files}, fresh), 'network', /changed at the source.*"another"/);
        await files.close();
    });

test('another text beside the same shards: the shards stay', async () => {
    const all = pack([12 * PIECE]), url = put(all), place = browser();
    await loadWhole(url, all, place);
    const manifest = JSON.parse(new TextDecoder().decode(all['manifest.json']));
    all['tokenizer_config.json'] = text({a: 22222});
    manifest.files[1] = {name: 'tokenizer_config.json', size: all['tokenizer_config.json'].length,
        hash: sha(all['tokenizer_config.json'])};
    all['manifest.json'] = text(manifest);
    put(all);
    server.forget();
    await loadWhole(url, all, place);
    assert.equal(server.asked('.bin').bytes, 0);
});

const safetensors = () => ({
    'config.json': text({model_type: 'llama'}),
    'tokenizer.json': text({model: {}}),
    'generation_config.json': text({}),
    'model.safetensors.index.json': text({weight_map: {
        a: 'model-00001-of-00002.safetensors', b: 'model-00002-of-00002.safetensors',
        c: 'model-00001-of-00002.safetensors'}}),
    'model-00001-of-00002.safetensors': noise(5 * PIECE),
    'model-00002-of-00002.safetensors': noise(2 * PIECE + 9, 2),
});

test('a page in the place of a missing file is no file', async () => {
    const all = pack([3 * PIECE], {files: false}), tensors = safetensors();
    const site = async (address, init) => {
        const response = await fetch(address, init);
        return response.status === 404
            ? new Response('<!doctype html>', {headers: {'content-type': 'text/html'}}) : response;
    };
    await loadWhole(put(all), all, browser(), {fetch: site});
    await loadWhole(put(tensors, '/t/'), tensors, browser(), {fetch: site});
    await failsToLoad(`${server.origin}/none/`, all, {}, 'network', /neither/, {fetch: site});
});

test('a safetensors folder, with an index and without', async () => {
    const all = safetensors(), url = put(all, '/org/name/resolve/main/'), place = browser();
    const opened = await loadWhole(url, all, place);
    assert.equal(opened.name, 'name');
    assert.equal((await loadWhole(url, all, place)).fromCache, true);
    const plain = {'config.json': all['config.json'], 'tokenizer.model': noise(900),
        'model.safetensors': noise(3 * PIECE)};
    await loadWhole(put(plain, '/p/'), plain, browser());
    server.memory.delete('/p/tokenizer.model');
    await fails(() => open(`${server.origin}/p/`), 'unsupported', /neither tokenizer.json nor/);
    for (const name of ['../x', 'a/b', '', 7, 'config.json', 'tokenizer.json']) {
        put({'model.safetensors.index.json': text({weight_map: {a: name}})},
            '/org/name/resolve/main/');
        await fails(() => open(url, browser()), 'format', /weight_map/);
    }
});

test('manifests that lie are refused before anything is fetched', async () => {
    const good = JSON.parse(new TextDecoder().decode(pack([3 * PIECE])['manifest.json']));
    const cases = [
        [(m) => m.shards[0].filename = '../x', /no plain name/],
        [(m) => m.shards[0].filename = 'a\\b', /no plain name/],
        [(m) => m.shards[0].size = -1, /size must be/],
        [(m) => m.shards[0].size = 1.5, /size must be/],
        [(m) => m.shards[0].size = '3', /size must be/],
        [(m) => m.shards = [], /no array with entries/],
        [(m) => m.shards.push({...m.shards[0]}), /listed twice/],
        [(m) => m.pieceHashes.shards[0].pop(), /has 5 entries, 24576 bytes have 6 pieces/],
        [(m) => m.pieceHashes.shards[0][2] = 'zz', /number 2 is no SHA-256/],
        [(m) => m.pieceHashes.blockSize = 5, /blockSize must be/],
        [(m) => m.pieceHashes.shards = [], /0 lists for 1 shards/],
        [(m) => m.files[0].name = 'manifest.json', /listed twice/],
        [(m) => m.files[0].name = 'shard_00000.bin', /listed twice/],
        [(m) => m.files[0].hash = 'x', /64 hexadecimal/],
        [(m) => m.files[0].size = 2 ** 40, /no count of bytes up to/],
        [(m) => m.tokenizer.file = '/etc/passwd', /no plain name/],
        [(m) => m.tokenizer.file = 'shard_00000.bin', /also a shard/],
        [(m) => m.tokenizer.file = 'none.json', /there is no such file/, 'network'],
        [(m) => m.hashAlgorithm = 'md5', /neither sha256 nor blake3/, 'unsupported'],
        [(m) => m.schema = 'doppler.pack/v1', /only wraps a pack/, 'unsupported'],
    ];
    for (const [spoil, pattern, status = 'format'] of cases) {
        const manifest = structuredClone(good);
        spoil(manifest);
        const url = put({'manifest.json': text(manifest)});
        await fails(() => open(url, browser()), status, pattern);
        assert.equal(server.asked('.bin').count, 0);
    }
    await fails(() => open(put({'manifest.json': text('{"shards":')}), browser()), 'format',
        /is no JSON/);
});

test('mutated manifests end in a sentence or in a plan, never otherwise', async () => {
    const good = new TextDecoder().decode(pack([3 * PIECE])['manifest.json']);
    const random = noise(4000, 9);
    let n_plans = 0;
    for (let i = 0; i < 400; i++) {
        const chars = [...good];
        for (let k = 0; k < 1 + random[i] % 3; k++) {
            const at = (random[i * 7 + k] * 256 + random[i * 5 + k]) % chars.length;
            chars[at] = '0"{}[],:-.9enull'[random[i * 3 + k] % 16];
        }
        const files = [new File([chars.join('')], 'manifest.json'),
            new File(['{}'], 'tokenizer.json')];
        try {
            await makePlan(await originOf(files));
            n_plans++;
        } catch (error) {
            assert.ok(error instanceof DopplerError, error.stack);
        }
    }
    assert.ok(n_plans > 10 && n_plans < 390, `${n_plans} of 400 were plans`);
});

// ---- the cache ----------------------------------------------------------------------------------

test('a kill at any moment leaves a cache that is right', async () => {
    const all = pack([10 * PIECE, 2 * PIECE + 3]), url = put(all);
    const random = noise(4000, 5);
    let resumed = 0;
    for (let round = 0; round < 20; round++) {
        const place = browser(), tab = new AbortController();
        place.disk.onKill = () => tab.abort();
        place.disk.killAt = 5 + random[round] % 75;
        await loadWhole(url, all, place, {signal: tab.signal}).catch(() => {});
        let k = round * 20;
        place.disk.cut(() => random[k++ % 4000] / 255);
        place.locks.clear();
        const entries = await (await openCache(place)).list();
        server.forget();
        const opened = await open(url, place, {verify: false});
        await readAll(opened, all);
        await opened.files.close();
        assert.ok(opened.notes.every((note) => !/damaged/.test(note)), opened.notes.join());
        const stored = entries[0]?.stored ?? 0;
        resumed += stored > 0 ? 1 : 0;
        const brought = server.requests.reduce((sum, {bytes}) => sum + bytes, 0);
        assert.ok(brought <= totalOf(all) - stored + 2 * all['manifest.json'].length + 10,
            `${brought} bytes with ${stored} stored`);
    }
    assert.ok(resumed >= 4, `${resumed} loads found something`);
});

test('a record with any byte changed, or cut anywhere, gives no wrong byte', async () => {
    const all = {'a.gguf': noise(4 * PIECE + 5)}, url = `${put(all)}a.gguf`, place = browser();
    await loadWhole(url, all, place);
    const random = noise(1000, 11), good = place.disk.file('record').bytes.slice();
    const head = good.length - 5 * 44;
    for (let round = 0; round < 40; round++) {
        const at = (random[3 * round] * 256 + random[3 * round + 1]) %
            (round % 2 ? good.length : head), bytes = good.slice();
        bytes[at] ^= round % 3 ? 1 : 1 + random[3 * round + 2] % 255;
        place.disk.file('record').bytes = round % 5 ? bytes : good.slice(0, at);
        await loadWhole(url, all, place);
    }
});

test('two tabs at once: one brings it, the other waits and reads', async () => {
    for (const hasModes of [true, false]) {
        const all = pack([30 * PIECE]), url = put(all), place = browser();
        place.disk.hasModes = hasModes;
        server.forget();
        const texts = [];
        const options = {followMs: 25_000, onProgress: ({text: line}) => line && texts.push(line)};
        await Promise.all([loadWhole(url, all, place, options),
            loadWhole(url, all, place, options)]);
        assert.equal(server.asked('.bin').bytes, 30 * PIECE, 'brought once');
        assert.ok(texts.some((line) => /another tab/.test(line)));
        assert.equal(place.locks.held.length, 0, 'all locks are let go');
        assert.equal(place.disk.handles.size, 0, 'all handles are closed');
    }
});

test('a browser without shared handles: the second reader has a snapshot', async () => {
    const all = pack([10 * PIECE]), url = put(all), place = browser();
    place.disk.hasModes = false;
    await loadWhole(url, all, place);
    const first = await open(url, place);
    await readAll(first, all);
    globalThis.FileReaderSync = FakeFileReaderSync;
    try {
        const second = await loadWhole(url, all, place);
        assert.equal(second.fromCache, true);
        assert.deepEqual(second.notes, []);
    } finally {
        delete globalThis.FileReaderSync;
    }
    await first.files.close();
});

test('a tab that holds the model and brings nothing is not waited for', async () => {
    const all = pack([10 * PIECE]), url = put(all), place = browser();
    const first = await open(url, place); // never asks for more
    const second = await loadWhole(url, all, place, {followMs: 50});
    assert.match(second.notes.join(), /another tab holds this model/);
    await readAll(first, all);
    await first.files.close();
    assert.equal((await loadWhole(url, all, place)).fromCache, true);
});

test('a model that another tab has open is read beside it', async () => {
    const all = {'a.gguf': noise(10 * PIECE)}, url = `${put(all)}a.gguf`, place = browser();
    const first = await open(url, place);
    await readAll(first, all); // and stays open, not looked at a second time yet
    const second = await loadWhole(url, all, place, {followMs: 10_000});
    assert.equal(second.fromCache, true);
    const cache = await openCache(place);
    await fails(() => cache.remove('a'), 'file', /a: is in use/);
    await first.files.close();
    assert.deepEqual(await cache.remove('a'), {removed: 1, bytes: 10 * PIECE});
});

test('too little room: a sentence with both numbers, and no cache', async () => {
    const all = pack([30 * PIECE]), url = put(all), place = browser();
    place.disk.shownQuota = 17_000_000;
    const {notes} = await loadWhole(url, all, place);
    assert.match(notes.join(), /it needs 2\d\d kB, and the browser has room for 17.0 MB/);
    assert.deepEqual(await (await openCache(place)).list(), []);
    assert.equal(place.disk.usage(), 0);
});

test('the room ends in the middle: the load goes on, and says so', async () => {
    for (const share of [0.01, 0.5, 0.97]) {
        const all = pack([30 * PIECE]), url = put(all), place = browser();
        place.disk.quota = Math.floor(totalOf(all) * share);
        const texts = [];
        const {notes} = await loadWhole(url, all, place,
            {onProgress: ({text: line}) => line && texts.push(line)});
        assert.match(notes.join(), /without.*(quota)/);
        if (share > 0.1) {
            assert.match(texts.join(), /without being kept/);
        }
        place.disk.quota = Infinity;
        await loadWhole(url, all, place);
        assert.equal((await loadWhole(url, all, place)).fromCache, true);
    }
});

test('no private files, or none allowed: the load goes without, in bounded memory', async () => {
    const all = pack([60 * PIECE]), url = put(all);
    const refused = {getDirectory: async () => {
        throw new DOMException('not in private windows', 'SecurityError');
    }};
    for (const place of [{}, {storage: refused, locks: new FakeLocks()}]) {
        const {notes} = await loadWhole(url, all, place);
        assert.match(notes.join(), /not kept for the next time/);
    }
});

test('without a cache memory stays bounded, however slow the reader', async () => {
    const size = 96 * 1024 * 1024, bytes = new Uint8Array(size).fill(7);
    const url = `${put({'a.gguf': bytes})}a.gguf`;
    const opened = await openSource(url, {patience, storage: {}});
    const window = new Uint8Array(1024 * 1024);
    opened.files.prefetch();
    const asked = () => server.asked('.gguf').bytes;
    for (let before = -1; asked() !== before;) {
        before = asked();
        await new Promise((done) => setTimeout(done, 300));
    }
    assert.ok(asked() <= 33 * 1024 * 1024, `${asked()} bytes were asked for ahead`);
    let peak = 0;
    for (let at = 0; at < size;) {
        const n = opened.files.read('/model/a.gguf', at, window);
        if (n < 0) {
            await opened.files.arrived();
            continue;
        }
        at += n;
        peak = Math.max(peak, asked() - at);
    }
    assert.ok(peak <= 48 * 1024 * 1024, `${peak} bytes ahead of the reader`);
    assert.ok(asked() <= size + 8 * 1024 * 1024, 'nothing came twice');
    await opened.files.close();
});

test('the cache lists, removes and purges', async () => {
    const place = browser(), cache = await openCache(place);
    const all = pack([4 * PIECE]), one = {'a.gguf': noise(5 * PIECE)};
    assert.deepEqual(await cache.list(), []);
    await loadWhole(put(all), all, place);
    await loadWhole(`${put(one)}a.gguf`, one, place);
    const list = await cache.list();
    assert.deepEqual(list.map(({name, complete, bytes, stored}) => ({name, complete, bytes,
        stored})).sort((x, y) => (x.name < y.name ? -1 : 1)), [
        {name: 'a', complete: true, bytes: 5 * PIECE, stored: 5 * PIECE},
        {name: 'little', complete: true, bytes: totalOf(all), stored: totalOf(all)},
    ]);
    assert.ok(list.every(({lastUsed}) => Date.now() - lastUsed < 60_000));
    assert.ok(list.some(({source}) => source === `${server.origin}/m/a.gguf`));
    await fails(() => cache.remove('none'), 'file', /none: is not in the cache/);
    await fails(() => cache.remove(''), 'argument', /by its name/);
    await cache.remove('little');
    assert.deepEqual((await cache.list()).map(({name}) => name), ['a']);
    assert.equal((await cache.estimate()).models, 5 * PIECE);
    await cache.purge();
    assert.deepEqual(await cache.list(), []);
    assert.equal(place.disk.usage(), 0);
});

test('the query of a URL is in no message and in no file', async () => {
    const all = {'a.gguf': noise(3 * PIECE)}, place = browser();
    await loadWhole(`${put(all)}a.gguf?token=secret`, all, place);
    for (const {file} of place.disk.files()) {
        assert.ok(!Buffer.from(file.bytes).includes('secret'));
    }
    server.spoil({match: /secret/, status: 403});
    await assert.rejects(open(`${server.origin}/m/b.gguf?token=secret`), (error) => (
        !error.message.includes('secret')));
    await fails(() => open('http://user:secret@127.0.0.1/a.gguf'), 'argument', /user or a pass/);
});

// ---- stopping -----------------------------------------------------------------------------------

test('a signal stops it wherever it is', async () => {
    const all = pack([30 * PIECE]), url = put(all), place = browser();
    const random = noise(64, 3);
    await fails(() => open(url, place, {signal: AbortSignal.abort()}), 'cancelled', /cancelled/);
    server.spoil({match: '.bin', rate: 500_000});
    for (let round = 0; round < 12; round++) {
        const controller = new AbortController();
        const timer = setTimeout(() => controller.abort(), random[round] / 4);
        await fails(() => loadWhole(url, all, place, {signal: controller.signal}), 'cancelled',
            /cancelled/).catch((error) => {
            // The last ones may be whole already, which is no fault.
            if (!/Missing expected rejection/.test(error.message)) {
                throw error;
            }
        });
        clearTimeout(timer);
        assert.equal(place.locks.held.length, 0);
        assert.equal(place.disk.handles.size, 0);
    }
    server.heal();
    await loadWhole(url, all, place);
});

test('closing in the middle lets go of everything', async () => {
    const all = pack([30 * PIECE]), url = put(all), place = browser();
    const {files} = await open(url, place);
    files.prefetch();
    const wait = fails(() => files.arrived().then(() => files.finish()), 'file', /closed/);
    await new Promise((done) => setTimeout(done, 5));
    await files.close();
    await wait;
    await files.close();
    assert.equal(place.locks.held.length, 0);
    assert.equal(place.disk.handles.size, 0);
});

// ---- picked files -------------------------------------------------------------------------------

const fileList = (all) => Object.entries(all).map(([name, bytes]) => new File([bytes], name));

const folderHandle = (all) => ({
    kind: 'directory', name: 'picked',
    async *values() {
        yield {kind: 'directory', name: 'sub'};
        for (const file of fileList(all)) {
            yield {kind: 'file', name: file.name, getFile: async () => file};
        }
    },
});

test('picked files: a pack, a GGUF file, a split one, a folder, handles', async () => {
    const all = pack([9 * PIECE]), gguf = {'a.gguf': noise(3 * PIECE)};
    const fetchIt = () => assert.fail('the network was asked');
    const load = (source, files) => loadWhole(source, files, {}, {fetch: fetchIt});
    assert.equal((await load(fileList(all), all)).name, 'little');
    await load(folderHandle(all), all);
    await load(fileList(gguf)[0], gguf);
    await load({kind: 'file', getFile: async () => fileList(gguf)[0]}, gguf);
    const split = {'b-00001-of-00002.gguf': noise(PIECE), 'b-00002-of-00002.gguf': noise(9)};
    assert.equal((await load(fileList(split), split)).path, '/model/b-00001-of-00002.gguf');
    await load(folderHandle(safetensors()), safetensors());
    globalThis.FileReaderSync = FakeFileReaderSync; // as in a worker: no copy in memory
    try {
        await load([new Snapshot(gguf['a.gguf'], 'a.gguf')], gguf);
    } finally {
        delete globalThis.FileReaderSync;
    }
    const gone = async () => { throw new DOMException('not there', 'NotFoundError'); };
    await fails(() => open({kind: 'file', name: 'a.gguf', getFile: gone}), 'file',
        /^a\.gguf: cannot be read, .*: not there$/);
    await fails(() => open({kind: 'directory', name: 'picked', values: () => ({next: gone,
        [Symbol.asyncIterator]() { return this; }})}), 'file', /^picked: cannot be read/);
    await fails(() => open([]), 'argument', /no file was picked/);
    await fails(() => open([{}]), 'argument', /no file/);
    await fails(() => open(fileList({'a.gguf': noise(9), 'b.gguf': noise(9)})), 'file',
        /holds 2 GGUF models/);
    await fails(() => open(fileList({'x.txt': noise(9)})), 'file', /nor a .gguf file/);
    await fails(() => open(7), 'argument', /a source is/);
    await fails(() => open('ftp://x/y'), 'argument', /begins with http/);
});

test('picked files with a wrong byte', async () => {
    const all = pack([9 * PIECE]);
    all['shard_00000.bin'] = all['shard_00000.bin'].slice();
    all['shard_00000.bin'][5 * PIECE] ^= 1;
    await failsToLoad(fileList(all), all, {}, 'format', /piece 6 of 9: SHA-256 is/);
    all['shard_00000.bin'] = all['shard_00000.bin'].subarray(1);
    await failsToLoad(fileList(all), all, {}, 'format', /^shard_00000\.bin: has 73727 bytes, /);
});

test('shards with a hash of their own and none for pieces', async () => {
    const all = pack([9 * PIECE, PIECE], {pieceHashes: false, files: false});
    const url = put(all), place = browser();
    await loadWhole(url, all, place);
    server.spoil({match: '00001.bin', wrongAt: 77});
    await failsToLoad(url, all, browser(), 'format', /shard_00001.bin, piece 1 of 1: SHA-256/);
    assert.equal((await loadWhole(url, all, place)).fromCache, true);
});

test('a file URL is a folder of this machine', async (t) => {
    const url = new URL('../../web/lib/', import.meta.url);
    const {files, path, fromCache} = await openSource(url);
    assert.deepEqual([path, fromCache, files.list('/model').includes('files.js')],
        ['/model', true, true]);
    const bytes = await readFile(files, '/model/files.js');
    assert.match(new TextDecoder().decode(bytes), /class Files/);
    await files.close();
    await fails(() => openSource('file:///none/at/all'), 'file', /ENOENT/);

    const folder = fs.mkdtempSync(join(os.tmpdir(), 'doppler-store-'));
    t.after(() => fs.rmSync(folder, {recursive: true}));
    const all = pack([9 * PIECE, PIECE]);
    for (const [name, content] of Object.entries(all)) {
        fs.writeFileSync(join(folder, name), content);
    }
    const place = pathToFileURL(folder).href;
    assert.equal((await loadWhole(place, all)).name, 'little');
    await loadWhole(`${place}/manifest.json`, all);
    for (const [name, at, pattern] of [
        ['tokenizer.json', 20, /tokenizer\.json.*: SHA-256 is/],
        ['shard_00000.bin', 5 * PIECE, /shard_00000\.bin, piece 6 of 9: SHA-256 is/],
    ]) {
        const wrong = all[name].slice();
        wrong[at] ^= 1;
        fs.writeFileSync(join(folder, name), wrong);
        await failsToLoad(place, all, {}, 'format', pattern);
        fs.writeFileSync(join(folder, name), all[name].subarray(0, -1));
        await failsToLoad(place, all, {}, 'format', new RegExp(`^${name}: has \\d+ bytes, \\d+ `));
        fs.rmSync(join(folder, name));
        await failsToLoad(place, all, {}, 'file', new RegExp(`${name}: cannot be read`));
        fs.writeFileSync(join(folder, name), all[name]);
    }
});
