// Session keys that are changed while somebody is there.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { arrive, openLiveStage, replay } from './people.mjs';
import { BINARY, openBrowsers, until } from './support.mjs';

const keygen = (...options) => execFileSync(BINARY, ['keygen', '--into', file, ...options]);
const keys = () => fs.readFileSync(file, 'utf8').split('\n').filter((line) => line !== '' && !line.startsWith('#'));

let browsers, stage, file;

before(async () => {
  browsers = await openBrowsers();
  stage = await openLiveStage({
    session: (folder) => {
      file = path.join(folder, 'keys');
      keygen();
      // Cookies are sealed anew after a tenth of that.
      return `{ keyFile: "${file}", idleTimeout: 60s }`;
    },
  });
});

after(async () => {
  await browsers?.close();
  await stage?.stop();
});

// Changes the file, and waits until that is in use.
async function rotate(change) {
  const before = stage.proxy.events('key-rotation').length;
  change();
  await until('the keys', async () => stage.proxy.events('key-rotation').length > before);
}

// Replaces the file as a whole, as Kubernetes does.
function replace(...lines) {
  fs.writeFileSync(`${file}.new`, `# made today\n${lines.join('\n')}\n`);
  fs.renameSync(`${file}.new`, file);
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
  await rotate(() => keygen('--append'));
  const [old, fresh] = keys();
  assert.notEqual(old, fresh);
  await rotate(() => replace(fresh, old));
  assert.equal(await replay(stage, first), 200, 'the old key still opens');
  const before = await bob.cookie();
  await until('a cookie under the new key', async () => (await bob.cookie()) !== before);
  await rotate(() => replace(fresh));
  assert.deepEqual(await bob.fetch(3), [200, 200, 200]);
  const statuses = await busy.evaluate(async (state) => { state.go = false; await state.over; return [...state.statuses.keys()]; });
  assert.deepEqual(statuses, [200]);
  // The old key is really gone: nothing under it counts.
  assert.equal(await replay(stage, first), 401);
  assert.deepEqual(await away.fetch(), [401]);
  assert.equal(stage.idp.events('authorization.success').length, 2, 'nobody was sent to log in');
});
