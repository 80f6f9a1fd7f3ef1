// @ts-check
/**
 * The part of WASI preview 1 that the wasm's libc calls: clocks, messages on stdout and stderr,
 * and reading files and folders of a `Files` tree, which is all that there is of a file system.
 *
 * Read-only: nothing is made, written or removed. Descriptor 3 is the root folder "/". A read of
 * bytes that have not arrived answers EAGAIN, and `Files` remembers the range. Every call checks
 * what it is given and answers an errno; nothing throws but proc_exit, which ends the program.
 */

// Of the WASI snapshot "preview1": errno, filetype, whence, fdflags, oflags, rights.
const OK = 0;
const E_AGAIN = 6;
const E_BADF = 8;
const E_INVAL = 28;
const E_IO = 29;
const E_ISDIR = 31;
const E_MFILE = 33;
const E_NAMETOOLONG = 37;
const E_NOENT = 44;
const E_NOSYS = 52;
const E_NOTDIR = 54;
const E_OVERFLOW = 61;
const E_ROFS = 69;
const E_SPIPE = 70;
const TYPE_DEVICE = 2;
const TYPE_FOLDER = 3;
const TYPE_FILE = 4;
const O_CREAT = 1;
const O_DIRECTORY = 2;
const O_TRUNC = 8;
const RIGHTS_ALL = 0x1fffffffn;

const ROOT = 3;
const OPEN_MAX = 512;
const PATH_MAX = 4096;
const LINE_MAX = 4096;
const FILESTAT_BYTES = 64;
const DIRENT_BYTES = 24;

/**
 * What the program ended itself with: only a fault of its own does so.
 */
export class ProgramExit extends Error {
    /** @param {number} code */
    constructor(code) {
        super(`internal: the engine ended itself with code ${code}`);
        this.name = 'ProgramExit';
        this.code = code;
    }
}

/**
 * @typedef {object} WasiFiles as `Files` of files.js
 * @property {(path: string) => {size: number, isFolder: boolean} | null} stat
 * @property {(path: string) => string[]} list
 * @property {(path: string, offset: number, target: Uint8Array) => number} read
 *
 * @typedef {object} WasiServer
 * @property {Object<string, Function>} imports the module "wasi_snapshot_preview1"
 * @property {(instance: WebAssembly.Instance) => void} bind before any export is called
 * @property {() => unknown} takeError what a file's read has thrown since this was last asked; C
 *     knows of it as an input/output error only
 */

/**
 * @param {{log?: (line: string) => void, files?: () => WasiFiles | null}} [options] `log` gets what
 *     the program writes, line by line; `files` is asked at each call
 * @returns {WasiServer}
 */
export function serveWasi({ log = () => {}, files = () => null } = {}) {
    let memory = new WebAssembly.Memory({ initial: 0 });
    /** @type {Map<number, {path: string, isFolder: boolean, size: number, at: number,
     *     names: string[] | null}>} */
    const open = new Map();
    const decoder = new TextDecoder();
    const encoder = new TextEncoder();
    let line = '';
    /** @type {unknown} */
    let thrown;

    // --- memory: views are made anew for each call, since memory may have grown ---

    /** @param {number} at @param {number} size */
    const bytesAt = (at, size) => new Uint8Array(memory.buffer, at >>> 0, size >>> 0);
    /** @param {number} at @param {number} value */
    const put32 = (at, value) => new DataView(memory.buffer).setUint32(at >>> 0, value, true);
    /** @param {number} at @param {number | bigint} value */
    const put64 = (at, value) =>
        new DataView(memory.buffer).setBigUint64(at >>> 0, BigInt(value), true);
    /** The pieces of an iovec list. @param {number} at @param {number} n */
    const pieces = (at, n) => {
        const view = new DataView(memory.buffer);
        return Array.from({ length: n }, (_, i) => bytesAt(
            view.getUint32((at >>> 0) + 8 * i, true), view.getUint32((at >>> 0) + 8 * i + 4, true)));
    };

    // --- files ---

    /** The absolute path; null for one that leads out of the tree or is too long.
     * @param {number} fd @param {number} at @param {number} size */
    const pathOf = (fd, at, size) => {
        if (size >>> 0 > PATH_MAX) return null;
        const base = fd === ROOT ? '/' : open.get(fd)?.path ?? '/';
        const path = `${base}/${decoder.decode(bytesAt(at, size))}`;
        const parts = path.split('/').filter((part) => part !== '' && part !== '.');
        return parts.includes('..') ? null : `/${parts.join('/')}`;
    };
    /** @param {number} at @param {{size: number, isFolder: boolean} | null} what */
    const putStat = (at, what) => {
        bytesAt(at, FILESTAT_BYTES).fill(0);
        bytesAt(at, FILESTAT_BYTES)[16] =
            what === null ? TYPE_DEVICE : what.isFolder ? TYPE_FOLDER : TYPE_FILE;
        put64(at + 24, 1); // links
        put64(at + 32, what?.size ?? 0);
        return OK;
    };
    /** @param {string} path */
    const statOf = (path) => path === '/' ? { size: 0, isFolder: true } : files()?.stat(path) ?? null;
    /** Reads at an offset into pieces. Bytes copied, or less than 0: an errno.
     * @param {number} fd @param {Uint8Array[]} targets @param {number} offset */
    const readAt = (fd, targets, offset) => {
        const file = open.get(fd);
        if (!file) return -E_BADF;
        if (file.isFolder) return -E_ISDIR;
        let done = 0;
        for (const target of targets) {
            // What is not here yet after a beginning that is: the next read tells.
            const got = target.length > 0
                ? files()?.read(file.path, offset + done, target) ?? 0 : 0;
            if (got < 0) return done > 0 ? done : -E_AGAIN;
            done += got;
            if (got < target.length) break;
        }
        return done;
    };

    /** @param {string} text */
    const write = (text) => {
        line += text;
        for (let end = line.indexOf('\n'); end >= 0; end = line.indexOf('\n')) {
            log(line.slice(0, end));
            line = line.slice(end + 1);
        }
        if (line.length > LINE_MAX) {
            log(line);
            line = '';
        }
    };

    /** @type {Object<string, Function>} */
    const calls = {
        /** @param {number} a @param {number} b */
        args_sizes_get(a, b) {
            put32(a, 0);
            put32(b, 0);
            return OK;
        },
        args_get: () => OK,
        /** @param {number} a @param {number} b */
        environ_sizes_get(a, b) {
            put32(a, 0);
            put32(b, 0);
            return OK;
        },
        environ_get: () => OK,
        /** @param {number} clock @param {bigint} precision @param {number} at */
        clock_time_get(clock, precision, at) {
            const ms = clock === 0 ? Date.now() : performance.now();
            put64(at, BigInt(Math.round(ms * 1e6)));
            return OK;
        },
        /** @param {number} clock @param {number} at */
        clock_res_get(clock, at) {
            put64(at, 1000);
            return OK;
        },
        /** @param {number} at @param {number} size */
        random_get(at, size) {
            for (let i = 0; i < size >>> 0; i += 65536) {
                crypto.getRandomValues(bytesAt((at >>> 0) + i, Math.min((size >>> 0) - i, 65536)));
            }
            return OK;
        },
        sched_yield: () => OK,
        /** @param {number} code */
        proc_exit(code) {
            throw new ProgramExit(code);
        },

        /** @param {number} fd @param {number} at */
        fd_prestat_get(fd, at) {
            if (fd !== ROOT) return E_BADF;
            put32(at, 0); // a folder
            put32(at + 4, 1);
            return OK;
        },
        /** @param {number} fd @param {number} at @param {number} size */
        fd_prestat_dir_name(fd, at, size) {
            if (fd !== ROOT) return E_BADF;
            if (size < 1) return E_NAMETOOLONG;
            bytesAt(at, 1)[0] = 0x2f;
            return OK;
        },
        /** @param {number} fd @param {number} at */
        fd_fdstat_get(fd, at) {
            const file = open.get(fd);
            if (!file && fd > ROOT) return E_BADF;
            bytesAt(at, 24).fill(0);
            bytesAt(at, 1)[0] = fd < ROOT ? TYPE_DEVICE
                : fd === ROOT || file?.isFolder ? TYPE_FOLDER : TYPE_FILE;
            put64(at + 8, RIGHTS_ALL);
            put64(at + 16, RIGHTS_ALL);
            return OK;
        },
        fd_fdstat_set_flags: () => OK,
        /** @param {number} fd @param {number} at */
        fd_filestat_get(fd, at) {
            if (fd < ROOT) return putStat(at, null);
            if (fd === ROOT) return putStat(at, { size: 0, isFolder: true });
            const file = open.get(fd);
            return file ? putStat(at, file) : E_BADF;
        },
        /** @param {number} fd @param {number} flags @param {number} at @param {number} size
         * @param {number} out */
        path_filestat_get(fd, flags, at, size, out) {
            const path = pathOf(fd, at, size);
            const what = path === null ? null : statOf(path);
            return what ? putStat(out, what) : E_NOENT;
        },
        /** Nothing is a link. @param {number} fd @param {number} at @param {number} size */
        path_readlink(fd, at, size) {
            const path = pathOf(fd, at, size);
            return path !== null && statOf(path) ? E_INVAL : E_NOENT;
        },
        /**
         * @param {number} fd @param {number} lookup @param {number} at @param {number} size
         * @param {number} flags @param {bigint} rights @param {bigint} inherited
         * @param {number} fdFlags @param {number} out
         */
        path_open(fd, lookup, at, size, flags, rights, inherited, fdFlags, out) {
            if ((flags & (O_CREAT | O_TRUNC)) !== 0) return E_ROFS;
            const path = pathOf(fd, at, size);
            const what = path === null ? null : statOf(path);
            if (path === null || !what) return E_NOENT;
            if ((flags & O_DIRECTORY) !== 0 && !what.isFolder) return E_NOTDIR;
            if (open.size >= OPEN_MAX) return E_MFILE;
            let number = ROOT + 1;
            while (open.has(number)) number++;
            open.set(number, { path, isFolder: what.isFolder, size: what.size, at: 0,
                names: null });
            put32(out, number);
            return OK;
        },
        /** @param {number} fd */
        fd_close: (fd) => open.delete(fd) || fd <= ROOT ? OK : E_BADF,
        fd_advise: () => OK,
        /**
         * @param {number} fd @param {number} list @param {number} n @param {bigint} offset
         * @param {number} out
         */
        fd_pread(fd, list, n, offset, out) {
            if (offset < 0n || offset > BigInt(Number.MAX_SAFE_INTEGER)) return E_OVERFLOW;
            const got = readAt(fd, pieces(list, n), Number(offset));
            if (got < 0) return -got;
            put32(out, got);
            return OK;
        },
        /** @param {number} fd @param {number} list @param {number} n @param {number} out */
        fd_read(fd, list, n, out) {
            const file = open.get(fd);
            if (!file) return fd === 0 ? (put32(out, 0), OK) : E_BADF;
            const got = readAt(fd, pieces(list, n), file.at);
            if (got < 0) return -got;
            file.at += got;
            put32(out, got);
            return OK;
        },
        /** @param {number} fd @param {bigint} offset @param {number} whence @param {number} out */
        fd_seek(fd, offset, whence, out) {
            const file = open.get(fd);
            if (!file) return fd < ROOT ? E_SPIPE : E_BADF;
            const at = (whence === 0 ? 0 : whence === 1 ? file.at : file.size) + Number(offset);
            if (!(at >= 0)) return E_INVAL;
            file.at = at;
            put64(out, at);
            return OK;
        },
        /**
         * Entries from `cookie` on, as many bytes as fit; the last may be cut, and is asked for
         * again.
         * @param {number} fd @param {number} at @param {number} size @param {bigint} cookie
         * @param {number} out
         */
        fd_readdir(fd, at, size, cookie, out) {
            const folder = fd === ROOT ? { path: '/', isFolder: true, names: null } : open.get(fd);
            if (!folder) return E_BADF;
            if (!folder.isFolder) return E_NOTDIR;
            folder.names ??= files()?.list(folder.path) ?? [];
            let done = 0;
            const target = bytesAt(at, size);
            for (let i = Number(cookie); i < folder.names.length && done < target.length; i++) {
                const name = encoder.encode(folder.names[i]);
                const entry = new Uint8Array(DIRENT_BYTES + name.length);
                const view = new DataView(entry.buffer);
                view.setBigUint64(0, BigInt(i + 1), true);
                view.setBigUint64(8, BigInt(i + 1), true); // its number in the file system: not 0
                view.setUint32(16, name.length, true);
                const what = statOf(`${folder.path === '/' ? '' : folder.path}/${folder.names[i]}`);
                view.setUint8(20, what?.isFolder ? TYPE_FOLDER : TYPE_FILE);
                entry.set(name, DIRENT_BYTES);
                const part = entry.subarray(0, target.length - done);
                target.set(part, done);
                done += part.length;
            }
            put32(out, done);
            return OK;
        },
        /** @param {number} fd @param {number} list @param {number} n @param {number} out */
        fd_write(fd, list, n, out) {
            if (fd !== 1 && fd !== 2) return fd > ROOT && open.has(fd) ? E_ROFS : E_BADF;
            let total = 0;
            for (const piece of pieces(list, n)) {
                write(decoder.decode(piece));
                total += piece.length;
            }
            put32(out, total);
            return OK;
        },
    };

    /** @type {Object<string, Function>} */
    const imports = {};
    for (const [name, call] of Object.entries(calls)) {
        imports[name] = (/** @type {any[]} */ ...args) => {
            try {
                return call(...args);
            } catch (error) {
                if (error instanceof ProgramExit) throw error;
                thrown ??= error;
                return E_IO;
            }
        };
    }
    return {
        // What a later libc asks for in vain is no reason not to start.
        imports: new Proxy(imports, {
            get: (target, name) => typeof name === 'string' && Object.hasOwn(target, name)
                ? target[name] : () => E_NOSYS,
            has: () => true,
        }),
        bind(instance) {
            memory = /** @type {WebAssembly.Memory} */ (instance.exports.memory);
        },
        takeError() {
            const error = thrown;
            thrown = undefined;
            return error;
        },
    };
}
