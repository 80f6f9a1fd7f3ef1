// The package in Node, on npm's webgpu: the same tokens as everywhere, and faults that need no
// browser. $DOPPLER_WEB is what `make web` wrote; the GPU is the Vulkan driver that the environment
// names (SwiftShader, under tests/web/run).
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import test from 'node:test';
import {pathToFileURL} from 'node:url';
import {OWN_ZEROS} from './harness.mjs';

const web = path.resolve(process.env.DOPPLER_WEB ?? 'build/web');
const root = path.resolve(import.meta.dirname, '../..');
const {webgpu} = await import(path.join(root, 'deps/webtest/packages.mjs'));
const {load} = await import(pathToFileURL(path.join(web, 'lib/doppler.js')).href);
const {create, globals} = await webgpu();
Object.assign(globalThis, globals);

const types = fs.readFileSync(path.join(web, 'lib/doppler.d.ts'), 'utf8');

/** The fields that the package's types promise in an interface. */
const promised = (name) => {
    const [, body] = new RegExp(`^export interface ${name}\\b.*\\{\n([^]*?)^\\}`, 'm').exec(types);
    return [...body.matchAll(/^ {4}(\w+):/gm)].map(([, field]) => field);
};

test('a pack of several formats, from a folder', {timeout: 300_000}, async () => {
    const folder = path.join(root, 'tests/vectors/packs/ours');
    const vectors = JSON.parse(fs.readFileSync(path.join(folder, 'vectors.json'), 'utf8'));
    const lines = [];
    const model = await load(folder, {gpu: create([OWN_ZEROS]), context: 256, sessions: 2,
        onLog: (level, line) => lines.push(line)});
    try {
        assert.ok(!lines.some((line) => line.includes('self-test')), lines.join('\n'));
        const result = await model.generate(vectors.tokens,
            {maxTokens: vectors.greedy.length, temperature: 0, ignoreStops: true});
        const {tokens, finish} = result;
        assert.deepEqual(tokens, vectors.greedy);
        assert.equal(finish, 'length');
        for (const [name, value] of Object.entries({ModelInfo: model.info, Result: result,
            DeviceInfo: model.deviceInfo, Stats: await model.stats()})) {
            assert.ok(promised(name).length > 2, name);
            assert.deepEqual(promised(name).filter((field) => value[field] === undefined), [], name);
        }
        // Two at once give what each gives alone.
        const both = await Promise.all([1, 2].map(() => model.generate(vectors.tokens,
            {maxTokens: 8, temperature: 0, ignoreStops: true})));
        both.forEach((each) => assert.deepEqual(each.tokens, vectors.greedy.slice(0, 8)));
    } finally {
        await model.close();
    }
});

test('a device that computes wrongly is named', {timeout: 300_000}, async () => {
    // The package with other logits to hold the device to: in a folder of its own, for modules are
    // known by their place.
    const copy = fs.mkdtempSync(path.join(os.tmpdir(), 'doppler-web-'));
    try {
        for (const part of ['lib', 'selftest', 'doppler.wasm']) {
            fs.cpSync(path.join(web, part), path.join(copy, part), {recursive: true});
        }
        const logits = path.join(copy, 'selftest/vectors.f32');
        fs.writeFileSync(logits, fs.readFileSync(logits).reverse());
        const wrong = await import(pathToFileURL(path.join(copy, 'lib/doppler.js')).href);
        await assert.rejects(wrong.load(path.join(root, 'tests/vectors/packs/ours'),
            {gpu: create([OWN_ZEROS])}), {status: 'device', message: /computes wrongly: logits of a prompt/});
    } finally {
        fs.rmSync(copy, {recursive: true});
    }
});

test('what is no model is refused by a sentence', async () => {
    await assert.rejects(load(path.join(root, 'tests/vectors/templates'), {gpu: create([OWN_ZEROS])}),
        (error) => error.status === 'file' && /manifest\.json/.test(error.message));
});
