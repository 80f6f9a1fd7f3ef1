// @ts-check
/**
 * The page's policy for scripts that are named by text: they come from this page's own server
 * alone, whoever asks for them. The page's content security policy demands such a policy (Trusted
 * Types) and refuses markup made from text altogether.
 */
export function guardScripts() {
    const types = /** @type {any} */ (globalThis).trustedTypes;
    types?.createPolicy('default', {
        createScriptURL: (/** @type {string} */ text) => {
            const url = new URL(text, document.baseURI);
            if (url.origin !== location.origin) {
                throw new TypeError(`${url.origin}: scripts come from ${location.origin} alone`);
            }
            return url.href;
        },
    });
}
