// @ts-check
/**
 * What the worker does for the page: a method of Host for each call of protocol.js, over one engine
 * (life.js) and the sessions of its model (places.js).
 */
import { ArgumentError, asError } from './errors.js';
import { Answer } from './answer.js';
import { Life, SESSIONS } from './life.js';
import { Places } from './places.js';
import { isMessages } from './protocol.js';

const CLOSE_MS = 1000; // running calls have this long to notice that they are cancelled

/**
 * @typedef {import('./life.js').Data} Data
 * @typedef {import('./life.js').Call} Call
 * @typedef {import('./life.js').Parts} Parts
 * @typedef {import('./live.js').Live} Live
 * @typedef {import('./places.js').Session} Session
 * @typedef {{began: number, readAt: number, nPrompt: number, nCached: number, finish: string,
 *     recoveries: number}} Run what is measured of a generation; `readAt`: when the prompt's turn
 *     came; times in milliseconds
 */

export class Host {
    /** @param {Parts} parts @param {(message: Data) => void} tell messages that answer no call */
    constructor(parts, tell) {
        this.parts = parts;
        /** @type {Places} */
        this.places = new Places(() => this.life,
            () => this.life.wanted?.options.sessions ?? SESSIONS);
        /** @type {Life} */
        this.life = new Life(parts, tell, this.places);
    }

    /** @param {Call} call @param {Data} args */
    load(call, { source, options }) {
        return this.life.load(call, source, options);
    }

    // ---- text -----------------------------------------------------------------------------------

    /** @param {Call} call @param {Data} args */
    tokenize(call, { text, addSpecial = true, parseSpecial = false }) {
        return this.life.use(call.signal, async ({ engine }) =>
            Array.from(engine.tokenize(text, { addSpecial, parseSpecial })));
    }

    /** @param {Call} call @param {Data} args */
    detokenize(call, { tokens, special = false }) {
        return this.life.use(call.signal, async ({ engine }) =>
            engine.detokenize(checkTokens(tokens, engine), { special }));
    }

    /** @param {Call} call @param {Data} args */
    template(call, { messages, options }) {
        return this.life.use(call.signal, async ({ engine }) =>
            engine.template(messages, templateOptions(options)));
    }

    /** @param {Call} call @param {Data} args */
    chatTokens(call, { messages, options }) {
        return this.life.use(call.signal, async ({ engine }) =>
            Array.from(engine.chatTokens(messages, templateOptions(options))));
    }

    // ---- sessions -------------------------------------------------------------------------------

    /** @param {Call} call */
    async newSession(call) {
        return (await this.places.take(call.signal, null)).id;
    }

    /** @param {Call} call @param {Data} args */
    closeSession(call, { session }) {
        return this.places.close(session);
    }

    /** @param {Call} call @param {Data} args */
    sessionTokens(call, { session: id }) {
        return this.places.withOwned(call.signal, id, async (session) => session.tokens.slice());
    }

    /** Appends to a session; how many tokens it has then. @param {Call} call @param {Data} args */
    evaluate(call, { session: id, prompt }) {
        return this.places.withOwned(call.signal, id, async (session, signal) => {
            const before = session.tokens;
            return this.life.use(signal, async (live) => {
                const addSpecial = before.length === 0;
                const tokens = before.concat(promptTokens(live, prompt, { addSpecial }));
                if (tokens.length > 0) await this.places.settle(live, session, tokens, signal);
                return tokens.length;
            });
        });
    }

    /** @param {Call} call @param {Data} args */
    rewind(call, { session: id, n }) {
        return this.places.withOwned(call.signal, id, async (session, signal) => {
            const held = session.tokens.length;
            if (n > held) throw new ArgumentError(`rewind to ${n}: the session has ${held} tokens`);
            await this.life.use(signal, async ({ engine }) => {
                if (n < held) engine.rewind(session.handle, n);
            });
            session.tokens = session.tokens.slice(0, n);
            session.hasLogits &&= n === held;
        });
    }

    /** @param {Call} call @param {Data} args */
    async logits(call, { session: id, prompt }) {
        const read = (/** @type {Session} */ session, /** @type {AbortSignal} */ signal,
            /** @type {any} */ what) => this.life.use(signal, async (live) => {
            const tokens = what === null ? session.tokens : promptTokens(live, what, {});
            refuseEmpty(tokens);
            await this.places.settle(live, session, tokens, signal);
            return await live.wait(live.engine.logits(session.handle));
        });
        if (id !== undefined) {
            return this.places.withOwned(call.signal, id, (session, signal) =>
                read(session, signal, prompt));
        }
        const tokens = await this.newPrompt(call, prompt, {});
        return this.places.borrow(call.signal, tokens, (session) =>
            read(session, call.signal, tokens));
    }

    // ---- answers --------------------------------------------------------------------------------

    /** @param {Call} call @param {Data} args */
    async generate(call, { session: id, prompt, options }) {
        const { now } = this.life;
        const answer = new Answer(engineOptions(options), call.piece, now);
        /** @type {Run} */
        const run = {
            began: now(), readAt: 0, nPrompt: 0, nCached: 0, finish: 'cancelled',
            recoveries: this.life.recoveries,
        };
        try {
            if (id !== undefined) {
                await this.places.withOwned(call.signal, id, (session, signal) =>
                    this.answer(session, signal, prompt, options, answer, run));
            } else {
                const tokens = await this.newPrompt(call, prompt, options);
                await this.places.borrow(call.signal, tokens, (session) =>
                    this.answer(session, call.signal, tokens, options, answer, run));
            }
        } catch (error) {
            if (asError(error).status !== 'cancelled') throw error;
            run.finish = 'cancelled';
        }
        run.recoveries = this.life.recoveries - run.recoveries;
        return report(answer, run, now());
    }

    /** @param {Call} call @param {any} prompt @param {Data} options */
    async newPrompt(call, prompt, options) {
        if (prompt === null) throw new ArgumentError('prompt: there is none, nor a session');
        const tokens = await this.life.use(call.signal, async (live) =>
            promptTokens(live, prompt, options));
        return refuseEmpty(tokens);
    }

    /**
     * Evaluates a prompt in a session and writes the answer behind it.
     * @param {Session} session @param {AbortSignal} signal @param {any} prompt null: what it holds
     * @param {Data} options @param {Answer} answer @param {Run} run
     */
    async answer(session, signal, prompt, options, answer, run) {
        /** @type {number[]|null} */
        let base = prompt === null ? session.tokens : null;
        for (let over = false; !over;) {
            over = await this.life.use(signal, async (live) => {
                base ??= promptTokens(live, prompt, options);
                refuseEmpty(base);
                const first = run.readAt === 0;
                run.readAt ||= this.life.now();
                const { held, options: how } = answer.resume();
                const kept = await this.places.settle(live, session, base.concat(held), signal);
                if (first) Object.assign(run, { nPrompt: base.length, nCached: kept });
                return this.write(live, session, how, signal, answer, run);
            });
        }
    }

    /**
     * Lets the engine generate and hands on what it writes. False: the cache of keys and values was
     * full, and there is room now.
     * @param {Live} live @param {Session} session @param {Data} how @param {AbortSignal} signal
     * @param {Answer} answer @param {Run} run @returns {Promise<boolean>}
     */
    async write(live, session, how, signal, answer, run) {
        session.hasLogits = false;
        try {
            run.finish = await drain(live, session, { ...how, signal }, answer);
        } catch (error) {
            if (live.reason === null) this.places.note(live, session);
            if (live.reason === null && this.places.makeRoom(error)) return false;
            throw error;
        }
        if (live.reason === null) {
            this.places.note(live, session);
            session.hasLogits = run.finish !== 'cancelled';
        }
        return true;
    }

    // ---- the rest -------------------------------------------------------------------------------

    /** @param {Call} call */
    async stats(call) {
        const { engine } = await this.life.alive(call.signal);
        const { all, idle } = this.places;
        return {
            ...engine.stats(), recoveries: this.life.recoveries,
            sessions: all.size, idleSessions: idle.length,
        };
    }

    /** For tests: what a crashed driver does. @param {Call} call */
    async loseDevice(call) {
        const { engine } = await this.life.alive(call.signal);
        engine.loseDevice();
    }

    async cacheList() {
        return Array.from(await (await this.parts.openCache()).list());
    }

    /** @param {Call} call @param {Data} args */
    async cacheRemove(call, { name }) {
        return { ...(await (await this.parts.openCache()).remove(name)) };
    }

    async cachePurge() {
        return { ...(await (await this.parts.openCache()).purge()) };
    }

    async cacheEstimate() {
        return { ...(await (await this.parts.openCache()).estimate()) };
    }

    /** Frees everything. @param {Promise<any>} others the calls that run, cancelled by now */
    async close(others) {
        this.life.end();
        await Promise.race([others, this.life.sleep(CLOSE_MS)]);
        this.places.clear();
        await this.life.close();
    }
}

/**
 * Gives the answer what the engine writes, to its end, and says how it ended.
 * @param {Live} live @param {Session} session @param {Data} options @param {Answer} answer
 * @returns {Promise<string>}
 */
async function drain(live, session, options, answer) {
    const stream = live.engine.generate(session.handle, options)[Symbol.asyncIterator]();
    for (;;) {
        const { done, value } = await live.wait(/** @type {Promise<any>} */ (stream.next()));
        if (done) return value.finish;
        answer.take(live.engine, value);
    }
}

/** @param {Live} live @param {any} prompt @param {Data} options @returns {number[]} */
function promptTokens({ engine }, prompt, options) {
    if (typeof prompt === 'string') {
        const { addSpecial = true, parseSpecial = false } = options;
        return Array.from(engine.tokenize(prompt, { addSpecial, parseSpecial }));
    }
    if (!isMessages(prompt)) return checkTokens(prompt, engine);
    return Array.from(engine.chatTokens(prompt, templateOptions(options)));
}

/** @param {any} prompt @param {any} engine @returns {number[]} */
function checkTokens(prompt, engine) {
    const size = engine.modelInfo?.vocabSize ?? Infinity;
    const tokens = /** @type {number[]} */ (Array.from(prompt));
    const wrong = tokens.findIndex((token) => token >= size);
    if (wrong >= 0) {
        throw new ArgumentError(`token ${wrong}: is ${tokens[wrong]}, the vocabulary has ${size}`);
    }
    return tokens;
}

/** @param {number[]} tokens */
function refuseEmpty(tokens) {
    if (tokens.length === 0) throw new ArgumentError('prompt: has no tokens, at least 1 is needed');
    return tokens;
}

/** @param {Data} options */
function templateOptions({ tools, variables, chatTemplate, now, generationPrompt = true }) {
    return { tools, variables, chatTemplate, now, generationPrompt };
}

/** The engine's own part of the options, with a seed that is known. @param {Data} options */
function engineOptions(options) {
    const {
        tools, variables, chatTemplate, now, generationPrompt, addSpecial, parseSpecial, ...rest
    } = options;
    return { ...rest, seed: rest.seed ?? randomSeed(), stop: rest.stop ?? [] };
}

/** @returns {number} */
function randomSeed() {
    const [high, low] = globalThis.crypto.getRandomValues(new Uint32Array(2));
    return (high & 0xfffff) * 2 ** 32 + low; // 52 bits: exact as a number
}

/** @param {number} n @param {number} seconds */
const perSecond = (n, seconds) => (seconds > 0 ? n / seconds : 0);

/** @param {Answer} answer @param {Run} run @param {number} end */
function report(answer, run, end) {
    const { tokens, text, options } = answer;
    const { nPrompt, nCached, finish, recoveries, began } = run;
    const readAt = run.readAt || end;
    const firstAt = answer.firstAt || end;
    const promptSeconds = (firstAt - readAt) / 1000;
    // What came with the first piece took the prompt's time.
    const later = tokens.length - answer.firstTokens;
    const rate = later > 0 ? perSecond(later, (end - firstAt) / 1000)
        : perSecond(tokens.length, (end - readAt) / 1000);
    const result = {
        text, tokens, finish, recoveries, seed: options.seed,
        usage: {
            promptTokens: nPrompt, cachedTokens: nCached,
            completionTokens: tokens.length, totalTokens: nPrompt + tokens.length,
        },
        timings: {
            promptSeconds,
            firstSeconds: (firstAt - began) / 1000,
            seconds: (end - began) / 1000,
            promptPerSecond: perSecond(nPrompt - nCached, promptSeconds),
            tokensPerSecond: rate,
        },
    };
    return options.logprobs ? { ...result, logprobs: answer.logprobs } : result;
}
