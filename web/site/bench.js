// @ts-check
/**
 * The bench page: chooses model, prompts and runs, measures, shows a table, saves JSON. What is
 * measured and how is measure.js.
 *
 * For scripts: ?model=NAME&prompts=xs,short&tokens=64&runs=3&kind=warm&go begins at once, and
 * body[data-state] goes idle -> running -> done or failed, with the results as JSON in #json.
 */
import { load, cache, version } from './lib/doppler.js';
import { checkBrowser, explain, isCancelled } from './advice.js';
import { fileNameOf, measurePrompt, method, resultOf } from './measure.js';
import { guardScripts } from './guard.js';
import { choiceOfUrl, isKeptAs, listModels, parseUrl } from './sources.js';
import { saveFile } from './talk.js';
import { showBytes, showCount } from './text.js';

const ADDRESS = 'an address'; // the choice that shows a field
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|basic render|warp/i;

/** @param {string} id @returns {any} */
const $ = (id) => document.getElementById(id);

/** @type {import('./sources.js').Choice[]} */
let choices = [];
/** @type {import('./measure.js').Result[]} */
let results = [];
/** @type {AbortController | null} */
let running = null;

/** @param {'idle'|'running'|'done'|'failed'} name */
function setState(name) {
    document.body.dataset.state = name;
    $('run').textContent = name === 'running' ? 'Stop' : 'Measure';
    $('going').hidden = name !== 'running';
    $('save').hidden = name === 'running' || results.length === 0;
}

/** @param {string} text @param {number} [done] @param {number} [total] */
function show(text, done, total) {
    if ($('going-text').textContent !== text) $('going-text').textContent = text;
    if (total) Object.assign($('bar'), { max: total, value: done });
    else $('bar').removeAttribute('value');
}

/** @param {import('./advice.js').Failure} failure */
function fail(failure) {
    $('failure-title').textContent = failure.title;
    $('failure-text').textContent = failure.text;
    $('failure-advice').textContent = failure.advice;
    $('failure').hidden = false;
    setState('failed');
}

/* ---- where it runs -------------------------------------------------------------------------- */

/** Name and version as the browser says them, as far as it does. */
function browserOf() {
    const { userAgentData, userAgent } = /** @type {any} */ (navigator);
    const brand = userAgentData?.brands?.find((/** @type {any} */ each) => !/not.a.brand|chromium/i
        .test(each.brand)) ?? userAgentData?.brands?.find((/** @type {any} */ each) =>
        each.brand === 'Chromium');
    if (brand) return { name: String(brand.brand), version: String(brand.version) };
    const found = /(Firefox|Edg|Chrome|Version)\/([\d.]+)/.exec(userAgent);
    const name = found?.[1] === 'Version' ? 'Safari' : found?.[1];
    return { name: name ?? 'unknown', version: found?.[2] ?? '' };
}

/** @param {any} deviceInfo of the engine */
async function envOf(deviceInfo) {
    const { userAgentData, platform, gpu } = /** @type {any} */ (navigator);
    const info = (await gpu?.requestAdapter({ powerPreference: 'high-performance' }))?.info;
    const vendor = info?.vendor || deviceInfo.vendor || '';
    const device = info?.device || info?.architecture || deviceInfo.name || '';
    const fallback = info?.isFallbackAdapter === true;
    const text = [vendor, device, info?.architecture, info?.description, deviceInfo.name].join(' ');
    return {
        software: fallback || deviceInfo.type === 'cpu' || SOFTWARE.test(text),
        env: {
            runtime: { name: 'doppler', version, library: 'browser' },
            browser: browserOf(),
            os: { name: userAgentData?.platform || platform || 'unknown', version: '' },
            gpu: { vendor, device, description: info?.description || device },
        },
    };
}

/** @param {import('./sources.js').Choice} choice */
async function storageOf(choice) {
    const rows = await cache.list().catch(() => []);
    const isKept = rows.some((/** @type {any} */ row) => row.complete && isKeptAs(choice, row));
    const estimate = await navigator.storage?.estimate?.().catch(() => null);
    return {
        storage_mode: isKept ? 'opfs' : 'http_only',
        storage_persisted: await navigator.storage?.persisted?.().catch(() => false) ?? false,
        opfs_usage_bytes: estimate?.usage,
    };
}

/* ---- measuring ------------------------------------------------------------------------------ */

/** @param {string} name @param {AbortSignal} signal */
async function readPrompt(name, signal) {
    const answer = await fetch(`prompts/${name}.txt`, { signal });
    if (!answer.ok) throw new Error(`prompts/${name}.txt: the server answered ${answer.status}`);
    const text = await answer.text();
    return { name, text: text.replace(/\n+$/, '') }; /* the line end is none of the prompt */
}

function chosen() {
    const name = $('model').value;
    if (name !== ADDRESS) {
        const choice = choices.find((each) => each.name === name);
        if (!choice) throw new Error(`There is no model “${name.slice(0, 60)}” in the list.`);
        return choice;
    }
    const url = parseUrl($('address').value.trim());
    if (typeof url === 'string') throw new Error(url);
    return choiceOfUrl(url);
}

/** @param {AbortSignal} signal */
async function measureAll(signal) {
    const choice = chosen();
    const cold = $('kind').value === 'cold';
    const picked = /** @type {NodeListOf<HTMLInputElement>} */ (
        document.querySelectorAll('input[name="prompt"]:checked'));
    const names = Array.from(picked, ({ value }) => value);
    if (names.length === 0) throw new Error('No prompt is chosen.');
    /** @type {any} */
    let model = null;
    const open = async () => {
        await model?.close();
        model = await load(choice.value, {
            signal,
            onProgress: (/** @type {any} */ { phase, loaded, total }) =>
                show(`Loading: ${phase}`, loaded, total),
        });
        return model;
    };
    try {
        const prompts = await Promise.all(names.map((name) => readPrompt(name, signal)));
        const start = performance.now();
        await open();
        const load_ms = performance.now() - start;
        const { env, software } = await envOf(model.deviceInfo);
        for (const prompt of prompts) {
            const measured = await measurePrompt(model, prompt, {
                signal,
                maxNewTokens: $('tokens').valueAsNumber, runs: $('runs').valueAsNumber,
                warmups: method.warmups,
                onRun: (done, total) => show(`Measuring ${prompt.name}`, done, total),
                ...cold ? { reload: open } : {},
            });
            const storage = await storageOf(choice);
            const metrics = cold ? storage : { load_ms, ...storage };
            results.push(resultOf(measured, {
                model, env, modelId: choice.name, cold, software, metrics,
            }));
            showResults();
        }
    } finally {
        await model?.close().catch(() => {});
    }
}

function showResults() {
    const { invalidReason } = results[0];
    $('caveat').textContent = invalidReason
        ? `Not a figure of a GPU: ${invalidReason}.` : '';
    $('rows').replaceChildren(...results.map(({ workload, metrics }) => {
        const row = document.createElement('tr');
        const cells = [
            workload.promptName, showCount(workload.promptTokens), metrics.ttft_ms.toFixed(1),
            metrics.prefill_tokens_per_sec.toFixed(1), metrics.decode_tokens_per_sec.toFixed(1),
            metrics.decode_ms_per_token_p90.toFixed(2), metrics.gpu_submits_per_token.toFixed(3),
            showBytes(metrics.estimated_vram_bytes_peak),
        ];
        for (const [i, text] of cells.entries()) {
            const cell = document.createElement(i === 0 ? 'th' : 'td');
            if (i === 0) cell.setAttribute('scope', 'row');
            cell.textContent = text;
            row.append(cell);
        }
        return row;
    }));
    $('json').textContent = JSON.stringify(results, null, 2);
    $('results').hidden = false;
}

async function run() {
    const abort = new AbortController();
    running = abort;
    results = [];
    $('failure').hidden = $('results').hidden = true;
    $('json').textContent = '';
    show('Starting');
    setState('running');
    try {
        await measureAll(abort.signal);
        setState('done');
    } catch (error) {
        if (isCancelled(error)) setState('idle');
        else fail(explain(error));
    } finally {
        running = null;
    }
}

/* ---- the form ------------------------------------------------------------------------------- */

function fillForm() {
    const query = new URLSearchParams(location.search);
    const names = [...choices.map((choice) => choice.name), ADDRESS];
    $('model').append(...names.map((name) => {
        const title = choices.find((choice) => choice.name === name)?.title ?? `${name} …`;
        return new Option(title, name);
    }));
    const asked = query.get('model');
    if (asked && names.includes(asked)) $('model').value = asked;
    for (const name of ['tokens', 'runs', 'kind']) {
        const value = query.get(name);
        if (value) $(name).value = value;
    }
    const prompts = query.get('prompts')?.split(',');
    if (!prompts) return;
    for (const box of document.querySelectorAll('input[name="prompt"]')) {
        const input = /** @type {HTMLInputElement} */ (box);
        input.checked = prompts.includes(input.value);
    }
}

async function start() {
    guardScripts();
    setState('idle');
    const blocked = checkBrowser();
    choices = await listModels();
    fillForm();
    const showAddress = () => {
        $('address-field').hidden = $('model').value !== ADDRESS;
    };
    showAddress();
    $('model').addEventListener('change', showAddress);
    $('bench').addEventListener('submit', (/** @type {Event} */ event) => {
        event.preventDefault();
        if (running) running.abort();
        else void run();
    });
    $('save').addEventListener('click', () => {
        for (const result of results) {
            saveFile(fileNameOf(result), JSON.stringify(result), 'application/json');
        }
    });
    if (blocked) {
        $('run').disabled = true;
        return fail(blocked);
    }
    if (new URLSearchParams(location.search).has('go')) await run();
}

void start();
