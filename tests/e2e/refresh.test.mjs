// Refresh at oidc-provider, which gives every refresh token for one use and revokes everything when one comes twice.
import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import { after, before, describe, test } from 'node:test';
import { arrive, openLiveStage, openStreams, replay } from './people.mjs';
import { openBrowsers, until } from './support.mjs';

// Of the tokens, in seconds. They are refreshed when half of that is over.
const LIFETIME = 6;
// Requests at once, from the page over its one connection, and from elsewhere over one each.
const FETCHES = 40;
const REPLAYS = 16;
const ROTATIONS = 3;

// They wait for the clock most of the time.
describe('refresh', { concurrency: true }, () => {
  for (const claimsInIdToken of [true, false]) {
    describe(`with claims in the ${claimsInIdToken ? 'ID token' : 'UserInfo answer'}`, () => {
      let browsers, stage, bob;

      before(async () => {
        browsers = await openBrowsers();
        stage = await openLiveStage({
          provider: () => ({ claimsInIdToken, tokenLifetime: LIFETIME }),
          limits: '{ shutdownDelay: 0s, workers: 2 }',
        });
        bob = await arrive(browsers, stage, 'bob');
      });

      after(async () => {
        await browsers?.close();
        await stage?.stop();
      });

      // When the tokens that were got last are to be refreshed: the clock is all that there is to wait for.
      async function due() {
        const { at } = stage.idp.events('grant.success').at(-1);
        // Times in tokens are whole seconds.
        await pause(at + (LIFETIME / 2 + 1) * 1000 - Date.now());
      }

      // That no refresh token was used twice, nor anything else refused.
      function assertGoodStanding(refreshes) {
        const { idp } = stage;
        assert.equal(idp.refreshes(), refreshes);
        const used = idp.events('refresh_token.consumed').map(({ jti }) => jti);
        assert.equal(used.length, refreshes);
        assert.equal(new Set(used).size, refreshes);
        for (const bad of ['grant.error', 'grant.revoked', 'server_error']) assert.deepEqual(idp.events(bad), []);
        assert.equal(stage.proxy.events('refresh').length, refreshes);
      }

      test(`${FETCHES + REPLAYS} requests at the expiry are one call, and all of them are served`, async () => {
        const old = await bob.cookie();
        assert.deepEqual(await bob.fetch(FETCHES), Array(FETCHES).fill(200));
        assertGoodStanding(0);
        await due();
        const [fetched, replayed] = await Promise.all([
          bob.fetch(FETCHES), Promise.all(Array.from({ length: REPLAYS }, () => replay(stage, old))),
        ]);
        assert.deepEqual(fetched, Array(FETCHES).fill(200));
        assert.deepEqual(replayed, Array(REPLAYS).fill(200));
        assertGoodStanding(1);
        assert.notEqual(await bob.cookie(), old, 'the browser has the new one');
        assert.equal(await replay(stage, old), 200, 'the old one leads to the new session');
        assertGoodStanding(1);
      });

      test('the session goes on from rotation to rotation, each with the token of the one before', async () => {
        for (let round = 2; round <= ROTATIONS; round += 1) {
          await due();
          assert.deepEqual(await bob.fetch(FETCHES), Array(FETCHES).fill(200));
          assertGoodStanding(round);
        }
        const metrics = await (await fetch(`http://127.0.0.1:${stage.adminPort}/metrics`)).text();
        assert.match(metrics, new RegExp(`^portcullis_refreshes_total\\{[^}]*result="success"[^}]*\\} ${ROTATIONS}$`, 'm'));
        assert.equal(stage.idp.calls.filter((call) => call === 'GET /auth').length, 1, 'nobody was sent to log in');
      });

      test('a group that is taken away is gone with the next refresh, and one that is given is there', async () => {
        const { idp, proxy } = stage;
        idp.users.bob.groups = ['visitors'];
        await due();
        assert.deepEqual(await bob.fetch(3), [403, 403, 403]);
        assert.match(proxy.events('refresh').at(-1).message, /groups/);
        const refused = await until('the record', async () => proxy.log().find(({ status }) => status === 403));
        assert.equal(refused.subject, 'bob');
        assert.equal(refused.dropReason, 'policy');
        idp.users.bob.groups = ['staff'];
        await due();
        assert.deepEqual(await bob.fetch(3), [200, 200, 200]);
        assertGoodStanding(ROTATIONS + 2);
      });

      test('a grant that is revoked at the provider ends the session, and its streams', async () => {
        const streams = await openStreams(bob);
        delete stage.idp.users.bob;
        await due();
        assert.deepEqual(await bob.fetch(3), [401, 401, 401]);
        const { socket, events } = await streams.ends();
        assert.deepEqual([socket.code, socket.wasClean], [1008, true]);
        assert.equal(events.state, 'closed');
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
});
