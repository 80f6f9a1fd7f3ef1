// The measuring side inside the page: one engine, loaded and run as its own documents say. Called
// by bench.mjs; `window.measure` is all that it needs.
const now = () => performance.now();

/**
 * Loads an engine and writes `tokens` tokens after each prompt, `rounds` times.
 * @returns {Promise<object>} milliseconds, and what was written
 */
window.measure = async ({engine, options, prompts, tokens, rounds}) => {
    const started = now();
    const {open} = await import(`/bench/engines/${engine}.js`);
    const imported = now();
    const model = await open(options);
    const ready = now();
    const results = [];
    for (const [name, prompt] of Object.entries(prompts)) {
        for (let round = 0; round < rounds; round++) {
            const times = [];
            let text = '';
            const begun = now();
            const whole = await model.generate(prompt, tokens, (part) => {
                times.push(now() - begun);
                text += part;
            });
            results.push({name, round, first: times[0], last: times.at(-1), parts: times.length,
                total: now() - begun, text: (whole ?? text).slice(0, 200)});
        }
    }
    const lines = model.lines.slice(-400);
    await model.close();
    return {imported: imported - started, ready: ready - started, note: model.note, results, lines};
};
window.benchReady = true;
