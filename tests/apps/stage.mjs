// An application behind the proxy, and somebody who has logged in to it at oidc-provider in Chromium.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { CLIENT_ID, CLIENT_SECRET, startIdp } from '../e2e/idp.mjs';
import { freePorts, logInAtProvider, openBrowser, ROOT, start, startProxy } from '../e2e/support.mjs';

export const HOST = 'app.localhost';
// Where the applications are installed by tools.sh.
const BIN = path.join(ROOT, '.tools/apps/bin');

// Starts everything. `launch(port, folder)` gives the program of .tools/apps, its arguments and environment, and the
// text that says that it is up; `scheme` is how the proxy reaches it; `first` is where the user comes first.
export async function openStage({ launch, scheme = 'http', first, user = 'bob' }) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'portcullis-apps-'));
  const [port, exposedPort, adminPort] = await freePorts(3);
  const base = `https://${HOST}:${exposedPort}`;
  const closers = [() => fs.rmSync(folder, { recursive: true, force: true })];
  const stop = async () => { for (const close of closers.reverse()) await close(); };
  try {
    const { program, args, env, ready } = launch(port, folder);
    const app = await start(path.join(BIN, program), args, { env, cwd: folder, ready: (text) => text.includes(ready) });
    closers.push(() => app.stop());
    const idp = await startIdp({ redirectUri: `${base}/aporeto/oidc/callback` });
    closers.push(() => idp.stop());
    const proxy = await startProxy(`
services:
- name: app
  type: HTTP
  authorizationType: OIDC
  OIDCProviderURL: ${idp.issuer}
  OIDCClientID: ${CLIENT_ID}
  OIDCClientSecret: \${SECRET}
  OIDCCallbackURL: ${base}
  OIDCScopes: [openid, email, profile, groups]
  upstream: ${scheme}://127.0.0.1:${port}
  exposedPort: ${exposedPort}
  exposedAPIs:
  - - app=app
  claimsToHTTPHeaderMappings:
  - { claimName: sub, targetHTTPHeader: X-User }
httpResourceSpecs:
- name: app
  associatedTags: [app=app]
  endpoints:
  - { URI: /admin.Admin/*, methods: ["*"], allowedScopes: [[groups=admin]] }
  - { URI: /*, methods: ["*"], allowedScopes: [[groups=staff]] }
admin: { listen: "127.0.0.1:${adminPort}" }
limits: { shutdownDelay: 0s, drain: 2s }
log: { format: json }
`, { env: { SECRET: CLIENT_SECRET } });
    closers.push(async () => { const code = await proxy.stop(); if (code !== 0) throw new Error(`portcullis ended with ${code}:\n${proxy.output()}`); });
    const browser = await openBrowser();
    closers.push(() => browser.close());
    const page = await browser.context.newPage();
    await page.goto(`${base}${first}`);
    await logInAtProvider(page, user);
    const cookies = await browser.context.cookies(base);
    const session = cookies.filter(({ name }) => name.startsWith('__Host-portcullis')).map(({ name, value }) => `${name}=${value}`).join('; ');
    return { base, port, exposedPort, app, proxy, page, session, bin: BIN, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
