// chat.completions over a fake engine: the shape of requests, answers, streams and errors.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ApiError, cancelled, load, makeError, makePair, serve, VERSION } from './client_lib.mjs';
import { expected, spelt, World } from './client_fake.mjs';

const MESSAGES = [{ role: 'user', content: 'hi' }];
const PROMPT = spelt('user hi answer ');

const open = async (world = {}) => {
    const made = new World({ makeError, cancelled, ...world });
    const [near, far] = makePair();
    serve(far, made.parts());
    const model = await load('https://example.com/letters/', { worker: near });
    return { world: made, model, create: model.chat.completions.create };
};

const collect = async (stream) => {
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    return chunks;
};

test('an answer has the fields of theirs', async () => {
    const { model, create } = await open();
    const request = { model: 'any', messages: MESSAGES, max_tokens: 6, temperature: 0 };
    const answer = await create(request);
    const { id, created, ...rest } = answer;
    assert.match(id, /^chatcmpl-[0-9a-f]{32}$/);
    assert.ok(Math.abs(created - Date.now() / 1000) < 5);
    assert.deepEqual(rest, {
        object: 'chat.completion', model: 'letters', system_fingerprint: `doppler-${VERSION}`,
        choices: [{
            index: 0, logprobs: null, finish_reason: 'length',
            message: { role: 'assistant', content: expected(PROMPT, 6).text, refusal: null },
        }],
        usage: {
            prompt_tokens: PROMPT.length, completion_tokens: 6, total_tokens: PROMPT.length + 6,
            prompt_tokens_details: { cached_tokens: 0 },
        },
    });
    await model.close();
});

test('a stream says the same in chunks', async () => {
    const { model, create } = await open();
    const request = { messages: MESSAGES, max_completion_tokens: 7, temperature: 0, stream: true };
    const withUsage = { ...request, stream_options: { include_usage: true } };
    const chunks = await collect(await create(withUsage));
    assert.equal(new Set(chunks.map(({ id }) => id)).size, 1);
    assert.ok(chunks.every(({ object }) => object === 'chat.completion.chunk'));
    const [first, ...others] = chunks;
    assert.deepEqual(first.choices[0].delta, { role: 'assistant', content: '', refusal: null });
    const usage = others.pop();
    assert.deepEqual(usage.choices, []);
    assert.equal(usage.usage.completion_tokens, 7);
    const last = others.pop();
    assert.deepEqual(last.choices[0],
        { index: 0, delta: {}, logprobs: null, finish_reason: 'length' });
    assert.ok(others.length > 1, 'text streams');
    assert.ok(others.every(({ usage: none, choices: [choice] }) =>
        none === null && choice.finish_reason === null));
    assert.equal(others.map(({ choices }) => choices[0].delta.content).join(''),
        expected(PROMPT, 7).text);
    const plain = await collect(await create(request));
    assert.ok(plain.every((each) => !('usage' in each) && each.choices.length === 1));
    await model.close();
});

test('options reach the engine', async () => {
    const { world, model, create } = await open();
    const seen = [];
    const { generate } = world.engine;
    world.engine.generate = (handle, options) => {
        seen.push(options);
        return generate.call(world.engine, handle, options);
    };
    await create({ messages: MESSAGES, max_tokens: 3, temperature: 0.5, top_p: 0.9, top_k: 40,
        min_p: 0.1, repetition_penalty: 1.1, presence_penalty: 0.2, frequency_penalty: -0.3,
        seed: 11, stop: 'zz', user: 'me', metadata: {}, store: false, logit_bias: {},
        response_format: { type: 'text' }, tool_choice: 'auto', n: null });
    const { signal, ...options } = seen[0];
    assert.ok(signal instanceof AbortSignal);
    assert.deepEqual(options, { maxTokens: 3, temperature: 0.5, topP: 0.9, topK: 40, minP: 0.1,
        repeatPenalty: 1.1, presencePenalty: 0.2, frequencyPenalty: -0.3, seed: 11, stop: ['zz'] });
    await create({ messages: MESSAGES, max_tokens: 1, max_completion_tokens: 2, top_k: -1 });
    assert.deepEqual([seen[1].maxTokens, seen[1].temperature, seen[1].topK], [2, 1, 0]);
    await model.close();
});

test('several choices differ by their seeds, a seed repeats them', async () => {
    const { model, create } = await open();
    const request = { messages: MESSAGES, max_tokens: 9, seed: 5, n: 3, temperature: 1 };
    const { choices, usage } = await create(request);
    assert.deepEqual(choices.map(({ message }) => message.content),
        [5, 6, 7].map((seed) => expected(PROMPT, 9, seed).text));
    assert.equal(usage.completion_tokens, 27);
    assert.equal(usage.prompt_tokens, PROMPT.length);
    const texts = ['', '', ''];
    for await (const { choices: [choice] } of await create({ ...request, stream: true })) {
        texts[choice.index] += choice.delta.content ?? '';
    }
    assert.deepEqual(texts, choices.map(({ message }) => message.content));
    await model.close();
});

test('messages are read in their forms', async () => {
    const { model, create } = await open();
    const content = async (messages, more = {}) => (await create({ messages, max_tokens: 4,
        temperature: 0, ...more })).choices[0].message.content;
    assert.equal(await content([{ role: 'user', content: [{ type: 'text', text: 'h' },
        { type: 'text', text: 'i' }] }]), expected(PROMPT, 4).text);
    assert.equal(await content([{ role: 'developer', content: 'hi' }]),
        expected(spelt('system hi answer '), 4).text);
    const tools = [{ type: 'function', function: { name: 'f' } }];
    assert.equal(await content(MESSAGES, { tools }),
        expected(spelt('user hi tools answer '), 4).text);
    assert.equal(await content(MESSAGES, { tools, tool_choice: 'none' }), expected(PROMPT, 4).text);
    await model.close();
});

test('calls of tools reach the template as it wants them', async () => {
    const { world, model, create } = await open();
    const seen = [];
    const { chatTokens } = world.engine;
    world.engine.chatTokens = (messages, options) => {
        seen.push(messages);
        return chatTokens.call(world.engine, messages, options);
    };
    const call = (said) =>
        ({ id: 'c', type: 'function', function: { name: 'f', arguments: said } });
    const messages = [...MESSAGES,
        { role: 'assistant', content: null, tool_calls: [call('{"x": [1]}'), call(''),
            call({ y: 2 })] },
        { role: 'tool', tool_call_id: 'c', content: '3' },
        { role: 'assistant', content: 'so', tool_calls: null }];
    await create({ messages, max_tokens: 1 });
    assert.deepEqual(seen[0][1].tool_calls, [{ x: [1] }, {}, { y: 2 }].map(call));
    assert.equal(seen[0][2].tool_call_id, 'c');
    assert.ok(!('tool_calls' in seen[0][3]));
    assert.equal(messages[1].tool_calls[0].function.arguments, '{"x": [1]}', "the caller's own");
    await model.close();
});

test('a stop text ends the answer', async () => {
    const { model, create } = await open();
    const { text } = expected(PROMPT, 20);
    for (const stop of [text.slice(4, 6), ['zzzz', text.slice(4, 6)]]) {
        const { choices: [choice] } = await create({ messages: MESSAGES, temperature: 0, stop });
        assert.equal(choice.finish_reason, 'stop');
        assert.equal(choice.message.content, text.slice(0, 4));
    }
    await model.close();
});

test('probabilities come in their shape', async () => {
    const { model, create } = await open();
    const request = { messages: MESSAGES, max_tokens: 3, temperature: 0, logprobs: true };
    const { choices: [{ logprobs, message }] } = await create({ ...request, top_logprobs: 2 });
    assert.equal(logprobs.content.length, 3);
    const [first] = logprobs.content;
    assert.equal(first.token, message.content[0]);
    assert.equal(first.logprob, -0.5);
    assert.deepEqual(first.bytes, [message.content.charCodeAt(0)]);
    assert.deepEqual(first.top_logprobs.map(({ token }) => token), ['a', 'b']);
    const { choices: [none] } = await create(request);
    assert.deepEqual(none.logprobs.content[0].top_logprobs, []);
    const chunks = await collect(await create({ ...request, top_logprobs: 1, stream: true }));
    const streamed = chunks.flatMap(({ choices: [choice] }) => choice.logprobs?.content ?? []);
    assert.deepEqual(streamed.map(({ token }) => token),
        logprobs.content.map(({ token }) => token));
    await model.close();
});

test('errors have the form of theirs', async () => {
    const { world, model, create } = await open();
    for (const [request, param, pattern, code = null] of [
        [undefined, 'request', /expected an object/],
        [{}, 'messages', /is missing/],
        [{ messages: [] }, 'messages', /at least 1 message/],
        [{ messages: [{ content: 'x' }] }, 'messages[0]', /a role/],
        [{ messages: [{ role: 'user', content: 5 }] }, 'messages[0].content', /a text or an array/],
        [{ messages: [{ role: 'user', content: [{ type: 'image_url' }] }] },
            'messages[0].content[0]', /is of type "image_url", only "text" is read/, 'unsupported'],
        [{ messages: MESSAGES, temperature: 3 }, 'temperature', /is 3, expected .* from 0 to 2/],
        [{ messages: MESSAGES, top_k: 'many' }, 'top_k', /expected/],
        [{ messages: MESSAGES, n: 0 }, 'n', /is 0/],
        [{ messages: MESSAGES, max_tokens: 1.5 }, 'max_tokens', /a whole number/],
        [{ messages: MESSAGES, stop: [''] }, 'stop', /none of them empty/],
        [{ messages: MESSAGES, stop: Array(17).fill('x') }, 'stop', /has 17 texts, at most 16/],
        [{ messages: MESSAGES, stop: 'ä'.repeat(129) }, 'stop', /258 bytes, expected 1 to 256/],
        [{ messages: MESSAGES, stop: 'a\0' }, 'stop', /none 0/],
        [{ messages: MESSAGES, stream: 'yes' }, 'stream', /true or false/],
        [{ messages: MESSAGES, stream: true, stream_options: { include_usage: 1 } },
            'stream_options.include_usage', /is 1, expected true or false/],
        [{ messages: [{ role: 'assistant', tool_calls: {} }] }, 'messages[0].tool_calls',
            /an array/],
        [{ messages: [{ role: 'assistant', tool_calls: [{ function: {} }] }] },
            'messages[0].tool_calls[0].function', /with a name/],
        [{ messages: [{ role: 'assistant',
            tool_calls: [{ function: { name: 'f', arguments: '[1' } }] }] },
        'messages[0].tool_calls[0].function.arguments', /a JSON object/],
        [{ messages: MESSAGES, top_logprobs: 2 }, 'top_logprobs', /needs "logprobs": true/],
        [{ messages: MESSAGES, logprobs: true, top_logprobs: 21 }, 'top_logprobs', /is 21/],
        [{ messages: MESSAGES, stream_options: {} }, 'stream_options', /needs "stream": true/],
        [{ messages: MESSAGES, response_format: { type: 'json_object' } }, 'response_format',
            /"json_object", only "text"/, 'unsupported'],
        [{ messages: MESSAGES, logit_bias: { 5: 1 } }, 'logit_bias', /is not done/, 'unsupported'],
        [{ messages: MESSAGES, tool_choice: 'required' }, 'tool_choice', /"required"/,
            'unsupported'],
        [{ messages: MESSAGES, constructor: 1 }, 'constructor', /is not done/, 'unknown_parameter'],
    ]) {
        const error = await create(request).catch((thrown) => thrown);
        assert.ok(error instanceof ApiError, `${param}: ${error}`);
        assert.match(error.message, pattern);
        assert.deepEqual(error.error,
            { message: error.message, type: 'invalid_request_error', param, code });
        assert.deepEqual([error.status, error.param, error.code], [400, param, code]);
    }
    for (const [status, http, type, code] of [
        ['limit', 400, 'invalid_request_error', 'context_length_exceeded'],
        ['memory', 503, 'server_error', 'out_of_memory'],
        ['device', 503, 'server_error', 'device_unavailable'],
        ['argument', 400, 'invalid_request_error', null],
        ['internal', 500, 'server_error', 'internal_error'],
    ]) {
        world.engine.evaluate = async () => { throw makeError(status, 'what failed'); };
        for (const stream of [false, true]) {
            const error = await create({ messages: MESSAGES, stream })
                .then((answer) => (stream ? collect(answer) : answer)).catch((thrown) => thrown);
            assert.deepEqual([error.status, error.type, error.code, error.message],
                [http, type, code, 'what failed']);
            assert.equal(error.cause.status, status);
        }
    }
    await model.close();
});

test('a signal, leaving the loop and the controller stop it', async () => {
    const { world, model, create } = await open();
    const control = new AbortController();
    const waiting = create({ messages: MESSAGES, temperature: 0 }, { signal: control.signal });
    setTimeout(() => control.abort(), 10);
    await assert.rejects(waiting, { name: 'AbortError', status: 'cancelled' });
    await assert.rejects(create({ messages: MESSAGES }, { signal: AbortSignal.abort() }),
        { name: 'AbortError' });
    let n = 0;
    for await (const chunk of await create({ messages: MESSAGES, stream: true, n: 2 })) {
        if (++n > 4) break;
        assert.ok(chunk.choices[0]);
    }
    const stream = await create({ messages: MESSAGES, stream: true });
    await assert.rejects(async () => {
        for await (const chunk of stream) {
            if (chunk.choices[0].delta.content) stream.controller.abort();
        }
    }, { name: 'AbortError' });
    await model.generate('x', { maxTokens: 1 }); // what was cancelled has ended by now
    assert.equal(world.running, 0);
    await model.close();
});
