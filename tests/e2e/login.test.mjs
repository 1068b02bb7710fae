// The main job: a config as the README gives it, oidc-provider as the IdP, `python3 -m http.server` as the app,
// Chromium as the user.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CLIENT_SECRET } from './idp.mjs';
import { openStage } from './stage.mjs';
import { ARTIFACTS, logInAtProvider, logOutAtProvider, openBrowser, request, start } from './support.mjs';

// A folder of files, as an application.
function serveFiles(port, folder) {
  for (const [name, text] of [
    ['index.html', '<title>home</title><h1>home</h1>'], ['report a.html', '<title>report</title><h1>report</h1>'],
    ['public/logo.txt', 'logo'], ['admin/index.html', '<title>admin</title><h1>admin</h1>'],
  ]) {
    fs.mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
    fs.writeFileSync(path.join(folder, name), text);
  }
  return start('python3', ['-u', '-m', 'http.server', String(port), '--bind', '127.0.0.1', '-d', folder],
    { ready: (text) => text.includes('Serving HTTP') });
}

for (const claimsInIdToken of [true, false]) {
  describe(`login with claims in the ${claimsInIdToken ? 'ID token' : 'UserInfo answer'}`, () => {
    let stage, idp, proxy, base;

    before(async () => {
      stage = await openStage({
        launch: serveFiles,
        provider: () => ({ claimsInIdToken }),
        endpoints: [
          '{ URI: /public/*, methods: [GET], public: true }',
          '{ URI: /*, methods: [GET], allowedScopes: [[groups=staff]] }',
          '{ URI: /admin/*, methods: [GET], allowedScopes: [[groups=admin]] }',
        ],
      });
      ({ idp, proxy, base } = stage);
    });

    after(() => stage?.stop());

    test('deep link, login, byte-identical return; the second request asks the provider nothing', async () => {
      const browser = await openBrowser();
      try {
        const page = await browser.context.newPage();
        const deep = `${base}/report%20a.html?a=1&b=%2F%26&c=x%20y`;
        await page.goto(deep);
        assert.ok(page.url().startsWith(idp.issuer), page.url());
        await logInAtProvider(page, 'alice');
        assert.equal(page.url(), deep);
        assert.equal(await page.title(), 'report');
        assert.equal(idp.calls.filter((call) => call === 'POST /token').length, 1);
        const before = idp.calls.length;
        await page.reload();
        await page.goto(`${base}/admin/`);
        assert.equal(await page.title(), 'admin');
        assert.equal(idp.calls.length, before);

        const cookies = (await browser.context.cookies(base)).filter((cookie) => cookie.name.startsWith('__Host-portcullis'));
        assert.deepEqual(cookies.map(({ name, secure, httpOnly, sameSite, path: at }) => ({ name, secure, httpOnly, sameSite, at })),
          [{ name: '__Host-portcullis', secure: true, httpOnly: true, sameSite: 'Lax', at: '/' }]);

        const session = await page.evaluate(async () => (await fetch('/aporeto/oidc/session')).json());
        assert.equal(session.subject, 'alice');
        assert.equal(session.issuer, idp.issuer);
        assert.ok(Date.parse(session.expiresAt) > Date.parse(session.idleExpiresAt), JSON.stringify(session));

        await page.goto(`${base}/aporeto/oidc/logout`);
        await page.screenshot({ path: path.join(ARTIFACTS, 'logout.png') });
        await Promise.all([page.waitForNavigation(), page.click('form button')]);
        await logOutAtProvider(page);
        assert.match(await page.innerText('main'), /signed out/i);
        await page.screenshot({ path: path.join(ARTIFACTS, 'signed-out.png') });
        assert.deepEqual((await browser.context.cookies(base)).filter((cookie) => cookie.name.startsWith('__Host-portcullis')), []);
        await page.goto(`${base}/public/logo.txt`);
        assert.equal(await page.evaluate(async () => (await fetch('/aporeto/oidc/session')).status), 401);
      } finally {
        await browser.close();
      }
    });

    test('the wrong group is refused with a page that says so, and the log says why', async () => {
      const browser = await openBrowser();
      try {
        const page = await browser.context.newPage();
        await page.goto(`${base}/`);
        await logInAtProvider(page, 'bob');
        assert.equal(await page.title(), 'home');
        const answer = await page.goto(`${base}/admin/`);
        assert.equal(answer.status(), 403);
        await page.screenshot({ path: path.join(ARTIFACTS, 'forbidden.png') });
        const id = answer.headers()['x-request-id'];
        assert.ok((await page.content()).includes(id));
        const record = proxy.log().find((line) => line.requestId === id && line.action);
        assert.equal(record.action, 'Reject');
        assert.equal(record.dropReason, 'policy');
        assert.deepEqual(record.rule, { spec: 'app', uri: '/admin/*', method: 'GET' });
        assert.equal(record.subject, 'bob');
      } finally {
        await browser.close();
      }
    });

    test('fetch() without a session gets 401 and a login URL, not a redirect', async () => {
      const browser = await openBrowser();
      try {
        const page = await browser.context.newPage();
        await page.goto(`${base}/public/logo.txt`);
        const answer = await page.evaluate(async () => {
          const response = await fetch('/api');
          return { status: response.status, redirected: response.redirected, type: response.headers.get('content-type'), body: await response.json() };
        });
        assert.equal(answer.status, 401);
        assert.equal(answer.redirected, false);
        assert.match(answer.type, /^application\/problem\+json/);
        assert.ok(answer.body.login.startsWith(`${base}/aporeto/oidc/login`), answer.body.login);
        await page.goto(answer.body.login);
        assert.ok(page.url().startsWith(idp.issuer), page.url());
      } finally {
        await browser.close();
      }
    });

    test('another Host gets 421, nothing protected is shown without a session', async () => {
      const wrong = await request(`${base}/`, { headers: { host: 'evil.example' } });
      assert.equal(wrong.status, 421);
      for (const method of ['GET', 'HEAD', 'POST', 'OPTIONS', 'DELETE', 'PROPFIND']) {
        const answer = await request(`${base}/admin/`, { method });
        assert.equal(answer.status, 401, method);
        assert.ok(!answer.text.includes('admin</h1>'));
      }
      const open = await request(`${base}/public/logo.txt`);
      assert.equal(open.status, 200);
      assert.equal(open.text, 'logo');
    });

    test('400 groups fit into split cookies; more than the cap are refused and the log names the claim', async () => {
      const browser = await openBrowser();
      try {
        const page = await browser.context.newPage();
        await page.goto(`${base}/`);
        await logInAtProvider(page, 'many');
        assert.equal(await page.title(), 'home');
        const cookies = (await browser.context.cookies(base)).filter((cookie) => /^__Host-portcullis(\.\d+)?$/.test(cookie.name));
        assert.ok(cookies.length > 1, 'split');
        assert.equal((await page.goto(`${base}/admin/`)).status(), 403);
      } finally {
        await browser.close();
      }
      const second = await openBrowser();
      try {
        const page = await second.context.newPage();
        await page.goto(`${base}/`);
        await logInAtProvider(page, 'huge');
        await page.screenshot({ path: path.join(ARTIFACTS, 'too-large.png') });
        const cookies = (await second.context.cookies(base)).filter((cookie) => cookie.name.startsWith('__Host-portcullis'));
        assert.deepEqual(cookies, []);
        assert.ok(proxy.log().some((line) => line.level && line.message?.includes('groups')), proxy.output());
      } finally {
        await second.close();
      }
    });

    test('no secret, code, token or cookie is in the log', () => {
      const text = proxy.output();
      assert.ok(!text.includes(CLIENT_SECRET));
      assert.ok(!/eyJ[A-Za-z0-9_-]{10,}/.test(text), 'a JWT');
      assert.ok(!/code=|state=/.test(text), 'a code or state');
    });
  });
}
