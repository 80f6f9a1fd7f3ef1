// The package's description, doppler.d.ts, against the code: nothing else holds them together.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { test } from 'node:test';
import * as library from '../../web/lib/doppler.js';
import { checkArgs } from '../../web/lib/protocol.js';
import { ApiError, open, VERSION } from './client_lib.mjs';

const root = new URL('../../', import.meta.url);
const read = (path) => fs.readFileSync(new URL(path, root), 'utf8');
const types = read('web/lib/doppler.d.ts');

/** The names of an interface's or a class's fields and methods, overloads once. */
const membersOf = (name) => {
    const head = `^export (?:interface|class) ${name}\\b[^{]*\\{\\n`;
    const [, body] = new RegExp(`${head}([^]*?)^\\}`, 'm').exec(types);
    const found = body.matchAll(/^ {4}(?:readonly )?(?!private|constructor)(\w+)(?=[?(:])/gm);
    return [...new Set([...found].map(([, member]) => member))].sort();
};

/** The options that a call takes, by what it says of one that it does not take. */
const optionsOf = (method, args) => {
    try {
        checkArgs(method, { ...args, options: { nonsense: 1 } });
    } catch ({ message }) {
        return /it takes (.*)$/.exec(message)[1].split(', ').sort();
    }
    return [];
};

test('types, versions and files of the package are those of the code', () => {
    const names = types.matchAll(/^export (?:class|const|function) (\w+)/gm);
    assert.deepEqual([...names].map(([, name]) => name).sort(), Object.keys(library).sort());
    const about = JSON.parse(read('web/package.json'));
    assert.equal(about.version, VERSION);
    assert.equal(/#define DP_VERSION "([^"]+)"/.exec(read('include/doppler.h'))[1], VERSION);
    const { types: typesPath, default: main } = about.exports['.'];
    for (const path of [typesPath, main, about.exports['./worker']]) {
        assert.ok(fs.existsSync(new URL(`web/${path}`, root)), path);
    }
    assert.equal(about.dependencies, undefined);
});

test('options are those that the calls take', () => {
    // What stays in the page.
    const here = ['gpu', 'onDevice', 'onLog', 'onProgress', 'persist', 'signal', 'worker'];
    assert.deepEqual(membersOf('LoadOptions').filter((name) => !here.includes(name)),
        optionsOf('load', { source: 'x' }));
    const template = membersOf('TemplateOptions');
    assert.deepEqual(template, optionsOf('template', { messages: [{ role: 'user' }] }));
    const generate = membersOf('GenerateOptions').filter((name) => name !== 'signal');
    assert.deepEqual([...generate, ...template].sort(), optionsOf('generate', { prompt: 'x' }));
});

test('objects have what is described of them', async () => {
    const { model } = await open();
    const session = await model.newSession();
    const objects = { Model: model, Session: session, Cache: model.cache,
        Generation: session.generate('x', { maxTokens: 1 }) };
    for (const [name, object] of Object.entries(objects)) {
        const members = membersOf(name);
        assert.ok(members.length > 1, name);
        assert.deepEqual(members.filter((member) => object[member] === undefined), [], name);
    }
    await model.close();
});

test('requests of chats have the fields that are read', () => {
    const code = read('web/lib/openai.js');
    const [, ignored] = /IGNORED = new Set\(\[([^]*?)\]/.exec(code);
    const [, fields] = /^const fields = \{([^]*?)^\};/m.exec(code);
    const wanted = [...ignored.matchAll(/'(\w+)'/g), ...fields.matchAll(/^ {4}(\w+): /gm)];
    assert.ok(wanted.length > 20);
    assert.deepEqual(membersOf('ChatRequest'), wanted.map(([, name]) => name).sort());
    assert.deepEqual(membersOf('ApiError').filter((name) => !(name in new ApiError(400, 'x'))), []);
});
