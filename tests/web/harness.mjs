// Runs the tests of the browser build: every *.browser.mjs beside this file in headless Chromium or
// Firefox, every *.test.mjs by Node's own test runner.
//
//   node harness.mjs PROGRAM_DIR [--by-hand] [PART OF A NAME]
//
// PROGRAM_DIR is what `make web` wrote. One Chromium serves all its tests, one after the other;
// each test has a server, hence an origin, of its own, so caches, quotas and service workers never
// meet. A test is {name, run(t)} with, where it applies: `byHand` (too dear for every run, only
// with --by-hand), `firefox` (in Firefox instead, if there is one), `seconds` (limit, 60).
// The output is a line for each test and "N passed, N failed, N skipped" last.
import {execFile} from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {TestServer} from './server.mjs';

const here = import.meta.dirname;
const root = path.resolve(here, '../..');
const tools = path.join(root, 'deps/webtest');
const totals = {passed: 0, failed: 0, skipped: 0};

/** The packages of tests/web/package.json: {puppeteer, chromium, webgpu}, each a function. */
const packages = () => import(path.join(tools, 'packages.mjs'));

class Skip extends Error {}

const report = (verdict, name, text) => {
    totals[verdict]++;
    console.log(verdict === 'failed' ? `FAILED ${name}: ${text}` : `${verdict} ${name} (${text})`);
};

/** The pinned Chromium, unpacked once into a folder of its own: it does not mend half a folder. */
export const chromiumPath = async () => {
    const home = path.join(tools, 'chromium');
    if (!fs.existsSync(home)) {
        const part = fs.mkdtempSync(`${home}.`);
        const before = process.env.TMPDIR;
        process.env.TMPDIR = part;
        const found = await (await (await packages()).chromium()).executablePath();
        process.env.TMPDIR = before ?? os.tmpdir();
        if (path.dirname(found) !== part) {
            throw new Error(`Chromium unpacked itself into ${found}, expected a file in ${part}`);
        }
        try {
            fs.renameSync(part, home);
        } catch (error) {
            fs.rmSync(part, {recursive: true}); // another run was faster
            if (!fs.existsSync(home)) {
                throw error;
            }
        }
    }
    return path.join(home, 'chromium');
};

const firefoxPath = () => (process.env.PATH ?? '').split(':')
    .flatMap((folder) => [path.join(folder, 'firefox-esr'), path.join(folder, 'firefox')])
    .find((file) => fs.existsSync(file));

/**
 * Keeps Dawn from leaving the zeros of workgroup memory to the driver: SwiftShader compiles them as
 * a store for each word, which is two thirds of all that it compiles, and runs them in every
 * workgroup. For tests; a visitor's browser has no such option.
 */
export const OWN_ZEROS =
    'disable-dawn-features=use_vulkan_zero_initialize_workgroup_memory_extension';

/** Starts a browser: 'chromium' (software GPU, WebGPU without its blocklist) or 'firefox'. */
export const launch = async (kind, {args = [], prefs = {}, env = {}} = {}) => {
    if (kind === 'chromium' && process.arch !== 'x64') {
        throw new Skip(`no pinned Chromium for ${process.arch}`);
    }
    const puppeteer = await (await packages()).puppeteer();
    const common = {protocolTimeout: 900_000, env: {...process.env, ...env}};
    if (kind === 'firefox') {
        const executablePath = firefoxPath();
        if (!executablePath) {
            throw new Skip('no Firefox on this machine');
        }
        return puppeteer.launch({...common, browser: 'firefox', executablePath, headless: true,
            extraPrefsFirefox: {'dom.webgpu.enabled': true, 'gfx.webgpu.ignore-blocklist': true,
                ...prefs}});
    }
    return puppeteer.launch({...common, executablePath: await chromiumPath(), headless: 'shell',
        args: ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader',
            '--enable-precise-memory-info', '--js-flags=--expose-gc',
            ...process.getuid() === 0 ? ['--no-sandbox'] : [], ...args]});
};

/**
 * Resident bytes of a browser's largest renderer and of its GPU process: `peak` and `now` of all,
 * `own` of what is neither files nor shared with the other.
 */
export const memoryOf = (browser) => {
    const none = () => ({peak: 0, now: 0, own: 0});
    const kinds = {renderer: none(), 'gpu-process': none()};
    const root = browser.process().pid;
    const found = new Map();
    for (const pid of fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
        try {
            const status = fs.readFileSync(`/proc/${pid}/status`, 'utf8');
            const field = (name) =>
                Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1] ?? 0);
            found.set(Number(pid), {parent: field('PPid'), peak: field('VmHWM') * 1024,
                now: field('VmRSS') * 1024, own: field('RssAnon') * 1024,
                line: fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8')});
        } catch {
            // gone meanwhile
        }
    }
    const isOurs = (pid) => pid === root || (found.has(pid) && isOurs(found.get(pid).parent));
    for (const [pid, each] of found) {
        const kind = kinds[/--type=([a-z-]+)/.exec(each.line)?.[1]];
        if (kind && isOurs(pid)) {
            Object.keys(kind).forEach((key) => {
                kind[key] = Math.max(kind[key], each[key]);
            });
        }
    }
    return kinds;
};

/** A server over a built folder and the tests' own pages and vectors. */
export const serve = (programDir) => new TestServer({
    '/': programDir,
    '/test/': path.join(here, 'pages'),
    '/vectors/': path.join(root, 'tests/vectors'),
}).start();

/** What a test is handed: its server, pages, and ways to say what is wrong. */
class Test {
    constructor(programDir, browsers, kind) {
        this.programDir = programDir;
        this.root = root;
        this.browsers = browsers;
        this.kind = kind;
        this.pages = [];
        this.noise = []; // what the pages wrote to their consoles, shown if the test fails
    }

    async begin() {
        this.server = await serve(this.programDir);
    }

    async browser() {
        this.browsers[this.kind] ??= await launch(this.kind,
            {args: this.kind === 'chromium' ? [`--${OWN_ZEROS}`] : []});
        return this.browsers[this.kind];
    }

    /** A new tab on the test's own origin; `early` runs in it before any script of the page. */
    async open(where = '/test/blank.html', {early} = {}) {
        const page = await (await this.browser()).newPage();
        this.pages.push(page);
        page.on('console', (message) => this.noise.push(message.text()));
        page.on('pageerror', (error) => this.noise.push(`page: ${error.message}`));
        if (early) {
            await page.evaluateOnNewDocument(early);
        }
        await page.goto(this.server.origin + where);
        return page;
    }

    /** A DevTools session of a tab (Chromium). */
    async devtools(page) {
        return page.createCDPSession();
    }

    skip(why) {
        throw new Skip(why);
    }

    ok(condition, text) {
        if (!condition) {
            throw new Error(text);
        }
    }

    equal(got, expected, text) {
        const [a, b] = [JSON.stringify(got), JSON.stringify(expected)];
        this.ok(a === b, `${text}: ${a?.slice(0, 400)}, expected ${b?.slice(0, 400)}`);
    }

    async end() {
        await Promise.allSettled(this.pages.map((page) => page.close()));
        await this.server?.stop();
    }
}

const within = (seconds, promise) => {
    let timer;
    const late = new Promise((_, fail) => {
        timer = setTimeout(() => fail(new Error(`not done after ${seconds} s`)), seconds * 1000);
    });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

const closeBrowser = async (browsers, kind) => {
    const browser = browsers[kind];
    delete browsers[kind];
    await browser?.close().catch(() => {});
};

/** Runs one browser test; a browser that hung is replaced, so that the rest can go on. */
const runOne = async (test, programDir, browsers) => {
    const kind = test.firefox ? 'firefox' : 'chromium';
    const t = new Test(programDir, browsers, kind);
    const started = performance.now();
    const seconds = () => `${((performance.now() - started) / 1000).toFixed(1)} s`;
    try {
        await t.begin();
        const note = await within(test.seconds ?? 60, test.run(t));
        report('passed', test.name, note ? `${note}, ${seconds()}` : seconds());
    } catch (error) {
        if (error instanceof Skip) {
            report('skipped', test.name, error.message);
        } else {
            report('failed', test.name, `${error.message.split('\n')[0]} (${seconds()})`);
            t.noise.slice(-12).forEach((line) => console.log(`    ${line.slice(0, 300)}`));
            if (error.message.startsWith('not done after')) {
                await closeBrowser(browsers, kind);
            }
        }
    }
    await within(20, t.end()).catch(() => closeBrowser(browsers, kind));
};

/** Node's own test runner over one file; its counts join ours. */
const runNodeFile = (file, programDir) => new Promise((done) => {
    const name = path.basename(file);
    const env = {...process.env, DOPPLER_WEB: programDir};
    const swiftShader = path.join(tools, 'chromium/vk_swiftshader_icd.json');
    if (fs.existsSync(swiftShader)) {
        env.VK_DRIVER_FILES = swiftShader; // the pinned one; else what the machine has
    }
    const args = ['--test', '--test-reporter=tap', file];
    execFile(process.execPath, args, {env, timeout: 600_000, maxBuffer: 64 << 20}, (error, out) => {
        const count = (word) => Number(new RegExp(`^# ${word} ([\\d.]+)$`, 'm').exec(out)?.[1] ?? 0);
        const seconds = (count('duration_ms') / 1000).toFixed(1);
        const failed = count('fail') + count('cancelled');
        totals.passed += count('pass');
        totals.skipped += count('skipped') + count('todo');
        if (failed > 0 || error) {
            totals.failed += Math.max(1, failed);
            const lines = out.split('\n').filter((line) => /^\s*(not ok|error:)/.test(line));
            console.log(`FAILED ${name}: ${failed} tests\n${lines.slice(0, 40).join('\n')}`);
            if (failed === 0) {
                console.log(`    ${error.message.split('\n')[0]}`);
            }
        } else {
            console.log(`passed ${name} (${count('pass')} tests, ${seconds} s)`);
        }
        done();
    });
});

const main = async () => {
    const options = process.argv.slice(2);
    const byHand = options.includes('--by-hand');
    const [folder, part = ''] = options.filter((word) => word !== '--by-hand');
    const programDir = path.resolve(folder);
    const files = fs.readdirSync(here).sort();
    if (process.arch === 'x64') {
        await chromiumPath();
    }
    for (const name of files.filter((f) => f.endsWith('.test.mjs') && f.includes(part))) {
        await runNodeFile(path.join(here, name), programDir);
    }
    const browsers = {};
    for (const name of files.filter((f) => f.endsWith('.browser.mjs'))) {
        const tests = (await import(path.join(here, name))).default;
        for (const test of tests) {
            const full = `${name.slice(0, -'.browser.mjs'.length)}: ${test.name}`;
            if (!full.includes(part) || (test.byHand && !byHand)) {
                continue;
            }
            await runOne({...test, name: full}, programDir, browsers);
        }
    }
    for (const kind of Object.keys(browsers)) {
        await within(20, closeBrowser(browsers, kind)).catch(() => {});
    }
    const {passed, failed, skipped} = totals;
    console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
    process.exit(failed > 0 ? 1 : 0);
};

if (process.argv[1] === import.meta.filename) {
    main(); // not awaited: tests import this file
}
