// The page as a visitor meets it: it loads the bundled model by itself and writes; the second visit
// has no network and no server. What is written is the reference's text.
import fs from 'node:fs';
import path from 'node:path';

const TOKENS = 24;

const golden = (t) => JSON.parse(fs.readFileSync(path.join(t.root, 'tests/vectors/golden.json'),
    'utf8')).cases.find(({name}) => name === 'tale');

/** Greedy and short, as a visitor would have set it before; other requests than ours are noted. */
const settings = (tokens) => {
    localStorage.setItem('doppler.parameters', JSON.stringify({temperature: 0, topK: 0, topP: 1,
        minP: 0, repeatPenalty: 1, maxTokens: tokens}));
    localStorage.setItem('doppler.context', '256');
};

const state = (page, names, seconds) => page.waitForFunction((names) =>
    names.includes(document.body.dataset.state), {timeout: seconds * 1000}, names);

/** Waits for the model, asks, and gives what the page then shows as the answer. */
const ask = async (t, page, question) => {
    await state(page, ['ready', 'failed'], 300);
    const failure = await page.$eval('#failure', (node) => !node.hidden && node.textContent);
    t.ok(!failure, `the page says: ${failure}`);
    await page.type('#prompt', question);
    await page.keyboard.press('Enter');
    await state(page, ['writing'], 10);
    await state(page, ['ready'], 120);
    return page.$$eval('#transcript .answer', (nodes) => nodes.at(-1)?.textContent ?? '');
};

const secondVisitWithoutNetwork = async (t) => {
    if (!fs.existsSync(path.join(t.programDir, 'precache.js'))) {
        t.skip(`no page in ${t.programDir}`);
    }
    const {messages, continuation} = golden(t);
    const foreign = [];
    const open = async () => {
        const page = await t.open('/test/blank.html'); // of the same origin, for its settings
        await page.evaluate(settings, TOKENS);
        page.on('request', (request) => {
            const url = request.url();
            if (!/^(data|blob):/.test(url) && !url.startsWith(t.server.origin)) {
                foreign.push(url);
            }
        });
        return page;
    };
    const check = (text, visit) => {
        t.ok(text.length > 40 && continuation.startsWith(text.trim()),
            `${visit} wrote ${JSON.stringify(text)}, expected the beginning of ` +
            JSON.stringify(continuation));
    };
    const page = await open();
    await page.goto(`${t.server.origin}/`);
    check(await ask(t, page, messages[0].content), 'the first visit');
    await page.evaluate(() => navigator.serviceWorker.ready.then(() => true));
    await page.waitForFunction('navigator.serviceWorker.controller !== null', {timeout: 10_000});
    await page.goto('about:blank');
    await t.server.down();
    const began = performance.now();
    await page.goto(`${t.server.origin}/`);
    await state(page, ['ready', 'failed'], 300);
    const seconds = (performance.now() - began) / 1000;
    await page.click('#new-button');
    check(await ask(t, page, messages[0].content), 'the visit without a network');
    t.equal(foreign, [], 'requests to others');
    return `ready after ${seconds.toFixed(1)} s`;
};

export default [
    {name: 'the second visit needs no network', seconds: 900, run: secondVisitWithoutNetwork},
];
