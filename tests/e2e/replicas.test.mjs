// Two replicas with one Redis behind a balancer that knows nothing of sessions: they are one proxy to everybody.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { arrive, due, ENDED, openLiveStage, openStreams, replay } from './people.mjs';
import { authorities, HOST } from './stage.mjs';
import { ARTIFACTS, freePorts, logInAtProvider, logOutAtProvider, openBrowsers, request, start, until } from './support.mjs';

// Of the tokens, in seconds; less is not believed.
const LIFETIME = 10;
const REPLAYS = 20;
// Of sessions, in seconds. That they are used is told to Redis after a tenth of it.
const IDLE = 60;
// Of the end of a session, on every replica.
const SOON = 1000;

let browsers, redis, stage, bob;

before(async () => {
  browsers = await openBrowsers();
  redis = await openRedis();
  stage = await openLiveStage({
    replicas: 2,
    provider: (base) => ({
      tokenLifetime: LIFETIME,
      backChannel: { uri: `${base}/aporeto/oidc/backchannel-logout`, sessionRequired: true, authority: () => authorities(stage) },
    }),
    session: (folder) => {
      const file = path.join(folder, 'keys');
      fs.writeFileSync(file, `${randomBytes(32).toString('base64')}\n`);
      return `{ keyFile: "${file}", store: redis, redis: { url: "redis://127.0.0.1:${redis.port}" }, idleTimeout: ${IDLE}s }`;
    },
    limits: '{ shutdownDelay: 0s, drain: 1s }',
    endpoints: ['{ URI: /public/*, methods: [GET], public: true }', '{ URI: /*, methods: ["*"], allowedScopes: [[groups=staff]] }'],
  });
});

after(async () => {
  await browsers?.close();
  await stage?.stop();
  await redis?.close();
});

beforeEach(async () => { bob = await arrive(browsers, stage, 'bob'); });
afterEach(() => bob.close());

// A Redis that remembers over its end.
async function openRedis() {
  const [port] = await freePorts(1);
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'portcullis-redis-'));
  const args = ['--port', `${port}`, '--bind', '127.0.0.1', '--dir', folder, '--save', '', '--appendonly', 'yes', '--appendfsync', 'always'];
  const begin = () => start('redis-server', args, { ready: (text) => text.includes('Ready to accept connections') });
  let server = await begin();
  return {
    port,
    stop: () => server.stop(),
    begin: async () => { server = await begin(); },
    hold: () => server.child.kill('SIGSTOP'),
    release: () => server.child.kill('SIGCONT'),
    // A backup, and the way back to it.
    backUp: () => fs.cpSync(folder, `${folder}-backup`, { recursive: true }),
    restore: async () => {
      await server.stop();
      fs.rmSync(folder, { recursive: true });
      fs.renameSync(`${folder}-backup`, folder);
      server = await begin();
    },
    forget: () => { execFileSync('redis-cli', ['-p', `${port}`, 'FLUSHALL']); },
    close: async () => { server.child.kill('SIGCONT'); await server.stop(); fs.rmSync(folder, { recursive: true, force: true }); },
  };
}

const NAVIGATION = { accept: 'text/html', 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document' };

// A request to every replica by itself, with a copy of a cookie.
const everywhere = (headers, target = '/api', method = 'GET') => Promise.all(
  stage.exposedPorts.map((port) => request(`https://${HOST}:${port}${target}`, { method, headers })),
);
const worth = async (cookie) => (await everywhere({ cookie })).map(({ status }) => status);
// What the replicas have done, in this order.
const done = (path, status) => stage.proxies.map(({ log }) => log().filter((line) => line.path === path && line.status === status).length);

test('a login that begins at one replica ends at the other, and both know the session', async () => {
  const { idp, balancer, base } = stage;
  const context = await browsers.newContext();
  const page = await context.newPage();
  const before = done('/aporeto/oidc/callback', 303);
  balancer.serve(0);
  await page.goto(`${base}/`);
  balancer.serve(1);
  await logInAtProvider(page, 'alice');
  balancer.serve(0, 1);
  assert.equal(await page.title(), 'home');
  await until('the record', async () => done('/aporeto/oidc/callback', 303)[1] === before[1] + 1);
  const cookies = await context.cookies(base);
  const cookie = cookies.map(({ name, value }) => `${name}=${value}`).join('; ');
  assert.deepEqual(await worth(cookie), [200, 200]);
  assert.ok(cookie.length < 400, 'the browser has only a ticket');
  assert.deepEqual(idp.events('grant.error'), []);
  await context.close();
});

test('requests at both at the expiry are one refresh', async () => {
  const { idp } = stage;
  for (const round of [1, 2]) {
    const cookie = await bob.cookie();
    const before = idp.refreshes();
    await due(stage, LIFETIME);
    const statuses = await Promise.all(Array.from({ length: REPLAYS }, () => worth(cookie)));
    assert.deepEqual([...new Set(statuses.flat())], [200], `round ${round}`);
    assert.deepEqual(await bob.fetch(3), [200, 200, 200]);
    assert.equal(idp.refreshes(), before + 1, `round ${round}`);
  }
  for (const bad of ['grant.error', 'grant.revoked']) assert.deepEqual(idp.events(bad), []);
});

test('groups that a refresh at one brings count at the other', async () => {
  const { idp } = stage;
  const cookie = await bob.cookie();
  idp.users.bob.groups = [];
  try {
    await due(stage, LIFETIME);
    const [first, second] = stage.exposedPorts.map((port) => () => replay({ base: `https://${HOST}:${port}` }, cookie));
    assert.equal(await first(), 403);
    await until('the other to know', async () => (await second()) === 403, SOON);
  } finally {
    idp.users.bob.groups = ['staff'];
  }
});

// The ways to end somebody's session at one replica: each is given the replica's number, the person and their cookie.
const ENDS = {
  'a logout': async (at, _person, cookie) => {
    const headers = { cookie, 'sec-fetch-site': 'same-origin', 'sec-fetch-mode': 'cors' };
    assert.equal((await request(`https://${HOST}:${stage.exposedPorts[at]}/aporeto/oidc/logout`, { method: 'POST', headers })).status, 200);
  },
  'the provider': async (at, { context }) => {
    const page = await context.newPage();
    await page.goto(`${stage.idp.issuer}/session/end`);
    stage.balancer.lead(at);
    await logOutAtProvider(page);
    assert.deepEqual(stage.idp.events('backchannel.error'), []);
  },
  'the operator': async (at) => {
    const body = new URLSearchParams({ service: 'app', subject: 'alice' });
    assert.equal((await fetch(`http://127.0.0.1:${stage.adminPorts[at]}/sessions/end`, { method: 'POST', body })).status, 200);
  },
};

for (const [what, end] of Object.entries(ENDS)) {
  test(`${what} at one replica ends the session at the other, and its streams; others go on`, async () => {
    for (const [at, other] of [[0, 1], [1, 0]]) {
      stage.balancer.serve(other);
      const alice = await arrive(browsers, stage, 'alice');
      const streams = await openStreams(alice);
      const cookie = await alice.cookie();
      assert.deepEqual(await worth(cookie), [200, 200]);
      const told = Date.now();
      await end(at, alice, cookie);
      const { how, at: over } = await streams.ends();
      assert.deepEqual(how, ENDED);
      assert.ok(over - told < SOON, `${over - told} ms`);
      assert.deepEqual(await worth(cookie), [401, 401]);
      assert.deepEqual(await bob.fetch(), [200]);
      stage.balancer.serve(0, 1);
      await alice.close();
    }
  });
}

test('a logout at one replica revokes the refresh token that the other got last', async () => {
  const { idp } = stage;
  const cookie = await bob.cookie();
  assert.deepEqual(await worth(cookie), [200, 200]);
  await due(stage, LIFETIME);
  assert.equal(await replay({ base: `https://${HOST}:${stage.exposedPorts[0]}` }, cookie), 200);
  const { jti } = idp.events('refresh_token.saved').at(-1);
  const before = idp.events('refresh_token.destroyed').length;
  await ENDS['a logout'](1, bob, cookie);
  await until('the revocation', async () => idp.events('refresh_token.destroyed').length > before);
  assert.equal(idp.events('refresh_token.destroyed').at(-1).jti, jti);
});

test('a restart of a replica logs nobody out, and lets nobody back in', async () => {
  const ended = await arrive(browsers, stage, 'alice');
  const gone = await ended.cookie();
  await ended.page.goto(`${stage.base}/aporeto/oidc/logout`);
  await Promise.all([ended.page.waitForNavigation(), ended.page.click('form button')]);
  await logOutAtProvider(ended.page);
  await stage.restart();
  await until('the restarted replica', async () => (await worth(await bob.cookie()))[0] === 200);
  assert.deepEqual(await worth(gone), [401, 401]);
  await ended.close();
});

for (const [what, stop, begin] of [['stopped', 'stop', 'begin'], ['stuck', 'hold', 'release']]) {
  test(`while Redis is ${what} there are 503 and no logins in circles; after it everything is as before`, async () => {
    const { idp, base } = stage;
    const cookie = await bob.cookie();
    assert.deepEqual(await worth(cookie), [200, 200]);
    const asked = idp.calls.length;
    await redis[stop]();
    await until('503 everywhere', async () => (await worth(cookie)).every((status) => status === 503));
    for (const { status, headers } of await everywhere({ cookie })) {
      assert.equal(status, 503);
      assert.ok(Number(headers['retry-after']) > 0, headers['retry-after']);
      assert.equal(headers['set-cookie'], undefined);
    }
    for (const port of stage.adminPorts) {
      const ready = await (await fetch(`http://127.0.0.1:${port}/readyz`)).json();
      assert.equal(ready.services[0].store.status, 'unavailable', JSON.stringify(ready));
    }
    const logout = { method: 'POST', headers: { cookie, 'sec-fetch-site': 'same-origin', 'sec-fetch-mode': 'cors' } };
    const unheard = await request(`https://${HOST}:${stage.exposedPorts[0]}/aporeto/oidc/logout`, logout);
    assert.deepEqual([unheard.status, unheard.headers['set-cookie']], [503, undefined], 'no logout that others would not hear of');
    const [stranger, visitor] = await Promise.all([{}, { cookie }].map((headers) => request(`${base}/public/logo`, { headers })));
    assert.deepEqual([stranger.status, visitor.status], [200, 200], 'what is public needs no session');
    assert.equal((await request(`${base}/`, { headers: NAVIGATION })).status, 503, 'nor is a login begun that could not be kept');
    const page = await bob.context.newPage();
    const answer = await page.goto(`${base}/`);
    assert.equal(answer.status(), 503);
    assert.equal(page.url(), `${base}/`);
    await page.screenshot({ path: path.join(ARTIFACTS, `redis-${what}.png`) });
    assert.equal(idp.calls.length, asked, 'nobody was sent to log in');
    assert.equal(await bob.cookie(), cookie, 'the browser keeps what it has');
    await redis[begin]();
    await until('200 everywhere', async () => (await worth(cookie)).every((status) => status === 200));
    assert.equal((await page.reload()).status(), 200);
    assert.deepEqual(await bob.fetch(3), [200, 200, 200]);
    assert.equal(idp.calls.filter((call) => call === 'GET /auth').length, idp.events('authorization.success').length);
    await page.close();
  });
}

test('who has logged out stays out also if Redis goes back to a backup from before', async () => {
  const ended = await arrive(browsers, stage, 'alice');
  const [gone, kept] = [await ended.cookie(), await bob.cookie()];
  redis.backUp();
  await ENDS['a logout'](0, ended, gone);
  await redis.restore();
  await until('200 everywhere', async () => (await worth(kept)).every((status) => status === 200));
  // The other may not have heard of it before, and then hears it now.
  await until('401 everywhere', async () => (await worth(gone)).every((status) => status === 401), SOON);
  // Whoever is new here hears it from the one who is not.
  await stage.restart();
  await until('the restarted replica', async () => (await worth(kept))[0] === 200);
  assert.deepEqual(await worth(gone), [401, 401]);
  await ended.close();
});

test('if Redis forgets everything, everybody logs in again', async () => {
  const cookie = await bob.cookie();
  await redis.forget();
  // A thread that has served it lately believes in it until it tells of its use.
  await until('401 for the browser', async () => (await bob.fetch())[0] === 401);
  assert.deepEqual(await worth(cookie), [401, 401]);
  const { page } = bob;
  await page.goto(`${stage.base}/`);
  await Promise.all([page.waitForNavigation(), page.click('button[type="submit"]')]);
  assert.equal(await page.title(), 'home');
  assert.deepEqual(await worth(await bob.cookie()), [200, 200]);
  assert.deepEqual(await worth(cookie), [401, 401]);
});
