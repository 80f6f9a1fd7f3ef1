// @ts-check
/**
 * The dedicated worker that the package starts: engine and store behind the protocol. Everything it
 * does is in serve.js and host.js; here they meet the worker's own scope.
 */
import { Engine } from './engine.js';
import { selfTest } from './selftest.js';
import { serve, standardParts } from './serve.js';
import { openCache, openSource } from './store.js';

serve(globalThis, standardParts({ Engine, openSource, openCache, selfTest }));
