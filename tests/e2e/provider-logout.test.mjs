// Logout that the provider tells of: server to server (Back-Channel Logout 1.0) by oidc-provider, and by a frame in the
// browser (Front-Channel Logout 1.0), which oidc-provider has not, by a page of its origin.
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { arrive, ENDED, openLiveStage, openStreams, replay } from './people.mjs';
import { authorities, HOST } from './stage.mjs';
import { logOutAtProvider, openBrowsers, until } from './support.mjs';

// Of the end of a session, from the provider's word to the last stream.
const SOON = 1000;

let browsers;
before(async () => { browsers = await openBrowsers(); });
after(() => browsers?.close());

// A stage whose provider tells of logouts.
async function openToldStage(sessionRequired, given) {
  const authority = () => authorities(stage);
  const stage = await openLiveStage({
    provider: (base) => ({ backChannel: { uri: `${base}/aporeto/oidc/backchannel-logout`, sessionRequired, authority } }),
    // Streams that go on hold up no test.
    limits: '{ shutdownDelay: 0s, drain: 1s }',
    ...given,
  });
  return stage;
}

for (const sessionRequired of [true, false]) {
  const whose = sessionRequired ? 'with sid, the one session' : 'without sid, all sessions of the person';
  test(`back-channel logout ends, ${whose}; for good`, async () => {
    const stage = await openToldStage(sessionRequired);
    try {
      const people = [];
      for (const user of ['bob', 'bob', 'alice']) people.push(await arrive(browsers, stage, user));
      const streams = await Promise.all(people.map(openStreams));
      const cookies = await Promise.all(people.map(({ cookie }) => cookie()));
      const ended = sessionRequired ? [true, false, false] : [true, true, false];

      // At the provider itself, in another tab.
      const page = await people[0].context.newPage();
      await page.goto(`${stage.idp.issuer}/session/end`);
      const told = Date.now();
      await logOutAtProvider(page);
      assert.deepEqual(stage.idp.events('backchannel.error'), []);
      const [{ sid }] = stage.idp.events('backchannel.success');
      assert.ok(stage.idp.events('authorization.success').some((login) => login.user === 'bob' && login.sid === sid));

      for (const [at, stream] of streams.entries()) {
        if (!ended[at]) continue;
        const { how, at: over } = await stream.ends();
        assert.deepEqual(how, ENDED);
        assert.ok(over - told < SOON, `${over - told} ms`);
      }
      const wanted = ended.map((ended) => (ended ? 401 : 200));
      assert.deepEqual(await Promise.all(people.map(async ({ fetch }) => (await fetch())[0])), wanted);
      assert.deepEqual(await Promise.all(cookies.map((cookie) => replay(stage, cookie))), wanted);
      for (const [at, stream] of streams.entries()) if (!ended[at]) assert.deepEqual(await stream.over(), {});
      assert.equal(stage.proxy.events('backchannel-logout').length, 1);

      await stage.restart({ crash: sessionRequired });
      assert.deepEqual(await Promise.all(cookies.map((cookie) => replay(stage, cookie))), wanted);
      // Who was logged out can log in again.
      const [{ page: home }] = people;
      await home.goto(`${stage.base}/`);
      assert.ok(home.url().startsWith(stage.idp.issuer), home.url());
      const again = await arrive(browsers, stage, 'bob');
      assert.deepEqual(await again.fetch(), [200]);
      assert.equal(await replay(stage, cookies[0]), 401);
      await Promise.all([...people, again].map((person) => person.close()));
    } finally {
      await stage.stop();
    }
  });
}

describe('front-channel logout', () => {
  let stage, bob, sid;

  before(async () => {
    // The ID token names the provider's session only if its logout is to be told of.
    stage = await openToldStage(true, { service: ['OIDCFrontChannelLogout: true'] });
  });
  after(() => stage?.stop());
  beforeEach(async () => {
    bob = await arrive(browsers, stage, 'bob');
    ({ sid } = stage.idp.events('authorization.success').at(-1));
  });
  afterEach(() => bob.close());

  // Opens a page of the provider's origin, or of another one, that frames the logout; waits for the frame's end.
  async function frame(parameters, origin = stage.idp.issuer) {
    const page = await bob.context.newPage();
    const complaints = [];
    page.on('console', (message) => { if (message.type() === 'error') complaints.push(message.text()); });
    const source = `${stage.base}/aporeto/oidc/frontchannel-logout?${new URLSearchParams(parameters)}`;
    const before = requests().length;
    stage.idp.pages.set('/leave', `<!doctype html><iframe src="${source.replaceAll('&', '&amp;')}"></iframe>`);
    await page.goto(`${origin}/leave`);
    await until('the request', async () => requests().length > before);
    await page.waitForLoadState();
    const [, { url }] = page.frames().map((frame) => ({ url: frame.url() }));
    await page.close();
    return { status: requests().at(-1).status, shown: url === source, complaints };
  }
  const requests = () => stage.proxy.log().filter((line) => line.path === '/aporeto/oidc/frontchannel-logout' && line.status);

  test('by a frame of the provider ends that session', async () => {
    const streams = await openStreams(bob);
    const cookie = await bob.cookie();
    const told = Date.now();
    assert.deepEqual(await frame({ iss: stage.idp.issuer, sid }), { status: 200, shown: true, complaints: [] });
    const { how, at } = await streams.ends();
    assert.deepEqual(how, ENDED);
    // The page has to be opened first.
    assert.ok(at - told < 2 * SOON, `${at - told} ms`);
    assert.deepEqual(await bob.fetch(), [401]);
    assert.equal(await replay(stage, cookie), 401);
    assert.equal(stage.proxy.events('frontchannel-logout').length, 1);
  });

  test('with anything else is ignored', async () => {
    const { issuer } = stage.idp;
    const ended = stage.proxy.events('frontchannel-logout').length;
    for (const parameters of [
      {}, { iss: issuer }, { sid }, { iss: issuer, sid: 'of-nobody' }, { iss: `${issuer}/`, sid }, { iss: 'https://evil.example', sid },
      { iss: issuer, sid: `${sid} ` }, [['iss', issuer], ['sid', sid], ['sid', sid]],
    ]) {
      assert.deepEqual(await frame(parameters), { status: 200, shown: true, complaints: [] }, JSON.stringify(parameters));
      assert.deepEqual(await bob.fetch(), [200], JSON.stringify(parameters));
    }
    assert.equal(stage.proxy.events('frontchannel-logout').length, ended);
  });

  test('may not be framed by another origin', async () => {
    const { shown, complaints } = await frame({ iss: stage.idp.issuer, sid: 'of-nobody' }, stage.idp.issuer.replace('localhost', `evil.${HOST}`));
    assert.equal(shown, false);
    assert.match(complaints.join('\n'), /frame-ancestors/);
    assert.deepEqual(await bob.fetch(), [200]);
  });
});
