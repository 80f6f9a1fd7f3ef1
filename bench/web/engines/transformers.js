// @huggingface/transformers over onnxruntime-web, on WebGPU or in WebAssembly.
import {AutoModelForCausalLM, AutoTokenizer, TextStreamer, env}
    from '/npm/@huggingface/transformers/dist/transformers.min.js';

/** @param {{model: string, gpu: boolean, threads: number}} options */
export const open = async ({model, gpu, threads}) => {
    env.allowRemoteModels = false;
    env.allowLocalModels = true;
    env.localModelPath = '/models/transformers/';
    env.backends.onnx.wasm.wasmPaths = '/npm/onnxruntime-web/dist/';
    env.backends.onnx.wasm.numThreads = threads;
    const tokenizer = await AutoTokenizer.from_pretrained(model);
    const engine = await AutoModelForCausalLM.from_pretrained(model,
        {device: gpu ? 'webgpu' : 'wasm', dtype: 'fp32'});
    return {
        note: gpu ? 'webgpu' : 'wasm',
        lines: [],
        async generate(prompt, maxTokens, onText) {
            const inputs = tokenizer(prompt, {add_special_tokens: false});
            // A streamer counts tokens by itself; texts may hold several.
            const streamer = new TextStreamer(tokenizer, {skip_prompt: true,
                callback_function: () => {}, token_callback_function: () => onText('')});
            const output = await engine.generate({...inputs, max_new_tokens: maxTokens,
                min_new_tokens: maxTokens, do_sample: false, streamer});
            const start = inputs.input_ids.dims[1];
            return tokenizer.decode(output.slice(null, [start, null])[0] ?? output[0]);
        },
        close: () => engine.dispose(),
    };
};
