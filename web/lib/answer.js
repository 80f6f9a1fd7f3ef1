// @ts-check
/**
 * An answer as far as the page has it, and how to go on with it where the engine stopped: on a new
 * device, or after room was made.
 *
 * Invariant: text that has been given is never given again and never taken back.
 */

/** @typedef {import('./life.js').Data} Data */

const LEAST_LOGPROB = -1e9; // JSON and the protocol have no -Infinity

export class Answer {
    /**
     * @param {Data} options of the engine's generate, with a seed
     * @param {(piece: Data) => void} tell @param {() => number} now
     */
    constructor(options, tell, now) {
        this.options = options;
        this.tell = tell;
        this.now = now;
        /** @type {number[]} */
        this.tokens = [];
        this.text = '';
        /** @type {Data[]} */
        this.logprobs = [];
        this.firstAt = 0;
        this.firstTokens = 0; // that came with the first piece
        this.skipTokens = 0; // of those that come next: the page has them
        this.skipText = 0; // UTF-16 units
    }

    /**
     * What the engine must hold behind the prompt, and its options, for the answer to go on: it
     * tells what it holds of the answer again and draws on from there. The last token is always
     * drawn again, it comes out the same: it may be the one that ends the answer.
     * @returns {{held: number[], options: Data}}
     */
    resume() {
        const held = this.tokens.slice(0, -1);
        this.skipTokens = this.tokens.length;
        this.skipText = this.text.length;
        const options = held.length > 0 ? { ...this.options, answered: held } : this.options;
        return { held, options };
    }

    /**
     * Takes a piece of the engine's and gives the page what it does not have.
     * @param {any} engine @param {Data} piece
     */
    take(engine, piece) {
        const oldTokens = Math.min(this.skipTokens, piece.tokens.length);
        const oldText = Math.min(this.skipText, piece.text.length);
        this.skipTokens -= oldTokens;
        this.skipText -= oldText;
        /** @type {Data} */
        const fresh = {
            text: piece.text.slice(oldText),
            tokens: Array.from(piece.tokens).slice(oldTokens),
        };
        if (piece.logprobs) {
            fresh.logprobs = piece.logprobs.slice(oldTokens)
                .map((/** @type {Data} */ each) => spellLogprob(engine, each));
        }
        if (fresh.text !== '' || fresh.tokens.length > 0) this.give(fresh);
    }

    /** @param {Data} piece */
    give(piece) {
        if (this.firstAt === 0) {
            this.firstAt = this.now();
            this.firstTokens = piece.tokens.length;
        }
        this.text += piece.text;
        this.tokens.push(...piece.tokens);
        if (piece.logprobs) this.logprobs.push(...piece.logprobs);
        this.tell(piece);
    }
}

/**
 * The engine's probability of a token with the token's text.
 * @param {any} engine @param {Data} each @returns {Data}
 */
function spellLogprob(engine, each) {
    const spell = (/** @type {Data} */ { token, logprob }) => ({
        token,
        text: engine.detokenize([token], { special: true }),
        logprob: Number.isFinite(logprob) ? logprob : LEAST_LOGPROB,
    });
    return { ...spell(each), top: (each.top ?? []).map(spell) };
}
