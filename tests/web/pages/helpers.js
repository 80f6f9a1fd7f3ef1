// What the browser tests share inside the page: the package, and what becomes of its calls, as
// plain values that go back to the test.
import * as doppler from '/lib/doppler.js';

/** A call's outcome: {value}, or {error: {name, status, message}}. */
const outcome = async (promise) => {
    try {
        return {value: await promise};
    } catch (error) {
        return {error: {name: error.name, status: error.status, message: error.message}};
    }
};

/** Loads a model into `models[name]`; its phases, notes and device, or the error. */
const load = (name, source, options = {}) => outcome((async () => {
    const phases = [];
    const onProgress = ({phase, loaded, total}) => {
        if (phases.at(-1)?.phase !== phase) {
            phases.push({phase, loaded, total});
        }
        Object.assign(phases.at(-1), {loaded, total});
        globalThis.progress = {phase, loaded, total};
    };
    const model = await doppler.load(source, {...options, onProgress});
    models[name] = model;
    return {phases, notes: model.notes, info: model.info, device: model.deviceInfo};
})());

/** Greedy tokens after a prompt of tokens or messages. */
const greedy = (name, prompt, maxTokens, options = {}) => outcome((async () => {
    const answer = await models[name].generate(prompt,
        {maxTokens, temperature: 0, ignoreStops: true, ...options});
    return {text: answer.text, tokens: answer.tokens, finish: answer.finish};
})());

const models = {};
Object.assign(globalThis, {doppler, models, outcome, load, greedy, ready: true});
