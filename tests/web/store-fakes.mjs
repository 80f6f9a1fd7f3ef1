// Fakes of what the browser keeps files with, for the tests of the store in Node: private files
// (OPFS) whose unflushed bytes can be lost, a quota, and Web Locks that end with their tab.

const named = (name, text) => new DOMException(text, name);

/** Bytes that were written, and those of them that a power cut leaves. */
class FakeFile {
    bytes = new Uint8Array(0);
    durable = new Uint8Array(0);
    open = 0;
    isExclusive = false;
}

/** A File whose bytes FakeFileReaderSync can reach. */
export class Snapshot extends File {
    constructor(bytes, name) {
        super([bytes], name);
        this.held = bytes;
    }

    slice(from, to) {
        return new Snapshot(this.held.slice(from, to), this.name);
    }
}

/** As a worker's FileReaderSync, over files of the fake disk. */
export class FakeFileReaderSync {
    readAsArrayBuffer(blob) {
        return blob.held.buffer;
    }
}

class FakeFileHandle {
    kind = 'file';

    constructor(disk, name, file) {
        Object.assign(this, {disk, name, file});
    }

    async getFile() {
        this.disk.step();
        return new Snapshot(this.file.bytes.slice(), this.name);
    }

    async createSyncAccessHandle({mode} = {}) {
        this.disk.step();
        const {file, disk} = this;
        const isExclusive = !(mode === 'read-only' && disk.hasModes);
        if (file.isExclusive || (isExclusive && file.open > 0)) {
            throw named('NoModificationAllowedError', 'another handle is open');
        }
        file.open++;
        file.isExclusive = isExclusive;
        return new FakeHandle(disk, file);
    }
}

class FakeHandle {
    constructor(disk, file) {
        Object.assign(this, {disk, file, isOpen: true});
        disk.handles.add(this);
    }

    use() {
        if (!this.isOpen) {
            throw named('InvalidStateError', 'the handle is closed');
        }
        this.disk.step();
    }

    getSize() {
        this.use();
        return this.file.bytes.length;
    }

    read(target, {at = 0} = {}) {
        this.use();
        const part = this.file.bytes.subarray(at, at + target.length);
        target.set(part);
        return part.length;
    }

    write(source, {at = 0} = {}) {
        this.use();
        this.disk.grow(this.file, at + source.length);
        this.file.bytes.set(source, at);
        return source.length;
    }

    truncate(size) {
        this.use();
        const bytes = new Uint8Array(size);
        bytes.set(this.file.bytes.subarray(0, size));
        this.file.bytes = bytes;
    }

    flush() {
        this.use();
        this.file.durable = this.file.bytes.slice();
    }

    close() {
        if (!this.isOpen) {
            return;
        }
        this.isOpen = false;
        this.disk.handles.delete(this);
        this.file.open--;
        this.file.isExclusive = false;
    }
}

class FakeFolder {
    kind = 'directory';
    entries_ = new Map();

    constructor(disk, name) {
        Object.assign(this, {disk, name});
    }

    async getDirectoryHandle(name, {create = false} = {}) {
        this.disk.step();
        return this.find(name, create, () => new FakeFolder(this.disk, name));
    }

    async getFileHandle(name, {create = false} = {}) {
        this.disk.step();
        return this.find(name, create,
            () => new FakeFileHandle(this.disk, name, new FakeFile()));
    }

    find(name, create, make) {
        if (!this.entries_.has(name)) {
            if (!create) {
                throw named('NotFoundError', `${name}: no such entry`);
            }
            this.entries_.set(name, make());
        }
        return this.entries_.get(name);
    }

    async removeEntry(name) {
        this.disk.step();
        if (!this.entries_.has(name)) {
            throw named('NotFoundError', `${name}: no such entry`);
        }
        this.entries_.delete(name);
    }

    async *values() {
        yield* [...this.entries_.values()];
    }
}

/** A disk of one origin; what several tabs share. */
export class FakeDisk {
    handles = new Set();
    hasModes = true;
    quota = Infinity; // what writes may take
    shownQuota = undefined; // what estimate says
    steps = 0;
    killAt = Infinity; // from this call on every one fails, as of a tab that is gone
    onKill = () => {};

    constructor() {
        this.root = new FakeFolder(this, '');
    }

    step() {
        if (++this.steps >= this.killAt) {
            this.onKill();
            throw new Error(`killed at step ${this.steps}`);
        }
    }

    files() {
        const found = [];
        const walk = (folder) => {
            for (const entry of folder.entries_.values()) {
                if (entry.kind === 'file') {
                    found.push(entry);
                } else {
                    walk(entry);
                }
            }
        };
        walk(this.root);
        return found;
    }

    usage() {
        return this.files().reduce((sum, {file}) => sum + file.bytes.length, 0);
    }

    grow(file, size) {
        if (size <= file.bytes.length) {
            return;
        }
        if (this.usage() - file.bytes.length + size > this.quota) {
            throw named('QuotaExceededError', 'no room');
        }
        const bytes = new Uint8Array(size);
        bytes.set(file.bytes);
        file.bytes = bytes;
    }

    /** The file of this name, in whatever folder. */
    file(name) {
        return this.files().find((entry) => entry.name === name)?.file;
    }

    /** As navigator.storage. */
    storage() {
        return {
            getDirectory: async () => this.root,
            estimate: async () => (this.shownQuota === undefined ? {}
                : {quota: this.shownQuota, usage: this.usage()}),
        };
    }

    /**
     * The power is cut: handles are gone, and of every file only what was flushed is left, and of
     * what was written after it a part. `keep` says for each file how much of that (0 to 1).
     */
    cut(keep) {
        for (const handle of [...this.handles]) {
            handle.close();
        }
        for (const {file} of this.files()) {
            const n = file.durable.length +
                Math.floor((file.bytes.length - file.durable.length) * keep());
            const left = new Uint8Array(Math.max(n, 0));
            left.set(file.bytes.subarray(0, n).length === n ? file.bytes.subarray(0, n) : []);
            left.set(file.durable.subarray(0, n));
            file.bytes = left;
            file.durable = left.slice();
        }
        this.steps = 0;
        this.killAt = Infinity;
    }
}

/** As navigator.locks, for all tabs of a test. */
export class FakeLocks {
    held = []; // {name, mode}

    request(name, {mode = 'exclusive', ifAvailable = false}, work) {
        const isFree = () => this.held.every((lock) => lock.name !== name ||
            (lock.mode === 'shared' && mode === 'shared'));
        const run = async () => {
            const lock = {name, mode};
            this.held.push(lock);
            try {
                return await work(lock);
            } finally {
                // As in Firefox, others see it free a moment later.
                await new Promise((done) => setTimeout(done, 3));
                this.held = this.held.filter((other) => other !== lock);
            }
        };
        if (isFree()) {
            return run();
        }
        if (ifAvailable) {
            return Promise.resolve(work(null));
        }
        return new Promise((done, failed) => {
            const poll = setInterval(() => {
                if (isFree()) {
                    clearInterval(poll);
                    run().then(done, failed);
                }
            }, 5);
        });
    }

    /** All tabs are gone. */
    clear() {
        this.held = [];
    }
}
