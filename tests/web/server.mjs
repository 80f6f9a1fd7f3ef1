// A web server of static files that fails on demand: what the browser tests load pages and models
// from. It serves ranges and entity tags as a good server does; rules then spoil chosen answers: a
// connection cut at a byte, a wrong byte, a range ignored, an error status, a slow or silent line.
//
// One server is one port, hence one origin: a test with a server of its own has a cache, a quota
// and a service worker of its own. Every request is recorded with the bytes that it was sent.
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';

const CHUNK = 64 << 10;
const TYPES = {
    '.css': 'text/css', '.html': 'text/html; charset=utf-8', '.js': 'text/javascript',
    '.json': 'application/json', '.mjs': 'text/javascript', '.png': 'image/png',
    '.svg': 'image/svg+xml', '.wasm': 'application/wasm',
    '.webmanifest': 'application/manifest+json',
};

/**
 * What spoils answers. `match` is the end of a path or a RegExp over the path with its query.
 * @typedef {object} Rule
 * @property {string|RegExp} match
 * @property {number} [skip] answers left alone first (0)
 * @property {number} [times] answers spoilt after that (all)
 * @property {number} [status] answered instead, with an empty body
 * @property {number} [cutAt] the connection ends before this byte of the file
 * @property {number} [downAfter] once this many bytes of the file went out, over all answers, the
 *     server goes down as if the network were gone, until up()
 * @property {number} [wrongAt] this byte of the file is sent with one bit changed
 * @property {boolean} [noRanges] a range is answered by 200 and the whole file
 * @property {boolean} [noLength] no Content-Length and no size in Content-Range
 * @property {number} [rangeShift] Content-Range claims bytes this much further on
 * @property {string} [etag] sent instead of the file's own
 * @property {number} [delay] milliseconds before the answer
 * @property {number} [rate] bytes a second
 * @property {boolean} [hang] never answered
 * @property {boolean} [drop] the connection ends without an answer
 */

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** When a response takes more, or has ended. */
const drained = (response) => new Promise((done) => {
    const end = () => {
        response.off('drain', end);
        response.off('close', end);
        done();
    };
    response.on('drain', end);
    response.on('close', end);
});

/** A range of a file of `size` bytes: {from, to}, `to` past the end; null: none or malformed. */
const parseRange = (header, size) => {
    const m = /^bytes=(\d*)-(\d*)$/.exec(header ?? '');
    if (!m || (m[1] === '' && m[2] === '')) {
        return null;
    }
    const from = m[1] === '' ? Math.max(0, size - Number(m[2])) : Number(m[1]);
    const to = m[1] === '' || m[2] === '' ? size : Math.min(size, Number(m[2]) + 1);
    return {from, to};
};

export class TestServer {
    /** @param {Record<string, string>} roots path prefix (ends in "/") to folder */
    constructor(roots) {
        this.roots = roots;
        this.memory = new Map(); // path -> Buffer: files that exist here only
        this.rules = [];
        this.headers = {}; // sent with every answer
        this.requests = []; // {method, path, range, status, bytes}
        this.sent = new Map(); // path -> bytes sent in all
        this.sockets = new Set();
        this.port = 0;
    }

    async start() {
        await this.listen();
        return this;
    }

    listen() {
        this.http = http.createServer((request, response) => {
            this.answer(request, response).catch(() => response.destroy());
        });
        this.http.on('connection', (socket) => {
            this.sockets.add(socket);
            socket.on('close', () => this.sockets.delete(socket));
            socket.on('error', () => {});
        });
        return new Promise((done, failed) => {
            this.http.once('error', failed);
            this.http.listen(this.port, '127.0.0.1', () => {
                this.port = this.http.address().port;
                done();
            });
        });
    }

    get origin() {
        return `http://127.0.0.1:${this.port}`;
    }

    /** Every connection ends and no new one is taken, as without a network. */
    async down() {
        const ended = new Promise((done) => this.http.close(done));
        this.sockets.forEach((socket) => socket.destroy());
        await ended;
    }

    /** Serves again, at the same origin. */
    async up() {
        await this.listen();
    }

    stop() {
        return this.http.listening ? this.down() : Promise.resolve();
    }

    /** @param {Rule} rule */
    spoil(rule) {
        this.rules.push({skip: 0, times: Infinity, ...rule});
    }

    heal() {
        this.rules = [];
    }

    put(name, bytes) {
        this.memory.set(name, Buffer.from(bytes));
    }

    /** Requests whose path ends in `end`, and the body bytes that they were sent. */
    asked(end) {
        const list = this.requests.filter((r) => r.path.endsWith(end));
        return {count: list.length, bytes: list.reduce((sum, r) => sum + r.bytes, 0), list};
    }

    forget() {
        this.requests = [];
        this.sent.clear();
    }

    /** The file behind a path: {size, etag, read(from, to)} or null. */
    find(name) {
        const held = this.memory.get(name);
        if (held) {
            return {size: held.length, etag: `"m${held.length}"`,
                read: (from, to) => held.subarray(from, to)};
        }
        const prefix = Object.keys(this.roots).filter((p) => name.startsWith(p))
            .sort((a, b) => b.length - a.length)[0];
        if (prefix === undefined || name.split('/').includes('..')) {
            return null;
        }
        const file = path.join(this.roots[prefix], name.slice(prefix.length));
        const found = fs.statSync(name.endsWith('/') ? path.join(file, 'index.html') : file,
            {throwIfNoEntry: false});
        if (!found?.isFile()) {
            return null;
        }
        const handle = () => fs.openSync(name.endsWith('/') ? path.join(file, 'index.html') : file);
        return {size: found.size, etag: `"${found.size}-${Math.floor(found.mtimeMs)}"`,
            read: (from, to) => {
                const fd = handle();
                const block = Buffer.alloc(to - from);
                const n = fs.readSync(fd, block, 0, to - from, from);
                fs.closeSync(fd);
                return block.subarray(0, n);
            }};
    }

    /** The rules that hold for this answer, joined; each counts one answer that it can spoil. */
    ruling(url, range) {
        const name = url.split('?')[0];
        const joined = {};
        for (const rule of this.rules) {
            const fits = typeof rule.match === 'string' ? name.endsWith(rule.match)
                : rule.match.test(url);
            const part = parseRange(range, Infinity) ?? {from: 0, to: Infinity};
            const byte = rule.wrongAt ?? rule.cutAt ?? part.from;
            if (!fits || rule.times <= 0 || byte < part.from || byte >= part.to) {
                continue;
            }
            if (rule.skip > 0) {
                rule.skip--;
                continue;
            }
            rule.times--;
            Object.assign(joined, rule);
        }
        return joined;
    }

    async answer(request, response) {
        const name = decodeURIComponent(request.url.split('?')[0]);
        const rule = this.ruling(request.url, request.headers.range);
        const record = {method: request.method, path: name, range: request.headers.range ?? null,
            status: 0, bytes: 0};
        this.requests.push(record);
        if (rule.hang) {
            return;
        }
        if (rule.drop) {
            request.socket.destroy();
            return;
        }
        if (rule.delay) {
            await sleep(rule.delay);
        }
        const file = this.find(name);
        if (rule.status || !file) {
            record.status = rule.status ?? 404;
            response.writeHead(record.status, {'Content-Length': 0});
            response.end();
            return;
        }
        const part = this.head(request, response, file, rule);
        record.status = part.status;
        if (request.method === 'HEAD' || part.status === 416) {
            response.end();
            return;
        }
        await this.body(response, file, part, rule, record);
    }

    /** Writes the head; the part of the file that the body shall hold. */
    head(request, response, file, rule) {
        const etag = rule.etag ?? file.etag;
        const stale = request.headers['if-range'] && request.headers['if-range'] !== etag;
        const range = rule.noRanges || stale ? null : parseRange(request.headers.range, file.size);
        const [name] = request.url.split('?');
        const type = TYPES[path.extname(name)]
            ?? (name.endsWith('/') ? TYPES['.html'] : 'application/octet-stream');
        const head = {...this.headers, 'Content-Type': type, 'Cache-Control': 'no-cache',
            ETag: etag};
        if (!rule.noRanges) {
            head['Accept-Ranges'] = 'bytes';
        }
        const part = {from: 0, to: file.size, status: 200, ...range};
        if (range && (range.from >= file.size || range.from >= range.to)) {
            part.status = 416;
            head['Content-Range'] = `bytes */${file.size}`;
            part.to = part.from;
        } else if (range) {
            const shift = rule.rangeShift ?? 0;
            part.status = 206;
            head['Content-Range'] = `bytes ${range.from + shift}-${range.to - 1 + shift}/` +
                (rule.noLength ? '*' : file.size);
        }
        if (!rule.noLength) {
            head['Content-Length'] = part.to - part.from;
        }
        response.writeHead(part.status, head);
        return part;
    }

    async body(response, file, part, rule, record) {
        const started = Date.now();
        const end = Math.min(part.to, rule.cutAt ?? Infinity);
        for (let at = part.from; at < end;) {
            if (response.destroyed) {
                return;
            }
            const before = this.sent.get(record.path) ?? 0;
            const left = (rule.downAfter ?? Infinity) - before;
            const n = Math.min(CHUNK, end - at, left);
            if (n <= 0) {
                await this.down();
                return;
            }
            const block = Buffer.from(file.read(at, at + n));
            if (rule.wrongAt >= at && rule.wrongAt < at + n) {
                block[rule.wrongAt - at] ^= 1;
            }
            at += n;
            record.bytes += n;
            this.sent.set(record.path, before + n);
            if (!response.write(block)) {
                await drained(response);
            }
            if (rule.rate) {
                await sleep(Math.max(0, record.bytes / rule.rate * 1000 - (Date.now() - started)));
            }
        }
        if (end < part.to) {
            response.destroy();
            return;
        }
        response.end();
    }
}
