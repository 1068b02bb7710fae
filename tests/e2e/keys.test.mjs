// Session keys that are changed while somebody is there.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { arrive, openLiveStage, replay } from './people.mjs';
import { openBrowsers, until } from './support.mjs';

const key = () => randomBytes(32).toString('base64');
const [OLD, NEW] = [key(), key()];

let browsers, stage, file;

before(async () => {
  browsers = await openBrowsers();
  stage = await openLiveStage({
    session: (folder) => {
      file = path.join(folder, 'keys');
      fs.writeFileSync(file, `${OLD}\n`);
      // Cookies are sealed anew after a tenth of that.
      return `{ keyFile: "${file}", idleTimeout: 60s }`;
    },
  });
});

after(async () => {
  await browsers?.close();
  await stage?.stop();
});

// Replaces the file, as people and Kubernetes do, and waits until it is in use.
async function rotate(...keys) {
  const before = stage.proxy.events('key-rotation').length;
  fs.writeFileSync(`${file}.new`, `# made today\n${keys.join('\n')}\n`);
  fs.renameSync(`${file}.new`, file);
  await until('the new keys', async () => stage.proxy.events('key-rotation').length > before);
}

test('nobody who is there notices that the keys change', async () => {
  const bob = await arrive(browsers, stage, 'bob');
  const away = await arrive(browsers, stage, 'alice');
  const first = await bob.cookie();
  // A page that is never quiet, until it is told to stop.
  const busy = await bob.page.evaluateHandle(() => {
    const state = { statuses: new Map(), go: true };
    state.over = (async () => {
      while (state.go) {
        const { status } = await fetch('/api');
        state.statuses.set(status, (state.statuses.get(status) ?? 0) + 1);
        await new Promise((resolve) => { setTimeout(resolve, 50); });
      }
    })();
    return state;
  });
  await rotate(OLD, NEW);
  await rotate(NEW, OLD);
  assert.equal(await replay(stage, first), 200, 'the old key still opens');
  const before = await bob.cookie();
  await until('a cookie under the new key', async () => (await bob.cookie()) !== before);
  await rotate(NEW);
  assert.deepEqual(await bob.fetch(3), [200, 200, 200]);
  const statuses = await busy.evaluate(async (state) => { state.go = false; await state.over; return [...state.statuses.keys()]; });
  assert.deepEqual(statuses, [200]);
  // The old key is really gone: nothing under it counts.
  assert.equal(await replay(stage, first), 401);
  assert.deepEqual(await away.fetch(), [401]);
  assert.equal(stage.idp.events('authorization.success').length, 2, 'nobody was sent to log in');
});
