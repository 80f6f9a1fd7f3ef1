// @ts-check
/**
 * WebGPU for the wasm: opens adapter and device, and serves the module "wgpu" that
 * src/gpu/library_web.c imports.
 *
 * C knows objects by their number in a table here. What it passes are numbers and places in its
 * memory, never structs. C never waits: it is told of finished maps and work by web_gpu_settled and
 * of errors and loss by web_gpu_event, both only while no wasm runs or from within a call of its
 * own. Pipelines have a number before they exist; `pipelines` must be awaited before the first pass
 * that uses them.
 *
 * An exception must not pass through C's frames: every import catches and tells C as an error of
 * the device, but the three calls of every dispatch, which cannot throw for objects that C holds.
 */

import { DeviceError } from './errors.js';

// Values of webgpu.h and of the enums in library_web.c.
const MAP_SUCCESS = 1;
const MAP_ERROR = 3;
const MAP_ABORTED = 4;
const WORK_SUCCESS = 1;
const WORK_ERROR = 3;
const LOST_UNKNOWN = 1;
const LOST_DESTROYED = 2;
const ERROR_VALIDATION = 2;
const ERROR_OUT_OF_MEMORY = 3;
const ERROR_INTERNAL = 4;
const TYPE_CPU = 3;
const TYPE_UNKNOWN = 4;
const FEATURES = new Map([[0x09, 'timestamp-query'], [0x0b, 'shader-f16'], [0x12, 'subgroups']]);
const BINDING_TYPES = { 2: 'uniform', 3: 'storage', 4: 'read-only-storage' };
const ADAPTER_TEXTS = ['vendor', 'architecture', 'device', 'description'];
const ADAPTER_TYPE = 0;

// Objects that are there from the start, by the numbers that C gives them.
const FIRST_FREE = 5;
const TEXT_BYTES = 1024;
const LAYOUT_WORDS = 3;
const GROUP_NUMBERS = 4;

/** Limits that kernels gain by, and those that C checks. What is not asked for is not granted. */
const LIMITS = [
    'maxBindGroups', 'maxBindingsPerBindGroup', 'maxDynamicUniformBuffersPerPipelineLayout',
    'maxStorageBuffersPerShaderStage', 'maxUniformBuffersPerShaderStage',
    'maxUniformBufferBindingSize', 'maxStorageBufferBindingSize', 'maxBufferSize',
    'minUniformBufferOffsetAlignment', 'minStorageBufferOffsetAlignment',
    'maxComputeWorkgroupStorageSize', 'maxComputeInvocationsPerWorkgroup',
    'maxComputeWorkgroupSizeX', 'maxComputeWorkgroupSizeY', 'maxComputeWorkgroupSizeZ',
    'maxComputeWorkgroupsPerDimension',
];

// --- opening -------------------------------------------------------------------------------------

/**
 * @typedef {object} GpuOptions
 * @property {boolean} [noF16] do without half floats
 * @property {boolean} [noSubgroups] do without subgroups
 * @property {boolean} [fallback] take the software adapter
 * @property {(line: string) => void} [log]
 *
 * @typedef {object} OpenGpu
 * @property {any} adapter
 * @property {any} device
 * @property {number} subgroupSize lanes of a subgroup as a kernel saw them; 0: not usable
 * @property {any} info GPUAdapterInfo
 */

/**
 * Adapter and device with all limits and features that the engine can use. Rejects with
 * DeviceError that says what is missing.
 * @param {any} gpu navigator.gpu, or that of a Node package
 * @param {GpuOptions} [options]
 * @returns {Promise<OpenGpu>}
 */
export async function openGpu(gpu, options = {}) {
    if (!gpu) throw new DeviceError(whyNoWebGpu());
    const wanted = ['shader-f16', 'subgroups', 'timestamp-query'].filter((name) =>
        !(options.noF16 && name === 'shader-f16') &&
        !(options.noSubgroups && name === 'subgroups'));
    // A driver may refuse what its adapter offers: then with less, each time of a fresh adapter.
    const attempts = [{ features: wanted, limits: LIMITS }, { features: [], limits: LIMITS },
        { features: [], limits: [] }];
    let refusal = '';
    for (const { features, limits } of attempts) {
        const adapter = await requestAdapter(gpu, options);
        try {
            const device = await requestDevice(adapter, features, limits);
            const subgroupSize = await probeSubgroups(device, options.log);
            return { adapter, device, subgroupSize, info: adapter.info ?? {} };
        } catch (error) {
            refusal = messageOf(error);
            options.log?.(`the GPU refuses a device with ${features.join(', ') || 'no features'}` +
                `${limits.length > 0 ? ' and its own limits' : ''}: ${refusal}`);
        }
    }
    throw new DeviceError(`the GPU gives no device: ${refusal}`);
}

function whyNoWebGpu() {
    if (globalThis.isSecureContext === false) {
        return 'no WebGPU: browsers offer it to secure pages only (https or localhost), and this ' +
            `one is ${globalThis.location?.origin ?? 'not'}`;
    }
    return 'no WebGPU: this browser does not offer it; Chrome and Edge from 137, Firefox from ' +
        '141 and Safari from 26 do, some only where their vendor has allowed the GPU';
}

/** @param {any} gpu @param {GpuOptions} options */
async function requestAdapter(gpu, options) {
    let adapter = null;
    let why = '';
    try {
        adapter = await gpu.requestAdapter(options.fallback
            ? { forceFallbackAdapter: true }
            : { powerPreference: 'high-performance' });
        // A laptop may offer its frugal GPU alone.
        if (!adapter && !options.fallback) adapter = await gpu.requestAdapter();
    } catch (error) {
        why = `: ${messageOf(error)}`;
    }
    if (adapter) return adapter;
    throw new DeviceError(options.fallback
        ? `no software GPU: this browser has none${why}`
        : `no GPU: this browser has WebGPU but offers no adapter${why}; its GPU is blocked, ` +
            'hardware acceleration is off, or there is no driver');
}

/** @param {any} adapter @param {string[]} features @param {string[]} limits */
function requestDevice(adapter, features, limits) {
    const requiredLimits = Object.fromEntries(limits
        .map((name) => [name, adapter.limits[name]])
        .filter(([, value]) => typeof value === 'number'));
    const requiredFeatures = features.filter((name) => adapter.features.has(name));
    return adapter.requestDevice({ label: 'doppler', requiredFeatures, requiredLimits });
}

const PROBE = `enable subgroups;
@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(128)
fn probe(@builtin(subgroup_size) size: u32, @builtin(local_invocation_index) lane: u32) {
    let sum = subgroupAdd(1u);
    if (lane == 0u) { y[0] = size; y[1] = sum; }
}`;

/**
 * The subgroup size that a kernel sees; 0 if there is none or if it does not work as it says.
 * @param {any} device @param {((line: string) => void) | undefined} log
 */
async function probeSubgroups(device, log) {
    if (!device.features.has('subgroups')) return 0;
    // GPUBufferUsage and GPUMapMode by value: Node has no such globals.
    const [mapRead, copySrc, copyDst, storage] = [1, 4, 8, 128];
    const y = device.createBuffer({ size: 8, usage: storage | copySrc });
    const back = device.createBuffer({ size: 8, usage: mapRead | copyDst });
    device.pushErrorScope('validation');
    let size = 0;
    let sum = 0;
    let why = '';
    try {
        const module = device.createShaderModule({ code: PROBE, label: 'subgroup probe' });
        const pipeline = await device.createComputePipelineAsync({ layout: 'auto',
            compute: { module, entryPoint: 'probe' } });
        const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0),
            entries: [{ binding: 0, resource: { buffer: y } }] });
        const encoder = device.createCommandEncoder();
        const pass = encoder.beginComputePass();
        pass.setPipeline(pipeline);
        pass.setBindGroup(0, group);
        pass.dispatchWorkgroups(1);
        pass.end();
        encoder.copyBufferToBuffer(y, 0, back, 0, 8);
        device.queue.submit([encoder.finish()]);
        const waker = makeWaker(device);
        await waker.during(back.mapAsync(1));
        [size, sum] = new Uint32Array(back.getMappedRange());
    } catch (error) {
        why = messageOf(error);
    }
    const refused = await device.popErrorScope();
    why ||= refused?.message ?? '';
    y.destroy();
    back.destroy();
    const works = why === '' && size >= 4 && size <= 128 && (size & (size - 1)) === 0 &&
        sum === size;
    if (!works) log?.(`subgroups are not used: a probe saw size ${size} and sum ${sum} ${why}`);
    return works ? size : 0;
}

/** @param {unknown} error */
function messageOf(error) {
    return error instanceof Error ? error.message : String(error);
}

// --- waking --------------------------------------------------------------------------------------

/** Firefox looks at its GPU every 100 ms only (its bug 1870699); an empty submission makes it look.
 * Elsewhere that would cost latency. */
const looksRarely = () => /\bFirefox\//.test(globalThis.navigator?.userAgent ?? '');

const FAST_ROUNDS = 200;

/**
 * Keeps the browser looking while promises of the queue are under way.
 * @param {any} device @param {boolean} [needed]
 */
function makeWaker(device, needed = looksRarely()) {
    let waiting = 0;
    let round = 0;
    let running = false;
    /** @type {MessageChannel | null} */
    let channel = null;
    const stop = () => {
        running = false;
        channel?.port1.close();
        channel = null;
    };
    const step = () => {
        if (waiting === 0) return stop();
        try {
            device.queue.submit([]);
        } catch {
            return stop(); // a lost device settles its promises by itself
        }
        if (round++ < FAST_ROUNDS) channel?.port2.postMessage(0);
        else setTimeout(step, 1);
    };
    const start = () => {
        round = 0;
        if (running) return;
        running = true;
        channel = new MessageChannel();
        channel.port1.onmessage = step;
        step();
    };
    const done = () => { waiting--; };
    return {
        /** @template T @param {Promise<T>} promise @returns {Promise<T>} */
        during(promise) {
            if (!needed) return promise;
            waiting++;
            promise.then(done, done);
            start();
            return promise;
        },
    };
}

// --- serving -------------------------------------------------------------------------------------

/**
 * @typedef {object} GpuServer
 * @property {Object<string, Function>} imports the module "wgpu"
 * @property {(instance: WebAssembly.Instance) => void} bind before any export is called
 * @property {() => Promise<void>} pipelines resolves when all pipelines exist; rejects with
 *     DeviceError that names the first kernel that does not compile
 * @property {() => Promise<void>} mapped resolves when the next map or work under way has settled;
 *     rejects if nothing is under way
 * @property {() => Promise<void>} drained resolves when all submitted and written so far is done
 * @property {Promise<string>} lost resolves with the reason when the device is lost
 * @property {() => void} destroy the device, as by hand
 * @property {() => string[]} errors what the device has reported, the first 16
 * @property {() => GpuServerStats} stats
 *
 * @typedef {{buffers: number, bufferBytes: number, objects: number, submits: number,
 *     writes: number, bytesWritten: number, maps: number, pipelines: number, pending: number,
 *     underWay: number}} GpuServerStats
 */

const MOST_ERRORS = 16;

/**
 * Serves one wasm instance over one device.
 * @param {OpenGpu & {wake?: boolean}} open
 * @returns {GpuServer}
 */
export function serveWebGpu({ adapter, device, subgroupSize, info, wake }) {
    /** @type {any[]} by number; null where it is free or, of pipelines, not there yet */
    const objects = [null, null, adapter, device, device.queue];
    /** @type {number[]} */
    const free = [];
    /** @type {any} */
    let exports = null;
    let memory = new WebAssembly.Memory({ initial: 0 });
    let bytes = new Uint8Array(0);
    let words = new Uint32Array(0);
    let numbers = new Float64Array(0);
    const queue = device.queue;
    const decoder = new TextDecoder();
    const encoder = new TextEncoder();
    const waker = makeWaker(device, wake);
    /** @type {string[]} */
    const errors = [];
    const stats = { buffers: 0, bufferBytes: 0, submits: 0, writes: 0, bytesWritten: 0, maps: 0,
        pipelines: 0 };

    // Growth detaches the views.
    const look = () => {
        if (bytes.buffer === memory.buffer) return;
        bytes = new Uint8Array(memory.buffer);
        words = new Uint32Array(memory.buffer);
        numbers = new Float64Array(memory.buffer);
    };
    /** @param {number} at @param {number} size */
    const text = (at, size) => {
        look();
        return decoder.decode(bytes.subarray(at >>> 0, (at >>> 0) + (size >>> 0)));
    };
    /** @param {any} object */
    const add = (object) => {
        const number = free.pop();
        if (number === undefined) return objects.push(object) - 1;
        objects[number] = object;
        return number;
    };

    /** @param {boolean} isLoss @param {number} type @param {string} message */
    const tell = (isLoss, type, message) => {
        if (errors.length < MOST_ERRORS) errors.push(message);
        if (!exports) return;
        const at = exports.web_gpu_text() >>> 0;
        look();
        const { written } = encoder.encodeInto(message, bytes.subarray(at, at + TEXT_BYTES));
        exports.web_gpu_event(isLoss ? 1 : 0, type, written);
    };
    /** @param {any} error a GPUError */
    const typeOf = (error) => {
        const name = error?.constructor?.name;
        return name === 'GPUOutOfMemoryError' ? ERROR_OUT_OF_MEMORY
            : name === 'GPUInternalError' ? ERROR_INTERNAL : ERROR_VALIDATION;
    };

    const lost = device.lost.then((/** @type {any} */ reason) => {
        const destroyed = reason.reason === 'destroyed';
        const why = reason.message || (destroyed ? 'it was destroyed' : '');
        tell(true, destroyed ? LOST_DESTROYED : LOST_UNKNOWN, why);
        wakeAll();
        return why || 'the browser gave no reason';
    });
    device.addEventListener?.('uncapturederror', (/** @type {any} */ event) => {
        event.preventDefault?.();
        tell(false, typeOf(event.error), event.error.message);
    });

    // --- what settles later ---

    let underWay = 0;
    /** @type {(() => void)[]} */
    let waiters = [];
    const wakeAll = () => {
        const list = waiters;
        waiters = [];
        for (const wakeUp of list) wakeUp();
    };
    /** @param {Promise<any>} promise @param {number} future @param {(error: any) => number} status
     * @param {number} success */
    const follow = (promise, future, success, status) => {
        underWay++;
        const settle = (/** @type {number} */ value) => {
            underWay--;
            exports.web_gpu_settled(future, value);
            wakeAll();
        };
        waker.during(promise).then(() => settle(success), (error) => settle(status(error)));
    };

    let pending = 0;
    /** @type {DeviceError | null} */
    let refused = null;
    /** @type {(() => void)[]} */
    let pipelineWaiters = [];
    /** @param {number} number @param {string} label @param {Promise<any>} promise */
    const followPipeline = (number, label, promise) => {
        pending++;
        promise.then((pipeline) => {
            if (objects[number] === label) objects[number] = pipeline;
        }, (error) => {
            const message = `kernel ${label}: ${messageOf(error)}`;
            refused ??= new DeviceError(message);
            tell(false, ERROR_INTERNAL, message);
        }).then(() => {
            if (--pending > 0) return;
            const list = pipelineWaiters;
            pipelineWaiters = [];
            for (const wakeUp of list) wakeUp();
        });
    };

    // --- the imports ---

    /** @type {Object<string, number>} */
    let constants = {};

    const careful = {
        /** @param {number} what @param {number} at @param {number} size */
        adapterText(what, at, size) {
            look();
            const value = String(info?.[ADAPTER_TEXTS[what]] ?? '');
            return encoder.encodeInto(value, bytes.subarray(at, at + size)).written;
        },
        /** @param {number} what */
        adapterNumber(what) {
            if (what !== ADAPTER_TYPE) return subgroupSize;
            const software = info?.isFallbackAdapter ?? adapter.isFallbackAdapter;
            return software ? TYPE_CPU : TYPE_UNKNOWN;
        },
        /** @param {number} at @param {number} n */
        limit: (at, n) => device.limits[text(at, n)] ?? 0,
        /** @param {number} feature */
        hasFeature: (feature) => +device.features.has(FEATURES.get(feature) ?? ''),

        /** @param {number} size @param {number} usage @param {number} at @param {number} n */
        createBuffer(size, usage, at, n) {
            const buffer = device.createBuffer({ size, usage, label: text(at, n) });
            stats.buffers++;
            stats.bufferBytes += size;
            return add(buffer);
        },
        /** @param {number} code @param {number} size @param {number} at @param {number} n */
        createShaderModule: (code, size, at, n) =>
            add(device.createShaderModule({ code: text(code, size), label: text(at, n) })),
        /** @param {number} at @param {number} n */
        createBindGroupLayout(at, n) {
            look();
            const entries = [];
            for (let i = at >>> 2, end = i + n * LAYOUT_WORDS; i < end; i += LAYOUT_WORDS) {
                const type = BINDING_TYPES[/** @type {2|3|4} */ (words[i + 1])];
                entries.push({ binding: words[i], visibility: 4, // GPUShaderStage.COMPUTE
                    buffer: { type, hasDynamicOffset: words[i + 2] !== 0 } });
            }
            return add(device.createBindGroupLayout({ entries }));
        },
        /** @param {number} at @param {number} n */
        createPipelineLayout(at, n) {
            look();
            const bindGroupLayouts = Array.from(words.subarray(at >>> 2, (at >>> 2) + n),
                (number) => objects[number]);
            return add(device.createPipelineLayout({ bindGroupLayouts }));
        },
        /** @param {number} layout @param {number} at @param {number} n */
        createBindGroup(layout, at, n) {
            look();
            const entries = [];
            for (let i = at >>> 3, end = i + n * GROUP_NUMBERS; i < end; i += GROUP_NUMBERS) {
                entries.push({ binding: numbers[i], resource: { buffer: objects[numbers[i + 1]],
                    offset: numbers[i + 2], size: numbers[i + 3] } });
            }
            return add(device.createBindGroup({ layout: objects[layout], entries }));
        },
        /** For the next pipeline. @param {number} at @param {number} n @param {number} value */
        constant(at, n, value) {
            constants[text(at, n)] = value;
        },
        /**
         * @param {number} layout @param {number} module @param {number} entry @param {number} n
         * @param {number} at @param {number} size
         */
        createPipeline(layout, module, entry, n, at, size) {
            const label = text(at, size);
            const descriptor = { layout: objects[layout], label,
                compute: { module: objects[module], entryPoint: text(entry, n), constants } };
            constants = {};
            stats.pipelines++;
            const number = add(label);
            followPipeline(number, label, device.createComputePipelineAsync(descriptor));
            return number;
        },
        /** @param {number} count */
        createQuerySet: (count) => add(device.createQuerySet({ type: 'timestamp', count })),

        createEncoder: () => add(device.createCommandEncoder()),
        /** @param {number} from @param {number} set @param {number} begin @param {number} end */
        beginPass(from, set, begin, end) {
            if (set === 0) return add(objects[from].beginComputePass());
            const timestampWrites = { querySet: objects[set], beginningOfPassWriteIndex: begin,
                endOfPassWriteIndex: end };
            return add(objects[from].beginComputePass({ timestampWrites }));
        },
        /** @param {number} pass */
        endPass: (pass) => objects[pass].end(),
        /**
         * @param {number} into @param {number} from @param {number} fromOffset @param {number} to
         * @param {number} toOffset @param {number} size
         */
        copyBuffer: (into, from, fromOffset, to, toOffset, size) =>
            objects[into].copyBufferToBuffer(objects[from], fromOffset, objects[to], toOffset,
                size),
        /** @param {number} into @param {number} b @param {number} offset @param {number} size */
        clearBuffer: (into, b, offset, size) => objects[into].clearBuffer(objects[b], offset, size),
        /**
         * @param {number} into @param {number} set @param {number} first @param {number} n
         * @param {number} to @param {number} offset
         */
        resolveQueries: (into, set, first, n, to, offset) =>
            objects[into].resolveQuerySet(objects[set], first, n, objects[to], offset),
        /** @param {number} from */
        finish: (from) => add(objects[from].finish()),
        /** @param {number} at @param {number} n */
        submit(at, n) {
            look();
            const list = [];
            for (let i = 0; i < n; i++) list.push(objects[words[(at >>> 2) + i]]);
            queue.submit(list);
            stats.submits++;
        },

        /** @param {number} buffer @param {number} offset @param {number} at @param {number} size */
        writeBuffer(buffer, offset, at, size) {
            queue.writeBuffer(objects[buffer], offset, memory.buffer, at >>> 0, size >>> 0);
            stats.writes++;
            stats.bytesWritten += size >>> 0;
        },
        /** @param {number} future */
        workDone(future) {
            follow(queue.onSubmittedWorkDone(), future, WORK_SUCCESS, () => WORK_ERROR);
        },
        /** @param {number} buffer @param {number} offset @param {number} size
         * @param {number} future */
        mapRead(buffer, offset, size, future) {
            stats.maps++;
            follow(objects[buffer].mapAsync(1, offset, size), future, MAP_SUCCESS,
                (error) => error?.name === 'AbortError' ? MAP_ABORTED : MAP_ERROR);
        },
        /** @param {number} buffer @param {number} offset @param {number} at @param {number} size */
        readMapped(buffer, offset, at, size) {
            look();
            const range = objects[buffer].getMappedRange(offset, Math.ceil(size / 4) * 4);
            bytes.set(new Uint8Array(range, 0, size), at >>> 0);
            return 1;
        },
        /** @param {number} buffer */
        unmap: (buffer) => objects[buffer].unmap(),
        /** @param {number} buffer */
        destroyBuffer(buffer) {
            stats.buffers--;
            stats.bufferBytes -= objects[buffer].size;
            objects[buffer].destroy();
        },
        destroyDevice: () => device.destroy(),
        /** @param {number} number */
        release(number) {
            if (number < FIRST_FREE) return;
            objects[number] = null;
            free.push(number);
        },
    };

    /** @type {Object<string, Function>} */
    const imports = {
        /** @param {number} pass @param {number} pipeline */
        setPipeline: (pass, pipeline) => objects[pass].setPipeline(objects[pipeline]),
        /**
         * @param {number} pass @param {number} index @param {number} group @param {number} n
         * @param {number} at
         */
        setBindGroup(pass, index, group, n, at) {
            if (n === 0) return objects[pass].setBindGroup(index, objects[group]);
            look();
            objects[pass].setBindGroup(index, objects[group], words, at >>> 2, n);
        },
        /** @param {number} pass @param {number} x @param {number} y @param {number} z */
        dispatch: (pass, x, y, z) => objects[pass].dispatchWorkgroups(x, y, z),
    };
    for (const [name, call] of Object.entries(careful)) {
        imports[name] = (/** @type {number[]} */ ...args) => {
            try {
                return /** @type {Function} */ (call)(...args);
            } catch (error) {
                const memoryOut = error instanceof RangeError && name === 'createBuffer';
                tell(false, memoryOut ? ERROR_OUT_OF_MEMORY : ERROR_VALIDATION,
                    `${name}: ${messageOf(error)}`);
                return 0;
            }
        };
    }

    return {
        imports,
        bind(instance) {
            exports = instance.exports;
            memory = exports.memory;
            look();
        },
        async pipelines() {
            if (pending > 0) await new Promise((wakeUp) => pipelineWaiters.push(() => wakeUp(null)));
            if (refused) throw refused;
        },
        mapped() {
            if (underWay > 0) return new Promise((wakeUp) => { waiters.push(() => wakeUp()); });
            return Promise.reject(new DeviceError('internal: waits for the GPU, which has nothing ' +
                'to do'));
        },
        drained: () => waker.during(queue.onSubmittedWorkDone()).catch((error) => {
            throw new DeviceError(`the GPU did not finish its work: ${messageOf(error)}`);
        }),
        lost,
        destroy: () => device.destroy(),
        errors: () => errors.slice(),
        stats: () => ({ ...stats, objects: objects.length - free.length - FIRST_FREE, pending,
            underWay }),
    };
}
