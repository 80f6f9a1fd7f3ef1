// The npm package as npm packs it: what is in it, that everything in it finds its parts, and what a
// program that installed it may import. $DOPPLER_WEB is what `make web` wrote, the package beside it.
import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {after, before, test} from 'node:test';
import {pathToFileURL} from 'node:url';
import {gzipSync} from 'node:zlib';

const web = path.resolve(process.env.DOPPLER_WEB ?? 'build/web');
const root = path.resolve(import.meta.dirname, '../..');
const npm = path.join(root, 'deps/node/lib/node_modules/npm/bin/npm-cli.js');
const home = fs.mkdtempSync(path.join(os.tmpdir(), 'doppler-npm-'));
const installed = path.join(home, 'node_modules/doppler-web');
let packed;

before(() => {
    const env = {...process.env, HOME: home, npm_config_offline: 'true',
        npm_config_update_notifier: 'false', npm_config_cache: path.join(home, 'cache')};
    const out = execFileSync(process.execPath, [npm, 'pack', '--json', '--pack-destination', home],
        {cwd: path.join(web, '../npm'), env, encoding: 'utf8'});
    [packed] = JSON.parse(out);
    fs.mkdirSync(installed, {recursive: true});
    execFileSync('tar', ['-xzf', path.join(home, packed.filename), '-C', installed,
        '--strip-components=1']);
});

after(() => fs.rmSync(home, {recursive: true}));

test('holds what it needs and nothing else', () => {
    const modules = fs.readdirSync(path.join(root, 'web/lib')).map((name) => `lib/${name}`);
    assert.deepEqual(packed.files.map(({path}) => path).sort(), [
        'LICENSE', 'README.md', 'doppler.wasm', 'package.json', ...modules,
        ...['pcre2', 'utf8proc', 'yyjson'].map((name) => `licenses/${name}.txt`),
        ...['model.gguf', 'vectors.f32', 'vectors.json'].map((name) => `selftest/${name}`),
    ].sort());
    const about = JSON.parse(fs.readFileSync(path.join(installed, 'package.json'), 'utf8'));
    assert.equal(about.scripts, undefined, 'scripts, which are for the tree');
    assert.equal(about.engines.node, '>=20.3', 'the first Node with AbortSignal.any');
    const code = ['lib/worker.js', 'doppler.wasm'].map((name) => path.join(installed, name));
    assert.ok(code.every((file) => fs.statSync(file).size > 0));
});

test('the whole engine is under 1 MiB, and under 400 KiB compressed', () => {
    const wasm = fs.readFileSync(path.join(installed, 'doppler.wasm'));
    assert.ok(wasm.length < 1 << 20, `${wasm.length} bytes`);
    const packed = gzipSync(wasm, {level: 9}).length;
    assert.ok(packed < 400 << 10, `${packed} bytes after gzip -9`);
});

test('its modules find each other, and bundlers leave Node to Node', () => {
    for (const name of fs.readdirSync(path.join(installed, 'lib'))) {
        const text = fs.readFileSync(path.join(installed, 'lib', name), 'utf8');
        const near = text.matchAll(/(?:from |import\(|new URL\()'(\.[^']*)'/g);
        for (const [, place] of near) {
            assert.ok(fs.existsSync(path.join(installed, 'lib', place)), `${name}: ${place}`);
        }
        // Of a text made at run time they make a search for modules, which fails.
        for (const [, what] of text.matchAll(/new URL\(([^()]*?),\s*import\.meta\.url\)/g)) {
            assert.match(what, /^'\.[^']*[^'/]'$/, `${name}: no file by its name: ${what}`);
        }
        for (const [, how] of text.matchAll(/import\((.*?)'node:/g)) {
            assert.match(how, /webpackIgnore: true/, `${name}: a module of Node`);
        }
    }
});

test('gives out its entry, worker, wasm and description, and no more', async () => {
    const program = path.join(home, 'program.mjs');
    fs.writeFileSync(program, `
        export const at = (name) => import.meta.resolve(name);
        export * from 'doppler-web';`);
    const {at, load} = await import(pathToFileURL(program).href);
    assert.equal(typeof load, 'function');
    for (const [name, file] of [['', 'lib/doppler.js'], ['/worker', 'lib/worker.js'],
        ['/doppler.wasm', 'doppler.wasm'], ['/package.json', 'package.json']]) {
        assert.equal(at(`doppler-web${name}`), pathToFileURL(path.join(installed, file)).href);
    }
    assert.throws(() => at('doppler-web/lib/store.js'), {code: 'ERR_PACKAGE_PATH_NOT_EXPORTED'});
});
