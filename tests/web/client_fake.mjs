// An engine and a store that are none, for client*.test.mjs: the interfaces of engine.js and
// store.js, with a model that is a formula. Tokens are letters of a text that depends on the tokens
// before, so an answer on a wrong prefix is another answer. Faults are asked for by hand.

export const MODEL = { name: 'letters', vocabSize: 64, context: 100_000, chatTemplate: '...' };
const STOP = 0; // ends an answer
const LETTERS = 'abcdefghijklmnopqrstuvwxyz ';

export const later = (ms = 0) => new Promise((resolve) => {
    if (ms > 0) setTimeout(resolve, ms);
    else setImmediate(resolve);
});

/** Failures as the engine's own: with a status. */
export class Fault extends Error {
    constructor(status, message) {
        super(message);
        this.status = status;
    }
}

/** The next token after `tokens`; `draw` is the number of the draw, `seed` 0 if greedy. */
const nextToken = (tokens, seed, draw) => {
    let hash = 17 + (seed === 0 ? 0 : seed * 31 + draw);
    for (const token of tokens.slice(-64)) {
        hash = (Math.imul(hash, 16777619) ^ token) >>> 0;
    }
    hash ^= hash >>> 15;
    return 1 + (hash >>> 3) % LETTERS.length;
};

/** What all fake engines of a test share: what was asked of them, and what shall fail. */
export class World {
    constructor({ makeError, step = 3, poolTokens = Infinity, cancelled } = {}) {
        this.makeError = makeError;
        this.cancelled = cancelled;
        this.step = step; // tokens to a piece
        this.poolTokens = poolTokens; // that all sessions hold together
        this.engines = [];
        this.opened = []; // sources
        this.calls = []; // of engines, by name
        this.evaluated = 0; // tokens
        this.closedFiles = 0;
        this.prefetched = 0;
        this.finished = 0; // files whose rest was asked for
        this.finishGate = null; // which waits for this promise
        this.running = 0; // generations
        this.mostRunning = 0;
        this.failOpen = []; // errors that the next Engine.open throw
        this.failModel = [];
        this.failTest = [];
        this.failSource = [];
        this.loseAfter = []; // of each engine in turn: tokens generated until its device goes
        this.loseAtEnd = 0; // generations that end with their device
        this.endAfter = Infinity; // tokens of an answer
        this.hours = 0; // that have passed
        this.lateLoss = false; // calls fail before the device says that it is lost
        this.silentLoss = false; // calls of a lost engine never settle
        this.gate = null; // generations wait for this promise
        this.wasmGate = null; // and the wasm, an engine, its test and its kernels for these
        this.openGate = null;
        this.testGate = null;
        this.compileGate = null;
        this.evaluateGate = null; // and evaluations for this
        this.entries = [];
        this.modelName = 'letters';
    }

    get engine() {
        return this.engines.at(-1);
    }

    parts() {
        const world = this;
        return {
            Engine: { open: (options) => FakeEngine.open(world, options) },
            openSource: async (source, options) => {
                world.opened.push([source, options]);
                await later();
                const fault = world.failSource.shift();
                if (fault) throw fault;
                for (const loaded of [5, 3, 10, 10]) { // one piece was wrong
                    options.onProgress({ phase: 'download', loaded, total: 10, rate: 7 });
                }
                return {
                    path: '/model', name: 'source-name', totalBytes: 10, fromCache: false,
                    notes: ['a note'],
                    files: {
                        prefetch: () => world.prefetched++,
                        finish: async () => {
                            world.finished++;
                            await world.finishGate;
                        },
                        close: () => world.closedFiles++,
                    },
                };
            },
            openCache: async () => ({
                list: async () => world.entries,
                remove: async (name) => ({ removed: 1, bytes: name.length }),
                purge: async () => ({ removed: world.entries.length, bytes: 0 }),
                estimate: async () => ({ quota: 100, usage: 10, models: 5 }),
            }),
            wasm: async (url) => {
                world.calls.push(`wasm ${url}`);
                await world.wasmGate;
                return { module: true };
            },
            gpu: async () => ({ fake: true }),
            selfTest: async (engine, log) => {
                await world.testGate;
                const fault = world.failTest.shift();
                if (fault) throw fault;
                log(`${engine.deviceInfo.name} is good`);
            },
            modelUrl: (name) => `https://here/models/${name}/`,
            sleep: (ms) => later(ms / 10),
            now: () => performance.now() + world.hours * 3.6e6,
        };
    }
}

class FakeEngine {
    static async open(world, options) {
        await later();
        await world.openGate;
        const fault = world.failOpen.shift();
        if (fault) throw fault;
        const engine = new FakeEngine(world, options);
        world.engines.push(engine);
        return engine;
    }

    constructor(world, options) {
        this.world = world;
        this.options = options;
        this.resumes = true;
        this.sessions = new Map();
        this.nextSession = 0;
        this.closed = false;
        this.dead = false;
        this.generated = 0;
        this.loseAfter = world.loseAfter.shift() ?? Infinity;
        this.deviceInfo = { name: `fake ${world.engines.length}`, tier: 'f32', why: [] };
        this.modelInfo = null;
        this.lost = new Promise((resolve) => { this.tellLost = resolve; });
    }

    use(name) {
        this.world.calls.push(name);
        if (this.closed) throw this.world.makeError('argument', 'the engine is closed');
        if (this.dead) throw this.world.makeError('device', 'the device is lost');
    }

    loseDevice() {
        this.dead = true;
        const tell = () => this.tellLost('somebody pulled the plug');
        if (this.world.lateLoss) setTimeout(tell, 8);
        else tell();
    }

    async settle() {
        await later();
        if (this.dead && this.world.silentLoss) await new Promise(() => {});
        if (this.dead) throw this.world.makeError('device', 'the device is lost');
    }

    async openModel(files, path, options, { onProgress, signal }) {
        this.use('openModel');
        this.places = options.sessions;
        await later();
        const fault = this.world.failModel.shift();
        if (fault) throw fault;
        for (let done = 0; done <= 4; done++) {
            if (signal.aborted) throw this.world.cancelled(signal);
            onProgress(done, 4, 'upload');
            await this.settle();
        }
        onProgress(4, 4, 'compile');
        await this.world.compileGate;
        this.modelInfo = { ...MODEL, ...options, path, name: this.world.modelName };
    }

    tokenize(text, { addSpecial }) {
        this.use('tokenize');
        const tokens = [...text].map((letter) => 1 + Math.max(0, LETTERS.indexOf(letter)));
        return addSpecial ? [63, ...tokens] : tokens;
    }

    detokenize(tokens) {
        this.use('detokenize');
        return [...tokens].map((token) => LETTERS[token - 1] ?? '').join('');
    }

    template(messages, { tools, generationPrompt }) {
        this.use('template');
        if (messages.some(({ role }) => role === 'refused')) {
            throw this.world.makeError('argument', 'the template refuses: role refused');
        }
        const said = messages.map(({ role, content }) => `${role} ${content} `).join('');
        return `${said}${tools ? 'tools ' : ''}${generationPrompt ? 'answer ' : ''}`;
    }

    chatTokens(messages, options) {
        return this.tokenize(this.template(messages, options), { addSpecial: true });
    }

    newSession() {
        this.use('newSession');
        if (this.sessions.size >= this.places) throw this.world.makeError('limit', 'no place');
        this.sessions.set(++this.nextSession, { tokens: [], hasLogits: false });
        return this.nextSession;
    }

    session(handle) {
        const session = this.sessions.get(handle);
        if (!session) throw new Error(`no session ${handle}`);
        return session;
    }

    freeSession(handle) {
        this.session(handle);
        this.sessions.delete(handle);
    }

    sessionTokens(handle) {
        return this.session(handle).tokens.slice();
    }

    rewind(handle, n) {
        this.use('rewind');
        const session = this.session(handle);
        session.tokens.length = n;
        session.hasLogits = false;
    }

    get held() {
        return [...this.sessions.values()].reduce((sum, { tokens }) => sum + tokens.length, 0);
    }

    /** In two passes, the first of which stays if the second fails. */
    async evaluate(handle, tokens, { signal } = {}) {
        this.use('evaluate');
        await this.world.evaluateGate;
        const half = tokens.length >> 1;
        for (const part of [tokens.slice(0, half), tokens.slice(half)]) {
            await this.settle();
            if (signal?.aborted) throw this.world.cancelled(signal);
            if (this.held + part.length > this.world.poolTokens) {
                throw this.world.makeError('memory', 'the cache of keys and values is full');
            }
            this.session(handle).tokens.push(...part);
            this.world.evaluated += part.length;
        }
        if (tokens.length > 0) this.session(handle).hasLogits = true;
    }

    async logits(handle) {
        this.use('logits');
        const { tokens, hasLogits } = this.session(handle);
        if (!hasLogits) throw this.world.makeError('argument', 'there are no logits');
        await this.settle();
        return new Float32Array(MODEL.vocabSize).fill(nextToken(tokens, 0, 0));
    }

    async *generate(handle, options) {
        this.use('generate');
        const { world } = this;
        const { answered = [], maxTokens = 0, temperature = 0, signal } = options;
        const { stop = [], logprobs } = options;
        const seed = temperature > 0 ? options.seed : 0;
        const session = this.session(handle);
        if (!session.hasLogits) throw world.makeError('argument', 'there are no logits');
        const told = session.tokens.slice(session.tokens.length - answered.length);
        if (answered.length > 0 && String(told) !== String(answered)) {
            throw new Error('answered: the session holds something else');
        }
        world.mostRunning = Math.max(world.mostRunning, ++world.running);
        try {
            let all = '';
            let given = 0;
            let count = 0;
            const take = (tokens) => {
                all += this.detokenize(tokens);
                count += tokens.length;
                const found = stop.map((each) => all.indexOf(each)).filter((i) => i >= 0);
                const cut = Math.min(...found);
                const most = Math.max(0, ...stop.map((each) => each.length)) - 1;
                const sure = most > 0 ? Math.max(given, all.length - most) : all.length;
                const end = cut < Infinity ? cut : sure;
                const text = all.slice(given, end);
                given = Math.max(given, end);
                return { text, stopped: cut < Infinity };
            };
            if (answered.length > 0) {
                yield this.piece(take(answered).text, answered, logprobs);
            }
            for (;;) {
                if (world.gate) await world.gate;
                await later();
                if (signal?.aborted) return this.end('cancelled', count);
                const tokens = [];
                let finish = null;
                for (let i = 0; i < world.step && !finish; i++) {
                    if (maxTokens && count + tokens.length >= maxTokens) {
                        finish = 'length';
                        break;
                    }
                    if (count + tokens.length >= world.endAfter) {
                        tokens.push(STOP);
                        finish = 'stop';
                        break;
                    }
                    if (this.generated >= this.loseAfter) this.loseDevice();
                    await this.settleFast();
                    if (this.held >= world.poolTokens) {
                        throw world.makeError('memory', 'the cache of keys and values is full');
                    }
                    const token = nextToken(session.tokens, seed, count + tokens.length);
                    session.tokens.push(token);
                    tokens.push(token);
                    this.generated++;
                    const so = all + this.detokenize(tokens);
                    if (stop.some((each) => so.includes(each))) finish = 'stop';
                }
                const { text, stopped } = take(tokens);
                if (stopped) finish = 'stop';
                if (finish && !stopped) {
                    yield this.piece(text + all.slice(given), tokens, logprobs);
                } else if (text !== '' || tokens.length > 0) {
                    yield this.piece(text, tokens, logprobs);
                }
                if (finish && world.loseAtEnd > 0) {
                    world.loseAtEnd--;
                    this.loseDevice();
                    await this.settle();
                }
                if (finish) return this.end(finish, count);
            }
        } finally {
            world.running--;
        }
    }

    async settleFast() {
        if (this.dead) await this.settle();
    }

    piece(text, tokens, logprobs) {
        if (!logprobs) return { text, tokens };
        const top = Array.from({ length: logprobs },
            (_, i) => ({ token: i + 1, logprob: i ? -Infinity : -1 }));
        const row = (token) => ({ token, logprob: -0.5, top });
        return { text, tokens, logprobs: tokens.map(row) };
    }

    end(finish, count) {
        return { finish, count, seconds: 1, firstSeconds: 0.5 };
    }

    stats() {
        this.use('stats');
        return { submits: 7 };
    }

    async close() {
        await later();
        this.closed = true;
    }
}

/** What the fake writes to a prompt, computed without any engine. */
export const expected = (promptTokens, n, seed = 0) => {
    const tokens = [...promptTokens];
    for (let i = 0; i < n; i++) {
        tokens.push(nextToken(tokens, seed, i));
    }
    const answer = tokens.slice(promptTokens.length);
    return { tokens: answer, text: answer.map((token) => LETTERS[token - 1]).join('') };
};

/** Tokens of a text, with the one that begins a text. */
export const spelt = (text) => [63, ...[...text].map((letter) => 1 + LETTERS.indexOf(letter))];
