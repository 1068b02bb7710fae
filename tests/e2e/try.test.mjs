// `portcullis try`, the first impression: one command, a URL, a click, and the rules can be felt.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import { ARTIFACTS, BINARY, freePorts, openBrowser, start } from './support.mjs';

async function startTry(args, ready = 'Ctrl-C') {
  const home = fs.mkdtempSync(path.join(os.tmpdir(), 'portcullis-try-'));
  const [port] = await freePorts(1);
  const trial = await start(BINARY, ['try', '--port', String(port), ...args], {
    env: { HOME: home, XDG_STATE_HOME: '' }, ready: (text) => text.includes(ready) && text.includes('"event":"discovery"'),
  });
  const url = trial.output().split('\n').find((line) => /^https:\/\/localhost:\d+$/.test(line));
  return { ...trial, url, port, home };
}

async function signIn(page, user) {
  await Promise.all([page.waitForNavigation(), page.click(`button[name="user"][value="${user}"]`)]);
}

describe('try with the demo app', () => {
  let trial, browser, page;
  before(async () => {
    trial = await startTry([]);
    browser = await openBrowser();
    page = await browser.context.newPage();
  });
  after(async () => {
    await browser?.close();
    if (trial) assert.equal(await trial.stop(), 0, trial.output());
  });

  test('it prints the URL alone on a line, and who exists', () => {
    assert.equal(trial.url, `https://localhost:${trial.port}`);
    for (const user of ['alice', 'bob', 'carol']) assert.match(trial.output(), new RegExp(`^  ${user} `, 'm'));
  });

  test('public without login, login by a click, allowed, refused with a reason, logged out', async () => {
    await page.goto(`${trial.url}/public`);
    assert.equal(page.url(), `${trial.url}/public`);
    await page.goto(`${trial.url}/staff`);
    assert.match(page.url(), /^http:\/\/127\.0\.0\.1:\d+\//);
    await page.screenshot({ path: path.join(ARTIFACTS, 'try-login.png'), fullPage: true });
    await signIn(page, 'bob');
    assert.equal(page.url(), `${trial.url}/staff`);
    await page.screenshot({ path: path.join(ARTIFACTS, 'try-staff.png'), fullPage: true });
    const refused = await page.goto(`${trial.url}/admin`);
    assert.equal(refused.status(), 403);
    await page.screenshot({ path: path.join(ARTIFACTS, 'try-refused.png'), fullPage: true });
    assert.match(await page.innerText('main'), /groups=admin/);
    await page.goto(`${trial.url}/whoami`);
    assert.match(await page.innerText('body'), /Bob Baker/);
    await page.goto(`${trial.url}/aporeto/oidc/logout`);
    await Promise.all([page.waitForNavigation(), page.click('form button')]);
    assert.match(await page.innerText('main'), /signed out/i);
    await page.goto(`${trial.url}/staff`);
    assert.match(page.url(), /^http:\/\/127\.0\.0\.1:\d+\//);
    await signIn(page, 'carol');
    assert.equal((await page.goto(`${trial.url}/staff`)).status(), 403);
  });

  test('a script is told what to do instead of being redirected', async () => {
    await browser.context.clearCookies();
    await page.goto(trial.url);
    await page.screenshot({ path: path.join(ARTIFACTS, 'try-home.png'), fullPage: true });
    await page.click('button[data-path="/api/notes"][data-method="GET"]');
    await page.waitForFunction(() => document.querySelector('#out').textContent.includes('401'));
  });

  test('a step-up asks for a second factor, and ends on a page when there is none', async () => {
    await browser.context.clearCookies();
    await page.goto(`${trial.url}/staff`);
    await signIn(page, 'alice');
    await page.goto(`${trial.url}/vault`);
    assert.match(page.url(), /^http:\/\/127\.0\.0\.1:\d+\//);
    await page.uncheck('input[name="second_factor"]');
    await signIn(page, 'alice');
    await page.screenshot({ path: path.join(ARTIFACTS, 'try-step-up-not-met.png'), fullPage: true });
    assert.match(await page.innerText('main'), /mfa/);
    await page.goto(`${trial.url}/vault`);
    await signIn(page, 'alice');
    assert.equal(page.url(), `${trial.url}/vault`);
  });
});

test('try --app protects an application of one\'s own; a busy --port is an error', async () => {
  const app = http.createServer((request, response) => response.end(`hello ${request.headers['x-user-name'] ?? 'nobody'}`));
  app.listen(0, 'localhost');
  await once(app, 'listening');
  const trial = await startTry(['--app', `http://localhost:${app.address().port}`]);
  const browser = await openBrowser();
  try {
    await assert.rejects(start(BINARY, ['try', '--port', String(trial.port)], { ready: () => false }), /ended with 1/);
    const page = await browser.context.newPage();
    await page.goto(`${trial.url}/any?x=1`);
    await signIn(page, 'alice');
    assert.equal(page.url(), `${trial.url}/any?x=1`);
    assert.match(await page.innerText('body'), /hello Alice Archer/);
  } finally {
    await browser.close();
    assert.equal(await trial.stop(), 0, trial.output());
    app.close();
  }
});
