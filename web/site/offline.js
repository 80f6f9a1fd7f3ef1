// @ts-check
/**
 * Registers the service worker, and tells when a newer version of the page lies ready. The page
 * stays with the version that it began with until the visitor wants the other one: in the tab where
 * that was said it is loaded anew at once. The service worker is all tabs', so the others can only
 * follow; each says so and leaves the moment to its visitor.
 */

/** @param {(act: () => void) => void} offer called with what brings the newer version */
export async function keepOffline(offer) {
    const { serviceWorker } = navigator;
    if (!serviceWorker) return;
    const before = serviceWorker.controller;
    let wanted = false;
    const tell = (/** @type {ServiceWorker} */ worker) => offer(() => {
        wanted = true;
        if (worker.state === 'activated') location.reload(); /* another tab was faster */
        else worker.postMessage('activate');
    });
    serviceWorker.addEventListener('controllerchange', () => {
        if (!before) return;
        if (wanted) location.reload();
        else offer(() => location.reload());
    });
    try {
        /* not by the browser's own cache: precache.js is what tells a new version */
        const registration = await serviceWorker.register('sw.js', { updateViaCache: 'none' });
        if (registration.waiting && before) tell(registration.waiting);
        registration.addEventListener('updatefound', () => {
            const worker = registration.installing;
            worker?.addEventListener('statechange', () => {
                if (worker.state === 'installed' && before) tell(worker);
            });
        });
    } catch {
        /* without it, the page works as long as its server answers */
    }
}
