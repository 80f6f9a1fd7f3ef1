// The package's own worker in a browser without JSPI, and with every buffer of the GPU counted.
// What is counted goes to the page over the channel "spy": {buffers, bytes} that live, and whether JSPI
// was there to be removed.
const hadJspi = 'Suspending' in WebAssembly || 'promising' in WebAssembly;
delete WebAssembly.Suspending;
delete WebAssembly.promising;
const channel = new BroadcastChannel('spy');
const live = new Map(); // device -> Map of buffer -> bytes

const tell = () => {
    const sizes = [...live.values()].flatMap((buffers) => [...buffers.values()]);
    channel.postMessage({buffers: sizes.length, bytes: sizes.reduce((a, b) => a + b, 0), hadJspi,
        hasJspi: 'Suspending' in WebAssembly || 'promising' in WebAssembly});
};

const {createBuffer, destroy} = GPUDevice.prototype;
const destroyBuffer = GPUBuffer.prototype.destroy;
GPUDevice.prototype.createBuffer = function (descriptor) {
    const buffer = createBuffer.call(this, descriptor);
    const buffers = live.get(this) ?? new Map();
    live.set(this, buffers.set(buffer, buffer.size));
    tell();
    return buffer;
};
GPUBuffer.prototype.destroy = function () {
    destroyBuffer.call(this);
    live.forEach((buffers) => buffers.delete(this));
    tell();
};
GPUDevice.prototype.destroy = function () {
    destroy.call(this);
    live.delete(this);
    tell();
};

// Messages that come while the package is being loaded are kept for it.
const early = [];
const keep = (event) => {
    event.stopImmediatePropagation();
    early.push(event.data);
};
addEventListener('message', keep);
await import('/lib/worker.js');
removeEventListener('message', keep);
early.forEach((data) => dispatchEvent(new MessageEvent('message', {data})));
