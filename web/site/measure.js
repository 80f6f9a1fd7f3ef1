// @ts-check
/**
 * The measurement behind the bench page: prompts of fixed text on a loaded model, as one object of
 * the result schema (docs/speed.md) for each, the fields as the native program fills them.
 *
 * A timed run is one generation on a new session: greedy, past stop tokens. What is timed is what
 * a page sees, so messages to and from the worker are in it. Counts come from a run of their own,
 * which is not timed: asking for them in between costs a message. No DOM: Node runs it, too.
 */

/** Fields of the schema keep the schema's spelling. @typedef {Object<string, any>} Result */

/**
 * @typedef {{maxNewTokens: number, runs: number, warmups: number, warmupTokens: number,
 *     signal?: AbortSignal, onRun?: (done: number, total: number) => void}} Method
 * @typedef {{ttft: number, decode: number, prefill: number, gaps: number[], seen: number[],
 *     tokens: number, promptTokens: number, load: number}} Run
 */

/** @type {Readonly<Method>} */
export const method = Object.freeze({ maxNewTokens: 128, runs: 3, warmups: 2, warmupTokens: 16 });

/** @param {number[]} values @param {number} q 0 to 1 @returns {number} between the nearest two */
export function quantile(values, q) {
    if (values.length === 0) return NaN;
    const sorted = [...values].sort((a, b) => a - b);
    const place = (sorted.length - 1) * q;
    const below = Math.floor(place);
    const above = Math.min(below + 1, sorted.length - 1);
    return sorted[below] + (sorted[above] - sorted[below]) * (place - below);
}

/** @param {number[]} values */
const median = (values) => quantile(values, 0.5);

/** @param {number} tokens @param {number} ms */
const rate = (tokens, ms) => tokens / Math.max(ms / 1000, 1e-9);

/** @param {number} maxTokens */
const greedy = (maxTokens) => ({
    maxTokens, temperature: 0, topK: 1, topP: 1, minP: 0, repeatPenalty: 1, ignoreStops: true,
});

/**
 * @param {any} model @param {string} prompt @param {number} maxTokens @param {AbortSignal} [signal]
 * @returns {Promise<Run>}
 */
async function generateOnce(model, prompt, maxTokens, signal) {
    const session = await model.newSession();
    try {
        /** @type {{at: number, n: number}[]} */
        const arrivals = [];
        const start = performance.now();
        const generation = session.generate(prompt, { ...greedy(maxTokens), signal });
        for await (const { tokens } of generation) {
            if (tokens.length > 0) arrivals.push({ at: performance.now(), n: tokens.length });
        }
        const { usage, timings } = await generation;
        signal?.throwIfAborted(); /* one that was cancelled ends without an error */
        refuseOther(usage, maxTokens);
        return { ...figuresOf(start, arrivals), load: NaN,
            promptTokens: usage.promptTokens, prefill: timings.promptSeconds * 1000,
            tokens: usage.completionTokens };
    } finally {
        await session.close();
    }
}

/**
 * A run that did something else than was asked for is no figure.
 * @param {{cachedTokens: number, completionTokens: number}} usage @param {number} maxTokens
 */
function refuseOther({ cachedTokens, completionTokens }, maxTokens) {
    if (cachedTokens > 0) {
        throw new Error(`${cachedTokens} tokens of the prompt were not read again: no figure`);
    }
    if (completionTokens !== maxTokens) {
        throw new Error(`${completionTokens} tokens were written, ${maxTokens} were asked for: ` +
            'the context may be too small');
    }
}

/**
 * Times of a run. Tokens of one submission arrive together: `gaps` shares the time among them,
 * `seen` does not. The first arrival took the prompt's time, so decoding counts from there on.
 * @param {number} start @param {{at: number, n: number}[]} arrivals
 */
function figuresOf(start, arrivals) {
    const gaps = [];
    const seen = [];
    for (let i = 1; i < arrivals.length; i++) {
        const { at, n } = arrivals[i];
        const ms = at - arrivals[i - 1].at;
        for (let k = 0; k < n; k++) {
            gaps.push(ms / n);
            seen.push(k === 0 ? ms : 0);
        }
    }
    const first = arrivals[0]?.at ?? NaN;
    const last = arrivals.at(-1)?.at ?? NaN;
    return { ttft: first - start, decode: last - first, gaps, seen };
}

/**
 * What a prompt and what decoding asks of the device, by the engine's counters.
 * @param {any} model @param {string} prompt @param {number} maxTokens @param {AbortSignal} [signal]
 */
async function countOnce(model, prompt, maxTokens, signal) {
    const session = await model.newSession();
    try {
        const before = await model.stats();
        await session.append(prompt, { signal });
        const between = await model.stats();
        await session.generate(null, { ...greedy(maxTokens), signal });
        const after = await model.stats();
        return { before, between, after };
    } finally {
        await session.close();
    }
}

/**
 * One prompt on a model that is loaded, or, with `reload`, on one loaded anew for every run.
 * @param {any} model @param {{name: string, text: string}} prompt
 * @param {Partial<Method> & {reload?: () => Promise<any>}} [how]
 * @returns {Promise<Result>} `workload`, `metrics` and `raw`
 */
export async function measurePrompt(model, prompt, how = {}) {
    const { maxNewTokens, runs, warmups, warmupTokens, signal, onRun } = { ...method, ...how };
    const { reload } = how;
    const warmDecode = Math.min(warmupTokens, maxNewTokens);
    const total = runs + (reload ? 0 : warmups) + 1;
    let done = 0;
    const step = () => onRun?.(++done, total);
    for (let i = 0; !reload && i < warmups; i++, step()) {
        await generateOnce(model, prompt.text, warmDecode, signal);
    }
    /** @type {Run[]} */
    const timed = [];
    for (let i = 0; i < runs; i++, step()) {
        const start = performance.now();
        if (reload) model = await reload();
        const load = reload ? performance.now() - start : NaN;
        timed.push({ ...await generateOnce(model, prompt.text, maxNewTokens, signal), load });
    }
    const counts = await countOnce(model, prompt.text, maxNewTokens, signal);
    step();
    return {
        workload: {
            promptName: prompt.name, promptTokens: timed[0].promptTokens, maxNewTokens,
            sampling: { temperature: 0, topK: 1, topP: 1 }, timedRuns: runs,
            warmupPrefillRuns: reload ? 0 : warmups,
            warmupDecodeTokens: reload ? 0 : warmDecode,
        },
        metrics: known({ ...times(timed), ...countsOf(counts, timed[0]) }),
        raw: { runs: timed.map((run) => known(rawOf(run))) },
    };
}

/** @param {Result} values @returns {Result} without what is not known, and 7 digits are enough */
function known(values) {
    return Object.fromEntries(Object.entries(values)
        .filter(([, value]) => value !== undefined && !Number.isNaN(value))
        .map(([key, value]) => [key, typeof value === 'number' && !Number.isInteger(value)
            ? Number(value.toPrecision(7)) : value]));
}

/** @param {Run} run @returns {Result} */
function rawOf(run) {
    return {
        ttft_ms: run.ttft, prefill_ms: run.prefill,
        prefill_tokens_per_sec: rate(run.promptTokens, run.prefill),
        decode_ms_total: run.decode, decode_tokens_per_sec: rate(run.gaps.length, run.decode),
        load_ms: run.load,
    };
}

/** @param {Run[]} timed @returns {Result} */
function times(timed) {
    const of = (/** @type {keyof Run} */ key) => median(timed.map((run) => Number(run[key])));
    const gaps = timed.flatMap((run) => run.gaps);
    const seen = timed.flatMap((run) => run.seen);
    const decoded = median(timed.map((run) => run.gaps.length));
    return {
        ttft_ms: of('ttft'), prefill_ms: of('prefill'),
        prefill_tokens_per_sec: rate(timed[0].promptTokens, of('prefill')),
        decode_ms_total: of('decode'),
        decode_ms_per_token_p50: quantile(gaps, 0.5),
        decode_ms_per_token_p90: quantile(gaps, 0.9),
        decode_ms_per_token_p99: quantile(gaps, 0.99),
        decode_tokens_per_sec: rate(decoded, of('decode')),
        itl_ms_p50: quantile(seen, 0.5), itl_ms_p90: quantile(seen, 0.9),
        itl_ms_p99: quantile(seen, 0.99),
        load_ms: of('load'),
    };
}

/** @param {{before: any, between: any, after: any}} counts @param {Run} run @returns {Result} */
function countsOf({ before, between, after }, run) {
    const submits = after.submits - between.submits;
    const read = after.bytesRead - before.bytesRead;
    return {
        gpu_submit_count_prefill: between.submits - before.submits,
        gpu_submit_count_decode: submits,
        gpu_submits_per_token: submits / run.tokens,
        gpu_dispatch_count_total: after.dispatches - before.dispatches,
        gpu_readback_bytes_total: read,
        gpu_readback_bytes_per_token: read / (run.promptTokens + run.tokens),
        estimated_vram_bytes_peak: after.deviceBytesPeak,
        host_wasm_bytes: after.wasmBytes,
    };
}

/**
 * The whole object: a measurement with what it was measured on.
 * @param {Result} measured of measurePrompt
 * @param {{model: any, env: Result, modelId: string, cold: boolean, software: boolean,
 *     metrics?: Result}} about
 * @returns {Result}
 */
export function resultOf(measured, { model, env, modelId, cold, software, metrics = {} }) {
    const { info, deviceInfo } = model;
    return {
        schemaVersion: 1, timestamp: new Date().toISOString(), suite: 'pipeline',
        runType: cold ? 'cold' : 'warm', valid: !software,
        ...software ? { invalidReason: 'the device is a CPU' } : {},
        env: {
            ...env,
            webgpu: {
                hasF16: Boolean(deviceInfo.f16), hasSubgroups: Boolean(deviceInfo.subgroups),
                hasTimestampQuery: Boolean(deviceInfo.timestamps),
            },
        },
        model: known({
            modelId, architecture: info.architecture, quantization: info.format,
            totalSizeBytes: info.weightBytes, parameterCount: info.parameters,
        }),
        workload: measured.workload,
        metrics: known({
            ...measured.metrics, gpu_timestamp_available: Boolean(deviceInfo.timestamps),
            kv_cache_dtype: deviceInfo.f16 ? 'f16' : 'f32', kv_cache_max_seq_len: info.context,
            ...metrics,
        }),
        raw: measured.raw,
    };
}

/** @param {Result} result @returns {string} the name under which the native program keeps it */
export function fileNameOf(result) {
    const { suite, model, workload, timestamp } = result;
    const clean = (/** @type {string} */ text) => text.replaceAll(/[^\w.-]+/g, '-').slice(0, 80);
    const time = timestamp.slice(0, 19).replaceAll(':', '-');
    return `${suite}_${clean(model.modelId)}_${clean(workload.promptName)}_${time}.json`;
}
