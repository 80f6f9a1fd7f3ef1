// The package while it loads a model, over a fake engine and a fake store: what it tells, what it
// refuses, how it fails, and that it can be given up wherever it is.
import assert from 'node:assert/strict';
import http from 'node:http';
import { describe, test } from 'node:test';
import { ArgumentError, load, makeError, makePair, MemoryError, newWorld, open, rejects, serve,
    standardParts, URL_OF_MODEL } from './client_lib.mjs';
import { later } from './client_fake.mjs';

describe('loading', () => {
    test('tells what was loaded and how far it is', async () => {
        const events = [];
        const { world, model } = await open({}, {
            onProgress: (event) => events.push(event), context: 512, maxMemory: 1e9,
            device: { noF16: true },
        });
        assert.equal(model.info.name, 'letters');
        assert.equal(model.info.context, 512);
        assert.equal(model.deviceInfo.name, 'fake 0');
        assert.deepEqual(model.notes, ['a note']);
        assert.deepEqual(world.engine.options.device, { noF16: true, maxMemory: 1e9 });
        const phases = events.map(({ phase }) => phase);
        assert.deepEqual(new Set(phases),
            new Set(['device', 'download', 'open', 'upload', 'compile', 'ready']));
        assert.equal(phases[0], 'device');
        assert.equal(phases.at(-1), 'ready');
        for (const phase of new Set(phases)) {
            const loaded = events.filter((each) => each.phase === phase).map((each) => each.loaded);
            assert.ok(loaded.every((n, i) => i === 0 || n > loaded[i - 1]), `${phase}: ${loaded}`);
        }
        const last = events.filter(({ phase }) => phase === 'upload').at(-1);
        assert.deepEqual([last.loaded, last.total], [4, 4]);
        assert.ok(world.prefetched === 1);
        await model.close();
    });

    test('asks for no weights if there is too little memory', async () => {
        const world = newWorld();
        world.failModel.push(makeError('memory', 'needs 1.2 GB, this device allows 1.0 GB'));
        await rejects(open(world), MemoryError, /needs 1.2 GB/);
        assert.equal(world.prefetched, 0);
        assert.equal(world.closedFiles, 1);
        assert.ok(world.engine.closed);
    });

    test('closes the files when all of them are kept', async () => {
        for (const fault of [null, 'the network went', 'closed meanwhile']) {
            const lines = [];
            const world = newWorld();
            let settle;
            world.finishGate = new Promise((resolve, reject) => {
                settle = () => (fault ? reject(makeError('network', fault)) : resolve());
            });
            const { model } = await open(world, {
                onLog: (level, line) => level === 'warning' && lines.push(line),
            });
            await model.generate('hello', { maxTokens: 3 }); // which does not wait for it
            assert.deepEqual([world.finished, world.closedFiles], [1, 0]);
            if (fault === 'closed meanwhile') await model.close();
            settle();
            await later(5);
            assert.ok(world.closedFiles > 0, 'the files are closed');
            assert.deepEqual(lines, fault === 'the network went'
                ? ['the model is not kept whole: the network went'] : []);
            await model.close();
        }
    });

    test('calls the model by its name', async () => {
        for (const [said, wanted] of [['/model: has no tensors', 'source-name: has no tensors'],
            ['/model/x.gguf: is cut', 'x.gguf: is cut'], ['/models: odd', '/models: odd'],
            ['config.json: /model', 'config.json: /model']]) {
            const world = newWorld();
            world.failModel.push(makeError('format', said));
            await assert.rejects(open(world), { name: 'FormatError', message: wanted });
        }
    });

    test('fails by the sentence of what failed', async () => {
        for (const [field, status] of [['failOpen', 'device'], ['failSource', 'network'],
            ['failTest', 'device'], ['failModel', 'format']]) {
            const world = newWorld();
            world[field].push(makeError(status, `fault in ${field}`));
            const error = await open(world).catch((thrown) => thrown);
            assert.deepEqual([error.status, error.message], [status, `fault in ${field}`]);
            assert.ok(world.engines.every((engine) => engine.closed), `${field}: engine closed`);
            await later(5);
            assert.equal(world.closedFiles, field === 'failSource' ? 0 : 1, `${field}: files`);
        }
    });

    test('fails for its source before the device is tested', async () => {
        const world = newWorld();
        let release;
        world.testGate = new Promise((resolve) => { release = resolve; });
        world.failSource.push(makeError('network', 'no such model'));
        const loading = open(world);
        await Promise.race([assert.rejects(loading, { name: 'NetworkError' }),
            later(2000).then(() => assert.fail('the test of the device was waited for'))]);
        release();
        assert.ok(world.engines.every(({ closed }) => closed));
    });

    test('is cancelled by its signal', async () => {
        for (const at of ['device', 'open', 'upload', 'compile']) {
            const world = newWorld();
            world.compileGate = new Promise(() => {}); // which cannot be stopped
            const control = new AbortController();
            const loading = open(world, {
                signal: control.signal,
                onProgress: ({ phase }) => phase === at && control.abort(),
            });
            await assert.rejects(loading, { name: 'AbortError', status: 'cancelled' }, at);
            await later(5);
            assert.ok(world.engines.every(({ closed }) => closed), at);
            assert.equal(world.closedFiles, 1, at);
        }
    });

    test('refuses options before it starts anything', async () => {
        const world = newWorld();
        for (const [options, pattern] of [
            [{ context: -1 }, /options\.context: is -1, expected a whole number from 0/],
            [{ contxt: 1 }, /options: has no option "contxt", it takes device, /],
            [{ device: { noF16: 1 } }, /options\.device\.noF16: is 1, expected true or false/],
            [{ maxMemory: 1e30 }, /options\.maxMemory/],
        ]) {
            await rejects(open(world, options), ArgumentError, pattern);
        }
        const [near] = makePair();
        await rejects(load(7, { worker: near }), ArgumentError, /source: is 7, expected a URL/);
        await rejects(load([], { worker: near }), ArgumentError, /source: is an array of 0/);
        assert.equal(world.engines.length + world.opened.length, 0);
    });

    test('finds models by name: kept ones, then those beside the package', async () => {
        for (const [entries, wanted] of [
            [[], 'https://here/models/tale-8m/'],
            [[{ name: 'other', source: 'x' }], 'https://here/models/tale-8m/'],
            [[{ name: 'tale-8m', source: 'https://else/tale-8m' }], 'cache:tale-8m'],
            [[{ name: 'tale-8m', source: 'https://here/models/tale-8m' }],
                'https://here/models/tale-8m/'],
        ]) {
            const world = newWorld();
            world.entries = entries;
            const [near, far] = makePair();
            serve(far, world.parts());
            const model = await load('tale-8m', { worker: near, cache: false });
            assert.equal(world.opened[0][0], wanted);
            assert.equal(world.opened[0][1].cache, false);
            await model.close();
        }
    });

    test('is asked for once', async () => {
        const [near, far] = makePair();
        serve(far, newWorld().parts());
        const model = await load(URL_OF_MODEL, { worker: near });
        const answer = new Promise((resolve) => near.addEventListener('message',
            ({ data }) => data.id === 1000 && resolve(data)));
        const args = { source: URL_OF_MODEL, options: {} };
        near.postMessage({ type: 'call', id: 1000, method: 'load', args });
        assert.match((await answer).error.message, /this worker has a model already/);
        await model.close();
    });

    test('is cancelled while what cannot be stopped is under way', async () => {
        for (const gate of ['wasmGate', 'openGate', 'testGate']) {
            const world = newWorld();
            let release;
            world[gate] = new Promise((resolve) => { release = resolve; });
            const control = new AbortController();
            const loading = open(world, { signal: control.signal });
            loading.catch(() => {});
            await later(20);
            control.abort();
            await Promise.race([assert.rejects(loading, { name: 'AbortError' }, gate),
                later(2000).then(() => assert.fail(`${gate}: was waited for`))]);
            release();
            await later(20);
            assert.equal(world.engines.length, gate === 'wasmGate' ? 0 : 1, gate);
            assert.ok(world.engines.every(({ closed }) => closed), `${gate}: engine closed`);
            assert.equal(world.closedFiles, 1, `${gate}: files`);
        }
    });

    test('that was cancelled before leaves nothing behind', async () => {
        const world = newWorld();
        await assert.rejects(open(world, { signal: AbortSignal.abort() }), { name: 'AbortError' });
        await later(50);
        assert.deepEqual(world.calls, []);
    });

    test('does not wait for a visitor whom the browser asks', async () => {
        let answer;
        const storage = { persist: () => new Promise((resolve) => { answer = resolve; }) };
        Object.defineProperty(navigator, 'storage', { value: storage, configurable: true });
        try {
            const { model } = await open({}, { persist: true });
            assert.deepEqual(model.notes, ['a note']);
            answer(false);
            await later();
            assert.match(model.notes[1], /does not promise to keep the model/);
            await model.close();
        } finally {
            delete navigator.storage;
        }
    });

    test('says what is wrong with the wasm', async () => {
        const answers = {
            '/page': ['text/html; charset=utf-8', '<!doctype html>'],
            '/damaged': ['application/wasm', 'no wasm'],
            '/untyped': ['text/plain', 'no wasm'],
            '/cut': ['application/wasm', null],
            '/slow': ['application/wasm', null],
        };
        const server = http.createServer(({ url }, response) => {
            if (url === '/silent') return;
            const [type, body] = answers[url] ?? [];
            response.writeHead(type ? 200 : 404, { 'content-type': type ?? 'text/plain',
                ...(body === null && { 'content-length': 100 }) });
            if (body !== null) return void response.end(body);
            response.write('\0asm', () => {
                if (url === '/cut') setTimeout(() => response.destroy(), 20);
            });
        });
        await new Promise((done) => server.listen(0, '127.0.0.1', done));
        const { wasm } = standardParts({}, { wasmMs: 500 });
        const origin = `http://127.0.0.1:${server.address().port}`;
        try {
            for (const [path, status, pattern] of [
                ['/none', 'network', /none: the server answered 404, expected 200/],
                ['/page', 'network', /page: the server sent a page in place of doppler\.wasm: /],
                ['/damaged', 'unsupported', /damaged: this browser does not compile it: /],
                ['/untyped', 'unsupported', /untyped: this browser does not compile it: /],
                ['/cut', 'network', /cut: the connection broke: /],
                ['/slow', 'network', /slow: did not come within 0\.5 s/],
                ['/silent', 'network', /silent: did not come within 0\.5 s/],
            ]) {
                await assert.rejects(wasm(origin + path), ({ status: got, message }) => {
                    assert.equal(got, status, path);
                    assert.match(message, pattern);
                    return true;
                });
            }
        } finally {
            server.closeAllConnections();
            server.close();
        }
    });
});
