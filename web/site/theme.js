/* Sets the colours that were chosen last before anything is painted; the only script that the page
 * waits for. `auto` and everything unknown leave it to the system. */
(() => {
    let theme = null;
    try {
        theme = localStorage.getItem('doppler.theme');
    } catch {
        /* storage is off: the system's colours */
    }
    if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
})();
