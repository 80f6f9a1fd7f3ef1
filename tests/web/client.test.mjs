// The package's page side and the host behind it, over a fake engine and a fake store: answers,
// sessions, cancelling, lost devices, closing, and messages that make no sense.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ArgumentError, cancelled, CancelledError, DeviceLostError, DopplerError, InternalError,
    LimitError, Live, load, makeError, makePair, MemoryError, NetworkError, newWorld, open,
    packError, Places, rejects, serve, unpackError, URL_OF_MODEL, VERSION, WorkerError }
    from './client_lib.mjs';
import { expected, later, MODEL, spelt } from './client_fake.mjs';

const collect = async (generation) => {
    const pieces = [];
    for await (const piece of generation) pieces.push(piece);
    return {
        pieces, text: pieces.map(({ text }) => text).join(''),
        tokens: pieces.flatMap(({ tokens }) => tokens),
    };
};

/** Resolves when the first text is there. */
const firstPiece = (generation) => generation[Symbol.asyncIterator]().next();

describe('answers', () => {
    test('are the same iterated and awaited', async () => {
        const { model } = await open();
        const want = expected(spelt('once'), 10);
        const generation = model.generate('once', { maxTokens: 10 });
        const { text, tokens, pieces } = await collect(generation);
        assert.equal(text, want.text);
        assert.deepEqual(tokens, want.tokens);
        assert.ok(pieces.length > 2, 'text streams');
        const result = await generation;
        assert.equal(result.text, want.text);
        assert.deepEqual(result.tokens, want.tokens);
        assert.equal(result.finish, 'length');
        assert.deepEqual(result.usage,
            { promptTokens: 5, cachedTokens: 0, completionTokens: 10, totalTokens: 15 });
        assert.ok(result.timings.seconds >= result.timings.firstSeconds);
        assert.ok(result.timings.tokensPerSecond > 0);
        const again = await collect(generation); // a second reader sees all of it
        assert.equal(again.text, want.text);
        await model.close();
    });

    test('continue tokens and conversations', async () => {
        const { world, model } = await open();
        const byTokens = await model.generate(Uint32Array.from(spelt('once')), { maxTokens: 4 });
        assert.equal(byTokens.text, expected(spelt('once'), 4).text);
        const messages = [{ role: 'user', content: 'hi' }];
        const chat = await model.generate(messages, { maxTokens: 4, tools: [{ name: 'x' }] });
        assert.equal(chat.text, expected(spelt('user hi tools answer '), 4).text);
        assert.equal(await model.template(messages), 'user hi answer ');
        assert.equal(await model.template(messages, { generationPrompt: false }), 'user hi ');
        assert.deepEqual(await model.chatTokens(messages), spelt('user hi answer '));
        assert.deepEqual(await model.tokenize('abc', { addSpecial: false }), [1, 2, 3]);
        assert.equal(await model.detokenize([1, 2, 3]), 'abc');
        const logits = await model.logits('once');
        assert.ok(logits instanceof Float32Array && logits.length === MODEL.vocabSize);
        await rejects(model.template([{ role: 'refused', content: '' }]), ArgumentError, /refused/);
        await model.close();
        assert.ok(world.engine.closed);
    });

    test('end at a stop token, at a stop text and at the limit', async () => {
        const world = newWorld();
        world.endAfter = 5;
        const { model } = await open(world);
        const stopped = await model.generate('once', {});
        assert.equal(stopped.finish, 'stop');
        assert.equal(stopped.text, expected(spelt('once'), 5).text);
        const { text } = expected(spelt('tale'), 5);
        const cut = await model.generate('tale', { stop: [text.slice(2, 4)] });
        assert.deepEqual([cut.text, cut.finish], [text.slice(0, 2), 'stop']);
        await model.close();
    });

    test('draw by a seed, which the result tells', async () => {
        const { model } = await open();
        const how = { maxTokens: 20, temperature: 1 };
        const drawn = await model.generate('once', how);
        const again = await model.generate('once', { ...how, seed: drawn.seed });
        const other = await model.generate('once', how);
        assert.equal(drawn.text, again.text);
        assert.notEqual(drawn.seed, other.seed);
        assert.notEqual(drawn.text, other.text);
        await model.close();
    });

    test('tell probabilities with texts', async () => {
        const { model } = await open();
        const result = await model.generate('once', { maxTokens: 4, logprobs: 2 });
        assert.equal(result.logprobs.length, 4);
        const [first] = result.logprobs;
        assert.equal(first.text, result.text[0]);
        assert.deepEqual(first.top, [{ token: 1, text: 'a', logprob: -1 },
            { token: 2, text: 'b', logprob: -1e9 }]);
        await model.close();
    });

    test('run side by side', async () => {
        const { world, model } = await open({ step: 2 });
        const prompts = ['once', 'a tale', 'there was', 'it'];
        const results = await Promise.all(prompts.map((each) =>
            model.generate(each, { maxTokens: 12 })));
        results.forEach(({ text }, i) => assert.equal(text, expected(spelt(prompts[i]), 12).text));
        assert.ok(world.mostRunning >= 3, `${world.mostRunning} ran at once`);
        await model.close();
    });

    test('wait for a place when all are taken', async () => {
        const { world, model } = await open({}, { sessions: 2 });
        const prompts = ['a', 'b', 'c', 'd', 'e'];
        const results = await Promise.all(prompts.map((each) =>
            model.generate(each, { maxTokens: 9 })));
        results.forEach(({ text }, i) => assert.equal(text, expected(spelt(prompts[i]), 9).text));
        assert.equal(world.mostRunning, 2);
        await model.close();
    });

    test('need not read again what an idle session holds', async () => {
        const { world, model } = await open();
        const first = await model.generate('once upon a time', { maxTokens: 6 });
        world.evaluated = 0;
        const prompt = spelt('once upon a time').concat(first.tokens, [5, 6]);
        const second = await model.generate(prompt, { maxTokens: 6 });
        assert.equal(second.usage.cachedTokens, prompt.length - 2);
        assert.equal(world.evaluated, 2);
        assert.equal(second.text, expected(prompt, 6).text);
        const other = await model.generate('xyz', { maxTokens: 3 }); // shares the first token alone
        assert.equal(other.usage.cachedTokens, 0);
        assert.equal((await model.stats()).idleSessions, 2);
        await model.close();
    });

    test('make room among idle sessions, before and within an answer', async () => {
        const { world, model } = await open({ poolTokens: 40 });
        await model.generate('aaaaaaaaaaaaaaa', { maxTokens: 4 }); // holds 20
        const { text } = await model.generate('b'.repeat(23), { maxTokens: 4 }); // wants 28
        assert.equal(text, expected(spelt('b'.repeat(23)), 4).text);
        await model.generate('ccc', { maxTokens: 4 });
        const long = await model.generate('ddd', { maxTokens: 30 }); // full on the way
        assert.equal(long.text, expected(spelt('ddd'), 30).text);
        assert.equal(long.recoveries, 0);
        await rejects(model.generate('e'.repeat(60), {}), MemoryError, /is full/);
        const short = await model.generate('f', { maxTokens: 3 });
        assert.equal(short.text, expected(spelt('f'), 3).text);
        assert.equal(world.engines.length, 1);
        await model.close();
    });

    test('are refused for options that make no sense', async () => {
        const { model } = await open();
        for (const [prompt, options, pattern] of [
            ['x', { temperature: 'warm' }, /options\.temperature: is "warm", expected a number/],
            ['x', { topP: 2 }, /options\.topP: is 2/],
            ['x', { maxTokens: 1.5 }, /options\.maxTokens: is 1\.5/],
            ['x', { max_tokens: 1 }, /has no option "max_tokens"/],
            ['x', { stop: 'end' }, /options\.stop: is "end", expected an array/],
            ['x', { stop: [''] }, /options\.stop\[0\]: has 0 characters, expected 1 to 256/],
            ['x', { seed: -1 }, /options\.seed/],
            ['x', { logprobs: 33 }, /options\.logprobs/],
            [[{ content: 'no role' }], {}, /prompt\[0\]\.role: is undefined, expected a text/],
            [[{ role: 'user', content: 1n }], {}, /prompt: cannot be written as JSON/],
            [[1, 2, -3], {}, /prompt\[2\]: is -3/],
            [[], {}, /prompt: has no tokens/],
            [[64], {}, /token 0: is 64, the vocabulary has 64/],
            [undefined, {}, /prompt: is undefined, expected a text/],
            [null, {}, /prompt: there is none/],
        ]) {
            await rejects(model.generate(prompt, options), ArgumentError, pattern);
        }
        await rejects(model.tokenize(5), ArgumentError, /text: is 5, expected a text/);
        assert.equal((await model.generate('x', { maxTokens: 1 })).tokens.length, 1);
        await model.close();
    });
});

describe('sessions', () => {
    test('keep what they have read', async () => {
        const { world, model } = await open();
        const session = await model.newSession();
        const messages = [{ role: 'user', content: 'hi' }];
        const first = await session.generate(messages, { maxTokens: 5 });
        assert.equal(first.text, expected(spelt('user hi answer '), 5).text);
        messages.push({ role: 'assistant', content: first.text },
            { role: 'user', content: 'more' });
        world.evaluated = 0;
        const second = await session.generate(messages, { maxTokens: 5 });
        const prompt = spelt(`user hi assistant ${first.text} user more answer `);
        assert.equal(second.text, expected(prompt, 5).text);
        assert.equal(second.usage.cachedTokens, spelt('user hi a').length);
        assert.equal(world.evaluated, prompt.length - second.usage.cachedTokens);
        assert.deepEqual(await session.tokens(), prompt.concat(second.tokens));
        await session.close();
        await rejects(session.tokens(), ArgumentError, /session 1: there is none, or it was/);
        await model.close();
    });

    test('go on, go back and are appended to', async () => {
        const { model } = await open();
        const session = await model.newSession();
        await rejects(session.generate(null, {}), ArgumentError, /prompt: has no tokens/);
        assert.equal(await session.append('once'), 5);
        const first = await session.generate(null, { maxTokens: 6 });
        assert.equal(first.text, expected(spelt('once'), 6).text);
        const more = await session.generate(null, { maxTokens: 6 });
        assert.equal(first.text + more.text, expected(spelt('once'), 12).text);
        await session.rewind(5);
        const again = await session.generate(null, { maxTokens: 6 });
        assert.equal(again.text, first.text);
        assert.equal(await session.append([1, 2]), 13);
        assert.deepEqual(await session.tokens(), [...spelt('once'), ...first.tokens, 1, 2]);
        assert.equal((await session.logits()).length, MODEL.vocabSize);
        await rejects(session.rewind(99), ArgumentError, /rewind to 99: the session has 13 tokens/);
        await model.close();
        await session.close();
    });

    test('do one thing at a time', async () => {
        const { world, model } = await open();
        const session = await model.newSession();
        const all = ['a', 'b', 'c'].map((each) => session.generate(each, { maxTokens: 6 }));
        const texts = (await Promise.all(all)).map(({ text }) => text);
        assert.deepEqual(texts, ['a', 'b', 'c'].map((each) => expected(spelt(each), 6).text));
        const first = session.generate('d', {});
        await firstPiece(first);
        const left = session.generate('e', { signal: AbortSignal.abort() });
        const last = session.generate('f', { maxTokens: 6 });
        assert.equal((await left).finish, 'cancelled');
        for (let i = 0; i < 5; i++) await later();
        assert.equal(world.mostRunning, 1);
        first.cancel();
        assert.equal((await last).text, expected(spelt('f'), 6).text);
        assert.equal(world.mostRunning, 1);
        await model.close();
    });

    test('have places, of which there are as many as were asked for', async () => {
        const { model } = await open({}, { sessions: 2 });
        await model.generate('warm', { maxTokens: 2 }); // an idle one makes way
        const [a] = [await model.newSession(), await model.newSession()];
        await rejects(model.newSession(), LimitError, /all 2 sessions are taken/);
        await rejects(model.generate('x'), LimitError, /all 2 sessions are taken/);
        await a.close();
        assert.equal((await model.generate('x', { maxTokens: 2 })).tokens.length, 2);
        await model.close();
    });

    test('that are closed let others in', async () => {
        const { model } = await open({}, { sessions: 2 });
        const session = await model.newSession();
        const long = model.generate('once', {});
        await firstPiece(long);
        const waits = model.generate('tale', { maxTokens: 4 });
        for (let i = 0; i < 5; i++) await later();
        await session.close();
        assert.equal((await waits).text, expected(spelt('tale'), 4).text);
        long.cancel();
        await model.close();
    });

    test('are closed once, however often that is asked', async () => {
        const { world, model } = await open({}, { sessions: 2 });
        const session = await model.newSession();
        await Promise.all([session.close(), session.close()]);
        await session.close();
        assert.equal(world.engine.sessions.size, 0);
        await rejects(session.tokens(), ArgumentError, /there is none, or it was closed/);
        const late = await model.newSession();
        const closing = model.close();
        await Promise.all([closing, late.close(), model.close()]);
        await late.close();
    });

    test('that are closed stop writing', async () => {
        const { world, model } = await open();
        const session = await model.newSession();
        const generation = session.generate('once', {});
        const first = await firstPiece(generation);
        assert.ok(first.value.text.length > 0);
        await session.close();
        assert.equal((await generation).finish, 'cancelled');
        assert.equal(world.engine.sessions.size, 0);
        await model.close();
    });
});

describe('cancelling', () => {
    test('ends an answer with what there is', async () => {
        const { world, model } = await open();
        const control = new AbortController();
        const generation = model.generate('once', { signal: control.signal });
        let seen = '';
        for await (const { text } of generation) {
            seen += text;
            if (seen.length > 8) control.abort();
            assert.ok(seen.length < 30, 'goes on after it was cancelled');
        }
        const result = await generation;
        assert.equal(result.finish, 'cancelled');
        assert.equal(result.text, seen);
        assert.equal(world.running, 0);
        const before = model.generate('once', { signal: AbortSignal.abort() });
        assert.deepEqual([(await before).finish, (await before).text], ['cancelled', '']);
        assert.equal((await model.generate('once', { maxTokens: 3 })).finish, 'length');
        await model.close();
    });

    test('is what leaving the loop does', async () => {
        const { world, model } = await open();
        const generation = model.generate('once', {});
        for await (const { text } of generation) {
            if (text !== '') break;
        }
        assert.equal((await generation).finish, 'cancelled');
        assert.equal(world.running, 0);
        const other = model.generate('once', {});
        await firstPiece(other);
        other.cancel();
        assert.equal((await other).finish, 'cancelled');
        await model.close();
    });

    test('reaches calls that wait', async () => {
        const { model } = await open({}, { sessions: 1 });
        const first = model.generate('once', {});
        const control = new AbortController();
        const second = model.generate('tale', { signal: control.signal });
        const third = model.generate('mist', { maxTokens: 4 });
        await firstPiece(first);
        control.abort();
        assert.equal((await second).finish, 'cancelled');
        assert.deepEqual((await second).tokens, []);
        first.cancel();
        const session = await model.newSession();
        const long = session.generate('once', {});
        await firstPiece(long);
        await assert.rejects(session.append('x', { signal: AbortSignal.abort() }),
            { name: 'AbortError' });
        long.cancel();
        await session.close();
        assert.equal((await third).text, expected(spelt('mist'), 4).text);
        await model.close();
    });
});

describe('a lost device', () => {
    const PROMPT = 'once upon a time';

    test('does not show in the text', async () => {
        for (const options of [{ maxTokens: 40 }, { maxTokens: 40, temperature: 0.8, seed: 9 },
            { maxTokens: 40, logprobs: 1 }, { maxTokens: 40, stop: ['zzzzz'] }]) {
            const seed = options.temperature ? options.seed : 0;
            for (const at of [0, 1, 2, 7, 20, 38, 39]) {
                const world = newWorld();
                world.loseAfter = [at];
                const devices = [];
                const onDevice = (info, n) => devices.push([info.name, n]);
                const { model } = await open(world, { onDevice });
                const generation = model.generate(PROMPT, options);
                const { text, tokens } = await collect(generation);
                const want = expected(spelt(PROMPT), 40, seed);
                assert.equal(text, want.text, `lost after ${at}`);
                assert.deepEqual(tokens, want.tokens, `lost after ${at}`);
                const result = await generation;
                assert.equal(result.text, want.text);
                assert.equal(result.recoveries, 1);
                assert.equal(result.usage.promptTokens, spelt(PROMPT).length);
                if (options.logprobs) assert.equal(result.logprobs.length, 40);
                assert.deepEqual(devices, [['fake 1', 1]]);
                assert.equal(model.deviceInfo.name, 'fake 1');
                assert.equal(model.recoveries, 1);
                assert.ok(world.engines[0].closed);
                assert.equal(world.opened.length, 2, 'the same source again');
                assert.equal(world.calls.filter((each) => each.startsWith('wasm')).length, 1);
                await model.close();
                assert.equal(world.closedFiles, 2);
            }
        }
    });

    test('after the last token does not write more', async () => {
        const stop = [expected(spelt(PROMPT), 9).text.slice(4, 6)];
        for (const options of [{}, { maxTokens: 5 }, { stop }]) {
            const world = newWorld();
            world.endAfter = 9;
            const { model } = await open(world);
            const want = await model.generate(PROMPT, options);
            world.loseAtEnd = 1;
            const { text, tokens, finish } = await model.generate(PROMPT, options);
            assert.deepEqual([text, tokens, finish], [want.text, want.tokens, want.finish]);
            assert.equal(world.engines.length, 2);
            await model.close();
        }
    });

    test('is noticed even if its calls never end', async () => {
        const world = newWorld();
        world.loseAfter = [10];
        world.silentLoss = true;
        const { model } = await open(world);
        const { text } = await model.generate(PROMPT, { maxTokens: 20 });
        assert.equal(text, expected(spelt(PROMPT), 20).text);
        await model.close();
    });

    test('may say so later than its calls', async () => {
        const world = newWorld();
        world.loseAfter = [10];
        world.lateLoss = true;
        const { model } = await open(world);
        const { text, recoveries } = await model.generate(PROMPT, { maxTokens: 20 });
        assert.deepEqual([text, recoveries], [expected(spelt(PROMPT), 20).text, 1]);
        await model.close();
    });

    test('now and then is no end', async () => {
        const { world, model } = await open();
        for (let i = 0; i < 6; i++) {
            await model.loseDevice();
            assert.equal((await model.generate('x', { maxTokens: 2 })).tokens.length, 2);
            world.hours++;
        }
        assert.equal(model.recoveries, 6);
        await model.close();
    });

    test('gives every session its tokens back', async () => {
        const { world, model } = await open({}, { sessions: 4 });
        await model.generate('idle', { maxTokens: 2 }); // is not worth reading again
        const sessions = await Promise.all([0, 1, 2].map(() => model.newSession()));
        const prompts = ['once', 'a tale', 'it was'];
        const begun = await Promise.all(sessions.map((session, i) =>
            session.generate(prompts[i], { maxTokens: 5 })));
        const running = [0, 1].map((i) => sessions[i].generate(null, { maxTokens: 30 }));
        await Promise.all(running.map(firstPiece));
        await model.loseDevice();
        const results = await Promise.all(running);
        results.forEach(({ text }, i) =>
            assert.equal(begun[i].text + text, expected(spelt(prompts[i]), 35).text));
        const last = await sessions[2].generate(null, { maxTokens: 5 });
        assert.equal(begun[2].text + last.text, expected(spelt(prompts[2]), 10).text);
        assert.equal(world.engine.sessions.size, 3);
        assert.equal((await model.stats()).recoveries, 1);
        await model.close();
    });

    test('does not disturb other calls', async () => {
        const { world, model } = await open();
        await model.loseDevice();
        const [tokens, logits, session] = await Promise.all([model.tokenize('abc'),
            model.logits('abc'), model.newSession()]);
        assert.deepEqual(tokens, spelt('abc'));
        assert.equal(logits.length, MODEL.vocabSize);
        const reading = session.append('once upon a time');
        await model.loseDevice();
        assert.equal(await reading, 17);
        assert.equal((await session.generate(null, { maxTokens: 3 })).text,
            expected(spelt('once upon a time'), 3).text);
        assert.equal(world.engines.length, 3);
        await model.close();
    });

    test('comes back after some tries', async () => {
        const { world, model } = await open();
        world.failOpen.push(makeError('device', 'no adapter'), makeError('device', 'no adapter'));
        await model.loseDevice();
        assert.deepEqual(await model.tokenize('abc'), spelt('abc'));
        await model.close();
    });

    test('is given up when it goes too often', async () => {
        const world = newWorld();
        world.loseAfter = [3, 3, 3, 3, 3, 3];
        const { model } = await open(world);
        const generation = model.generate(PROMPT, { maxTokens: 40 });
        const seen = [];
        await rejects((async () => {
            for await (const { text } of generation) seen.push(text);
        })(), DeviceLostError, /lost 4 times within 60 seconds, at most 3 are recovered from/);
        assert.equal(world.engines.length, 4);
        assert.ok(expected(spelt(PROMPT), 40).text.startsWith(seen.join('')));
        await rejects(model.tokenize('abc'), DeviceLostError, /lost 4 times/);
        await model.close();
    });

    test('is given up when the model cannot be opened again', async () => {
        const { world, model } = await open();
        world.failModel.push(makeError('network', 'example.com: no answer'));
        await model.loseDevice();
        await rejects(model.generate(PROMPT), NetworkError,
            /^the GPU was lost \(somebody pulled the plug\) and the model could not be opened/);
        await model.close();
    });

    test('while loading is loaded again', async () => {
        const world = newWorld();
        const loading = open(world, {
            onProgress: ({ phase, loaded }) => phase === 'upload' && loaded === 0 &&
                world.engines.length === 1 && world.engine.loseDevice(),
        });
        const { model } = await loading;
        assert.equal(world.engines.length, 2);
        assert.equal(model.deviceInfo.name, 'fake 1');
        await model.close();
    });

    test('is another thing than a mistake of the package', async () => {
        const { world, model } = await open();
        world.engine.evaluate = async () => { throw new TypeError('x is undefined'); };
        await rejects(model.generate(PROMPT), InternalError, /^x is undefined$/);
        assert.equal(world.engines.length, 1);
        await model.close();
    });

    test('is another thing than a call that fails', async () => {
        const { world, model } = await open();
        world.engine.evaluate = async () => { throw makeError('device', 'kernel matvec failed'); };
        await rejects(model.generate(PROMPT), DopplerError, /kernel matvec failed/);
        assert.equal(world.engines.length, 1);
        await model.close();
    });

    test('can be closed and cancelled while it is away', async () => {
        const { world, model } = await open();
        const session = await model.newSession();
        await session.append('once');
        const control = new AbortController();
        const generation = session.generate(null, { signal: control.signal });
        await firstPiece(generation);
        await model.loseDevice();
        control.abort();
        assert.equal((await generation).finish, 'cancelled');
        await session.close();
        assert.equal((await model.tokenize('a')).length, 2);
        assert.equal(world.engine.sessions.size, 0, 'the closed session has no place');
        const other = await model.newSession();
        await other.append('tale');
        let letOn;
        world.evaluateGate = new Promise((resolve) => { letOn = resolve; });
        const { length } = world.calls.filter((each) => each === 'evaluate');
        await model.loseDevice();
        while (world.calls.filter((each) => each === 'evaluate').length === length) await later();
        await other.close(); // while its tokens are read again
        letOn();
        assert.equal((await model.tokenize('a')).length, 2);
        assert.equal(world.engine.sessions.size, 0);
        await model.loseDevice();
        await model.close();
        assert.ok(world.engines.every((engine) => engine.closed));
    });
});

describe('closing', () => {
    test('ends what runs and frees everything', async () => {
        const { world, model } = await open();
        const session = await model.newSession();
        const one = model.generate('once', {});
        const two = session.generate('tale', {});
        await Promise.all([firstPiece(one), firstPiece(two)]);
        const closing = model.close();
        const results = await Promise.all([one, two]);
        results.forEach(({ finish, text }) => {
            assert.equal(finish, 'cancelled');
            assert.ok(text.length > 0);
        });
        await closing;
        assert.ok(world.engine.closed);
        assert.equal(world.closedFiles, 1);
        assert.equal(world.running, 0);
        await rejects(model.generate('x'), CancelledError, /the model was closed/);
        await rejects(model.stats(), CancelledError, /the model was closed/);
        await model.close();
        await session.close();
    });

    test('gives up a device that is being replaced', async () => {
        const { world, model } = await open();
        world.compileGate = new Promise(() => {});
        await model.loseDevice();
        const generation = model.generate('once', {});
        while (world.engines.length < 2) await later();
        const began = performance.now();
        await model.close();
        assert.ok(performance.now() - began < 2000, 'by the worker, not for want of its answer');
        assert.equal((await generation).finish, 'cancelled');
        assert.ok(world.engines.every(({ closed }) => closed));
    });

    test('does not wait for ever', async () => {
        const { world, model } = await open();
        world.gate = new Promise(() => {});
        const generation = model.generate('once', {});
        while (world.running === 0) await later();
        await model.close();
        assert.ok(world.engine.closed);
        await assert.rejects(Promise.resolve(generation), { name: 'AbortError' });
    });
});

/** A worker that does what the test says. */
class FakeWorker extends EventTarget {
    sent = [];
    ended = false;

    postMessage(message) {
        this.sent.push(message);
        this.onsent?.(message);
    }

    say(data) {
        this.dispatchEvent(Object.assign(new Event('message'), { data }));
    }

    terminate() {
        this.ended = true;
    }
}

describe('a worker', () => {
    test('that does not start fails the load', async () => {
        const worker = new FakeWorker();
        const loading = load(URL_OF_MODEL, { worker });
        await later();
        worker.dispatchEvent(Object.assign(new Event('error'), { message: 'no such script' }));
        await rejects(loading, WorkerError, /the worker failed: no such script/);
    });

    test('of the package ends with its model, and with a load that fails', async () => {
        const made = [];
        globalThis.Worker = class extends FakeWorker {
            constructor(...how) {
                super();
                made.push([this, how]);
            }
        };
        try {
            for (const fails of [true, false]) {
                const loading = load(URL_OF_MODEL, {});
                await later();
                const [worker, [url, how]] = made.at(-1);
                assert.match(String(url), /web\/lib\/worker\.js$/);
                assert.equal(how.type, 'module');
                worker.onsent = ({ id, method }) => method === 'close' &&
                    worker.say({ type: 'result', id, value: undefined });
                worker.say({ type: 'hello', version: VERSION, locked: false });
                if (fails) {
                    const error = packError(makeError('format', 'bad'));
                    worker.say({ type: 'error', id: 1, error });
                    await rejects(loading, DopplerError, /bad/);
                } else {
                    const value = { info: {}, deviceInfo: {}, notes: [] };
                    worker.say({ type: 'result', id: 1, value });
                    await (await loading).close();
                }
                assert.equal(worker.sent.at(-1).method, 'close');
                assert.ok(worker.ended);
            }
        } finally {
            delete globalThis.Worker;
        }
    });

    test('of a bundle, whose modules think that they are files, is the one beside it', async () => {
        const { URL } = globalThis, made = [];
        globalThis.Worker = class extends FakeWorker {
            constructor(url) {
                super();
                made.push(String(url));
            }
        };
        globalThis.location = new URL('https://page.example/');
        globalThis.URL = class extends URL { // as Chrome says it, which says "null" of no file
            get origin() {
                return this.protocol === 'file:' ? 'file://' : super.origin;
            }
        };
        try {
            const signal = AbortSignal.abort();
            await assert.rejects(load(URL_OF_MODEL, { signal }), { name: 'AbortError' });
            assert.match(made[0], /^file:.*web\/lib\/worker\.js$/);
        } finally {
            globalThis.URL = URL;
            delete globalThis.location;
            delete globalThis.Worker;
        }
    });

    test('that never starts can be given up', async () => {
        const control = new AbortController();
        const worker = new FakeWorker();
        const loading = load(URL_OF_MODEL, { worker, signal: control.signal });
        await later();
        control.abort();
        await assert.rejects(loading, { name: 'AbortError' });
        // It may start after all, and then must not load what nobody wants.
        assert.deepEqual(worker.sent.map(({ type, method }) => method ?? type),
            ['start', 'load', 'cancel', 'close']);
        const other = { worker: new FakeWorker(), signal: control.signal };
        await assert.rejects(load(URL_OF_MODEL, other), { name: 'AbortError' });
    });

    test('of another version is refused', async () => {
        const worker = new FakeWorker();
        const loading = load(URL_OF_MODEL, { worker });
        await later();
        worker.say({ type: 'hello', version: '9.9.9', locked: false });
        await rejects(loading, WorkerError, /of version 9\.9\.9, the page of /);
    });

    test('that says what it should not is not believed', async () => {
        const good = { type: 'result', id: 1, value: { info: {}, deviceInfo: {}, notes: [] } };
        for (const [message, pattern] of [
            [null, /message: is null/],
            ['hello', /message: is "hello", expected an object/],
            [{ type: 'evil' }, /message\.type: is "evil"/],
            [{ type: 'constructor' }, /message\.type: is "constructor"/],
            [{ ...good, more: 1 }, /has no option "more"/],
            [{ ...good, id: 'x' }, /message\.id: is "x"/],
            [{ ...good, value: { info: 1 } }, /result of load\.info: is 1/],
            [{ type: 'piece', id: 1, value: {} }, /piece of load: a call that does not stream/],
            [{ type: 'progress', id: 1, value: { phase: 'x' } }, /message\.value\.phase/],
            [{ type: 'error', id: 1, error: { kind: 'x', status: 'odd', message: '' } },
                /message\.error\.status/],
        ]) {
            const worker = new FakeWorker();
            const loading = load(URL_OF_MODEL, { worker });
            await later();
            worker.say({ type: 'hello', version: VERSION, locked: false });
            worker.say(message);
            await rejects(loading, WorkerError, /^the worker sent what it should not: /);
            await rejects(loading, WorkerError, pattern);
        }
        const worker = new FakeWorker();
        const loading = load(URL_OF_MODEL, { worker });
        await later();
        worker.say({ type: 'hello', version: VERSION, locked: false });
        worker.say({ type: 'result', id: 77, value: 0 }); // of nobody: no harm
        worker.say(good);
        const model = await loading;
        const generation = model.generate('x');
        await later();
        worker.say({ type: 'piece', id: 2, value: { text: 'a', tokens: [1] } });
        worker.say({ type: 'piece', id: 2, value: { text: 'b', tokens: ['1'] } });
        await rejects(generation, WorkerError, /piece of generate\.tokens\[0\]: is "1"/);
        await model.close();
    });

    test('that is killed is noticed by its lock', async () => {
        const locks = new Map();
        const before = Object.getOwnPropertyDescriptor(globalThis, 'navigator');
        /** Web Locks, as far as they are used: exclusive ones, in order. */
        const request = (name, options, work) => {
            const held = locks.get(name) ?? Promise.resolve();
            const signal = work && options.signal;
            const run = held.then(() => {
                if (signal?.aborted) throw signal.reason;
                return (work ?? options)();
            });
            locks.set(name, run.catch(() => {}));
            return run;
        };
        const value = { locks: { request } };
        Object.defineProperty(globalThis, 'navigator', { configurable: true, value });
        try {
            const worker = new FakeWorker();
            const loading = load(URL_OF_MODEL, { worker });
            await later();
            const { lock } = worker.sent[0];
            assert.match(lock, /^doppler-worker-/);
            let kill;
            request(lock, () => new Promise((resolve) => { kill = resolve; }));
            worker.say({ type: 'hello', version: VERSION, locked: true });
            worker.say({ type: 'result', id: 1, value: { info: {}, deviceInfo: {}, notes: [] } });
            const model = await loading;
            const generation = model.generate('once');
            await later();
            worker.say({ type: 'piece', id: 2, value: { text: 'a', tokens: [1] } });
            kill();
            await rejects(collect(generation), WorkerError, /the worker was ended from outside/);
            await rejects(model.stats(), WorkerError, /ended from outside/);
            await model.close();

            const { model: other } = await open(); // the host takes the lock that it is told
            assert.equal((await other.generate('x', { maxTokens: 2 })).tokens.length, 2);
            await other.close();
        } finally {
            if (before) Object.defineProperty(globalThis, 'navigator', before);
            else delete globalThis.navigator;
        }
    });

    test('refuses what the page should not say', async () => {
        const [near, far] = makePair();
        serve(far, newWorld().parts());
        const said = [];
        near.addEventListener('message', ({ data }) => said.push(data));
        const ask = async (message) => {
            said.length = 0;
            near.postMessage(message);
            await later(2);
            return said;
        };
        const call = { type: 'call', id: 1, method: 'tokenize', args: { text: 'x' } };
        assert.match((await ask(call))[0].error.message, /call before start/);
        assert.deepEqual(await ask({ type: 'start', version: VERSION }),
            [{ type: 'hello', version: VERSION, locked: false }]);
        for (const [message, pattern] of [
            [undefined, /message: is undefined/],
            [42, /message: is 42/],
            [{ type: 'toString' }, /message\.type: is "toString"/],
            [{ type: 'start', version: VERSION }, /start a second time/],
            [{ type: 'cancel', id: -1 }, /message\.id: is -1/],
            [{ ...call, id: 1.5 }, /message\.id: is 1\.5/],
        ]) {
            const [answer] = await ask(message);
            assert.deepEqual([answer.type, answer.level], ['log', 'warning']);
            assert.match(answer.line, pattern);
        }
        for (const [message, pattern] of [
            [{ ...call, method: '__proto__' }, /message\.method: is "__proto__"/],
            [{ ...call, method: 'bring' }, /message\.method: is "bring"/],
            [{ ...call, args: [] }, /message\.args: is an array/],
            [{ ...call, args: { text: 5 } }, /text: is 5/],
            [{ ...call, args: { text: 'x', more: 1 } }, /has no option "more"/],
            [call, /no model was loaded/],
            [call, /message\.id: is 1, expected over 1/],
        ]) {
            const [answer] = await ask(message);
            assert.deepEqual([answer.type, answer.id], ['error', 1]);
            assert.match(answer.error.message, pattern);
        }
        assert.deepEqual(await ask({ type: 'cancel', id: 99 }), []);
        const [list] = await ask({ type: 'call', id: 2, method: 'cacheList', args: {} });
        assert.deepEqual(list, { type: 'result', id: 2, value: [] });
    });
});

test('a model without a name has that of its source', async () => {
    const world = newWorld();
    world.modelName = 'model';
    const { model } = await open(world);
    assert.equal(model.info.name, 'source-name');
    assert.ok(!('path' in model.info));
    await model.close();
});

test('a place that nobody takes any more goes to the next', async () => {
    const engine = { newSession: () => 1, freeSession: () => {} };
    const live = { engine, reason: null };
    const places = new Places(() => ({ live, alive: async () => live }), () => 1);
    const { signal } = new AbortController();
    const held = await places.take(signal, [1]);
    const control = new AbortController();
    const left = places.take(control.signal, [2]);
    const next = places.take(signal, [3]);
    await later();
    places.drop(held); // wakes the first, who leaves before he has looked
    control.abort();
    await assert.rejects(left, { name: 'AbortError' });
    assert.equal((await next).id, 2);
});

test('what begins after the loss does not wait for a dead device', async () => {
    const live = new Live({ lost: Promise.resolve('gone') });
    await live.lost;
    await rejects(live.wait(new Promise(() => {})), DeviceLostError, /the GPU was lost: gone/);
});

test('the cache is asked through the model', async () => {
    const world = newWorld();
    world.entries = [{ name: 'letters', bytes: 5 }];
    const { model } = await open(world);
    assert.deepEqual(await model.cache.list(), world.entries);
    assert.deepEqual(await model.cache.remove('letters'), { removed: 1, bytes: 7 });
    assert.deepEqual(await model.cache.purge(), { removed: 1, bytes: 0 });
    assert.equal((await model.cache.estimate()).quota, 100);
    await rejects(model.cache.remove(''), ArgumentError, /name: has 0 characters/);
    await model.close();
});

test('errors keep class, status, sentence and detail on the way', () => {
    const statuses = ['argument', 'file', 'format', 'unsupported', 'limit', 'memory', 'device',
        'cancelled', 'network', 'internal'];
    for (const status of statuses) {
        const error = makeError(status, 'what failed', { detail: { needed: 5 } });
        const back = unpackError(structuredClone(packError(error)));
        assert.equal(back.constructor, error.constructor);
        assert.deepEqual([back.status, back.message, back.detail, back.name],
            [status, 'what failed', { needed: 5 }, error.name]);
        assert.ok(back instanceof DopplerError);
    }
    assert.equal(unpackError(packError(new DeviceLostError('gone'))).constructor, DeviceLostError);
    assert.equal(packError(new DOMException('stop', 'AbortError')).status, 'cancelled');
    const odd = unpackError(packError(new TypeError('odd')));
    assert.deepEqual([odd.constructor, odd.name, odd.status, odd.message],
        [InternalError, 'InternalError', 'internal', 'odd']);
    assert.equal(packError(new Error('x'.repeat(1e5))).message.length, 4096);
});
