// A stage for a test: oidc-provider, an application behind the proxy under test, and what ends them all again.
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { CLIENT_ID, CLIENT_SECRET, startIdp } from './idp.mjs';
import { freePorts, startProxy } from './support.mjs';

export const HOST = 'app.localhost';

// The rules of most stages: members of the group, everywhere.
const STAFF_ONLY = ['{ URI: /*, methods: ["*"], allowedScopes: [[groups=staff]] }'];

// Opens a stage. `launch(port, folder)` starts the application and gives something with `stop()`; `provider(base)` gives
// options of the provider; `scheme` is how the proxy reaches the application. The rest is text of the configuration:
// `endpoints` and `service` by the line, `scopes`, `session(folder)` and `limits` in flow style.
export async function openStage({
  launch, provider = () => ({}), scheme = 'http', endpoints = STAFF_ONLY, service = [], scopes = '[openid, email, profile, groups]',
  session = () => '{}', limits = '{ shutdownDelay: 0s }',
}) {
  const closers = [];
  const stop = async () => { for (const close of closers.splice(0).reverse()) await close(); };
  try {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'portcullis-stage-'));
    closers.push(() => fs.rmSync(folder, { recursive: true, force: true }));
    const [port, exposedPort, adminPort] = await freePorts(3);
    const base = `https://${HOST}:${exposedPort}`;
    const app = await launch(port, folder);
    closers.push(() => app.stop());
    const idp = await startIdp({ redirectUri: `${base}/aporeto/oidc/callback`, ...provider(base) });
    closers.push(() => idp.stop());
    const stage = { base, port, exposedPort, adminPort, folder, app, idp, stop };
    stage.proxy = await startProxy(`
services:
- name: app
  type: HTTP
  authorizationType: OIDC
  OIDCProviderURL: ${idp.issuer}
  OIDCClientID: ${CLIENT_ID}
  OIDCClientSecret: \${SECRET}
  OIDCCallbackURL: ${base}
  OIDCScopes: ${scopes}
  ${scheme === 'http' ? `port: ${port}` : `upstream: ${scheme}://127.0.0.1:${port}`}
  exposedPort: ${exposedPort}
  exposedAPIs:
  - - app=app
  claimsToHTTPHeaderMappings:
  - { claimName: sub, targetHTTPHeader: X-User }
${service.map((line) => `  ${line}\n`).join('')}
httpResourceSpecs:
- name: app
  associatedTags: [app=app]
  endpoints:
${endpoints.map((line) => `  - ${line}\n`).join('')}
admin: { listen: "127.0.0.1:${adminPort}" }
session: ${session(folder)}
limits: ${limits}
log: { format: json }
`, { env: { SECRET: CLIENT_SECRET } });
    closers.push(() => stage.proxy.end());
    // The same proxy again, with what it has written down.
    stage.restart = async () => {
      await stage.proxy.end();
      stage.proxy = await stage.proxy.restarted();
    };
    return stage;
  } catch (error) {
    await stop();
    throw error;
  }
}

// An application within the test: a server of this process on `port`, which `prepare` may add to.
export async function serve(port, answer, prepare = () => {}) {
  const server = http.createServer(answer);
  prepare(server);
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return { server, stop: () => new Promise((resolve) => { server.close(resolve); server.closeAllConnections(); }) };
}
