// Refresh at oidc-provider, which gives every refresh token for one use and revokes everything when one comes twice.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { arrive, due, ENDED, openLiveStage, openStreams, replay } from './people.mjs';
import { openBrowsers, until } from './support.mjs';

// Of the tokens, in seconds; less is not believed. They are refreshed when half of that is over.
const LIFETIME = 10;
// Requests at once, from the page over its one connection, and from elsewhere over one each.
const FETCHES = 40;
const REPLAYS = 16;
const ROTATIONS = 3;

// That so many refreshes were asked for, no refresh token was used twice, and nothing else was refused.
async function assertGoodStanding({ idp, proxy }, refreshes) {
  assert.equal(idp.refreshes(), refreshes);
  const used = idp.events('refresh_token.consumed').map(({ jti }) => jti);
  assert.equal(used.length, refreshes);
  assert.equal(new Set(used).size, refreshes);
  for (const bad of ['grant.error', 'grant.revoked', 'server_error']) assert.deepEqual(idp.events(bad), []);
  await until('the events', async () => proxy.events('refresh').length === refreshes);
}

// Opens a stage with a browser in which `user` has logged in, for the tests of a group.
function onStage(user, provider, opened) {
  let browsers, stage;
  before(async () => {
    browsers = await openBrowsers();
    stage = await openLiveStage({
      provider: () => ({ tokenLifetime: LIFETIME, ...provider }),
      limits: '{ shutdownDelay: 0s, workers: 2 }',
    });
    opened([stage, await arrive(browsers, stage, user)]);
  });
  after(async () => {
    await browsers?.close();
    await stage?.stop();
  });
}

// Side by side, for they wait for the clock most of the time; each in its order.
describe('refresh', { concurrency: true }, () => {
  for (const claimsInIdToken of [true, false]) {
    describe(`with claims in the ${claimsInIdToken ? 'ID token' : 'UserInfo answer'}`, { concurrency: 1 }, () => {
      let stage, bob;
      onStage('bob', { claimsInIdToken }, (opened) => { [stage, bob] = opened; });

      test(`${FETCHES + REPLAYS} requests at the expiry are one call, and all of them are served`, async () => {
        const old = await bob.cookie();
        assert.deepEqual(await bob.fetch(FETCHES), Array(FETCHES).fill(200));
        await assertGoodStanding(stage, 0);
        await due(stage, LIFETIME);
        const [fetched, replayed] = await Promise.all([
          bob.fetch(FETCHES), Promise.all(Array.from({ length: REPLAYS }, () => replay(stage, old))),
        ]);
        assert.deepEqual(fetched, Array(FETCHES).fill(200));
        assert.deepEqual(replayed, Array(REPLAYS).fill(200));
        await assertGoodStanding(stage, 1);
        assert.notEqual(await bob.cookie(), old, 'the browser has the new one');
        assert.equal(await replay(stage, old), 200, 'the old one leads to the new session');
        await assertGoodStanding(stage, 1);
      });

      test('the session goes on from rotation to rotation, each with the token of the one before', async () => {
        for (let round = 2; round <= ROTATIONS; round += 1) {
          await due(stage, LIFETIME);
          assert.deepEqual(await bob.fetch(FETCHES), Array(FETCHES).fill(200));
          await assertGoodStanding(stage, round);
        }
        const metrics = await (await fetch(`http://127.0.0.1:${stage.adminPort}/metrics`)).text();
        assert.match(metrics, new RegExp(`^portcullis_refreshes_total\\{[^}]*result="success"[^}]*\\} ${ROTATIONS}$`, 'm'));
        assert.equal(stage.idp.calls.filter((call) => call === 'GET /auth').length, 1, 'nobody was sent to log in');
      });

      test('a group that is taken away is gone with the next refresh, and one that is given is there', async () => {
        const { idp, proxy } = stage;
        idp.users.bob.groups = ['visitors'];
        await due(stage, LIFETIME);
        assert.deepEqual(await bob.fetch(3), [403, 403, 403]);
        assert.match(proxy.events('refresh').at(-1).message, /groups/);
        const refused = await until('the record', async () => proxy.log().find(({ status }) => status === 403));
        assert.equal(refused.subject, 'bob');
        assert.equal(refused.dropReason, 'policy');
        idp.users.bob.groups = ['staff'];
        await due(stage, LIFETIME);
        assert.deepEqual(await bob.fetch(3), [200, 200, 200]);
        await assertGoodStanding(stage, ROTATIONS + 2);
      });

      test('a grant that is revoked at the provider ends the session, and its streams', async () => {
        const streams = await openStreams(bob);
        delete stage.idp.users.bob;
        await due(stage, LIFETIME);
        assert.deepEqual(await bob.fetch(3), [401, 401, 401]);
        assert.deepEqual((await streams.ends()).how, ENDED);
        assert.equal(await replay(stage, await bob.cookie()), 401);
        assert.equal(stage.proxy.events('refresh-refused').length, 1);
        assert.equal(stage.idp.events('grant.error').length, 1, 'and is not asked for again');
      });

      test('no token is in the log', () => {
        const { proxy, idp } = stage;
        assert.ok(!/eyJ[A-Za-z0-9_-]{10,}/.test(proxy.output()), 'a JWT');
        for (const { jti } of idp.events('refresh_token.saved')) assert.ok(!proxy.output().includes(jti), 'a refresh token');
      });
    });
  }

  describe('in trouble', { concurrency: 1 }, () => {
    let stage, bob;
    onStage('bob', {}, (opened) => { [stage, bob] = opened; });

    test('a page that is left while its requests wait takes no token along', async () => {
      const { idp, base } = stage;
      await due(stage, LIFETIME);
      const release = idp.hold();
      await bob.page.evaluate(() => { for (let at = 0; at < 10; at += 1) fetch(`/api/${at}`).catch(() => {}); });
      await until('the call', async () => idp.refreshes() === 1);
      await bob.page.goto('about:blank');
      release();
      await until('the refresh', async () => stage.proxy.events('refresh').length === 1);
      await bob.page.goto(`${base}/`);
      assert.equal(await bob.page.title(), 'home');
      await assertGoodStanding(stage, 1);
    });

    test('a provider that is away ends no session, and is asked again when it is back', async () => {
      const { idp, proxy } = stage;
      await due(stage, LIFETIME);
      await idp.leave();
      assert.deepEqual(await bob.fetch(FETCHES), Array(FETCHES).fill(200));
      await until('the event', async () => proxy.events('refresh-failed').length > 0);
      await idp.comeBack();
      await until('a refresh', async () => {
        assert.deepEqual(await bob.fetch(), [200]);
        return idp.refreshes() > 1;
      });
      assert.deepEqual(await bob.fetch(FETCHES), Array(FETCHES).fill(200));
      await assertGoodStanding(stage, 2);
    });

    test('a token that comes after the logout is revoked like the one before', async () => {
      const { idp } = stage;
      await due(stage, LIFETIME);
      const release = idp.hold();
      const late = bob.fetch();
      await until('the call', async () => idp.refreshes() === 3);
      const status = await bob.page.evaluate(async () => (await fetch('/aporeto/oidc/logout', { method: 'POST' })).status);
      assert.equal(status, 200);
      const revocations = () => idp.calls.filter((call) => call === 'POST /token/revocation').length;
      await until('the revocation of the one before', async () => revocations() === 1);
      release();
      await until('the revocation of the new one', async () => revocations() === 2);
      for (const { jti } of idp.events('refresh_token.saved')) {
        await until(`the end of ${jti}`, async () => !(await idp.redeemable(jti)));
      }
      const [answer] = await late;
      assert.ok([200, 401].includes(answer), `${answer}`);
      assert.deepEqual(await bob.fetch(), [401]);
      assert.deepEqual(await bob.cookies(), []);
    });
  });

  describe('of a session in several cookies', { concurrency: 1 }, () => {
    let stage, many;
    onStage('many', {}, (opened) => { [stage, many] = opened; });

    const parts = async () => (await many.cookies()).map(({ name }) => name).sort();

    test('the parts in the browser are always of one piece', async () => {
      const split = await parts();
      assert.ok(split.length > 1, split.join());
      for (let round = 1; round <= ROTATIONS; round += 1) {
        await due(stage, LIFETIME);
        assert.deepEqual(await many.fetch(FETCHES), Array(FETCHES).fill(200));
        assert.deepEqual(await parts(), split);
        assert.equal(await replay(stage, await many.cookie()), 200);
        await assertGoodStanding(stage, round);
      }
    });

    test('a session that gets smaller leaves no part behind, and one that grows has all', async () => {
      const { users } = stage.idp;
      const { groups } = users.many;
      const split = await parts();
      users.many.groups = ['staff'];
      await due(stage, LIFETIME);
      assert.deepEqual(await many.fetch(FETCHES), Array(FETCHES).fill(200));
      assert.deepEqual(await parts(), ['__Host-portcullis']);
      users.many.groups = groups;
      await due(stage, LIFETIME);
      assert.deepEqual(await many.fetch(FETCHES), Array(FETCHES).fill(200));
      assert.deepEqual(await parts(), split);
      await assertGoodStanding(stage, ROTATIONS + 2);
      // A process that remembers nothing reads them just as well.
      await stage.restart();
      assert.deepEqual(await many.fetch(), [200]);
    });

    test('one that grows beyond all bounds ends, and the log names the claim', async () => {
      const { users } = stage.idp;
      users.many.groups = users.huge.groups;
      await due(stage, LIFETIME);
      assert.deepEqual(await many.fetch(3), [401, 401, 401]);
      const [{ subject, message }] = await until('the event', async () => [stage.proxy.events('refresh-refused')].find(({ length }) => length === 1));
      assert.equal(subject, 'many');
      assert.match(message, /`groups`/);
    });
  });
});
