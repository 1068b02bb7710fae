// Logout by the person, through oidc-provider's own page and back (RP-Initiated Logout 1.0), and by nobody else.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import fs from 'node:fs';
import https from 'node:https';
import path from 'node:path';
import { after, before, beforeEach, afterEach, describe, test } from 'node:test';
import { CLIENT_ID } from './idp.mjs';
import { arrive, ENDED, openLiveStage, openStreams, replay } from './people.mjs';
import { HOST } from './stage.mjs';
import { ARTIFACTS, logOutAtProvider, openBrowsers, until } from './support.mjs';

const LOGOUT = '/aporeto/oidc/logout';

let browsers, stage, alice;

before(async () => {
  browsers = await openBrowsers();
  stage = await openLiveStage();
});

after(async () => {
  await browsers?.close();
  await stage?.stop();
});

beforeEach(async () => { alice = await arrive(browsers, stage, 'alice'); });
afterEach(async () => { await alice.close(); });

const press = (page, button) => Promise.all([page.waitForNavigation(), page.click(button)]);

describe('RP-initiated logout', () => {
  test('leads through the provider and back; browser, proxy and provider have forgotten the session', async () => {
    const { page, context } = alice;
    const { idp, base } = stage;
    await page.evaluate(() => { document.cookie = 'theme=dark; path=/; secure'; localStorage.setItem('draft', 'kept'); });
    const cookie = await alice.cookie();
    const { jti } = idp.events('refresh_token.saved').at(-1);
    const streams = await openStreams(await withAnotherPage());

    await page.goto(`${base}${LOGOUT}`);
    await page.screenshot({ path: path.join(ARTIFACTS, 'logout.png') });
    await press(page, 'form button');
    assert.ok(page.url().startsWith(`${idp.issuer}/session/end?`), page.url());
    assert.deepEqual(await alice.cookies(), []);
    assert.equal(await replay(stage, cookie), 401, 'a copy is worth nothing already');
    await page.screenshot({ path: path.join(ARTIFACTS, 'logout-at-provider.png') });
    await logOutAtProvider(page);

    const { origin, pathname } = new URL(page.url());
    assert.equal(`${origin}${pathname}`, `${base}${LOGOUT}`);
    assert.match(await page.innerText('main'), /signed out/i);
    await page.screenshot({ path: path.join(ARTIFACTS, 'signed-out.png') });
    assert.deepEqual(alice.complaints, []);
    assert.equal(idp.events('end_session.success').length, 1);
    await until('the revocation of the refresh token', async () => !(await idp.redeemable(jti)));
    assert.equal(await page.evaluate(() => document.cookie), 'theme=dark');
    assert.equal(await page.evaluate(() => localStorage.getItem('draft')), 'kept');
    assert.deepEqual((await streams.ends()).how, ENDED);

    await page.goto(`${base}/`);
    assert.ok(page.url().startsWith(idp.issuer), page.url());
    assert.ok(await page.$('input[name="login"]'), 'the provider asks who it is');
    assert.deepEqual((await context.cookies(base)).map(({ name }) => name).filter((name) => !name.startsWith('__Host-portcullis-login.')), ['theme']);
  });

  // The streams of another tab: those of the page that navigates end anyway.
  async function withAnotherPage() {
    const page = await alice.context.newPage();
    await page.goto(`${stage.base}/`);
    return { page };
  }

  test('leads there and back also for who has too large an ID token to be named by it', async () => {
    const many = await arrive(browsers, stage, 'many');
    const { page } = many;
    assert.ok((await many.cookies()).length > 1);
    await page.goto(`${stage.base}${LOGOUT}`);
    await press(page, 'form button');
    const asked = new URL(page.url()).searchParams;
    assert.equal(asked.get('id_token_hint'), null);
    assert.equal(asked.get('client_id'), CLIENT_ID);
    assert.equal(asked.get('logout_hint'), 'many');
    assert.deepEqual(await many.cookies(), [], 'all of them are gone');
    await logOutAtProvider(page);
    assert.match(await page.innerText('main'), /signed out/i);
    await many.close();
  });

  test('who stays signed in at the provider is nevertheless signed out here', async () => {
    const { page } = alice;
    const cookie = await alice.cookie();
    await page.goto(`${stage.base}${LOGOUT}`);
    await press(page, 'form button');
    await press(page, 'button:not([name])');
    assert.match(await page.innerText('main'), /signed out/i);
    assert.deepEqual(await alice.cookies(), []);
    assert.equal(await replay(stage, cookie), 401);
    await page.goto(`${stage.base}/`);
    assert.equal(await page.$('input[name="login"]'), null, 'the provider knows who it is');
    await press(page, 'button[type="submit"]');
    assert.equal(await page.title(), 'home');
  });

  test('a script of the application is told where to go', async () => {
    const { page } = alice;
    const answer = await page.evaluate(async (logout) => {
      const response = await fetch(logout, { method: 'POST' });
      return { status: response.status, body: await response.json() };
    }, LOGOUT);
    assert.equal(answer.status, 200);
    assert.deepEqual(await alice.cookies(), []);
    await page.goto(answer.body.logout);
    await logOutAtProvider(page);
    assert.match(await page.innerText('main'), /signed out/i);
  });

  test('the way back opened by hand says nothing and ends nothing', async () => {
    const { page } = alice;
    const cookie = await alice.cookie();
    await page.goto(`${stage.base}${LOGOUT}?state=anything&post_logout_redirect_uri=https://evil.example/`);
    assert.equal(await page.title().then((title) => /sign out/i.test(title)), true, await page.title());
    assert.ok(!(await page.content()).includes('evil.example'));
    assert.equal(await replay(stage, cookie), 200);
  });
});

describe('a page of another origin ends nothing', () => {
  const target = () => `${stage.base}${LOGOUT}`;
  const SUBMIT = '<script>document.forms[0].submit()</script>';
  // The page, and what the proxy makes of its request: method and status.
  const attempts = {
    'a form that posts itself': [() => `<form method=post action="${target()}"></form>${SUBMIT}`, 'POST 403'],
    'a form that posts a token': [() => `<form method=post action="${target()}"><input name=token value=x></form>${SUBMIT}`, 'POST 403'],
    'a form in a frame': [() => `<iframe name=f></iframe><form method=post target=f action="${target()}"></form>${SUBMIT}`, 'POST 403'],
    'the page in a frame': [() => `<iframe src="${target()}"></iframe>`, 'GET 200'],
    'an image': [() => `<img src="${target()}">`, 'GET 200'],
    'a link': [() => `<a href="${target()}">x</a><script>document.links[0].click()</script>`, 'GET 200'],
    'a fetch with credentials': [() => `<script>fetch('${target()}', { method: 'POST', mode: 'no-cors', credentials: 'include' })</script>`, 'POST 403'],
    'a forged back-channel logout': [
      () => `<form method=post action="${stage.base}/aporeto/oidc/backchannel-logout"><input name=logout_token value=x></form>${SUBMIT}`, 'POST 400',
    ],
    'a front-channel logout, which is off': [() => `<iframe src="${stage.base}/aporeto/oidc/frontchannel-logout?iss=${stage.idp.issuer}&sid=x"></iframe>`, 'GET 404'],
  };
  let evil, shown;

  before(async () => {
    // Over TLS, or else it would be no neighbour; who it is, the browsers of these tests do not check.
    const [key, cert] = ['leaf.key', 'leaf.pem'].map((name) => fs.readFileSync(path.join(stage.proxy.state, 'certs/app', name)));
    evil = https.createServer({ key, cert }, (_, response) => response.setHeader('content-type', 'text/html').end(shown));
    evil.listen(0, '127.0.0.1');
    await once(evil, 'listening');
  });
  after(() => { evil?.close(); evil?.closeAllConnections(); });

  // Of another site, whose requests come without the cookie; and of the same site, whose requests come with it.
  for (const host of ['evil.localhost', `evil.${HOST}`]) {
    test(`of ${host}`, async () => {
      const origin = `https://${host}:${evil.address().port}`;
      const cookie = await alice.cookie();
      const ended = () => ['logout', 'backchannel-logout', 'frontchannel-logout'].flatMap(stage.proxy.events).length;
      const endedBefore = ended();
      const records = () => stage.proxy.log().filter((line) => line.path?.startsWith('/aporeto/oidc/') && line.status);
      for (const [name, [html, wanted]] of Object.entries(attempts)) {
        const page = await alice.context.newPage();
        shown = html();
        const before = records().length;
        await page.goto(`${origin}/`);
        const [{ method, status }] = await until(name, async () => records().length > before && records().slice(before));
        assert.equal(`${method} ${status}`, wanted, name);
        await page.waitForLoadState();
        // A frame may still be on its way from one document to the next.
        for (const frame of page.frames().slice(1)) await until(`${name}: no form in a frame`, async () => await frame.$('form') === null);
        assert.deepEqual(await alice.fetch(), [200], name);
        assert.equal(await alice.cookie(), cookie, name);
        await page.close();
      }
      assert.equal(ended(), endedBefore);
    });
  }
});
