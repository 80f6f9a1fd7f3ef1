// @ts-check
/**
 * What a failure means to the visitor: a heading, the engine's own sentence, and what can be done.
 * The engine's sentence names the thing, the value and the limit; this file adds only the way out.
 */

const BROWSERS = 'Chrome or Edge 137 and later, Safari 26 and later, and Firefox 141 and ' +
    'later on Windows or 145 and later on Macs with Apple silicon have it.';

/**
 * @typedef {{title: string, text: string, advice: string, again: boolean}} Failure
 */

/**
 * Why nothing can run here at all, or null. Asked before anything is fetched.
 * @returns {Failure | null}
 */
export function checkBrowser() {
    if (!globalThis.isSecureContext) {
        return {
            title: 'This page must come by https',
            text: `It came from ${location.origin}. Browsers allow the GPU only to pages that ` +
                'come by https, or from localhost.',
            advice: 'Open it with https:// in front, or serve it on this computer.',
            again: false,
        };
    }
    if (!('gpu' in navigator)) {
        return {
            title: 'This browser has no WebGPU',
            text: 'The model runs on the GPU through WebGPU, which this browser does not offer.',
            advice: `${BROWSERS} On Linux it may have to be turned on first: in Chrome at ` +
                'chrome://flags/#enable-unsafe-webgpu, in Firefox with dom.webgpu.enabled in ' +
                'about:config.',
            again: false,
        };
    }
    return null;
}

/** @type {Object<string, {title: string, advice: string, again: boolean}>} */
const byStatus = {
    argument: {
        title: 'That was refused', advice: 'Change what the sentence names, then try again.',
        again: true,
    },
    file: {
        title: 'A file could not be read',
        advice: 'If it is a file of your own, choose it once more. If it is a stored model, ' +
            'delete it under “Stored models” and load it again.',
        again: true,
    },
    format: {
        title: 'The model’s file is damaged, or it is no model',
        advice: 'Delete it under “Stored models” and load it again. GGUF files, packs and ' +
            'folders of safetensors can be read.',
        again: true,
    },
    unsupported: {
        title: 'This model is not supported', advice: 'Choose another one.', again: false,
    },
    limit: {
        title: 'That is more than fits',
        advice: 'Set a larger context and load the model again, or begin a new conversation.',
        again: true,
    },
    memory: {
        title: 'Not enough memory',
        advice: 'Choose a smaller model, or a smaller context under “Model”. Closing other tabs ' +
            'that use the GPU helps, too.',
        again: true,
    },
    device: {
        title: 'The GPU cannot be used',
        advice: 'Reload the page. If that does not help, update the browser and the graphics ' +
            'driver, or try another browser.',
        again: true,
    },
    network: {
        title: 'The model could not be fetched',
        advice: 'Look at the network connection and the address. What has arrived is kept, the ' +
            'next try goes on from there. A server other than this page’s must allow it (CORS).',
        again: true,
    },
};

/** A mistake of the package, or of this page. */
const other = {
    title: 'Something went wrong inside',
    advice: 'This is a mistake of this program, not of your GPU or the model. Try again; if it ' +
        'comes back, please report the sentence above.',
    again: true,
};

const byName = new Map([
    ['DeviceLostError', {
        title: 'The GPU was lost',
        advice: 'The browser took it away several times. Close other tabs that use the GPU, then ' +
            'try again.',
        again: true,
    }],
    ['WorkerError', {
        title: 'The engine stopped',
        advice: 'The browser may have ended it to save memory. Try again, with a smaller ' +
            'model or context if it happens often.',
        again: true,
    }],
]);

/** @param {any} error whether the visitor stopped it */
export function isCancelled(error) {
    return error?.status === 'cancelled' || error?.name === 'AbortError';
}

/** @param {any} error whether the model is gone with it, and has to be loaded again */
export function isFatal(error) {
    return error?.status === 'device' || error?.status === 'internal';
}

/** @param {any} error anything thrown @returns {Failure} */
export function explain(error) {
    const known = typeof error?.status === 'string' && Object.hasOwn(byStatus, error.status)
        ? byStatus[error.status] : other;
    const { title, advice, again } = byName.get(error?.name) ?? known;
    const text = sentence(typeof error?.message === 'string' ? error.message : String(error));
    const offline = error?.status === 'network' && navigator.onLine === false;
    return {
        title: offline ? 'There is no network' : title, text, again,
        advice: offline ? 'This model is not stored here. Try again when you are online, or ' +
            'choose a stored one.' : advice,
    };
}

/**
 * The engine's sentences have no full stop, and begin small unless a name begins them.
 * @param {string} text
 */
function sentence(text) {
    const line = (text.trim() || 'No reason was given')
        .replace(/^[a-z]+(?= )/, (word) => word[0].toUpperCase() + word.slice(1));
    return /[.!?…]$/u.test(line) ? line : `${line}.`;
}
