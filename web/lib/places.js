// @ts-check
/**
 * The sessions of a model: who has one of its places, and what each holds.
 *
 * Every session has its tokens here as well as in the engine; what an operation adds is noted when
 * the operation is over. So a lost device is answered by evaluating the tokens of every session on
 * the next one and doing again what was under way. A session does one thing at a time, different
 * sessions run at once. Sessions that no call uses keep their keys and values until their place or
 * the room is wanted: the next prompt that begins like one of them need not be read again.
 */
import { ArgumentError, asError, CancelledError, LimitError } from './errors.js';
import { anyOf, Turns, unlessAborted } from './live.js';

/**
 * @typedef {import('./live.js').Live} Live
 * @typedef {import('./life.js').Life} Life
 */

/** A token sequence: the engine's session and what it takes to make it again. */
export class Session {
    /** @param {number} id @param {boolean} owned by the page; others serve one call at a time */
    constructor(id, owned) {
        this.id = id;
        this.owned = owned;
        /** @type {any} the engine's, of the engine that lives */
        this.handle = null;
        /** @type {number[]} */
        this.tokens = [];
        this.hasLogits = false; // of the last of `tokens`
        this.turns = new Turns();
        this.ended = new AbortController();
    }
}

/** @param {ArrayLike<number>} a @param {ArrayLike<number>} b @returns {number} */
function commonPrefix(a, b) {
    const most = Math.min(a.length, b.length);
    let n = 0;
    while (n < most && a[n] === b[n]) n++;
    return n;
}

export class Places {
    /** @param {() => Life} life @param {() => number} most places */
    constructor(life, most) {
        this.life = life;
        this.most = most;
        this.nextId = 1;
        /** @type {Map<number, Session>} all that have a place */
        this.all = new Map();
        /** @type {Session[]} that no call uses, the longest unused first */
        this.idle = [];
        /** @type {(() => void)[]} calls that wait for a place */
        this.waiting = [];
    }

    // ---- what Life asks when a device goes ------------------------------------------------------

    /** The engine is gone, and with it what idle sessions were kept for. */
    forget() {
        for (const session of this.all.values()) session.handle = null;
        this.dropIdle();
    }

    /** Gives every session its tokens back. @param {Live} live @param {AbortSignal} signal */
    async replay(live, signal) {
        const { engine } = live;
        for (const session of this.all.values()) {
            const handle = engine.newSession();
            session.handle = handle;
            session.hasLogits = session.tokens.length > 0;
            if (session.hasLogits) {
                await live.wait(engine.evaluate(handle, session.tokens, { signal }));
            }
            if (!this.all.has(session.id)) engine.freeSession(handle); // closed in the meantime
        }
    }

    // ---- places ---------------------------------------------------------------------------------

    /** @param {boolean} owned @param {Live} live @returns {Session} */
    make(owned, live) {
        const session = new Session(this.nextId, owned);
        session.handle = live.engine.newSession();
        this.nextId++;
        this.all.set(session.id, session);
        return session;
    }

    /** @param {Session} session */
    drop(session) {
        if (!this.all.delete(session.id)) return;
        this.idle = this.idle.filter((each) => each !== session);
        const { handle } = session;
        const { live } = this.life();
        session.handle = null;
        if (handle !== null && live?.reason === null) live.engine.freeSession(handle);
        this.waiting.shift()?.();
    }

    dropIdle() {
        for (const session of [...this.idle]) this.drop(session);
    }

    /**
     * A session as soon as there is a place: an idle one that begins with `tokens`, or a new one.
     * @param {AbortSignal} signal @param {number[]|null} tokens null: for the page to own
     * @returns {Promise<Session>}
     */
    async take(signal, tokens) {
        for (;;) {
            const live = await this.life().alive(signal);
            if (live.reason !== null) continue;
            const shared = tokens && this.takeIdle(tokens);
            if (shared) return shared;
            if (this.all.size < this.most()) return this.make(tokens === null, live);
            if (this.idle.length > 0) {
                this.drop(this.idle[0]);
                continue;
            }
            if ([...this.all.values()].every((each) => each.owned)) {
                throw new LimitError(`all ${this.most()} sessions are taken: close one, or load ` +
                    'the model with more');
            }
            await this.waitForOne(signal);
        }
    }

    /** @param {AbortSignal} signal */
    async waitForOne(signal) {
        /** @type {() => void} */
        let wake = () => {};
        const turn = new Promise((resolve) => { wake = () => resolve(undefined); });
        this.waiting.push(wake);
        try {
            await unlessAborted(turn, signal);
        } catch (error) {
            if (!this.waiting.includes(wake)) this.waiting.shift()?.(); // its turn goes to the next
            this.waiting = this.waiting.filter((each) => each !== wake);
            throw error;
        }
    }

    /**
     * The idle session that shares most with `tokens`, unless more of it would be lost than kept.
     * @param {number[]} tokens @returns {Session|null}
     */
    takeIdle(tokens) {
        /** @type {Session|null} */
        let best = null;
        let most = 0;
        for (const session of this.idle) {
            const shared = commonPrefix(session.tokens, tokens);
            if (shared > most) [best, most] = [session, shared];
        }
        if (!best || most * 2 < best.tokens.length) return null;
        this.idle = this.idle.filter((each) => each !== best);
        return best;
    }

    /**
     * Lends a session for one piece of work.
     * @template T @param {AbortSignal} signal @param {number[]} tokens that it should begin with
     * @param {(session: Session) => Promise<T>} work @returns {Promise<T>}
     */
    async borrow(signal, tokens, work) {
        const session = await this.take(signal, tokens);
        try {
            const result = await work(session);
            if (session.handle === null) this.drop(session); // its engine went, nobody waits for it
            else this.idle.push(session);
            this.waiting.shift()?.();
            return result;
        } catch (error) {
            this.drop(session);
            throw error;
        }
    }

    /** @param {number} id @returns {Session} one of the page's */
    owned(id) {
        const session = this.all.get(id);
        if (!session?.owned || session.ended.signal.aborted) {
            throw new ArgumentError(`session ${id}: there is none, or it was closed`);
        }
        return session;
    }

    /**
     * One thing at a time with a session of the page's; stops when the session is closed.
     * @template T @param {AbortSignal} signal @param {number} id
     * @param {(session: Session, signal: AbortSignal) => Promise<T>} work @returns {Promise<T>}
     */
    async withOwned(signal, id, work) {
        const session = this.owned(id);
        const both = anyOf(signal, session.ended.signal);
        try {
            return await session.turns.take(both.signal, () => work(session, both.signal));
        } finally {
            both.release();
        }
    }

    /** @param {number} id */
    async close(id) {
        const session = this.owned(id);
        session.ended.abort(new CancelledError('the session was closed'));
        await session.turns.take(undefined, async () => this.drop(session));
    }

    // ---- tokens ---------------------------------------------------------------------------------

    /**
     * Makes the session hold exactly these tokens, and logits of the last; keeps what it shares
     * with them. How many it kept.
     * @param {Live} live @param {Session} session @param {number[]} tokens at least one
     * @param {AbortSignal} signal @returns {Promise<number>}
     */
    async settle(live, session, tokens, signal) {
        const { engine } = live;
        const held = engine.sessionTokens(session.handle);
        const shared = commonPrefix(held, tokens);
        if (shared === held.length && shared === tokens.length && session.hasLogits) return shared;
        const kept = Math.min(shared, tokens.length - 1); // the last one's logits are wanted
        session.hasLogits = false;
        if (kept < held.length) engine.rewind(session.handle, kept);
        session.tokens = tokens.slice(0, kept);
        await this.append(live, session, tokens, signal);
        session.tokens = tokens.slice();
        session.hasLogits = true;
        return kept;
    }

    /**
     * Appends what is missing of `tokens`. All sessions share one cache of keys and values: if it
     * is full, idle ones give theirs up.
     * @param {Live} live @param {Session} session @param {number[]} tokens
     * @param {AbortSignal} signal
     */
    async append(live, session, tokens, signal) {
        const { engine } = live;
        for (;;) {
            const { length } = engine.sessionTokens(session.handle);
            try {
                await live.wait(engine.evaluate(session.handle, tokens.slice(length), { signal }));
                return;
            } catch (error) {
                if (live.reason !== null || !this.makeRoom(error)) throw error;
            }
        }
    }

    /** @param {unknown} error @returns {boolean} whether trying again makes sense */
    makeRoom(error) {
        if (asError(error).status !== 'memory' || this.idle.length === 0) return false;
        this.drop(this.idle[0]);
        return true;
    }

    /** What the engine says that a session holds. @param {Live} live @param {Session} session */
    note(live, session) {
        session.tokens = Array.from(live.engine.sessionTokens(session.handle));
    }

    /** Everything is over; nothing is freed one by one. */
    clear() {
        this.all.clear();
        this.idle = [];
        for (const wake of this.waiting.splice(0)) wake();
    }
}
