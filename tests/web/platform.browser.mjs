// What the browsers themselves offer here: if these fail, so will all others, and not by a fault
// of ours.

/** One dispatch that doubles four numbers, in a worker. */
const doubled = () => {
    const work = async () => {
        const adapter = await navigator.gpu.requestAdapter();
        const device = await adapter.requestDevice();
        const buffer = device.createBuffer({size: 16, usage: 0x80 | 0x08 | 0x04});
        const back = device.createBuffer({size: 16, usage: 0x01 | 0x08});
        device.queue.writeBuffer(buffer, 0, new Uint32Array([1, 2, 3, 4]));
        const code = '@group(0) @binding(0) var<storage, read_write> x: array<u32>;' +
            '@compute @workgroup_size(4) fn f(@builtin(global_invocation_id) id: vec3u)' +
            '{ x[id.x] = 2 * x[id.x]; }';
        const pipeline = device.createComputePipeline({layout: 'auto',
            compute: {module: device.createShaderModule({code})}});
        const entries = [{binding: 0, resource: {buffer}}];
        const commands = device.createCommandEncoder();
        const pass = commands.beginComputePass();
        pass.setPipeline(pipeline);
        pass.setBindGroup(0, device.createBindGroup(
            {layout: pipeline.getBindGroupLayout(0), entries}));
        pass.dispatchWorkgroups(1);
        pass.end();
        commands.copyBufferToBuffer(buffer, 0, back, 0, 16);
        device.queue.submit([commands.finish()]);
        await back.mapAsync(1);
        postMessage({numbers: [...new Uint32Array(back.getMappedRange())],
            features: [...adapter.features].sort()});
    };
    const source = new Blob([`(${work})()`], {type: 'text/javascript'});
    return new Promise((done, failed) => {
        const worker = new Worker(URL.createObjectURL(source));
        worker.onmessage = (event) => done(event.data);
        worker.onerror = (event) => failed(new Error(event.message));
    });
};

const computes = async (t) => {
    const page = await t.open();
    const {numbers, features} = await page.evaluate(doubled);
    t.equal(numbers, [2, 4, 6, 8], 'numbers doubled by the GPU');
    return features.filter((f) => ['shader-f16', 'subgroups'].includes(f)).join(' ') || 'no extras';
};

/** The server's faults are what the tests of loading stand on. */
const serverFaults = async (t) => {
    const bytes = new Uint8Array(200_000).map((_, i) => i * 7);
    t.server.put('/x.bin', bytes);
    const page = await t.open();
    const ask = (headers = {}) => page.evaluate(async (headers) => {
        try {
            const response = await fetch('/x.bin', {headers, cache: 'no-store'});
            const got = new Uint8Array(await response.arrayBuffer());
            return {status: response.status, length: got.length, first: got[0], at9: got[9],
                range: response.headers.get('content-range')};
        } catch (error) {
            return {error: error.name};
        }
    }, headers);
    const part = {Range: 'bytes=100-299'};
    t.equal(await ask(part), {status: 206, length: 200, first: 700 & 255, at9: 763 & 255,
        range: 'bytes 100-299/200000'}, 'a range');
    t.equal((await ask({Range: 'bytes=200000-'})).status, 416, 'a range past the end');
    t.server.spoil({match: 'x.bin', times: 1, cutAt: 150_000});
    t.equal(await ask(), {error: 'TypeError'}, 'a cut connection');
    t.equal((await ask()).length, 200_000, 'the answer after it');
    t.server.spoil({match: 'x.bin', times: 1, wrongAt: 109});
    t.equal((await ask(part)).at9, (763 & 255) ^ 1, 'a wrong byte');
    t.server.spoil({match: 'x.bin', times: 1, noRanges: true});
    t.equal((await ask(part)).status, 200, 'a server without ranges');
    t.server.spoil({match: 'x.bin', times: 1, status: 503});
    t.equal((await ask(part)).status, 503, 'an error status');
    t.server.heal();
    t.server.forget();
    t.server.spoil({match: 'x.bin', downAfter: 131_072});
    t.equal(await ask(), {error: 'TypeError'}, 'the network gone in the middle');
    t.equal(t.server.asked('x.bin').bytes, 131_072, 'bytes sent before it went');
    t.equal(await ask(), {error: 'TypeError'}, 'no network');
    t.server.heal();
    await t.server.up();
    t.equal((await ask()).length, 200_000, 'the network back');
};

export default [
    {name: 'Chromium computes in a worker', run: computes},
    {name: 'the test server fails as told', run: serverFaults},
    {name: 'Firefox computes in a worker', firefox: true, run: computes},
];
