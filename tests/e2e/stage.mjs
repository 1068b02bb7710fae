// A stage for a test: oidc-provider, an application behind the proxy under test, and what ends them all again.
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { CLIENT_ID, CLIENT_SECRET, startIdp } from './idp.mjs';
import { freePorts, startProxy } from './support.mjs';

export const HOST = 'app.localhost';

// What a stage is unless the test wants something else. `provider(base)` gives options of the provider, `scheme` is how
// the proxy reaches the application; more than one of `replicas` stand behind a balancer, which is then what browsers see.
// The rest is text of the configuration: `endpoints` and `service` by the line, the others in flow style.
const USUAL = {
  provider: () => ({}),
  scheme: 'http',
  replicas: 1,
  endpoints: ['{ URI: /*, methods: ["*"], allowedScopes: [[groups=staff]] }'],
  service: [],
  scopes: '[openid, email, profile, groups]',
  session: () => '{}',
  limits: '{ shutdownDelay: 0s }',
};

// Opens a stage. `launch(port, folder)` starts the application and gives something with `stop()`.
export async function openStage({ launch, ...given }) {
  const wanted = { ...USUAL, ...given };
  const closers = [];
  const stop = async () => { for (const close of closers.splice(0).reverse()) await close(); };
  const opened = (closer) => { closers.push(() => closer.stop()); return closer; };
  try {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'portcullis-stage-'));
    closers.push(() => fs.rmSync(folder, { recursive: true, force: true }));
    const [port, ...ports] = await freePorts(1 + 2 * wanted.replicas);
    const [exposedPorts, adminPorts] = [ports.slice(0, wanted.replicas), ports.slice(wanted.replicas)];
    const balancer = wanted.replicas > 1 ? opened(await balance(exposedPorts)) : undefined;
    const base = `https://${HOST}:${balancer?.port ?? exposedPorts[0]}`;
    const app = opened(await launch(port, folder));
    const idp = opened(await startIdp({ redirectUri: `${base}/aporeto/oidc/callback`, ...wanted.provider(base) }));
    const stage = { base, port, folder, app, idp, balancer, exposedPort: exposedPorts[0], adminPort: adminPorts[0], exposedPorts, adminPorts, stop };
    const session = wanted.session(folder);
    stage.proxies = [];
    for (const [at, exposedPort] of exposedPorts.entries()) {
      const text = configuration({ ...stage, exposedPort, adminPort: adminPorts[at] }, { ...wanted, session });
      stage.proxies[at] = await startProxy(text, { env: { SECRET: CLIENT_SECRET } });
      closers.push(async () => {
        await stage.proxies[at].end();
        fs.rmSync(stage.proxies[at].state, { recursive: true, force: true });
      });
    }
    // The first or only one.
    Object.defineProperty(stage, 'proxy', { get: () => stage.proxies[0], enumerable: true });
    // That one again, with what it has written down; as an operator ends it, or as a crash does.
    stage.restart = async ({ crash = false } = {}) => {
      await (crash ? stage.proxy.crash() : stage.proxy.end());
      stage.proxies[0] = await stage.proxy.restarted();
    };
    return stage;
  } catch (error) {
    await stop();
    throw error;
  }
}

function configuration({ base, port, idp, exposedPort, adminPort }, { scheme, endpoints, service, scopes, session, limits }) {
  return `
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
session: ${session}
limits: ${limits}
log: { format: json }
`;
}

// What the certificates of a stage's proxies are verified with.
export const authorities = ({ proxies }) => proxies.map(({ state }) => fs.readFileSync(path.join(state, 'certs/app/ca.pem')));

// An application within the test: a server of this process on `port`, which `prepare` may add to.
export async function serve(port, answer, prepare = () => {}) {
  const server = http.createServer(answer);
  prepare(server);
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return { server, stop: () => new Promise((resolve) => { server.close(resolve); server.closeAllConnections(); }) };
}

// A balancer that knows nothing but TCP: connections go to the ports turn by turn.
async function balance(ports) {
  const open = new Set();
  let serving = ports;
  let turn = 0;
  const server = net.createServer((client) => {
    const upstream = net.connect(serving[turn % serving.length], '127.0.0.1');
    turn += 1;
    for (const [socket, other] of [[client, upstream], [upstream, client]]) {
      open.add(socket);
      socket.setNoDelay();
      socket.on('error', () => other.destroy());
      socket.on('close', () => { open.delete(socket); other.destroy(); });
      socket.pipe(other);
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const lead = (...numbers) => { serving = numbers.map((number) => ports[number]); };
  const cut = () => { for (const socket of open) socket.destroy(); };
  return {
    port: server.address().port,
    // Connections to come go to these replicas, by their numbers; `serve` ends all others besides.
    lead,
    serve: (...numbers) => { lead(...numbers); cut(); },
    stop: () => new Promise((resolve) => { server.close(resolve); cut(); }),
  };
}
