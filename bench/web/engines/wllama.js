// @wllama/wllama: llama.cpp in WebAssembly, with or without its WebGPU back end.
import {Wllama} from '/npm/@wllama/wllama/esm/index.min.js';

/** @param {{model: string, gpu: boolean, threads: number, context: number}} options */
export const open = async ({model, gpu, threads, context}) => {
    const lines = [];
    const keep = (...words) => lines.push(words.join(' '));
    const engine = new Wllama({default: '/npm/@wllama/wllama/esm/wasm/wllama.wasm'},
        {logger: {debug: keep, log: keep, warn: keep, error: keep}});
    await engine.loadModelFromUrl(new URL(model, location.href).href, {n_ctx: context,
        n_gpu_layers: gpu ? 999 : 0, n_threads: threads, useCache: true});
    return {
        note: `${engine.getNumThreads()} threads, ` +
            `webgpu ${lines.some((line) => /WebGPU.*(buffer size|offload)/i.test(line))}`,
        lines,
        async generate(prompt, maxTokens, onText) {
            const stream = await engine.createCompletion({prompt, max_tokens: maxTokens,
                temperature: 0, temp: 0, ignore_eos: true, stream: true});
            for await (const chunk of stream) {
                if (chunk.choices[0]?.text) {
                    onText(chunk.choices[0].text);
                }
            }
        },
        close: () => engine.exit(),
    };
};
