// What ends a session by itself: nobody's use of it for a while, and in any case its age.
import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import { after, before, test } from 'node:test';
import { arrive, openLiveStage, openStreams, replay } from './people.mjs';
import { openBrowsers } from './support.mjs';

// In seconds.
const IDLE = 6;
const AGE = 20;

let browsers, stage;

before(async () => {
  browsers = await openBrowsers();
  stage = await openLiveStage({ session: () => `{ idleTimeout: ${IDLE}s, maxLifetime: ${AGE}s }`, limits: '{ shutdownDelay: 0s, drain: 1s }' });
});

after(async () => {
  await browsers?.close();
  await stage?.stop();
});

test('a stream in use keeps its session, a quiet one does not; age ends both, whatever they do', async () => {
  const { idp, base } = stage;
  const [talker, listener] = await Promise.all(['alice', 'bob'].map((user) => arrive(browsers, stage, user)));
  const began = idp.events('grant.success')[0].at;
  const streams = await openStreams(talker);
  const talk = await talker.page.evaluateHandle(() => new Promise((resolve) => {
    const socket = new WebSocket(`wss://${location.host}/socket`);
    const talk = { over: new Promise((over) => { socket.onclose = ({ code, wasClean }) => over({ code, wasClean, at: Date.now() }); }) };
    socket.onopen = () => { setInterval(() => socket.send('still here'), 250); resolve(talk); };
  }));
  await openStreams(listener);
  const cookies = await Promise.all([talker, listener].map(({ cookie }) => cookie()));
  await pause((IDLE + 2) * 1000);
  assert.deepEqual(await listener.fetch(), [401]);
  assert.equal(await replay(stage, cookies[1]), 401);
  assert.deepEqual(await talker.fetch(), [200]);

  const { code, wasClean, at } = await talk.evaluate(({ over }) => over);
  assert.deepEqual({ code, wasClean }, { code: 1008, wasClean: true });
  assert.ok(Math.abs(at - began - AGE * 1000) < 2000, `after ${at - began} ms`);
  await streams.ends();
  assert.deepEqual(await talker.fetch(), [401]);
  assert.equal(await replay(stage, cookies[0]), 401);
  // The next visit is a new login; the provider remembers, and asks for no password.
  await talker.page.goto(`${base}/`);
  assert.ok(talker.page.url().startsWith(idp.issuer), talker.page.url());
  assert.equal(await talker.page.$('input[name="login"]'), null);
});
