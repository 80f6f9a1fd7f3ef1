// The packages from npm that the browser tests run on. tools/setup copies this file beside the
// folder node_modules that it fills by package-lock.json (deps/webtest), so that the tests' own
// folder stays free of packages. Each is loaded when it is asked for: Dawn alone takes a second.

/** What drives a browser. */
export const puppeteer = async () => (await import('puppeteer-core')).default;

/** A headless Chromium with SwiftShader, packed; it unpacks itself into $TMPDIR. */
export const chromium = async () => (await import('@sparticuz/chromium')).default;

/** Dawn for Node: `create(flags)` gives what a page calls navigator.gpu. */
export const webgpu = () => import('webgpu');
