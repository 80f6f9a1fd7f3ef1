// `npm run bench`: our own bench page in the pinned Chromium; results as JSON on standard output.
//
//   node run.mjs PROGRAM_DIR [--firefox] [QUERY]
//
// PROGRAM_DIR is what `make web` wrote; QUERY is the bench page's, without it
// "prompts=xs,short&tokens=64&runs=3". A browser without a window on a machine without a GPU measures its processor: the
// result says so ("software").
import path from 'node:path';
import {launch} from '../../tests/web/harness.mjs';
import {TestServer} from '../../tests/web/server.mjs';

const words = process.argv.slice(2);
const firefox = words.includes('--firefox');
const [folder, query = 'prompts=xs,short&tokens=64&runs=3'] = words
    .filter((word) => word !== '--firefox');
const server = await new TestServer({'/': path.resolve(folder)}).start();
const browser = await launch(firefox ? 'firefox' : 'chromium');
try {
    const page = await browser.newPage();
    await page.goto(`${server.origin}/bench.html?${query}&go`);
    await page.waitForFunction('["done", "failed"].includes(document.body.dataset.state)',
        {timeout: 900_000, polling: 500});
    if (await page.evaluate('document.body.dataset.state') === 'failed') {
        throw new Error(await page.$eval('#failure-text', (node) => node.textContent));
    }
    console.log(await page.$eval('#json', (node) => node.textContent));
} catch (error) {
    console.error(`bench: ${error.message}`);
    process.exitCode = 1;
} finally {
    await browser.close();
    await server.stop();
}
