// The engine in a browser: the bundled model through the package, on the browser's GPU, against
// golden.json, the reference's greedy answers. Making the pipelines is what costs here (half a
// minute of one core on a software GPU), so each load is used for all that it can show.
import {execFileSync} from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {memoryOf} from './harness.mjs';

const CONTEXT = 1024; // of all answers together
// Answers in which no two best logits are closer than a rounding.
const CASES = ['tale', 'recall', 'key_value', 'add', 'unicode', 'multi_turn', 'system_brief'];
const LONG = 'tale_theme';
const FEW = CASES.slice(0, 4); // and few tokens of each, where a token costs a second
const MOST = 12;

const golden = (t) => {
    const text = fs.readFileSync(path.join(t.root, 'tests/vectors/golden.json'), 'utf8');
    return new Map(JSON.parse(text).cases.map((each) => [each.name, each]));
};

/** A tab with the model loaded in a worker that has no JSPI and counts buffers. */
const openModel = async (t, options = {}) => {
    t.server.spoil({match: /^\/selftest\//, status: 404}); // as dear as the load; the page has it
    const page = await t.open();
    await page.waitForFunction('window.ready');
    await page.evaluate(() => {
        new BroadcastChannel('spy').onmessage = (event) => {
            globalThis.spied = event.data;
            globalThis.mostBytes = Math.max(globalThis.mostBytes ?? 0, event.data.bytes);
        };
    });
    const loaded = await page.evaluate((options) => load('m', '/models/tale-8m/', options),
        {context: CONTEXT, worker: '/test/spy-worker.js', ...options});
    t.ok(!loaded.error, `load: ${loaded.error?.name}: ${loaded.error?.message}`);
    return {page, ...loaded.value};
};

/** Answers to several prompts, which are written at the same time, are the reference's. */
const sameTokens = async (t, page, names, most) => {
    const cases = names.map((name) => golden(t).get(name)).map((each) =>
        ({name: each.name, prompt: each.prompt_ids, ids: each.continuation_ids.slice(0, most)}));
    const got = await page.evaluate((cases) => Promise.all(cases.map(({prompt, ids}) =>
        greedy('m', prompt, ids.length))), cases);
    cases.forEach(({name, ids}, i) => {
        t.ok(!got[i].error, `${name}: ${got[i].error?.message}`);
        t.equal(got[i].value.tokens, ids, `tokens of ${name}`);
    });
};

/** The text side: messages become the reference's prompt, and the logits are its logits. */
const sameTextAndLogits = async (t, page) => {
    const {messages, prompt, prompt_ids: ids, top5_at_prompt_end: top} = golden(t).get('tale');
    const got = await page.evaluate(async (messages, prompt) => {
        const logits = await models.m.logits(messages);
        return {template: await models.m.template(messages), logits: [...logits],
            tokens: await models.m.chatTokens(messages),
            back: await models.m.detokenize(await models.m.tokenize(prompt,
                {parseSpecial: true, addSpecial: false}), {special: true})};
    }, messages, prompt);
    t.equal(got.template, prompt, 'the template');
    t.equal(got.tokens, ids, 'tokens of the messages');
    t.equal(got.back, prompt, 'tokenize and detokenize');
    const mean = got.logits.reduce((a, b) => a + b, 0) / got.logits.length;
    const spread = Math.sqrt(got.logits.reduce((a, b) => a + (b - mean) ** 2, 0) /
        got.logits.length);
    for (const {id, logit} of top) {
        t.ok(Math.abs(got.logits[id] - logit) <= 0.02 * spread,
            `logit of ${id}: ${got.logits[id]}, expected ${logit}`);
    }
};

const stopsWhenTold = async (t, page) => {
    const {prompt_ids: prompt} = golden(t).get(LONG);
    const got = await page.evaluate(async (prompt) => {
        const control = new AbortController();
        const run = models.m.generate(prompt,
            {maxTokens: 200, temperature: 0, ignoreStops: true, signal: control.signal});
        let pieces = 0;
        for await (const piece of run) {
            pieces += piece.tokens.length;
            control.abort();
        }
        const {finish, tokens} = await run;
        return {finish, tokens: tokens.length, pieces};
    }, prompt);
    t.equal(got.finish, 'cancelled', 'how a cancelled answer ended');
    t.ok(got.tokens < 100, `${got.tokens} tokens of 200 after it was cancelled`);
};

const goesOnAfterALoss = async (t, page) => {
    const {prompt_ids: prompt, continuation_ids: all, continuation} = golden(t).get(LONG);
    const ids = all.slice(0, 2 * MOST);
    const got = await page.evaluate(async (prompt, n) => {
        const run = models.m.generate(prompt, {maxTokens: n, temperature: 0, ignoreStops: true});
        let text = '';
        let lostAt = 0;
        for await (const piece of run) {
            text += piece.text;
            if (lostAt === 0) {
                lostAt = text.length;
                await models.m.loseDevice();
            }
        }
        const {tokens, recoveries, finish} = await run;
        return {text, tokens, lostAt, recoveries, finish};
    }, prompt, ids.length);
    t.ok(got.lostAt > 0 && got.lostAt < continuation.length, `lost after ${got.lostAt} characters`);
    t.equal(got.recoveries, 1, 'devices that were replaced');
    t.equal(got.tokens, ids, 'tokens of a stream whose device was lost');
    t.ok(got.text.length > 60 && continuation.startsWith(got.text),
        `text of a stream whose device was lost: ${got.text}`);
};

const leavesNothing = async (t, page) => {
    const before = await page.evaluate(() => ({...spied, mostBytes}));
    t.ok(before.bytes > 14e6, `${before.bytes} bytes of buffers while the model is loaded`);
    t.equal(before.hasJspi, false, 'JSPI in the worker');
    await page.evaluate(() => models.m.close());
    await page.waitForFunction('spied.buffers === 0', {timeout: 5000}).catch(async () => {
        throw new Error(`after close: ${JSON.stringify(await page.evaluate(() => spied))}`);
    });
    return `${(before.mostBytes / 1048576).toFixed(0)} MiB of buffers at most`;
};

const step = async (name, promise) => {
    try {
        return await promise;
    } catch (error) {
        throw new Error(`${name}: ${error.message}`);
    }
};

const bundledModel = async (t) => {
    const {page, device} = await openModel(t);
    await step('golden answers', sameTokens(t, page, FEW, MOST));
    await step('text and logits', sameTextAndLogits(t, page));
    await step('cancelling', stopsWhenTold(t, page));
    await step('a lost device', goesOnAfterALoss(t, page));
    return `${device.tier}, ${await step('closing', leavesNothing(t, page))}`;
};

const answersOnly = (device) => async (t) => {
    const {page, device: info} = await openModel(t, {device});
    await sameTokens(t, page, [...CASES, LONG], Infinity);
    return info.tier;
};

/** Bytes of a page's and its workers' JavaScript: heaps, what these hold outside, array buffers. */
const scriptBytes = async (page) => {
    page.inspector ??= await page.createCDPSession();
    let sum = 0;
    for (const client of [page.inspector, ...page.workers().map((worker) => worker.client)]) {
        const use = await client.send('Runtime.getHeapUsage').catch(() => null); // one that ended
        sum += use ? use.totalSize + use.embedderHeapUsedSize + use.backingStorageSize : 0;
    }
    return sum;
};

/**
 * JavaScript and wasm while 2 GB of random weights travel to the GPU. What the renderer grows by is
 * told, too: with what the browser has there to speak to its GPU process it is more.
 * Needs `make build/release/random-gguf`.
 */
const memoryWhileLoading = async (t) => {
    const tool = path.join(t.root, 'build/release/random-gguf');
    if (!fs.existsSync(tool)) {
        t.skip('no build/release/random-gguf');
    }
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'large-'));
    try {
        execFileSync(tool, [path.join(folder, 'large.gguf'), '16,2048,32,8,64,8192,8192', 'f16']);
        t.server.roots['/large/'] = folder;
        const page = await t.open();
        await page.waitForFunction('window.ready');
        const browser = await t.browser();
        const before = memoryOf(browser).renderer.own;
        const most = {script: 0, renderer: 0};
        let done = false;
        const watch = (async () => {
            while (!done) {
                most.script = Math.max(most.script, await scriptBytes(page));
                most.renderer = Math.max(most.renderer, memoryOf(browser).renderer.own);
                await new Promise((resolve) => setTimeout(resolve, 100));
            }
        })();
        const result = await page.evaluate(() => load('m', '/large/large.gguf', {context: 64,
            sessions: 1, batch: 16}));
        done = true;
        await watch;
        t.ok(!result.error, result.error?.message);
        const {wasmBytes} = await page.evaluate(() => models.m.stats());
        const mib = (bytes) => Math.round(bytes / 1048576);
        const text = `${mib(result.value.info.weightBytes)} MiB of weights: JavaScript had ` +
            `${mib(most.script)} MiB, wasm ${mib(wasmBytes)}; the renderer grew by ` +
            `${mib(most.renderer - before)}`;
        t.ok(most.script > 0 && most.script + wasmBytes < 150 << 20, text);
        return text;
    } finally {
        fs.rmSync(folder, {recursive: true});
    }
};

export default [
    {name: 'the bundled model, without JSPI', run: bundledModel, seconds: 900},
    {name: 'memory while a large model loads', byHand: true, seconds: 900,
        run: memoryWhileLoading},
    {name: 'the bundled model without subgroups', byHand: true, seconds: 900,
        run: answersOnly({noSubgroups: true})},
    {name: 'the bundled model in Firefox', firefox: true, seconds: 900,
        run: answersOnly({})},
    {name: 'the bundled model in Firefox without f16', firefox: true, byHand: true, seconds: 900,
        run: answersOnly({noF16: true})},
];
