// The main job: a config as the README gives it, oidc-provider as the IdP, `python3 -m http.server` as the app,
// Chromium as the user.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CLIENT_ID, CLIENT_SECRET, startIdp } from './idp.mjs';
import { ARTIFACTS, freePorts, logInAtProvider, openBrowser, request, start, startProxy } from './support.mjs';

for (const claimsInIdToken of [true, false]) {
  describe(`login with claims in the ${claimsInIdToken ? 'ID token' : 'UserInfo answer'}`, () => {
    let idp, app, proxy, base, ports;

    before(async () => {
      ports = await freePorts(3);
      const [exposedPort, appPort, adminPort] = ports;
      base = `https://app.localhost:${exposedPort}`;
      idp = await startIdp({ redirectUri: `${base}/aporeto/oidc/callback`, claimsInIdToken });
      const root = fs.mkdtempSync(path.join(os.tmpdir(), 'portcullis-app-'));
      for (const [name, text] of [
        ['index.html', '<title>home</title><h1>home</h1>'], ['report a.html', '<title>report</title><h1>report</h1>'],
        ['public/logo.txt', 'logo'], ['admin/index.html', '<title>admin</title><h1>admin</h1>'],
      ]) {
        fs.mkdirSync(path.dirname(path.join(root, name)), { recursive: true });
        fs.writeFileSync(path.join(root, name), text);
      }
      app = await start('python3', ['-u', '-m', 'http.server', String(appPort), '--bind', '127.0.0.1', '-d', root],
        { ready: (text) => text.includes('Serving HTTP') });
      proxy = await startProxy(`
services:
- name: files
  type: HTTP
  authorizationType: OIDC
  OIDCProviderURL: ${idp.issuer}
  OIDCClientID: ${CLIENT_ID}
  OIDCClientSecret: \${SECRET}
  OIDCCallbackURL: ${base}
  OIDCScopes: [openid, email, profile, groups]
  port: ${appPort}
  exposedPort: ${exposedPort}
  exposedAPIs:
  - - app=files
httpResourceSpecs:
- name: files
  associatedTags: [app=files]
  endpoints:
  - { URI: /public/*, methods: [GET], public: true }
  - { URI: /*, methods: [GET], allowedScopes: [[groups=staff]] }
  - { URI: /admin/*, methods: [GET], allowedScopes: [[groups=admin]] }
admin: { listen: "127.0.0.1:${adminPort}" }
limits: { shutdownDelay: 0s }
log: { format: json }
`, { env: { SECRET: CLIENT_SECRET } });
    });

    after(async () => {
      if (proxy) assert.equal(await proxy.stop(), 0, proxy.output());
      await app?.stop();
      await idp?.stop();
    });

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
        assert.deepEqual(record.rule, { spec: 'files', uri: '/admin/*', method: 'GET' });
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
      const [exposedPort] = ports;
      const wrong = await request(`https://app.localhost:${exposedPort}/`, { headers: { host: 'evil.example' } });
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
