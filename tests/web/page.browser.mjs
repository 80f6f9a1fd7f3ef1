// The page, over an engine that only reads (pages/reader-worker.js), which is served in place of
// the package's worker: what visitors do in the order that they like, and what goes wrong.
import {execFileSync} from 'node:child_process';
import {createHash} from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const here = import.meta.dirname;
const SHARD = 'shard_00000.bin';

/** Notes the workers that were asked to load, and how many of them lived at once at most. */
const watchWorkers = () => {
    globalThis.loaders = {live: new Set(), most: 0, all: 0};
    globalThis.Worker = class extends Worker {
        postMessage(message, ...rest) {
            if (message.method === 'load') {
                loaders.live.add(this);
                loaders.all++;
                loaders.most = Math.max(loaders.most, loaders.live.size);
            }
            super.postMessage(message, ...rest);
        }

        terminate() {
            loaders.live.delete(this);
            super.terminate();
        }
    };
};

/** Opens the page with two models in its list. */
const openPage = async (t, query = '') => {
    const worker = fs.readFileSync(path.join(here, 'pages/reader-worker.js'));
    t.server.put('/lib/worker.js', worker);
    const {models: [tale]} = JSON.parse(fs.readFileSync(
        path.join(t.programDir, 'models/index.json'), 'utf8'));
    const other = {...tale, name: 'other', title: 'Other', path: 'other/'};
    for (const name of fs.readdirSync(path.join(t.programDir, 'models/tale-8m'))) {
        t.server.put(`/models/other/${name}`,
            fs.readFileSync(path.join(t.programDir, 'models/tale-8m', name)));
    }
    t.server.put('/models/index.json', JSON.stringify({models: [tale, other]}));
    return t.open(`/${query}`, {early: watchWorkers});
};

const state = (page, ...names) => page.waitForFunction((names) =>
    names.includes(document.body.dataset.state), {timeout: 20_000}, names);

const textOf = (page, id) => page.$eval(`#${id}`, (node) => node.hidden ? '' : node.textContent);

const choose = (page, title) => page.evaluate((title) => [...document.querySelectorAll(
    '#models button')].find((button) => button.textContent.startsWith(title)).click(), title);

/** Waits until so many bytes of the shard have been sent. */
const isLoading = async (t) => {
    for (const until = Date.now() + 20_000; t.server.asked(SHARD).bytes < 1 << 20;) {
        t.ok(Date.now() < until, 'nothing of the shard was asked for in 20 s');
        await new Promise((done) => setTimeout(done, 20));
    }
};

const loadsOneAtATime = async (t) => {
    t.server.spoil({match: /tale-8m\/shard/, rate: 2e6});
    const page = await openPage(t);
    await isLoading(t);
    await choose(page, 'Other');
    await choose(page, 'Tale');
    await choose(page, 'Other');
    await state(page, 'ready', 'failed');
    t.equal(await textOf(page, 'failure-text'), '', 'what failed');
    t.equal(await textOf(page, 'model-name'), 'Other', 'the model');
    const {most, live} = await page.evaluate(() => ({most: loaders.most, live: loaders.live.size}));
    t.equal([most, live], [1, 1], 'workers that loaded at once, and are left');
};

const cancelsALoad = async (t) => {
    t.server.spoil({match: SHARD, rate: 1e6});
    const page = await openPage(t);
    await isLoading(t);
    await page.click('#cancel-load');
    await state(page, 'idle');
    t.ok(/cancelled/.test(await textOf(page, 'start')), 'the page says that it was cancelled');
    t.server.heal();
    await page.click('#start-load');
    await state(page, 'ready');
    t.equal(await page.evaluate(() => loaders.live.size), 1, 'workers');
};

const writesAndStops = async (t) => {
    const page = await openPage(t);
    await state(page, 'ready');
    await page.type('#prompt', 'count');
    await page.keyboard.press('Enter');
    await page.waitForFunction(() => document.querySelector('.answer')?.textContent.includes('9'));
    await page.keyboard.press('Escape');
    await state(page, 'ready');
    const answer = await page.$eval('.answer', (node) => node.textContent);
    t.ok(answer.startsWith('1 2 3 4 5 6 7 8 9'), `the answer: ${answer}`);
    t.ok((await textOf(page, 'spoken')).includes('Stopped.'), 'a screen reader hears of it');
    // The worker is ended while it writes, as a browser in need of memory does.
    await page.type('#prompt', 'again');
    await page.keyboard.press('Enter');
    await state(page, 'writing');
    await page.evaluate(() => [...loaders.live].forEach((worker) => worker.terminate()));
    await state(page, 'failed');
    t.ok(/ended from outside/.test(await textOf(page, 'failure')), 'the page says what happened');
    await page.click('#failure-retry');
    await state(page, 'ready');
};

const saysWhatFails = async (t) => {
    t.server.spoil({match: 'manifest.json', status: 404});
    t.server.spoil({match: 'config.json', status: 404});
    const page = await openPage(t);
    await state(page, 'failed');
    const said = await textOf(page, 'failure');
    t.ok(/has neither manifest\.json nor config\.json/.test(said), `the page says: ${said}`);
    t.server.heal();
    await page.click('#failure-retry');
    await state(page, 'ready');
};

const isUsableByAll = async (t) => {
    const page = await openPage(t);
    await state(page, 'ready');
    const devtools = await t.devtools(page);
    const {nodes} = await devtools.send('Accessibility.getFullAXTree');
    const kinds = ['button', 'textbox', 'radio', 'spinbutton', 'slider', 'checkbox', 'progressbar'];
    const nameless = nodes.filter(({ignored, role, name}) => !ignored &&
        kinds.includes(role?.value) && !name?.value);
    t.equal(nameless.map(({role}) => role.value), [], 'controls without a name');
    t.ok(nodes.filter(({role}) => kinds.includes(role?.value)).length > 10, 'controls');
    for (const width of [320, 800, 1300]) {
        await page.setViewport({width, height: 640});
        const wide = await page.evaluate(() => document.documentElement.scrollWidth);
        t.ok(wide <= width, `at ${width} pixels the page is ${wide} wide`);
    }
};

/** Where the keyboard is: what it was at goes away, and the next thing has it. */
const keepsThePlaceOfTheKeyboard = async (t) => {
    const page = await openPage(t);
    await page.setViewport({width: 1300, height: 900});
    await page.waitForSelector('#shell > #panel'); // moving it would take the focus
    await state(page, 'ready');
    // In one step each: lists are shown anew in between.
    const at = (place) => page.evaluate((place) => {
        const {activeElement: node} = document;
        return node.closest(place) !== null && node.textContent;
    }, place);
    const focus = (what) => page.evaluate((what) => document.querySelector(what).focus(), what);
    await focus('#models li:nth-child(2) button');
    await page.keyboard.press('Enter');
    await state(page, 'loading');
    await state(page, 'ready');
    t.ok(/^Other/.test(await at('#models')), 'after choosing a model');
    t.server.spoil({match: SHARD, rate: 1e6});
    await page.evaluate(async () => (await import('/lib/doppler.js')).cache.purge());
    await choose(page, 'Tale');
    await state(page, 'loading');
    await focus('#cancel-load');
    await page.keyboard.press('Enter');
    await state(page, 'idle');
    t.ok(/^Load Tale/.test(await at('#start')), 'after cancelling');
    t.server.heal();
    await page.keyboard.press('Enter');
    await state(page, 'ready');
    await page.type('#prompt', 'count');
    await page.keyboard.press('Enter');
    await page.waitForFunction(() => document.querySelector('.answer')?.textContent.includes('9'));
    await page.keyboard.press('Escape');
    await state(page, 'ready');
    await focus('.entry .again');
    await page.keyboard.press('Enter');
    await state(page, 'writing');
    t.ok(await page.$eval('#prompt', (node) => node.matches(':focus')), 'after asking again');
    await page.keyboard.press('Escape');
    await state(page, 'ready');
    await page.evaluate(() => { document.getElementById('section-storage').open = true; });
    await page.waitForSelector('#stored button');
    await focus('#stored button');
    await page.keyboard.press('Enter');
    await page.waitForSelector('#ask[open]');
    t.equal(await at('#ask'), 'Keep', 'while it is asked');
    t.equal([await textOf(page, 'ask-title'), await textOf(page, 'ask-text')],
        ['Delete tale-8m?', '14.9 MB that were downloaded, and would have to be again.'],
        'what is asked');
    await page.keyboard.press('Escape');
    await page.waitForFunction(() => document.activeElement.closest('#section-storage'));
    await focus('#stored button');
    await page.keyboard.press('Enter');
    await page.keyboard.press('Tab');
    t.equal(await at('#ask'), 'Delete', 'the other answer');
    t.equal(await page.$$eval('#stored button', (nodes) => nodes.length), 1, 'what is stored');
    await page.keyboard.press('Enter');
    await page.waitForFunction(() => !document.querySelector('#stored button'));
    t.ok(await at('#section-storage') !== false, 'after deleting the last stored model');
};

/** A query may say who may fetch it: it is kept nowhere, and the model is found without. */
const forgetsTheQuery = async (t) => {
    const page = await openPage(t, '?load=no');
    for (const [name, bytes] of [...t.server.memory].filter(([name]) => /other/.test(name))) {
        t.server.put(name.replace('other', 'typed'), bytes);
    }
    await page.waitForFunction(() => !document.getElementById('start').hidden);
    await page.$eval('#url', (field, url) => { field.value = url; },
        `${t.server.origin}/models/typed/?token=secret`);
    await page.$eval('#url-form', (form) => form.requestSubmit());
    await state(page, 'ready');
    const kept = await page.evaluate(() => JSON.stringify([localStorage, sessionStorage]));
    t.ok(/typed/.test(kept) && !/secret/.test(kept), `what the page keeps: ${kept}`);
    await page.goto(`${t.server.origin}/`);
    await state(page, 'ready');
    const chosen = await page.$eval('#models [aria-pressed=true]', (node) => node.textContent);
    t.ok(chosen.includes('/models/typed'), `the model of the next visit: ${chosen}`);
};

/** A model that cannot chat changes the mode as long as it is there, and no longer. */
const goesBackToChat = async (t) => {
    const page = await openPage(t, '?load=no');
    const able = t.server.memory.get('/lib/worker.js');
    const mode = () => page.$eval('input[name=mode]:checked', (node) => node.value);
    const loads = async (title, worker) => {
        t.server.put('/lib/worker.js', worker);
        await choose(page, title);
        await state(page, 'loading');
        await state(page, 'ready');
        return mode();
    };
    const unable = `${able}`.replace("chatTemplate: 'any'", "chatTemplate: ''");
    t.ok(unable !== `${able}`, 'the worker is as expected');
    await page.waitForFunction(() => !document.getElementById('start').hidden);
    t.equal(await loads('Tale', unable), 'text', 'of a model without a template');
    t.ok(/no chat template/.test(await textOf(page, 'toast-text')), 'the page says why');
    t.equal(await loads('Other', able), 'chat', 'of the next one');
    await page.evaluate(() => document.querySelector('input[value=text]').click());
    t.equal(await loads('Tale', unable), 'text', 'as the visitor chose it');
    t.equal(await loads('Other', able), 'text', 'of the next one then');
};

/** One of the list is the same model when its address is typed. */
const knowsAListedAddress = async (t) => {
    const page = await openPage(t, '?load=no');
    await page.waitForFunction(() => !document.getElementById('start').hidden);
    await page.$eval('#url', (field, url) => { field.value = url; },
        `${t.server.origin}/models/other/`);
    await page.$eval('#url-form', (form) => form.requestSubmit());
    await state(page, 'ready');
    const pressed = () => page.$$eval('#models button', (nodes) => nodes.map((node) =>
        [node.querySelector('b').textContent, node.ariaPressed]));
    t.equal(await pressed(), [['Tale 8M', 'false'], ['Other', 'true']], 'the list');
    await page.goto(`${t.server.origin}/`);
    await state(page, 'ready');
    t.equal(await pressed(), [['Tale 8M', 'false'], ['Other', 'true']], 'at the next visit');
};

const asksToKeepModels = async (t) => {
    const page = await openPage(t);
    await state(page, 'ready');
    await page.waitForFunction(() => !document.getElementById('persist').hidden);
    t.ok(/may delete them/.test(await textOf(page, 'storage-text')), 'what is said of storage');
    await page.browserContext().overridePermissions(t.server.origin, ['persistent-storage']);
    await page.evaluate(() => document.getElementById('persist').click());
    await page.waitForFunction(() => document.getElementById('persist').hidden);
    t.ok(/keeps them until/.test(await textOf(page, 'toast-text')), 'the promise');
};

/** The bench page's figures are of the schema that the native program reads. */
const measures = async (t) => {
    const page = await openPage(t, 'bench.html?model=tale-8m&prompts=xs,short&tokens=8&runs=2&go');
    await state(page, 'done', 'failed');
    t.equal(await textOf(page, 'failure-text'), '', 'what failed');
    const results = JSON.parse(await textOf(page, 'json'));
    t.equal(results.map(({workload}) => workload.promptName), ['xs', 'short'], 'prompts');
    for (const {schemaVersion, valid, metrics, raw} of results) {
        t.equal([schemaVersion, valid, raw.runs.length], [1, false, 2], 'what was measured');
        t.equal([metrics.gpu_submit_count_decode, metrics.gpu_submits_per_token,
            metrics.gpu_readback_bytes_total], [8, 1, 32], 'counts of 8 tokens');
        const {ttft_ms: first, decode_ms_per_token_p50: each} = metrics;
        t.ok(first >= 20 && each >= 15, `the first token after ${first} ms, others ${each}`);
        t.ok(['load_ms', 'prefill_ms', 'decode_tokens_per_sec', 'opfs_usage_bytes']
            .every((key) => metrics[key] > 0), JSON.stringify(metrics));
        t.equal(metrics.storage_mode, 'opfs', 'storage');
    }
    const program = path.join(t.programDir, '../doppler');
    if (!fs.existsSync(program)) {
        return 'no program to compare with';
    }
    const file = path.join(os.tmpdir(), 'bench.json');
    fs.writeFileSync(file, JSON.stringify(results[0]));
    const table = execFileSync(program, ['bench', 'compare', file, file], {encoding: 'utf8'});
    return table.split('\n')[0];
};

/** The list of models is asked for at each visit, and must not be waited for. */
const startsWithASilentNetwork = async (t) => {
    const page = await t.open('/?load=no');
    await page.waitForFunction('navigator.serviceWorker.controller !== null');
    await page.waitForFunction(() => !document.getElementById('start').hidden);
    t.server.spoil({match: /./, hang: true});
    await page.goto(`${t.server.origin}/?load=no`);
    await page.waitForFunction(() => !document.getElementById('start').hidden);
    t.ok(/Load Tale 8M/.test(await textOf(page, 'start')), 'the model of the list');
};

/** A page stays with its version until the visitor takes the newer one, which is whole. */
const takesANewVersion = async (t) => {
    const page = await t.open('/?load=no');
    await page.waitForFunction('navigator.serviceWorker.controller !== null');
    const caches = () => page.evaluate(async () => (await globalThis.caches.keys()).join());
    const first = await caches();
    const list = fs.readFileSync(path.join(t.programDir, 'precache.js'), 'utf8');
    const index = fs.readFileSync(path.join(t.programDir, 'index.html'), 'utf8');
    const newer = index.replace('<title>doppler', '<title>newer');
    const hash = (text) => createHash('sha256').update(text).digest('hex');
    const version = list.replace(/version: '\w+'/, "version: 'next'");
    t.ok(version !== list && list.includes(hash(index)), 'precache.js is as expected');
    const offered = () => page.waitForFunction(() => !document.getElementById('toast').hidden &&
        document.getElementById('toast-text').textContent.includes('new version'));
    // Half uploaded: the list is of the next version, a file is not.
    t.server.put('/precache.js', version.replace(hash(index), hash(newer)));
    await page.reload();
    const ended = await page.evaluate(async () => {
        const registration = await navigator.serviceWorker.getRegistration();
        await registration.update().catch(() => {});
        const worker = registration.installing ?? registration.waiting;
        while (worker?.state === 'installing') {
            await new Promise((done) => worker.addEventListener('statechange', done));
        }
        return worker?.state;
    });
    t.equal(ended, 'redundant', 'the half version');
    t.equal([await page.title(), await caches()], ['doppler', first], 'while half is there');
    t.server.put('/index.html', newer);
    t.server.put('/', newer);
    await page.reload();
    await offered();
    t.equal(await page.title(), 'doppler', 'the title before the visitor agreed');
    await Promise.all([page.waitForNavigation(), page.click('#toast-action')]);
    await page.waitForFunction('document.title === "newer"');
    t.equal(await caches(), 'doppler-page-next', 'caches');
};

const readsADroppedFolder = async (t) => {
    const page = await openPage(t, '?load=no');
    await page.waitForFunction(() => !document.getElementById('start').hidden);
    const devtools = await t.devtools(page);
    const drop = async (...files) => {
        for (const type of ['dragEnter', 'dragOver', 'drop']) {
            await devtools.send('Input.dispatchDragEvent',
                {type, x: 300, y: 200, data: {items: [], files, dragOperationsMask: 1}});
        }
    };
    const folder = path.join(t.programDir, 'models/tale-8m');
    await drop(folder, path.join(t.programDir, 'selftest'));
    await page.waitForFunction(() => !document.getElementById('toast').hidden);
    t.ok(/one folder at a time/.test(await textOf(page, 'toast')), 'two folders');
    await drop(folder);
    await state(page, 'ready', 'failed');
    t.equal([await textOf(page, 'failure-text'), await textOf(page, 'model-name')],
        ['', 'tale-8m'], 'what failed, and the model');
    await drop(path.join(t.programDir, 'selftest/model.gguf'));
    await page.waitForFunction(() =>
        document.getElementById('model-name').textContent === 'model.gguf');
    await state(page, 'ready');
};

/** A second tab keeps its answer when the first one takes a newer version. */
const leavesOtherTabsTheirAnswer = async (t) => {
    const page = await openPage(t);
    await state(page, 'ready');
    const hash = (text) => createHash('sha256').update(text).digest('hex');
    let list = fs.readFileSync(path.join(t.programDir, 'precache.js'), 'utf8');
    const name = (file, bytes) => {
        t.server.put(`/${file}`, bytes);
        list = list.replace(new RegExp(`('${file}': ')\\w+`), `$1${hash(bytes)}`);
    };
    name('lib/worker.js', t.server.memory.get('/lib/worker.js'));
    name('models/index.json', t.server.memory.get('/models/index.json'));
    t.server.put('/precache.js', list);
    await page.reload();
    await page.waitForFunction('navigator.serviceWorker.controller !== null');
    await page.goto(`${t.server.origin}/?load=no`);
    const other = await t.open('/', {early: watchWorkers});
    await state(other, 'ready');
    await other.type('#prompt', 'count');
    await other.keyboard.press('Enter');
    await state(other, 'writing');
    await other.evaluate(() => { globalThis.isOld = true; });
    const index = fs.readFileSync(path.join(t.programDir, 'index.html'), 'utf8');
    const newer = index.replace('<title>doppler', '<title>newer');
    name('index.html', newer);
    t.server.put('/', newer);
    t.server.put('/precache.js', list.replace(/version: '\w+'/, "version: 'next'"));
    await page.reload();
    await page.waitForFunction(() => !document.getElementById('toast').hidden);
    await Promise.all([page.waitForNavigation(), page.click('#toast-action')]);
    await page.waitForFunction('document.title === "newer"');
    const count = () => other.$eval('.answer',
        (node) => Number(node.textContent.split(' ').at(-2)));
    const before = await count();
    const more = before + 20;
    await other.waitForFunction((n) => isOld &&
        Number(document.querySelector('.answer').textContent.split(' ').at(-2)) > n, {}, more);
    await other.evaluate(() => { document.getElementById('toast').hidden = true; });
    await other.keyboard.press('Escape');
    await state(other, 'ready');
    t.ok(/new version/.test(await textOf(other, 'toast')), 'it is offered after the answer');
    await Promise.all([other.waitForNavigation(), other.click('#toast-action')]);
    t.equal(await other.title(), 'newer', 'the title then');
    t.ok(await count() > before, 'the answer is still there');
};

export default [
    {name: 'one model is loaded at a time', run: loadsOneAtATime},
    {name: 'a load is cancelled and begun again', run: cancelsALoad},
    {name: 'an answer is stopped, the worker is killed', run: writesAndStops},
    {name: 'what fails is said, and can be tried again', run: saysWhatFails},
    {name: 'the keyboard keeps its place', run: keepsThePlaceOfTheKeyboard},
    {name: 'the query of an address is not kept', run: forgetsTheQuery},
    {name: 'chat after a model without a template', run: goesBackToChat},
    {name: 'a typed address of the list', run: knowsAListedAddress},
    {name: 'the browser is asked to keep models', run: asksToKeepModels},
    {name: 'the bench page measures', run: measures},
    {name: 'controls have names, narrow screens suffice', run: isUsableByAll},
    {name: 'a silent network is not waited for', run: startsWithASilentNetwork},
    {name: 'a newer version of the page', run: takesANewVersion},
    {name: 'a dropped folder', run: readsADroppedFolder},
    {name: 'a newer version in another tab', run: leavesOtherTabsTheirAnswer},
];
