// The package's modules that the client's tests import, in one place.
export * from '../../web/lib/doppler.js';
export { cancelled, makeError, packError, unpackError } from '../../web/lib/errors.js';
export { Live } from '../../web/lib/live.js';
export { makePair } from '../../web/lib/link.js';
export { Places } from '../../web/lib/places.js';
export { VERSION } from '../../web/lib/protocol.js';
export { serve } from '../../web/lib/serve.js';
