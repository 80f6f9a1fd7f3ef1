// What the client's tests share: the package's modules, in one place, and a model loaded in a world
// that client_fake.mjs makes.
import assert from 'node:assert/strict';
import { load } from '../../web/lib/doppler.js';
import { cancelled, makeError } from '../../web/lib/errors.js';
import { makePair } from '../../web/lib/link.js';
import { serve } from '../../web/lib/serve.js';
import { World } from './client_fake.mjs';

export * from '../../web/lib/doppler.js';
export { cancelled, makeError, packError, unpackError } from '../../web/lib/errors.js';
export { Live } from '../../web/lib/live.js';
export { makePair } from '../../web/lib/link.js';
export { Places } from '../../web/lib/places.js';
export { VERSION } from '../../web/lib/protocol.js';
export { serve, standardParts } from '../../web/lib/serve.js';

export const URL_OF_MODEL = 'https://example.com/letters/';

/** A world, and a model loaded in it. */
export const open = async (world = {}, options = {}) => {
    const made = world instanceof World ? world : new World({ makeError, cancelled, ...world });
    const [near, far] = makePair();
    serve(far, made.parts());
    const model = await load(URL_OF_MODEL, { worker: near, ...options });
    return { world: made, model };
};

export const newWorld = (options = {}) => new World({ makeError, cancelled, ...options });

/** The promise fails by an error of this class with this sentence. */
export const rejects = (promise, Kind, pattern) => assert.rejects(promise.then(), (error) => {
    assert.ok(error instanceof Kind, `${error.name}: ${error.message}, expected ${Kind.name}`);
    assert.match(error.message, pattern);
    return true;
});
