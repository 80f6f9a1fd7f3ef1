// @ts-check
/**
 * names: what names of files and parts of URLs say of a model.
 */

/** @param {string} part */
export function unescapePart(part) {
    try {
        return decodeURIComponent(part);
    } catch {
        return '';
    }
}

/**
 * Every character that is not unreserved, so that no name can change the path.
 * @param {string} s
 */
export function escapePart(s) {
    return encodeURIComponent(s).replace(/[!'()*]/g,
        (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
}

/**
 * A file without ".gguf" and its number, else the folder; of ".../NAME/resolve/REVISION", which is
 * how the Hugging Face hub serves files, NAME.
 * @param {string} file @param {string[]} parts
 */
export function suggestName(file, parts) {
    if (file) return splitOf(file)?.stem ?? file.replace(/\.gguf$/i, '');
    const hub = parts.indexOf('resolve');
    const named = (hub > 0 ? parts.slice(0, hub) : parts).filter((part) => part !== '');
    return unescapePart(named[named.length - 1] ?? '') || 'model';
}

/** @param {string} name "STEM-00002-of-00003.gguf" */
export function splitOf(name) {
    const found = /^(.+)-(\d{5})-of-(\d{5})\.gguf$/.exec(name);
    return found && { stem: found[1], index: Number(found[2]), count: Number(found[3]) };
}

/** @param {string} name */
export const isGguf = (name) => /.\.gguf$/i.test(name);
