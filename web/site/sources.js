// @ts-check
/**
 * Which models there are to choose from: the list beside the page, what this browser keeps, an
 * address that was typed, files that were picked. The list comes from the page's own server and is
 * checked all the same.
 */

const LIST = 'models/index.json';
const LIST_BYTES_MAX = 1 << 20;
const MODELS_MAX = 64;
const IDEAS_MAX = 6;

/**
 * Something that can be loaded. `value` is what `load` takes.
 * @typedef {{kind: 'list'|'stored'|'url'|'file', name: string, title: string, about: string,
 *     bytes: number | null, value: string | File | File[],
 *     ideas: {chat: string[], text: string[]}}} Choice
 */

/** @param {unknown} value @param {number} most */
const textOf = (value, most) => (typeof value === 'string' ? value.slice(0, most) : '');

/** @param {unknown} value @returns {string[]} */
function ideasOf(value) {
    if (!Array.isArray(value)) return [];
    return value.map((idea) => textOf(idea, 200)).filter((idea) => idea !== '').slice(0, IDEAS_MAX);
}

/** @param {any} row @param {URL} base @returns {Choice | null} */
function choiceOf(row, base) {
    const name = textOf(row?.name, 80);
    const path = textOf(row?.path, 1024);
    if (name === '' || path === '') return null;
    const url = parseUrl(path, base);
    if (typeof url === 'string' || url.origin !== base.origin) return null;
    const bytes = Number.isSafeInteger(row.bytes) && row.bytes > 0 ? row.bytes : null;
    return {
        kind: 'list', name, title: textOf(row.title, 80) || name, about: textOf(row.about, 300),
        bytes, value: url.href,
        ideas: { chat: ideasOf(row.ideas?.chat), text: ideasOf(row.ideas?.text) },
    };
}

/**
 * The list beside the page. Rows that make no sense are left out, and so are those of other
 * origins: nothing that the page does by itself asks anybody else's server.
 * @returns {Promise<Choice[]>} empty if there is no list
 */
export async function listModels() {
    const url = new URL(LIST, document.baseURI);
    const answer = await fetch(url).catch(() => null);
    if (!answer?.ok) return [];
    const text = await answer.text().catch(() => '');
    if (text.length > LIST_BYTES_MAX) return [];
    try {
        const rows = JSON.parse(text)?.models;
        if (!Array.isArray(rows)) return [];
        return rows.slice(0, MODELS_MAX).map((row) => choiceOf(row, url)).filter((row) => !!row);
    } catch {
        return [];
    }
}

/**
 * @param {string} text @param {URL | string} [base]
 * @returns {URL | string} or a sentence that says why it is none
 */
export function parseUrl(text, base) {
    let url;
    try {
        url = new URL(text, base);
    } catch {
        return `“${text.slice(0, 60)}” is no address.`;
    }
    if (url.protocol !== 'https:' && url.protocol !== 'http:') {
        return `The address begins with ${url.protocol}, it must begin with https: or http:.`;
    }
    if (url.username !== '' || url.password !== '') {
        return 'The address holds a user name or a password. Models are fetched without.';
    }
    return url;
}

/** @param {URL} url @returns {Choice} */
export function choiceOfUrl(url) {
    const parts = url.pathname.split('/').filter((part) => part !== '' && part !== 'manifest.json');
    const last = parts.at(-1) ?? url.hostname;
    return { ...blank('url', url.href), title: decoded(last).slice(0, 80) };
}

/** @param {string} part */
function decoded(part) {
    try {
        return decodeURIComponent(part);
    } catch {
        return part;
    }
}

/** @param {File[]} files at least one @param {string} [folder] their own @returns {Choice} */
export function choiceOfFiles(files, folder = files[0].webkitRelativePath.split('/')[0]) {
    const title = folder || files[0].name;
    return {
        ...blank('file', title), title: title.slice(0, 80),
        bytes: files.reduce((sum, file) => sum + file.size, 0),
        value: files.length === 1 && !folder ? files[0] : files,
    };
}

/**
 * Of what was dropped: files, or one folder. Must be called before the event is over, which takes
 * what was dropped with it.
 * @param {DataTransfer} transfer
 * @returns {Promise<Choice | string>} or a sentence that says why it is none
 */
export async function choiceOfDrop(transfer) {
    const files = [...transfer.files];
    const entries = [...transfer.items].map((item) => item.webkitGetAsEntry());
    const folder = entries.find((entry) => entry?.isDirectory);
    if (!folder) return files.length > 0 ? choiceOfFiles(files) : 'No file was dropped.';
    if (entries.length > 1) return 'Drop one folder at a time, or files without a folder.';
    try {
        const found = await filesIn(/** @type {FileSystemDirectoryEntry} */ (folder));
        return found.length > 0 ? choiceOfFiles(found, folder.name)
            : `The folder “${folder.name}” holds no files.`;
    } catch {
        return `The folder “${folder.name}” cannot be read.`;
    }
}

/** The files directly in a folder. @param {FileSystemDirectoryEntry} folder */
async function filesIn(folder) {
    const reader = folder.createReader();
    /** @type {File[]} */
    const files = [];
    for (;;) { /* it gives some at a time */
        const some = await new Promise((done, fail) => reader.readEntries(done, fail));
        if (some.length === 0) return files;
        for (const entry of some.filter((/** @type {any} */ each) => each.isFile)) {
            files.push(await new Promise((done, fail) => entry.file(done, fail)));
        }
    }
}

/**
 * One spelling for a folder's, whatever file of it is named, and nothing secret: who may fetch it
 * is often said in the query.
 * @param {string} address
 */
export const keyOf = (address) => address.split(/[?#]/)[0]
    .replace(/\/(manifest\.json|config\.json)?$/, '');

/** What a choice goes by: its name, and where it lies. @param {Choice} choice */
const keysOf = ({ name, value }) =>
    (typeof value === 'string' ? [name, value] : [name]).map(keyOf);

/** @param {Choice} choice @param {string} name or address */
export const isCalled = (choice, name) => keysOf(choice).includes(keyOf(name));

/** @param {Choice} a @param {Choice | null} b one of the list, say, and one that was typed */
export const isSame = (a, b) => b !== null && keysOf(b).some((key) => isCalled(a, key));

/** @param {Choice} choice @param {{id?: string, source?: string}} row of the cache */
export function isKeptAs(choice, row) {
    if (choice.kind === 'stored') return choice.value === `cache:${row.id}`;
    return typeof choice.value === 'string' && keyOf(choice.value) === keyOf(row.source ?? '');
}

/**
 * What the cache keeps and the list does not have.
 * @param {any[]} rows of the cache @param {Choice[]} listed
 * @returns {Choice[]}
 */
export function choicesOfStored(rows, listed) {
    return rows.filter((row) => row.complete && !listed.some((choice) => isKeptAs(choice, row)))
        .map((row) => ({
            ...blank('stored', row.source || row.id), title: textOf(row.name, 80),
            about: textOf(row.source, 300), bytes: row.bytes, value: `cache:${row.id}`,
        }));
}

/** @param {'stored'|'url'|'file'} kind @param {string} name @returns {Choice} */
function blank(kind, name) {
    return {
        kind, name, title: name, about: '', bytes: null, value: name, ideas: { chat: [], text: [] },
    };
}
