// JupyterLab: its own XSRF cookie, the WebSocket of a kernel and that of a terminal, and the page itself.
import assert from 'node:assert/strict';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { request, until } from '../e2e/support.mjs';
import { HOST, openStage } from './stage.mjs';

let stage;

before(async () => {
  stage = await openStage({
    first: '/lab',
    launch: (port, folder) => ({
      program: 'jupyter-lab',
      // Who may come in is the proxy's business; what is left is the check that requests come from its own pages.
      args: ['--no-browser', '--allow-root', '--ip=127.0.0.1', `--port=${port}`, '--ServerApp.port_retries=0', '--IdentityProvider.token=',
        `--ServerApp.local_hostnames=${HOST}`, `--ServerApp.root_dir=${folder}`],
      env: { HOME: folder, IPYTHONDIR: path.join(folder, 'ipython'), JUPYTER_CONFIG_DIR: path.join(folder, 'config'),
        JUPYTER_DATA_DIR: path.join(folder, 'data'), JUPYTER_RUNTIME_DIR: path.join(folder, 'runtime'), SHELL: '/bin/sh' },
      ready: 'is running at',
    }),
  });
});

after(() => stage?.stop());

// A call of the REST API by the page, with the token that the application wants to see twice.
const call = (method, target, body) => stage.page.evaluate(async ([method, target, body]) => {
  const token = document.cookie.match(/(?:^|; )_xsrf=([^;]+)/)?.[1] ?? '';
  const answer = await fetch(target, { method, headers: { 'x-xsrftoken': token, 'content-type': 'application/json' }, body });
  return { status: answer.status, body: await answer.json().catch(() => undefined) };
}, [method, target, body]);

// Opens a WebSocket from the page, sends one text, and gives the first message that matches.
const ask = (target, message, pattern) => stage.page.evaluate(([target, message, pattern]) => new Promise((resolve, reject) => {
  const socket = new WebSocket(`wss://${location.host}${target}`);
  const heard = [];
  const timer = setTimeout(() => reject(new Error(`heard only ${heard.join('\n')}`)), 30_000);
  socket.onopen = () => socket.send(message);
  socket.onmessage = ({ data }) => {
    heard.push(data);
    if (new RegExp(pattern).test(data)) { clearTimeout(timer); socket.close(); resolve(data); }
  };
  socket.onerror = () => reject(new Error('the WebSocket failed'));
  socket.onclose = ({ code }) => reject(new Error(`closed with ${code}`));
}), [target, message, pattern]);

test('the lab is shown after the login', async () => {
  await stage.page.waitForSelector('.jp-Launcher', { timeout: 60_000 });
  assert.equal(new URL(stage.page.url()).pathname, '/lab');
});

test('a kernel that is made by the REST API answers on its WebSocket', async () => {
  const { status, body: kernel } = await call('POST', '/api/kernels', JSON.stringify({ name: 'python3' }));
  assert.equal(status, 201);
  const execute = {
    channel: 'shell', parent_header: {}, metadata: {}, buffers: [],
    header: { msg_id: 'one', username: 'bob', session: 's', msg_type: 'execute_request', version: '5.3', date: new Date().toISOString() },
    content: { code: '6*7', silent: false, store_history: false, user_expressions: {}, allow_stdin: false, stop_on_error: true },
  };
  const result = JSON.parse(await ask(`/api/kernels/${kernel.id}/channels?session_id=s`, JSON.stringify(execute), '"execute_result"'));
  assert.equal(result.content.data['text/plain'], '42');
  assert.equal((await call('DELETE', `/api/kernels/${kernel.id}`)).status, 204);
});

test('a terminal answers on its WebSocket', async () => {
  const { status, body: terminal } = await call('POST', '/api/terminals');
  assert.equal(status, 200);
  await ask(`/terminals/websocket/${terminal.name}`, JSON.stringify(['stdin', 'echo "<$((6*7))>"\r']), '<42>');
  assert.equal((await call('DELETE', `/api/terminals/${terminal.name}`)).status, 204);
});

test('a notebook on the page computes', async () => {
  const { page } = stage;
  await page.click('.jp-LauncherCard[data-category="Notebook"]');
  await page.click('.jp-Notebook .cm-content');
  await page.keyboard.type('6*7');
  // The page ignores a cell that is run while it still gets to know the kernel, also without a proxy.
  await until('the result', async () => {
    await page.locator('.jp-Notebook .cm-content').first().click();
    await page.keyboard.press('Shift+Enter');
    const shown = () => document.querySelector('.jp-Notebook .jp-OutputArea-executeResult')?.innerText.includes('42');
    return page.waitForFunction(shown, undefined, { timeout: 5_000 });
  }, 60_000);
});

test('the checks of the application and of the proxy stand', async () => {
  const made = { method: 'POST', body: '{}' };
  const forged = await request(`${stage.base}/api/kernels`, { ...made, headers: { cookie: stage.session } });
  assert.equal(forged.status, 403);
  assert.match(forged.text, /_xsrf/);
  const stranger = await request(`${stage.base}/api/kernels`, made);
  assert.equal(stranger.status, 401);
});
