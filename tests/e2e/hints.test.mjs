// 103 Early Hints, which browsers take over HTTP/2 only: what a page will need comes before the page does.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { openStage, serve } from './stage.mjs';
import { logInAtProvider, openBrowser } from './support.mjs';

// Chromium overlooks one hint in five that comes within some milliseconds of its navigation, from a server of Node
// without a proxy as well. So the application thinks first, and the page is asked for again a few times.
const THOUGHT_MILLISECONDS = 100;
const ATTEMPTS = 5;

describe('early hints', () => {
  let stage;
  // The application's page waits until its style has been asked for, or the next attempt begins.
  let goOn = () => {};

  before(async () => {
    stage = await openStage({
      launch: (port) => serve(port, async (request, response) => {
        if (request.url === '/style.css') {
          goOn();
          response.writeHead(200, { 'content-type': 'text/css', 'cache-control': 'max-age=60' });
          response.end('h1 { color: rgb(1, 2, 3) }');
        } else if (request.url === '/hinted') {
          goOn();
          const isAsked = new Promise((resolve) => { goOn = resolve; });
          await new Promise((resolve) => setTimeout(resolve, THOUGHT_MILLISECONDS));
          response.writeEarlyHints({ link: '</style.css>; rel=preload; as=style' });
          await isAsked;
          response.writeHead(200, { 'content-type': 'text/html' });
          response.end('<link rel="stylesheet" href="/style.css"><title>hinted</title><h1>hinted</h1>');
        } else {
          response.writeHead(200, { 'content-type': 'text/html' });
          response.end('<title>home</title>');
        }
      }),
    });
  });

  after(() => stage?.stop());

  test('a browser fetches what is hinted while the application is still at work', async () => {
    const browser = await openBrowser();
    try {
      const page = await browser.context.newPage();
      await page.goto(`${stage.base}/home`);
      await logInAtProvider(page, 'alice');
      for (let attempt = 1; await page.title() !== 'hinted'; attempt += 1) {
        await page.goto(`${stage.base}/hinted`, { timeout: 5_000 }).catch((error) => {
          if (attempt === ATTEMPTS) throw error;
        });
      }
      const [style] = await page.evaluate(() => performance.getEntriesByType('resource')
        .map(({ name, nextHopProtocol }) => ({ name, nextHopProtocol })));
      assert.deepEqual(style, { name: `${stage.base}/style.css`, nextHopProtocol: 'h2' });
      assert.equal(await page.evaluate(() => getComputedStyle(document.querySelector('h1')).color), 'rgb(1, 2, 3)');
    } finally {
      await browser.close();
    }
  });
});
