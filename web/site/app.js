// @ts-check
/**
 * The page: loads a model, asks it, shows what it writes. This file holds the page's state and
 * joins the parts; loading.js, panel.js, talk.js, parameters.js and sources.js own one each.
 *
 * States (body[data-state], which tests read, too): idle -> loading -> ready <-> writing, failed.
 * Invariant: one model and at most one generation at a time; whatever ends late belongs to a load
 * or a generation that is no longer the current one and is dropped.
 */
import { load, cache } from './lib/doppler.js';
import { checkBrowser, explain, isCancelled, isFatal } from './advice.js';
import { guardScripts } from './guard.js';
import { Loading } from './loading.js';
import { keepOffline } from './offline.js';
import {
    askToDelete, Panel, replaceItems, showDevice, showModelFacts, showSpeed, showStored,
} from './panel.js';
import { Parameters } from './parameters.js';
import {
    choiceOfDrop, choiceOfFiles, choiceOfUrl, choicesOfStored, isCalled, isKeptAs, isSame, keyOf,
    listModels, parseUrl,
} from './sources.js';
import {
    asJson, asText, EntryView, keepTalks, messagesOf, saveFile, storedTalks,
} from './talk.js';
import { showBytes, showCount, showRate, Speaker } from './text.js';

/**
 * @typedef {import('./sources.js').Choice} Choice
 * @typedef {import('./talk.js').Entry} Entry
 * @typedef {import('./talk.js').Mode} Mode
 */

const LAST = 'doppler.last'; // the model that was loaded last
const MODE = 'doppler.mode';
const CONTEXT = 'doppler.context';
const NEAR_END = 80; // pixels from the end within which the page follows the text

/** @param {string} id @returns {any} */
const $ = (id) => document.getElementById(id);

const state = {
    /** @type {Mode} what the visitor chose */
    chosen: 'chat',
    /** @type {Mode} that, as far as the model can do it */
    mode: 'chat',
    talks: storedTalks(),
    /** @type {EntryView[]} */
    views: [],
    /** @type {Choice[]} the list beside the page */
    choices: [],
    /** @type {any[]} what the cache keeps */
    stored: [],
    /** @type {Choice | null} */
    choice: null,
    /** @type {any} */
    model: null,
    /** @type {any} */
    session: null,
    /** @type {Entry | null} the entry that the session's tokens are those of */
    held: null,
    /** @type {AbortController | null} */
    loading: null,
    /** @type {Promise<void>} settles when the load before has let go of what it held */
    loaded: Promise.resolve(),
    /** @type {AbortController | null} */
    writing: null,
    /** @type {any} */
    result: null,
    /** @type {(() => void) | null} what was offered while an answer came, and is again after it */
    offer: null,
};

const speaker = new Speaker($('spoken'));
const loading = new Loading((text) => speaker.say(text));
const panel = new Panel();
const fields = new Parameters($('parameters'), $('system'));

/** @param {string} key */
function kept(key) {
    try {
        return localStorage.getItem(key) ?? '';
    } catch {
        return '';
    }
}

/** @param {string} key @param {string} value */
function keep(key, value) {
    try {
        localStorage.setItem(key, value);
    } catch {
        /* storage is off: it holds for this visit */
    }
}

/** @param {'idle'|'loading'|'ready'|'writing'|'failed'} name */
function setState(name) {
    document.body.dataset.state = name;
    const writing = name === 'writing';
    const send = $('send');
    send.ariaLabel = send.title = writing ? 'Stop' : 'Send';
    $('send-icon').setAttribute('href', writing ? '#i-stop' : '#i-send');
    showSendable();
    showWelcome();
}

/* ---- passing messages ----------------------------------------------------------------------- */

let toastTimer = 0;

/** @param {string} text @param {{words: string, act: () => void}} [action] */
function toast(text, action) {
    const button = $('toast-action');
    $('toast-text').textContent = text;
    $('toast').hidden = false;
    speaker.say(text);
    button.hidden = !action;
    button.textContent = action?.words ?? '';
    button.onclick = () => {
        $('toast').hidden = true;
        action?.act();
    };
    clearTimeout(toastTimer);
    toastTimer = setTimeout(() => {
        $('toast').hidden = true;
    }, action ? 10000 : 4000);
}

/* ---- the model ------------------------------------------------------------------------------ */

async function dropModel() {
    const { model, loading: load, writing } = state;
    Object.assign(state, {
        model: null, session: null, held: null, loading: null, writing: null, result: null,
    });
    writing?.abort();
    load?.abort();
    $('reload-model').hidden = true;
    showModelFacts(null);
    showSpeed(null, null, null);
    await model?.close().catch(() => {});
}

/** @param {Choice} choice */
async function loadModel(choice) {
    const blocked = checkBrowser();
    if (blocked) return fail(choice, blocked);
    const dropped = Promise.all([dropModel(), state.loaded]);
    const abort = new AbortController();
    let over = () => {};
    const loaded = new Promise((resolve) => { over = () => resolve(undefined); });
    /** @type {any} */
    let model = null;
    Object.assign(state, { loading: abort, loaded, choice });
    $('failure').hidden = $('start').hidden = true;
    loading.begin(choice.title, choice.kind !== 'file' && !isStored(choice));
    setState('loading');
    showModels();
    try {
        await dropped; /* its memory is free before the next one asks for some */
        model = await load(choice.value, {
            signal: abort.signal,
            onProgress: (/** @type {any} */ progress) => loading.add(progress),
            onDevice: (/** @type {any} */ info) => {
                if (state.choice !== choice) return;
                showDevice(info);
                toast('The GPU was lost and is back. The text goes on.');
            },
            ...contextOption(),
        });
        const session = await model.newSession();
        if (state.loading === abort) await begin(choice, model, session);
    } catch (error) {
        if (state.loading !== abort) return;
        state.loading = null;
        if (isCancelled(error)) offerStart(choice, 'Loading was cancelled.');
        else fail(choice, explain(error));
    } finally {
        if (state.loading === abort || !state.loading) loading.end();
        if (state.model !== model) await model?.close().catch(() => {});
        over();
    }
}

function contextOption() {
    const field = $('context');
    const context = field.value === '' || !field.checkValidity() ? 0 : field.valueAsNumber;
    return context > 0 ? { context } : {};
}

/** @param {Choice} choice @param {any} model @param {any} session */
async function begin(choice, model, session) {
    Object.assign(state, { model, session, loading: null });
    if (choice.kind !== 'file') keep(LAST, keyOf(choice.name));
    if (possibleMode() !== state.mode) showMode();
    $('reload-model').hidden = false;
    showModels();
    showModelFacts(model.info);
    showDevice(model.deviceInfo);
    setState('ready');
    speaker.say(`${choice.title} is ready.`);
    for (const note of model.notes ?? []) toast(String(note));
    if (document.activeElement === document.body && matchMedia('(hover: hover)').matches) {
        $('prompt').focus();
    }
    await Promise.all([showNumbers(), refreshStored()]);
}

/** @param {Choice | null} choice @param {import('./advice.js').Failure} failure */
function fail(choice, failure) {
    state.choice = choice;
    $('failure-title').textContent = failure.title;
    $('failure-text').textContent = failure.text;
    $('failure-advice').textContent = failure.advice;
    $('failure-retry').hidden = !failure.again || !choice;
    $('failure-choose').hidden = !failure.again && checkBrowser() !== null;
    const had = $('loading').contains(document.activeElement);
    $('failure').hidden = false;
    $('start').hidden = true;
    if (had) focusFirst($('failure'));
    setState('failed');
    showModels();
}

/** For who was at a button that goes. @param {Element} card */
function focusFirst(card) {
    /** @type {HTMLElement | null} */ (card.querySelector('button:not([hidden])'))?.focus();
}

/** @param {Choice | null} choice @param {string} text */
function offerStart(choice, text) {
    state.choice = choice;
    $('start-text').textContent = text;
    $('start-load').hidden = !choice;
    if (choice) {
        const size = choice.bytes ? ` (${showBytes(choice.bytes)})` : '';
        $('start-load').textContent = `Load ${choice.title}${size}`;
    }
    const had = $('loading').contains(document.activeElement);
    $('failure').hidden = true;
    $('start').hidden = false;
    if (had) focusFirst($('start'));
    setState('idle');
    showModels();
}

/** @param {Choice} choice whether all of it is in this browser */
const isStored = (choice) => state.stored.some((row) => row.complete && isKeptAs(choice, row));

/** All that can be chosen: the list, what is kept, and what is being used now. */
function allChoices() {
    const { choice, choices, stored } = state;
    const all = [...choices, ...choicesOfStored(stored, choices)];
    const known = !choice || all.some((each) => isSame(each, choice));
    return known ? all : [choice, ...all];
}

function showModels() {
    const { choice, model } = state;
    const listed = allChoices();
    const isCurrent = (/** @type {Choice} */ each) => isSame(each, choice);
    $('model-name').textContent = choice?.title ?? 'no model';
    replaceItems($('models'), listed.map((each) => {
        const item = document.createElement('li');
        const button = document.createElement('button');
        const title = document.createElement('b');
        const size = document.createElement('span');
        const about = document.createElement('span');
        size.className = 'size';
        about.className = 'about';
        title.textContent = each.title;
        const parts = [each.bytes ? showBytes(each.bytes) : '', isStored(each) ? 'stored' : ''];
        size.textContent = parts.filter((part) => part !== '').join(', ');
        about.textContent = each.about || (each.kind === 'url' ? String(each.value) : '');
        button.type = 'button';
        button.setAttribute('aria-pressed', `${isCurrent(each) && model !== null}`);
        button.append(title, size, about);
        button.addEventListener('click', () => {
            if (isCurrent(each) && state.model) return;
            if (!panel.wide.matches) panel.setOpen(false);
            void loadModel(each);
        });
        item.append(button);
        return item;
    }));
}

/** The cache, through the model's worker where there is one. */
const store = () => state.model?.cache ?? cache;

async function refreshStored() {
    try {
        state.stored = await store().list();
        showStored(state.stored, (row) => {
            askToDelete([row], () => void forget(() => store().remove(String(row.id))));
        });
        showModels();
        const estimate = await navigator.storage?.estimate?.();
        const promised = await navigator.storage?.persisted?.() ?? true;
        $('persist').hidden = promised || state.stored.length === 0;
        $('storage-text').textContent = (estimate?.quota
            ? `${showBytes(estimate.usage)} of ${showBytes(estimate.quota)} that this browser ` +
                'allows are in use.'
            : 'This browser does not say how much may be stored.') +
            ($('persist').hidden ? '' : ' It may delete them when it needs the room.');
    } catch (error) {
        $('storage-text').textContent = isCancelled(error) ? '' : explain(error).text;
    }
}

async function askToKeep() {
    const promised = await navigator.storage.persist().catch(() => false);
    toast(promised ? 'The browser keeps them until they are deleted here.'
        : 'The browser does not promise to keep them.');
    await refreshStored();
}

/** @param {() => Promise<unknown>} act */
async function forget(act) {
    try {
        await act();
        toast('Deleted from this browser.');
    } catch (error) {
        const { text } = explain(error);
        toast(text, state.model ? { words: 'Unload and delete', act: () => void unload(act) }
            : undefined);
    }
    await refreshStored();
}

/** Deletes what the model on the GPU may be reading from. @param {() => Promise<unknown>} act */
async function unload(act) {
    await dropModel();
    offerStart(state.choice, 'The model was unloaded.');
    await forget(act);
}

/** Speed and memory; without a model, nothing. */
async function showNumbers() {
    const { model, result } = state;
    const stats = await model?.stats().catch(() => null);
    if (state.model === model) showSpeed(model?.info, stats, result);
}

/* ---- asking --------------------------------------------------------------------------------- */

const entries = () => state.talks[state.mode];

function showSendable() {
    const { state: name } = document.body.dataset;
    const can = name === 'writing' || (name === 'ready' && $('prompt').value.trim() !== '');
    $('send').setAttribute('aria-disabled', `${!can}`);
}

function send() {
    const prompt = $('prompt');
    const ask = state.mode === 'chat' ? prompt.value.trim() : prompt.value;
    if (state.writing || ask.trim() === '') return;
    if (!state.model) return void toast(state.loading ? 'The model is still being loaded.'
        : 'Load a model first.');
    /** @type {Entry} */
    const entry = { ask, answer: '', facts: null };
    entries().push(entry);
    addView(entry);
    prompt.value = '';
    fitPrompt();
    scrollToEnd();
    void write(entry, false);
}

/**
 * Lets the model answer an entry, or go on where it stopped.
 * @param {Entry} entry @param {boolean} more
 * @param {number} [nth] answers there were before: a seed that was set gives each another one
 */
async function write(entry, more, nth = 0) {
    const view = state.views.find((each) => each.entry === entry);
    if (!view || !state.session || state.writing) return;
    const abort = new AbortController();
    const { model, session, choice } = state;
    /** @type {unknown} */
    let lost = null;
    const values = fields.values();
    const seed = ((values.seed ?? Math.floor(Math.random() * 2 ** 32)) + nth) % 2 ** 32;
    const options = { ...values, seed, signal: abort.signal };
    const prompt = promptFor(entry, more);
    state.writing = abort;
    setState('writing');
    if (view.foot.contains(document.activeElement)) $('prompt').focus(); /* its buttons go */
    view.showFault(null);
    view.setWriting(true);
    showFeet();
    speaker.drop();
    try {
        const generation = session.generate(prompt, options);
        await readPieces(generation, entry, view, abort);
        const result = await generation;
        if (state.model !== model) return;
        Object.assign(state, { result, held: entry });
        entry.facts = factsOf(result, seed, choice?.title ?? '');
    } catch (error) {
        if (state.model === model) state.held = null;
        if (isFatal(error) && state.model === model) lost = error;
        else if (!isCancelled(error)) view.showFault(explain(error));
    } finally {
        finish(view, abort);
    }
    if (!lost) return;
    await dropModel();
    fail(choice, explain(lost));
}

/** @param {Entry} entry @param {boolean} more */
function promptFor(entry, more) {
    if (state.mode === 'text') return entry.ask + (more ? entry.answer : '');
    if (more) return null; /* the session goes on */
    return messagesOf(entries(), entries().indexOf(entry), $('system').value);
}

/**
 * @param {any} generation @param {Entry} entry @param {EntryView} view
 * @param {AbortController} abort
 */
async function readPieces(generation, entry, view, abort) {
    let tokens = 0;
    let first = 0;
    for await (const piece of generation) {
        if (abort.signal.aborted && state.writing !== abort) continue;
        entry.answer += piece.text;
        tokens += piece.tokens.length;
        speaker.add(piece.text);
        view.touch();
        if (first === 0) {
            first = performance.now();
            tokens = 0; /* what came with the first piece took the prompt's time */
        } else {
            const rate = tokens / (performance.now() - first) * 1000;
            $('status').textContent = `${showCount(tokens)} tokens, ${showRate(rate)}`;
        }
    }
}

/** @param {any} result @param {number} seed @param {string} model */
function factsOf(result, seed, model) {
    return {
        tokens: result.usage.completionTokens, seconds: result.timings.seconds,
        firstSeconds: result.timings.firstSeconds, rate: result.timings.tokensPerSecond,
        seed, finish: result.finish, model,
    };
}

/** @param {EntryView} view @param {AbortController} abort */
function finish(view, abort) {
    view.setWriting(false);
    speaker.flush();
    keepTalks(state.talks);
    if (state.writing === abort) {
        state.writing = null;
        $('status').textContent = '';
        setState('ready');
        speaker.say(abort.signal.aborted ? 'Stopped.' : 'Done.');
        void showNumbers();
        state.offer?.();
        state.offer = null;
    }
    showFeet();
    follow();
}

/** @type {WeakMap<Entry, number>} how often an entry was answered anew */
const tries = new WeakMap();

function again() {
    const entry = entries().at(-1);
    if (!entry || state.writing) return;
    if (!state.model) return void toast('Load a model first.');
    entry.answer = '';
    entry.facts = null;
    tries.set(entry, (tries.get(entry) ?? 0) + 1);
    void write(entry, false, tries.get(entry));
}

/** @param {string} text */
async function copy(text) {
    try {
        await navigator.clipboard.writeText(text);
        toast('Copied.');
    } catch {
        toast('The browser did not allow copying.');
    }
}

/* ---- the conversation in the document -------------------------------------------------------- */

/** @param {Entry} entry */
function addView(entry) {
    const view = new EntryView(entry, state.mode, {
        copy: (text) => void copy(text), again, more: () => void write(entry, true),
    });
    view.onShown = follow;
    state.views.push(view);
    $('transcript').append(view.node);
    showWelcome();
}

function showTalk() {
    state.views = [];
    $('transcript').replaceChildren();
    entries().forEach(addView);
    showFeet();
    showWelcome();
    scrollToEnd();
}

function showFeet() {
    state.views.forEach((view, i) => {
        const last = i === state.views.length - 1 && !state.writing;
        const cut = view.entry.facts !== null && view.entry.facts.finish !== 'stop';
        const reach = state.mode === 'text' || state.held === view.entry;
        view.showFoot({ last, more: last && cut && reach && state.model !== null });
    });
}

function showWelcome() {
    const name = document.body.dataset.state;
    const empty = entries().length === 0;
    $('welcome').hidden = !empty && (name === 'ready' || name === 'writing');
    placeWelcome(empty);
    const ideas = empty && name !== 'failed' ? state.choice?.ideas[state.mode] ?? [] : [];
    $('ideas').replaceChildren(...ideas.map((idea) => {
        const item = document.createElement('li');
        const button = document.createElement('button');
        button.type = 'button';
        button.textContent = idea;
        button.addEventListener('click', () => {
            $('prompt').value = idea;
            fitPrompt();
            if (state.model && !state.writing) send();
            $('prompt').focus();
        });
        item.append(button);
        return item;
    }));
}

/**
 * Above the conversation's place; its cards below the last line, where there is one already.
 * @param {boolean} empty whether there is no conversation yet
 */
function placeWelcome(empty) {
    const welcome = $('welcome');
    const transcript = $('transcript');
    welcome.classList.toggle('brief', !empty);
    if (empty && transcript.previousElementSibling !== welcome) transcript.before(welcome);
    if (!empty && transcript.nextElementSibling !== welcome) transcript.after(welcome);
    if (!empty) follow();
}

let following = true;

function follow() {
    if (following) $('main').scrollTop = $('main').scrollHeight;
    else $('latest').hidden = false;
}

function scrollToEnd() {
    following = true;
    follow();
    $('latest').hidden = true;
}

function clearTalk() {
    if (state.writing) state.writing.abort();
    const { mode } = state;
    const old = entries();
    if (old.length === 0) return void $('prompt').focus();
    state.talks[mode] = [];
    keepTalks(state.talks);
    showTalk();
    $('prompt').focus();
    toast('Cleared.', {
        words: 'Undo',
        act: () => {
            state.talks[mode] = [...old, ...state.talks[mode]];
            keepTalks(state.talks);
            showTalk();
        },
    });
}

/** @param {'text'|'json'} kind */
function exportTalk(kind) {
    if (entries().length === 0) return void toast('There is nothing to export yet.');
    const model = state.choice?.title ?? 'no model';
    const stamp = new Date().toISOString().slice(0, 19).replaceAll(':', '-');
    const name = `doppler-${state.mode}-${stamp}`;
    if (kind === 'text') {
        const text = asText(entries(), state.mode, model, $('system').value);
        saveFile(`${name}.md`, text, 'text/markdown');
    } else {
        const about = {
            model: state.model?.info ?? null, device: state.model?.deviceInfo ?? null,
            parameters: fields.values(), system: $('system').value,
        };
        saveFile(`${name}.json`, asJson(entries(), state.mode, about), 'application/json');
    }
}

/* ---- wiring --------------------------------------------------------------------------------- */

/** @param {Mode} mode as the visitor wants it */
function setMode(mode) {
    state.chosen = mode;
    keep(MODE, mode);
    showMode();
}

/** @returns {Mode} */
const possibleMode = () => (state.model && !state.model.info.chatTemplate ? 'text' : state.chosen);

function showMode() {
    const mode = possibleMode();
    if (mode !== state.chosen) {
        toast('This model has no chat template: it continues plain text.');
    }
    state.writing?.abort();
    state.mode = mode;
    for (const radio of document.getElementsByName('mode')) {
        const input = /** @type {HTMLInputElement} */ (radio);
        input.checked = input.value === mode;
    }
    const chat = mode === 'chat';
    $('prompt').placeholder = chat ? 'Ask something' : 'Begin a text, the model goes on';
    $('prompt-label').textContent = chat ? 'Message' : 'Beginning of a text';
    $('system-field').hidden = !chat;
    showTalk();
}

/** @param {string} theme */
function setTheme(theme) {
    const root = document.documentElement;
    if (theme === 'light' || theme === 'dark') root.dataset.theme = theme;
    else delete root.dataset.theme;
    for (const radio of document.getElementsByName('theme')) {
        const input = /** @type {HTMLInputElement} */ (radio);
        input.checked = input.value === (root.dataset.theme ?? 'auto');
    }
    /** @type {Object<string, string>} */
    const colour = { light: '#fbfaf8', dark: '#161619' };
    for (const meta of document.querySelectorAll('meta[name="theme-color"]')) {
        const own = meta.getAttribute('media')?.includes('dark') ? 'dark' : 'light';
        meta.setAttribute('content', colour[root.dataset.theme ?? own]);
    }
}

function fitPrompt() {
    const prompt = $('prompt');
    prompt.style.height = 'auto';
    prompt.style.height = `${prompt.scrollHeight}px`;
    showSendable();
}

/** @param {FileList | null | undefined} list */
function loadFiles(list) {
    const files = [...(list ?? [])];
    if (files.length > 0) void loadModel(choiceOfFiles(files));
}

/** @param {DataTransfer} transfer */
async function loadDropped(transfer) {
    const choice = await choiceOfDrop(transfer);
    if (typeof choice === 'string') toast(choice);
    else void loadModel(choice);
}

function wireComposer() {
    const prompt = $('prompt');
    prompt.addEventListener('input', fitPrompt);
    prompt.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => {
        if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
        event.preventDefault();
        send();
    });
    $('composer').addEventListener('submit', (/** @type {Event} */ event) => {
        event.preventDefault();
        if (state.writing) state.writing.abort();
        else send();
    });
    document.addEventListener('keydown', (event) => {
        const over = document.querySelector('dialog[open]'); /* which it closes */
        if (event.key !== 'Escape' || !state.writing || over) return;
        event.preventDefault();
        state.writing.abort();
    });
    for (const radio of document.getElementsByName('mode')) {
        radio.addEventListener('change', (event) => {
            setMode(/** @type {any} */ (event.target).value);
        });
    }
    $('main').addEventListener('scroll', () => {
        const { scrollTop, scrollHeight, clientHeight } = $('main');
        following = scrollHeight - scrollTop - clientHeight < NEAR_END;
        if (following) $('latest').hidden = true;
    }, { passive: true });
    $('latest').addEventListener('click', scrollToEnd);
    $('new-button').addEventListener('click', clearTalk);
}

function wireModel() {
    $('model-button').addEventListener('click', () => panel.goTo('section-model'));
    $('cancel-load').addEventListener('click', () => state.loading?.abort());
    $('failure-retry').addEventListener('click', () => state.choice && loadModel(state.choice));
    $('start-load').addEventListener('click', () => state.choice && loadModel(state.choice));
    $('failure-choose').addEventListener('click', () => panel.goTo('section-model'));
    $('start-choose').addEventListener('click', () => panel.goTo('section-model'));
    $('reload-model').addEventListener('click', () => state.choice && loadModel(state.choice));
    $('context').addEventListener('change', () => keep(CONTEXT, $('context').value));
    $('url-form').addEventListener('submit', (/** @type {Event} */ event) => {
        event.preventDefault();
        const url = parseUrl($('url').value.trim());
        if (typeof url === 'string') return void toast(url);
        if (!panel.wide.matches) panel.setOpen(false);
        void loadModel(choiceOfUrl(url));
    });
    for (const kind of ['file', 'folder']) {
        $(`${kind}-button`).addEventListener('click', () => $(kind).click());
        $(kind).addEventListener('change', () => {
            if (!panel.wide.matches) panel.setOpen(false);
            loadFiles($(kind).files);
            $(kind).value = '';
        });
    }
    document.addEventListener('dragover', (event) => {
        if (!event.dataTransfer?.types.includes('Files')) return;
        event.preventDefault();
        document.body.classList.add('drop');
    });
    document.addEventListener('dragleave', (event) => {
        if (event.relatedTarget === null) document.body.classList.remove('drop');
    });
    document.addEventListener('drop', (event) => {
        document.body.classList.remove('drop');
        if (!event.dataTransfer?.types.includes('Files')) return;
        event.preventDefault();
        void loadDropped(event.dataTransfer);
    });
}

function wirePanel() {
    $('parameters-reset').addEventListener('click', () => fields.reset());
    $('persist').addEventListener('click', () => void askToKeep());
    $('purge').addEventListener('click', () => {
        askToDelete(state.stored, () => void forget(() => store().purge()));
    });
    $('section-storage').addEventListener('toggle', () => void refreshStored());
    $('export-text').addEventListener('click', () => exportTalk('text'));
    $('export-json').addEventListener('click', () => exportTalk('json'));
    $('clear').addEventListener('click', clearTalk);
    for (const radio of document.getElementsByName('theme')) {
        radio.addEventListener('change', (event) => {
            const { value } = /** @type {any} */ (event.target);
            keep('doppler.theme', value);
            setTheme(value);
        });
    }
}

/** Which model to begin with: the one asked for, the last one, or the first of the list. */
function firstChoice() {
    const asked = new URLSearchParams(location.search).get('model');
    const last = kept(LAST);
    const all = allChoices();
    const named = (/** @type {string} */ name) => all.find((each) => isCalled(each, name));
    return asked ? named(asked) ?? null : named(last) ?? all[0] ?? null;
}

async function start() {
    guardScripts();
    setTheme(kept('doppler.theme'));
    wireComposer();
    wireModel();
    wirePanel();
    $('context').value = /^\d{1,7}$/.test(kept(CONTEXT)) ? kept(CONTEXT) : '';
    setState('idle');
    setMode(kept(MODE) === 'text' ? 'text' : 'chat');
    void keepOffline((act) => {
        const offer = () => toast('A new version of this page is here.', { words: 'Reload', act });
        offer();
        if (state.writing) state.offer = offer;
    });
    const blocked = checkBrowser();
    if (blocked) return fail(null, blocked);
    [state.choices] = await Promise.all([listModels(), refreshStored()]);
    const choice = firstChoice();
    const query = new URLSearchParams(location.search);
    const thrift = /** @type {any} */ (navigator).connection?.saveData === true;
    if (!choice) return offerStart(null, 'Choose a model: an address or a file.');
    if (query.get('load') === 'no' || thrift) {
        return offerStart(choice, 'The model is downloaded once and kept in this browser.');
    }
    await loadModel(choice);
}

void start();
