// @ts-check
/// <reference lib="webworker" />
/**
 * The service worker: keeps the page, the package and the wasm, so that they come without a
 * network. Models are none of its business: the package keeps them itself.
 *
 * precache.js, which the build writes, says the version and each file's SHA-256. Invariant: a cache
 * holds all files of one version, each with the bytes that the version names, or it does not exist;
 * a page is served from one version until a visitor takes the newer one, in this tab or another.
 */
const worker = /** @type {any} */ (self);
importScripts('precache.js');

/** @type {{version: string, files: Object<string, string>}} */
const { version, files } = worker.PRECACHE;
const PREFIX = 'doppler-page-';
const NAME = PREFIX + version;
const LIST = 'models/index.json'; // may change without the page: asked of the server first
const LIST_MS = 3000; // a server that says nothing for so long is as good as none

/** @param {ArrayBuffer} bytes */
async function sha256(bytes) {
    const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
    return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** @param {string} path @returns {Promise<Response>} the file, with the version's bytes */
async function fetchFile(path) {
    const answer = await fetch(path, { cache: 'no-cache' });
    if (!answer.ok) throw new Error(`${path}: the server answered ${answer.status}`);
    const bytes = await answer.arrayBuffer();
    const hash = await sha256(bytes);
    if (hash !== files[path]) throw new Error(`${path}: SHA-256 ${hash}, expected ${files[path]}`);
    const type = answer.headers.get('Content-Type') ?? 'application/octet-stream';
    return new Response(bytes, { headers: { 'Content-Type': type } });
}

async function install() {
    const paths = Object.keys(files);
    const answers = await Promise.all(paths.map(fetchFile));
    const cache = await caches.open(NAME);
    try {
        await Promise.all(paths.map((path, i) => cache.put(path, answers[i])));
    } catch (error) {
        await caches.delete(NAME);
        throw error;
    }
}

async function activate() {
    for (const name of await caches.keys()) {
        if (name.startsWith(PREFIX) && name !== NAME) await caches.delete(name);
    }
    await worker.clients.claim();
}

/** @param {string} address @returns {string | null} the file of this version that it asks for */
function fileOf(address) {
    const url = new URL(address);
    const root = new URL('./', worker.location.href);
    if (url.origin !== root.origin || !url.pathname.startsWith(root.pathname)) return null;
    const path = url.pathname.slice(root.pathname.length) || 'index.html';
    return Object.hasOwn(files, path) || path === LIST ? path : null;
}

/** @param {string} path @param {Request} request */
async function serve(path, request) {
    const cache = await caches.open(NAME);
    const held = await cache.match(path);
    if (path !== LIST) return held ?? fetch(request);
    try {
        const answer = await fetch(request, held ? { signal: AbortSignal.timeout(LIST_MS) } : {});
        const bytes = await answer.clone().arrayBuffer(); // it may fall silent in the middle, too
        if (!answer.ok) return held ?? answer;
        const headers = { 'Content-Type': 'application/json' };
        await cache.put(path, new Response(bytes, { headers })).catch(() => {});
        return answer;
    } catch {
        return held ?? Response.error();
    }
}

worker.addEventListener('install', (/** @type {any} */ event) => event.waitUntil(install()));
worker.addEventListener('activate', (/** @type {any} */ event) => event.waitUntil(activate()));
worker.addEventListener('message', (/** @type {any} */ event) => {
    if (event.data === 'activate') worker.skipWaiting();
});
worker.addEventListener('fetch', (/** @type {any} */ event) => {
    const { request } = event;
    const whole = request.method === 'GET' && !request.headers.has('Range');
    const path = whole ? fileOf(request.url) : null;
    if (path !== null) event.respondWith(serve(path, request));
});
