// @ts-check
/**
 * Conversations: what was asked and answered, its places in the document, and its export. One
 * list of entries for the chat and one for plain texts; they outlive a reload of the tab and end
 * with it.
 *
 * An entry's text is the truth, the document shows it: `append` changes the one and shows the other
 * at most once a frame.
 */
import { setText, showBlocks, showCount, showRate, showSeconds } from './text.js';

const STORE = 'doppler.talks';
const ENTRIES_KEPT = 200;

/**
 * @typedef {'chat'|'text'} Mode
 * @typedef {{tokens: number, seconds: number, firstSeconds: number, rate: number, seed: number,
 *     finish: string, model: string}} Facts
 * @typedef {{ask: string, answer: string, facts: Facts | null}} Entry
 * @typedef {{title: string, text: string, advice: string}} Fault
 */

/** @param {any} value @returns {Entry | null} */
function entryOf(value) {
    if (typeof value?.ask !== 'string' || typeof value?.answer !== 'string') return null;
    return { ask: value.ask, answer: value.answer, facts: factsOf(value.facts) };
}

/** @param {any} value @returns {Facts | null} */
function factsOf(value) {
    if (typeof value !== 'object' || value === null) return null;
    const number = (/** @type {unknown} */ n) => (typeof n === 'number' ? n : 0);
    return {
        tokens: number(value.tokens), seconds: number(value.seconds),
        firstSeconds: number(value.firstSeconds), rate: number(value.rate),
        seed: number(value.seed), finish: `${value.finish}`.slice(0, 20),
        model: `${value.model}`.slice(0, 80),
    };
}

/** @returns {{chat: Entry[], text: Entry[]}} */
export function storedTalks() {
    /** @type {{chat: Entry[], text: Entry[]}} */
    const talks = { chat: [], text: [] };
    try {
        const value = JSON.parse(sessionStorage.getItem(STORE) ?? '{}');
        for (const mode of /** @type {Mode[]} */ (['chat', 'text'])) {
            if (!Array.isArray(value?.[mode])) continue;
            talks[mode] = value[mode].slice(-ENTRIES_KEPT).map(entryOf).filter((e) => e !== null);
        }
    } catch {
        /* storage is off, or holds something else: nothing is kept */
    }
    return talks;
}

/** @param {{chat: Entry[], text: Entry[]}} talks */
export function keepTalks(talks) {
    try {
        sessionStorage.setItem(STORE, JSON.stringify(talks));
    } catch {
        /* storage is off or full: they last until the tab is reloaded */
    }
}

/**
 * The messages of a conversation up to and with an entry.
 * @param {Entry[]} entries @param {number} last @param {string} system
 */
export function messagesOf(entries, last, system) {
    const messages = [];
    if (system.trim() !== '') messages.push({ role: 'system', content: system });
    entries.slice(0, last + 1).forEach((entry, i) => {
        messages.push({ role: 'user', content: entry.ask });
        if (i < last) messages.push({ role: 'assistant', content: entry.answer });
    });
    return messages;
}

/** @param {Facts} facts */
function numbersOf(facts) {
    const parts = [
        `${showCount(facts.tokens)} tokens`, showRate(facts.rate),
        `first after ${showSeconds(facts.firstSeconds)}`, `seed ${facts.seed}`,
    ];
    if (facts.finish === 'length') parts.push('cut at the most tokens');
    if (facts.finish === 'cancelled') parts.push('stopped');
    return parts.join(' · ');
}

/**
 * @param {string} words @param {() => void} act @param {string} name what tests find it by
 */
function button(words, act, name) {
    const node = document.createElement('button');
    node.type = 'button';
    node.className = `quiet small ${name}`;
    node.textContent = words;
    node.addEventListener('click', act);
    return node;
}

/** An entry's place in the document. */
export class EntryView {
    /**
     * @param {Entry} entry @param {Mode} mode
     * @param {{copy: (text: string) => void, again: () => void, more: () => void}} acts
     */
    constructor(entry, mode, acts) {
        this.entry = entry;
        this.mode = mode;
        this.acts = acts;
        this.writing = false;
        this.due = false;
        /** @type {(() => void) | null} called when the document has changed */
        this.onShown = null;
        this.node = document.createElement('article');
        this.node.className = 'entry';
        this.foot = document.createElement('footer');
        this.node.append(...(mode === 'chat' ? this.makeChat() : this.makeProse()), this.foot);
        this.show();
    }

    makeChat() {
        const ask = document.createElement('div');
        this.answer = document.createElement('div');
        ask.className = 'ask';
        this.answer.className = 'answer';
        ask.append(unseen('You: '), this.entry.ask);
        return [ask, unseen('Model: '), this.answer];
    }

    makeProse() {
        const prose = document.createElement('div');
        const given = document.createElement('span');
        this.answer = document.createElement('span');
        prose.className = 'prose';
        given.className = 'given';
        given.textContent = this.entry.ask;
        prose.append(given, this.answer);
        return [prose];
    }

    /** Text has come: shown with the next frame, or soon where frames have stopped. */
    touch() {
        if (this.due) return;
        this.due = true;
        const show = () => {
            this.due = false;
            this.show();
            this.onShown?.();
        };
        if (document.hidden) setTimeout(show, 250);
        else requestAnimationFrame(show);
    }

    show() {
        const { answer } = this;
        if (!answer) return;
        if (this.mode === 'chat') showBlocks(answer, this.entry.answer);
        else setText(answer, this.entry.answer);
        this.mark();
    }

    /** The sign that text is coming stands behind the last character. */
    mark() {
        this.node.querySelector('.writing')?.classList.remove('writing');
        if (!this.writing) return;
        const end = this.mode === 'chat' ? this.answer?.lastElementChild : null;
        (end?.querySelector('code') ?? end ?? this.answer)?.classList.add('writing');
    }

    /** @param {boolean} writing */
    setWriting(writing) {
        this.writing = writing;
        this.node.ariaBusy = `${writing}`;
        this.show();
    }

    /**
     * Buttons and numbers beneath.
     * @param {{last: boolean, more: boolean}} allowed whether it is the last, and can be continued
     */
    showFoot({ last, more }) {
        const { entry, acts } = this;
        this.foot.replaceChildren();
        if (this.writing) return;
        const whole = () => (this.mode === 'chat' ? entry.answer : entry.ask + entry.answer);
        if (entry.answer !== '') this.foot.append(button('Copy', () => acts.copy(whole()), 'copy'));
        if (last) this.foot.append(button('Regenerate', acts.again, 'again'));
        if (more) this.foot.append(button('Continue', acts.more, 'more'));
        if (!entry.facts) return;
        const numbers = document.createElement('span');
        numbers.className = 'numbers';
        numbers.textContent = numbersOf(entry.facts);
        this.foot.append(numbers);
    }

    /** @param {Fault | null} fault */
    showFault(fault) {
        this.node.querySelector('.fault')?.remove();
        if (!fault) return;
        const box = document.createElement('div');
        box.className = 'fault';
        box.setAttribute('role', 'alert');
        for (const text of [`${fault.title}: ${fault.text}`, fault.advice]) {
            const line = document.createElement('p');
            line.textContent = text;
            box.append(line);
        }
        this.foot.before(box);
    }
}

/** @param {string} text for screen readers alone */
function unseen(text) {
    const node = document.createElement('span');
    node.className = 'unseen';
    node.textContent = text;
    return node;
}

/**
 * @param {Entry[]} entries @param {Mode} mode @param {string} model @param {string} system
 */
export function asText(entries, mode, model, system) {
    const lines = [`# ${mode === 'chat' ? 'Conversation' : 'Texts'} with ${model}`, ''];
    if (mode === 'chat' && system.trim() !== '') lines.push(`System: ${system}`, '');
    for (const { ask, answer, facts } of entries) {
        if (mode === 'chat') lines.push('## You', '', ask, '', `## ${facts?.model ?? model}`, '');
        else lines.push('---', '');
        lines.push(mode === 'chat' ? answer : ask + answer, '');
    }
    return lines.join('\n');
}

/**
 * @param {Entry[]} entries @param {Mode} mode @param {object} about model, device and parameters
 */
export function asJson(entries, mode, about) {
    return JSON.stringify({ kind: 'doppler talk', version: 1, mode, ...about, entries }, null, 2);
}

/** @param {string} name @param {string} text @param {string} type */
export function saveFile(name, text, type) {
    const url = URL.createObjectURL(new Blob([text], { type }));
    const link = document.createElement('a');
    link.href = url;
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
}
