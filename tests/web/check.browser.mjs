// The tree's kernels in the browser, each against its double reference: a few in every run, all of
// them by hand (in minutes to an hour, by the machine).
import fs from 'node:fs';
import path from 'node:path';

/** Kernels of different kinds whose pipelines are made quickly. */
const QUICK = ['norm', 'rope', 'glu'];

const checkKernels = (filters, brief) => async (t) => {
    if (!fs.existsSync(path.join(t.programDir, 'check.wasm'))) {
        t.skip(`no check.wasm in ${t.programDir}: make build/web/check.wasm`);
    }
    const page = await t.open('/test/check.html');
    await page.waitForFunction('window.ready');
    let n = 0;
    for (const filter of filters) {
        const {rows} = await page.evaluate((filter, brief) => checkKernels(filter, brief), filter,
            brief);
        t.ok(rows.length > 0, `no kernel has "${filter}" in its name`);
        const bad = rows.filter((row) => row.ok !== true);
        t.ok(bad.length === 0, `${bad.length} of ${rows.length} rows of "${filter}", the first: ` +
            JSON.stringify(bad[0]));
        n += rows.length;
    }
    return `${n} rows`;
};

export default [
    {name: 'some kernels', seconds: 600, run: checkKernels(QUICK, true)},
    {name: 'all kernels in Chromium', byHand: true, seconds: 7200, run: checkKernels([''], false)},
    {name: 'all kernels in Firefox', byHand: true, firefox: true, seconds: 7200,
        run: checkKernels([''], false)},
];
