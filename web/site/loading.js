// @ts-check
/**
 * The card that shows a model being loaded: a bar, a line, the steps. Steps overlap (weights travel
 * to the GPU while later pieces still download), so each has its own state, and the bar is that of
 * the first one that is not done.
 */
import { showBytes, showShare } from './text.js';

/** @param {string} id @returns {any} */
const $ = (id) => document.getElementById(id);

/** The steps as shown, and the package's phases that belong to them. `vague`: has no measure. */
const steps = [
    { name: 'GPU', now: 'Opening the GPU', phases: ['device'] },
    { name: 'Download', now: 'Downloading', phases: ['open', 'download', 'verify'] },
    { name: 'Upload', now: 'Sending to the GPU', phases: ['upload'] },
    { name: 'Compile', now: 'Compiling kernels', phases: ['compile'], vague: true },
];
const DOWNLOAD = 1; // what takes the longest is shown first

/**
 * @typedef {{phase: string, loaded: number, total: number, text?: string, rate?: number}} Progress
 */

export class Loading {
    /** @param {(text: string) => void} say tells a screen reader */
    constructor(say) {
        this.say = say;
        /** @type {(Progress | null)[]} */
        this.seen = [];
        this.ready = false;
        this.due = false;
        this.told = '';
    }

    /** @param {string} title @param {boolean} fetched whether it may come over the network */
    begin(title, fetched) {
        this.seen = steps.map(() => null);
        this.ready = false;
        this.told = '';
        this.fetched = fetched;
        $('loading-title').textContent = `Preparing ${title}`;
        $('loading').hidden = false;
        this.show();
    }

    end() {
        $('loading').hidden = true;
    }

    /** @param {Progress} progress */
    add(progress) {
        const i = steps.findIndex((step) => step.phases.includes(progress.phase));
        if (progress.phase === 'ready') this.ready = true;
        else if (i >= 0 && !(progress.phase === 'open' && this.seen[i])) this.seen[i] = progress;
        if (this.due) return;
        this.due = true;
        setTimeout(() => {
            this.due = false;
            this.show();
        }, 50);
    }

    /** @param {number} i */
    isDone(i) {
        const seen = this.seen[i];
        if (this.ready) return true;
        return seen !== null && !steps[i].vague && seen.phase !== 'open' && seen.total > 0 &&
            seen.loaded >= seen.total;
    }

    show() {
        const going = steps.map((_, i) => this.seen[i] !== null && !this.isDone(i));
        let now = going[DOWNLOAD] ? DOWNLOAD : going.indexOf(true);
        if (now < 0) now = steps.findIndex((_, i) => !this.isDone(i));
        this.showSteps(now);
        this.showBar(now);
    }

    /** @param {number} now */
    showSteps(now) {
        const rows = steps.map((step, i) => {
            const row = document.createElement('li');
            row.textContent = i === 1 && !this.fetched ? 'Read' : step.name;
            row.classList.toggle('done', this.isDone(i));
            if (i === now) row.setAttribute('aria-current', 'step');
            if (this.isDone(i)) row.ariaLabel = `${row.textContent}, done`;
            return row;
        });
        $('steps').replaceChildren(...rows);
    }

    /** @param {number} now */
    showBar(now) {
        const bar = $('bar');
        const seen = now >= 0 ? this.seen[now] : null;
        if (seen && seen.total > 1 && seen.phase !== 'open' && !steps[now].vague) {
            bar.max = seen.total;
            bar.value = Math.min(seen.loaded, seen.total);
        } else {
            bar.removeAttribute('value');
        }
        $('loading-text').textContent = now < 0 ? 'Ready' : this.line(now, seen);
        this.tell(now, bar.position);
    }

    /** @param {number} now @param {Progress | null} seen */
    line(now, seen) {
        if (!seen) return `${steps[now].now} …`;
        const { phase, loaded, total, rate, text } = seen;
        const words = this.wordsOf(now, phase);
        /* with nothing here yet, the package may say what it waits for */
        if (phase === 'download' && loaded === 0 && text) {
            return `${text[0].toUpperCase()}${text.slice(1)} …`;
        }
        if (seen.total <= 1 || phase === 'open' || steps[now].vague) return `${words} …`;
        const size = total > 0 ? showShare(loaded, total) : showBytes(loaded);
        return `${words}: ${size}${rate ? `, ${showBytes(rate)}/s` : ''}`;
    }

    /** @param {number} now @param {string} phase */
    wordsOf(now, phase) {
        if (phase === 'open') return 'Reading the model’s description';
        if (phase === 'verify') return 'Checking';
        return phase === 'download' && !this.fetched ? 'Reading' : steps[now].now;
    }

    /** Steps and quarters are spoken, not each event. @param {number} now @param {number} share */
    tell(now, share) {
        if (now < 0) return;
        const quarter = Math.floor(share * 4) * 25;
        const part = quarter > 0 && quarter < 100 ? `, ${quarter} %` : '';
        const words = this.wordsOf(now, this.seen[now]?.phase ?? '') + part;
        if (words === this.told) return;
        this.told = words;
        this.say(words);
    }
}
