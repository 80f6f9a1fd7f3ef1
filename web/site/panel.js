// @ts-check
/**
 * The settings beside the page: a column where there is room, a dialog where there is not (the same
 * elements move). Also the cards in it that only show: facts, device, stored models.
 */
import {
    showBytes, showCount, showParameters, showRate, showSeconds, showShare,
} from './text.js';

const WIDE = '(min-width: 62rem)';
const STORE = 'doppler.panel';

/** @param {string} id @returns {any} */
const $ = (id) => document.getElementById(id);

/** Where the settings are, and whether they are open. */
export class Panel {
    constructor() {
        this.wide = matchMedia(WIDE);
        this.panel = $('panel');
        this.shell = $('shell');
        this.sheet = $('sheet');
        this.button = $('panel-button');
        /* what has to be seen and heard over the dialog, too */
        this.guests = [$('toast'), $('spoken')];
        this.shell.classList.toggle('closed', this.kept() === 'closed');
        this.wide.addEventListener('change', () => this.place());
        this.button.addEventListener('click', () => this.setOpen(!this.open));
        $('panel-close').addEventListener('click', () => this.setOpen(false));
        this.sheet.addEventListener('close', () => {
            $('page').append(...this.guests);
            this.showState();
        });
        this.sheet.addEventListener('click', (/** @type {Event} */ event) => {
            if (event.target === this.sheet) this.sheet.close(); /* its backdrop */
        });
        this.place();
    }

    kept() {
        try {
            return localStorage.getItem(STORE);
        } catch {
            return null;
        }
    }

    get open() {
        return this.wide.matches ? !this.shell.classList.contains('closed') : this.sheet.open;
    }

    /** @param {boolean} open */
    setOpen(open) {
        if (this.wide.matches) {
            this.shell.classList.toggle('closed', !open);
            try {
                localStorage.setItem(STORE, open ? 'open' : 'closed');
            } catch {
                /* storage is off: it holds for this visit */
            }
            if (!open) this.button.focus();
        } else if (open && !this.sheet.open) {
            this.sheet.append(...this.guests);
            this.sheet.showModal();
        } else if (!open) {
            this.sheet.close();
        }
        this.showState();
    }

    place() {
        if (this.sheet.open) this.sheet.close();
        if (this.wide.matches) this.shell.append(this.panel);
        else this.sheet.append(this.panel);
        this.showState();
    }

    showState() {
        this.button.setAttribute('aria-expanded', `${this.open}`);
    }

    /** Opens a section and puts the focus on its first control. @param {string} id */
    goTo(id) {
        this.setOpen(true);
        const section = $(id);
        section.open = true;
        section.scrollIntoView({ block: 'start' });
        (section.querySelector('button, input') ?? section.querySelector('summary'))?.focus();
    }
}

/**
 * A list of names and values; rows without a value are left out.
 * @param {Element} list @param {[string, string | null | undefined][]} rows
 */
export function showFacts(list, rows) {
    const nodes = [];
    for (const [name, value] of rows) {
        if (value === null || value === undefined || value === '' || value === '–') continue;
        const term = document.createElement('dt');
        const text = document.createElement('dd');
        term.textContent = name;
        text.textContent = value;
        nodes.push(term, text);
    }
    list.replaceChildren(...nodes);
}

/** @param {any} info of the model */
export function showModelFacts(info) {
    showFacts($('model-facts'), info ? [
        ['Architecture', info.architecture],
        ['Format', [info.container, info.format].filter(Boolean).join(', ')],
        ['Parameters', showParameters(info.parameters)],
        ['Weights', showBytes(info.weightBytes)],
        ['Vocabulary', showCount(info.vocabSize)],
        ['Context', `${showCount(info.context)} tokens`],
        ['Chat template', info.chatTemplate ? 'yes' : 'none: plain text only'],
    ] : []);
}

/**
 * @param {any} info of the model @param {any} stats of the engine @param {any} result of the last
 *     generation
 */
export function showSpeed(info, stats, result) {
    const timings = result?.timings;
    const usage = result?.usage;
    const memory = info?.memory;
    const used = usage && info?.context
        ? `${showCount(usage.totalTokens)} of ${showCount(info.context)}` : null;
    const reused = usage?.cachedTokens > 0 ? `${showCount(usage.cachedTokens)} tokens` : null;
    showFacts($('speed'), [
        ['Writing', timings ? showRate(timings.tokensPerSecond) : null],
        ['Reading the prompt', timings ? showRate(timings.promptPerSecond) : null],
        ['Time to first token', timings ? showSeconds(timings.firstSeconds) : null],
        ['Tokens in the context', used],
        ['Prompt reused', reused],
        ['Weights', memory ? showBytes(memory.weights) : null],
        ['KV cache', memory ? showBytes(memory.kvCache) : null],
        ['Working memory', memory ? showBytes(memory.activations) : null],
        ['On the GPU, all', stats ? showBytes(stats.deviceBytes) : null],
        ['On the GPU, at most', stats ? showBytes(stats.deviceBytesPeak) : null],
        ['wasm', stats ? showBytes(stats.wasmBytes) : null],
    ]);
}

/** @param {unknown} value */
const yes = (value) => (value ? 'yes' : 'no');

/** @param {any} info of the device */
export function showDevice(info) {
    const card = document.createElement('div');
    const list = document.createElement('dl');
    const head = document.createElement('b');
    card.className = 'tier';
    list.className = 'facts';
    head.textContent = `Tier: ${info.tier ?? 'unknown'}`;
    card.append(head);
    if (Array.isArray(info.why) && info.why.length > 0) {
        const why = document.createElement('ul');
        for (const reason of info.why) {
            const row = document.createElement('li');
            row.textContent = String(reason);
            why.append(row);
        }
        card.append(why);
    }
    showFacts(list, [
        ['Name', info.name],
        ['Vendor', info.vendor],
        ['Half floats (f16)', yes(info.f16)],
        ['Subgroups', info.subgroups ? `yes, ${info.subgroupSize} lanes` : 'no'],
        ['8-bit activations', yes(info.int8)],
        ['Largest binding', showBytes(info.maxBinding)],
        ['Largest buffer', showBytes(info.maxBuffer)],
    ]);
    $('device').replaceChildren(card, list);
}

/**
 * Shows other items in a list; the keyboard stays at its place in it.
 * @param {Element} list @param {Element[]} items
 */
export function replaceItems(list, items) {
    const buttons = () => [...list.querySelectorAll('button')];
    const place = buttons().findIndex((button) => button === document.activeElement);
    list.replaceChildren(...items);
    if (place < 0) return;
    const next = buttons().at(Math.min(place, items.length - 1));
    (next ?? list.closest('details')?.querySelector('summary'))?.focus();
}

/**
 * Asks before stored models are deleted; Escape means no. The focus goes back to where it was.
 * @param {any[]} rows of the cache @param {() => void} act deletes them
 */
export function askToDelete(rows, act) {
    const dialog = $('ask');
    const bytes = rows.reduce((sum, row) => sum + row.stored, 0);
    $('ask-title').textContent = rows.length === 1 ? `Delete ${rows[0].name}?`
        : `Delete all ${rows.length} stored models?`;
    $('ask-text').textContent =
        `${showBytes(bytes)} that were downloaded, and would have to be again.`;
    $('ask-no').onclick = () => dialog.close();
    $('ask-yes').onclick = () => {
        dialog.close();
        act();
    };
    dialog.onclose = () => { /* where the focus was may have gone: lists are shown anew */
        const at = document.activeElement;
        if (at !== document.body && !dialog.contains(at)) return;
        $('section-storage').querySelector('summary').focus();
    };
    dialog.showModal();
}

/**
 * @param {any[]} rows of the cache @param {(row: any) => void} remove
 */
export function showStored(rows, remove) {
    const nodes = rows.map((row) => {
        const item = document.createElement('li');
        const text = document.createElement('span');
        const small = document.createElement('small');
        const bin = document.createElement('button');
        const title = String(row.name);
        text.textContent = title;
        small.textContent = storedFacts(row);
        text.append(small);
        bin.type = 'button';
        bin.className = 'quiet icon-button';
        bin.ariaLabel = bin.title = `Delete ${title}`;
        bin.append(icon('i-bin'));
        bin.addEventListener('click', () => remove(row));
        item.append(text, bin);
        return item;
    });
    replaceItems($('stored'), nodes);
    $('purge').hidden = rows.length === 0;
}

/** @param {any} row */
function storedFacts(row) {
    const parts = [row.complete ? showBytes(row.bytes) : showShare(row.stored, row.bytes)];
    if (row.lastUsed > 0) parts.push(`used ${new Date(row.lastUsed).toLocaleDateString()}`);
    return parts.join(', ');
}

/** @param {string} name of a symbol in the page */
export function icon(name) {
    const space = 'http://www.w3.org/2000/svg';
    const svg = document.createElementNS(space, 'svg');
    const use = document.createElementNS(space, 'use');
    svg.setAttribute('class', 'icon');
    svg.setAttribute('aria-hidden', 'true');
    use.setAttribute('href', `#${name}`);
    svg.append(use);
    return svg;
}
