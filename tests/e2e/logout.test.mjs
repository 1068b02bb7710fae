// Logout by the person, through oidc-provider's own page and back (RP-Initiated Logout 1.0), and by nobody else.
import assert from 'node:assert/strict';
import path from 'node:path';
import { after, before, beforeEach, afterEach, describe, test } from 'node:test';
import { arrive, openLiveStage, openStreams, replay } from './people.mjs';
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
    const { socket, events } = await streams.ends();
    assert.deepEqual([socket.code, socket.wasClean, events.state], [1008, true, 'closed']);

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
    await page.goto(`${stage.base}${LOGOUT}?state=anything&post_logout_redirect_uri=https://evil.example/`);
    assert.equal(await page.title().then((title) => /sign out/i.test(title)), true, await page.title());
    assert.ok(!(await page.content()).includes('evil.example'));
    assert.deepEqual(await alice.fetch(), [200]);
  });
});

describe('a page of another origin ends nothing', () => {
  // Of another site, whose requests come without the cookie; and of the same site, whose requests come with it.
  for (const origin of ['https://evil.example', `https://evil.${HOST}`]) {
    const target = () => `${stage.base}${LOGOUT}`;
    const attempts = {
      'a form that posts itself': () => `<form method=post action="${target()}"></form><script>document.forms[0].submit()</script>`,
      'a form that posts a token': () => `<form method=post action="${target()}"><input name=token value=x></form><script>document.forms[0].submit()</script>`,
      'a form in a frame': () => `<iframe name=f></iframe><form method=post target=f action="${target()}"></form><script>document.forms[0].submit()</script>`,
      'the page in a frame': () => `<iframe src="${target()}"></iframe>`,
      'an image': () => `<img src="${target()}">`,
      'a redirect': () => `<script>location = '${target()}'</script>`,
      'a fetch with credentials': () => `<script>fetch('${target()}', { method: 'POST', mode: 'no-cors', credentials: 'include' })</script>`,
      'a back-channel logout': () => `<form method=post action="${stage.base}/aporeto/oidc/backchannel-logout"><input name=logout_token value=x></form><script>document.forms[0].submit()</script>`,
      'a front-channel logout that is off': () => `<iframe src="${stage.base}/aporeto/oidc/frontchannel-logout"></iframe>`,
    };
    test(`of ${origin}`, async () => {
      const before = await alice.cookies();
      for (const [name, html] of Object.entries(attempts)) {
        const page = await alice.context.newPage();
        await page.route(`${origin}/**`, (route) => route.fulfill({ contentType: 'text/html', body: html() }));
        const tried = page.waitForResponse((response) => response.url().startsWith(stage.base));
        await page.goto(`${origin}/`);
        const answer = await tried;
        assert.notEqual(answer.headers()['clear-site-data'], '"cache"', name);
        assert.equal((await answer.allHeaders())['set-cookie']?.includes('__Host-portcullis='), undefined, name);
        await page.waitForLoadState();
        for (const frame of page.frames().slice(1)) assert.equal(await frame.$('form'), null, `${name}: framed`);
        assert.deepEqual(await alice.fetch(), [200], name);
        assert.deepEqual(await alice.cookies(), before, name);
        await page.close();
      }
      assert.deepEqual(stage.proxy.events('logout').filter(({ time }) => Date.parse(time) > began), []);
    });
  }
  let began;
  beforeEach(() => { began = Date.now(); });
});
