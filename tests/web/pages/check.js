// `doppler check` in a page: every kernel of the tree against its double reference, on this
// browser's device, by check.wasm (`make build/web/check.wasm`). Rows come one at a time, so the page
// stays alive.
import {memoryFiles} from '/lib/files.js';
import {serveWasi} from '/lib/wasi.js';
import {openGpu, serveWebGpu} from '/lib/webgpu.js';

const ASK = 0;
const QUEUE = 1;
const COMPARE = 2;
const DONE = 3;
const decoder = new TextDecoder();

/**
 * @param {string} filter part of a kernel's name
 * @param {boolean} brief one row of each kernel
 * @returns {Promise<{rows: object[], device: object}>}
 */
globalThis.checkKernels = async (filter, brief) => {
    const files = memoryFiles({});
    const opened = await openGpu(navigator.gpu, {});
    const gpu = serveWebGpu(opened);
    const wasi = serveWasi({files: () => files, log: (line) => console.log(line)});
    const {instance} = await WebAssembly.instantiateStreaming(fetch('/check.wasm'),
        {wgpu: gpu.imports, wasi_snapshot_preview1: wasi.imports});
    const wasm = instance.exports;
    wasi.bind(instance);
    gpu.bind(instance);
    wasm._initialize();
    const out = () => decoder.decode(new Uint8Array(wasm.memory.buffer, wasm.web_out() >>> 0,
        wasm.web_out_size() >>> 0));
    const call = (name, text, ...more) => {
        const bytes = new TextEncoder().encode(text);
        const place = wasm.web_alloc(bytes.length + 1) >>> 0;
        new Uint8Array(wasm.memory.buffer, place, bytes.length).set(bytes);
        const result = wasm[name](place, bytes.length, ...more);
        wasm.web_free(place);
        if (result < 0) {
            throw new Error(out());
        }
        return result;
    };
    call('web_open_device', '{}');
    const device = JSON.parse(out());
    await gpu.pipelines();
    call('web_check_begin', filter, brief ? 1 : 0);
    const rows = [];
    for (let stage = ASK; stage !== DONE;) {
        stage = wasm.web_check_some();
        if (stage < 0) {
            throw new Error(out());
        }
        if (wasm.web_out_size() > 0) {
            rows.push(JSON.parse(out()));
        }
        if (stage === QUEUE) {
            await gpu.pipelines();
        } else if (stage === COMPARE) {
            while (gpu.stats().underWay > 0) {
                await gpu.mapped();
            }
        }
        const [fault] = gpu.errors();
        if (fault) {
            throw new Error(`${JSON.stringify(rows.at(-1))}: ${fault}`);
        }
    }
    gpu.destroy();
    return {rows, device};
};
globalThis.ready = true;
