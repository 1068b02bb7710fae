// 103 Early Hints, which browsers take over HTTP/2 only: what a page will need comes before the page does.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { openStage, serve } from './stage.mjs';
import { logInAtProvider, openBrowser } from './support.mjs';

describe('early hints', () => {
  let stage;
  // The application's page waits until its style has been asked for.
  let asked, isAsked;

  before(async () => {
    isAsked = new Promise((resolve) => { asked = resolve; });
    stage = await openStage({
      launch: (port) => serve(port, async (request, response) => {
        if (request.url === '/style.css') {
          asked();
          response.writeHead(200, { 'content-type': 'text/css', 'cache-control': 'max-age=60' });
          response.end('h1 { color: rgb(1, 2, 3) }');
        } else if (request.url === '/hinted') {
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
      await page.goto(`${stage.base}/hinted`);
      assert.equal(await page.title(), 'hinted');
      const [style] = await page.evaluate(() => performance.getEntriesByType('resource')
        .map(({ name, nextHopProtocol }) => ({ name, nextHopProtocol })));
      assert.deepEqual(style, { name: `${stage.base}/style.css`, nextHopProtocol: 'h2' });
      assert.equal(await page.evaluate(() => getComputedStyle(document.querySelector('h1')).color), 'rgb(1, 2, 3)');
    } finally {
      await browser.close();
    }
  });
});
