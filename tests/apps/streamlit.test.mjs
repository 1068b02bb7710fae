// Streamlit: a page that lives on a WebSocket with a subprotocol and an Origin check, and takes files.
import assert from 'node:assert/strict';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { request } from '../e2e/support.mjs';
import { openStage } from './stage.mjs';

let stage;

before(async () => {
  stage = await openStage({
    first: '/',
    launch: (port, folder) => ({
      program: 'streamlit',
      args: ['run', path.join(import.meta.dirname, 'counter.py'), '--server.address=127.0.0.1', `--server.port=${port}`,
        '--server.headless=true', '--browser.gatherUsageStats=false', '--server.fileWatcherType=none'],
      env: { HOME: folder },
      ready: 'URL:',
    }),
  });
});

after(() => stage?.stop());

test('the page is shown after the login, and knows the user', async () => {
  await stage.page.getByText('Hello bob').waitFor({ timeout: 60_000 });
});

test('a button changes the page', async () => {
  const { page } = stage;
  await page.getByText('Pressed 0 times').waitFor();
  for (const count of [1, 2, 3]) {
    await page.getByRole('button', { name: 'Count' }).click();
    await page.getByText(`Pressed ${count} times`).waitFor();
  }
});

test('a file goes up', async () => {
  const { page } = stage;
  await page.locator('input[type=file]').setInputFiles({ name: 'big.bin', mimeType: 'application/octet-stream', buffer: Buffer.alloc(5 << 20, 7) });
  await page.getByText('Got 5242880 bytes').waitFor();
});

test('a stranger gets neither page nor stream', async () => {
  for (const target of ['/_stcore/health', '/_stcore/stream']) {
    assert.equal((await request(`${stage.base}${target}`)).status, 401, target);
  }
});
