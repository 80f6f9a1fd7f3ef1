// Measures engines that run language models in a browser, side by side: the same headless Chromium,
// the same machine, one after the other, the same weights, prompt and number of tokens.
//
//   node bench.mjs PROGRAM_DIR MODELS_DIR PACKAGES_DIR [--rounds N] [--tokens N] [--only NAME]
//       [--json]
//
// PROGRAM_DIR is what `make web` wrote, MODELS_DIR what bench/web/prepare wrote, PACKAGES_DIR holds
// the node_modules of bench/web/package.json. Every engine starts in a new browser with an empty
// cache: first load, then the page again (second load), then again to write. What was sent is
// counted by the server; memory is the kernel's count of the renderer's and the GPU process's
// resident pages at their peak, less that of an empty page.
import path from 'node:path';
import zlib from 'node:zlib';
import {launch, memoryOf} from '../../tests/web/harness.mjs';
import {TestServer} from '../../tests/web/server.mjs';

const here = import.meta.dirname;
const TALE = '<|bos|><|user|>\nTell me a tale about a fox and a lantern.<|end|>\n<|assistant|>\n';
const OPENING = 'Once upon a time, there was a fox who kept a lantern by the door of the mill. ';
const PROMPTS = {short: TALE, long: OPENING.repeat(14)};
const CONTEXT = 1024;

const ENGINES = [
    {name: 'doppler, WebGPU', engine: 'doppler', weights: 'bf16 pack',
        options: {model: '/models/tale-8m/', context: CONTEXT}},
    {name: 'wllama, 1 thread', engine: 'wllama', weights: 'f16 GGUF',
        options: {model: '/models/tale-8m-f16.gguf', gpu: false, threads: 1, context: CONTEXT}},
    {name: 'wllama, 2 threads', engine: 'wllama', weights: 'f16 GGUF', isolated: true,
        options: {model: '/models/tale-8m-f16.gguf', gpu: false, threads: 2, context: CONTEXT}},
    {name: 'wllama, WebGPU', engine: 'wllama', weights: 'f16 GGUF',
        options: {model: '/models/tale-8m-f16.gguf', gpu: true, threads: 1, context: CONTEXT}},
    {name: 'transformers.js, 1 thread', engine: 'transformers', weights: 'f32 ONNX',
        options: {model: 'tale-8m', gpu: false, threads: 1}},
    {name: 'transformers.js, WebGPU', engine: 'transformers', weights: 'f32 ONNX',
        options: {model: 'tale-8m', gpu: true, threads: 1}},
];

const visit = async (browser, server, job) => {
    const page = await browser.newPage();
    page.on('pageerror', (error) => console.error(`  page: ${error.message}`));
    await page.goto(`${server.origin}/bench/page.html`);
    await page.waitForFunction('window.benchReady');
    try {
        const result = await page.evaluate((job) => window.measure(job), job);
        return {...result, memory: memoryOf(browser)};
    } finally {
        await page.close();
    }
};

/** Bytes of code and of model that a load asked for, and the code's size after gzip. */
const sentSizes = (server) => {
    const sizes = {code: 0, gzip: 0, model: 0};
    const seen = new Set();
    for (const request of server.requests) {
        if (request.path.startsWith('/models/')) {
            sizes.model += request.bytes;
        } else if (!request.path.startsWith('/bench/') && request.bytes > 0 &&
                !seen.has(request.path)) {
            seen.add(request.path);
            const file = server.find(request.path);
            sizes.code += file.size;
            sizes.gzip += zlib.gzipSync(file.read(0, file.size), {level: 9}).length;
        }
    }
    return sizes;
};

const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1];

const measureEngine = async (entry, roots, {rounds, tokens}) => {
    const server = new TestServer(roots);
    server.headers = entry.isolated ? {'Cross-Origin-Opener-Policy': 'same-origin',
        'Cross-Origin-Embedder-Policy': 'require-corp'} : {};
    await server.start();
    const browser = await launch('chromium');
    try {
        const blank = await browser.newPage();
        await blank.goto(`${server.origin}/bench/page.html`);
        const empty = memoryOf(browser);
        await blank.close();
        server.forget();
        const job = {engine: entry.engine, options: entry.options, prompts: {}, tokens, rounds};
        const first = await visit(browser, server, job);
        const sizes = sentSizes(server);
        const second = await visit(browser, server, job);
        const run = await visit(browser, server, {...job, prompts: PROMPTS});
        const full = run.memory;
        const of = (name) => run.results.filter((r) => r.name === name);
        const speed = (r) => (r.parts - 1) / (r.last - r.first) * 1000;
        return {name: entry.name, weights: entry.weights, note: run.note, ...sizes,
            firstLoad: first.ready, secondLoad: second.ready,
            firstToken: of('short')[0].first, // later rounds find the prompt evaluated
            firstTokenLong: of('long')[0].first,
            tokensPerSecond: median(of('short').map(speed)),
            renderer: full.renderer.peak - empty.renderer.now,
            gpu: full['gpu-process'].peak - empty['gpu-process'].now,
            text: of('short')[0].text, lines: run.lines};
    } finally {
        await browser.close();
        await server.stop();
    }
};

const print = (r) => {
    const mib = (n) => (n / 1048576).toFixed(1);
    const ms = (n) => n.toFixed(0);
    console.log(`| ${[r.name, r.weights, mib(r.code), mib(r.gzip), ms(r.firstLoad),
        ms(r.secondLoad), ms(r.firstToken), ms(r.firstTokenLong), r.tokensPerSecond.toFixed(1),
        mib(r.renderer), mib(r.gpu)].join(' | ')} |`);
};

const main = async () => {
    const words = process.argv.slice(2);
    const take = (name) => {
        const at = words.indexOf(name);
        return at < 0 ? null : words.splice(at, 2)[1];
    };
    const how = {rounds: Number(take('--rounds') ?? 3), tokens: Number(take('--tokens') ?? 64)};
    const only = take('--only') ?? '';
    const json = words.includes('--json') && words.splice(words.indexOf('--json'), 1);
    const [programDir, models, packages] = words.map((word) => path.resolve(word));
    const roots = {'/': programDir, '/bench/': here, '/models/': models,
        '/npm/': path.join(packages, 'node_modules')};
    console.log('| engine | weights | code MiB | gzip MiB | first load ms | second load ms | ' +
        'first token ms (18) | (250) | tokens/s | renderer MiB | GPU process MiB |');
    console.log(`|---|---|${'---:|'.repeat(9)}`);
    for (const entry of ENGINES.filter((e) => e.name.includes(only))) {
        try {
            const result = await measureEngine(entry, roots, how);
            print(result);
            console.log(`<!-- ${result.note}; ${JSON.stringify(result.text.slice(0, 90))} -->`);
            if (json) {
                console.log(JSON.stringify(result));
            }
        } catch (error) {
            console.log(`| ${entry.name} | not run: ${error.message.split('\n')[0]} |`);
        }
    }
};

await main();
