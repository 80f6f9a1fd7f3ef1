// @ts-check
/**
 * Text for eyes and ears: what a model wrote, as paragraphs and blocks of code; the same spoken in
 * whole sentences; numbers with units.
 *
 * Invariant: text becomes text nodes and nothing else. What a model, a file or a server wrote is
 * never markup.
 */

/**
 * @typedef {{kind: 'paragraph'|'code', text: string}} Block
 */

/**
 * Paragraphs are parted by empty lines; blocks of code stand between lines that begin with three
 * backticks. A block that has not ended yet goes to the end of the text.
 * @param {string} text
 * @returns {Block[]}
 */
export function blocksOf(text) {
    /** @type {Block[]} */
    const blocks = [];
    /** @type {string[]} */
    let lines = [];
    let code = false;
    const flush = () => {
        const joined = lines.join('\n');
        if (code || joined.trim() !== '') {
            blocks.push({ kind: code ? 'code' : 'paragraph', text: joined });
        }
        lines = [];
    };
    for (const line of text.split('\n')) {
        if (line.trimStart().startsWith('```')) {
            if (code || lines.length > 0) flush();
            code = !code;
        } else if (!code && line.trim() === '') {
            flush();
        } else {
            lines.push(line);
        }
    }
    if (code || lines.length > 0) flush();
    return blocks;
}

/**
 * Makes a text node hold `text`. What only grew is appended, so that a selection in it stays.
 * @param {Element} node @param {string} text
 */
export function setText(node, text) {
    const first = node.firstChild;
    if (first instanceof Text && node.childNodes.length === 1) {
        if (first.data === text) return;
        if (text.startsWith(first.data)) first.appendData(text.slice(first.data.length));
        else first.data = text;
    } else {
        node.textContent = text;
    }
}

/** @param {Block} block */
function makeBlock(block) {
    if (block.kind === 'paragraph') return document.createElement('p');
    const frame = document.createElement('pre');
    frame.tabIndex = 0; /* wide code scrolls, for the keyboard too */
    frame.append(document.createElement('code'));
    return frame;
}

/**
 * Shows a text as blocks, changing only what changed since the last call.
 * @param {Element} place @param {string} text
 */
export function showBlocks(place, text) {
    const blocks = blocksOf(text);
    blocks.forEach((block, i) => {
        let node = place.children[i];
        if (node?.tagName !== (block.kind === 'code' ? 'PRE' : 'P')) {
            const fresh = makeBlock(block);
            if (node) node.replaceWith(fresh);
            else place.append(fresh);
            node = fresh;
        }
        setText(block.kind === 'code' ? node.children[0] : node, block.text);
    });
    while (place.children.length > blocks.length) place.lastElementChild?.remove();
}

const SPOKEN_AT_ONCE = 160; // characters: shorter pieces make a screen reader stutter
const SPOKEN_KEPT = 24; // paragraphs in the live region

/** Tells a live region a stream in whole sentences, several of them at a time. */
export class Speaker {
    /** @param {Element} region */
    constructor(region) {
        this.region = region;
        this.waiting = '';
    }

    /** Says a sentence of the page's own, at once. @param {string} text */
    say(text) {
        const line = document.createElement('p');
        line.textContent = text;
        this.region.append(line);
        while (this.region.children.length > SPOKEN_KEPT) this.region.firstElementChild?.remove();
    }

    /** @param {string} text the next piece of a stream */
    add(text) {
        this.waiting += text;
        const end = this.waiting.search(/[.!?…。！？\n][^.!?…。！？\n]*$/u) + 1;
        if (end >= SPOKEN_AT_ONCE) this.flush(end);
    }

    /** @param {number} [end] how much of what waits; all, when the stream has ended */
    flush(end = this.waiting.length) {
        const text = this.waiting.slice(0, end).trim();
        this.waiting = this.waiting.slice(end);
        if (text !== '') this.say(text);
    }

    drop() {
        this.waiting = '';
    }
}

/** @param {unknown} n @returns {n is number} */
const known = (n) => typeof n === 'number' && Number.isFinite(n);

/** @param {unknown} bytes as people read sizes: 14.9 MB; a dash for what is not known */
export function showBytes(bytes) {
    if (!known(bytes) || bytes < 0) return '–';
    const units = ['B', 'kB', 'MB', 'GB', 'TB'];
    let value = bytes;
    let unit = 0;
    while (value >= 999.5 && unit < units.length - 1) {
        value /= 1000;
        unit++;
    }
    const digits = unit === 0 || value >= 99.5 ? 0 : 1;
    return `${value.toFixed(digits)} ${units[unit]}`;
}

/** Two sizes, the unit once if it is the same. @param {number} part @param {number} whole */
export function showShare(part, whole) {
    const [a, b] = [showBytes(part), showBytes(whole)];
    const [number, unit] = a.split(' ');
    return b.endsWith(` ${unit}`) ? `${number} of ${b}` : `${a} of ${b}`;
}

/** @param {unknown} seconds */
export function showSeconds(seconds) {
    if (!known(seconds)) return '–';
    if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
    return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
}

/** @param {unknown} rate tokens a second */
export function showRate(rate) {
    if (!known(rate) || rate <= 0) return '–';
    return `${rate.toFixed(rate < 99.5 ? 1 : 0)} tok/s`;
}

/** @param {unknown} n */
export function showCount(n) {
    return known(n) ? Math.round(n).toLocaleString('en') : '–';
}

/** @param {unknown} n a count of parameters: 7.3 million */
export function showParameters(n) {
    if (!known(n) || n <= 0) return '–';
    if (n >= 999.5e6) return `${(n / 1e9).toFixed(1)} billion`;
    return n >= 1e6 ? `${(n / 1e6).toFixed(1)} million` : showCount(n);
}
