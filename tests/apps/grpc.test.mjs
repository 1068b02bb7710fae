// gRPC by grpcio on both sides: every call comes to the same through the proxy as without it.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { until } from '../e2e/support.mjs';
import { HOST, openStage } from './stage.mjs';

const CLIENT = path.join(import.meta.dirname, 'echo_client.py');
// The calls that only the client ends: two deadlines and a cancellation.
const GIVEN_UP = ['gone, deadline known', 'gone, deadline known', 'gone, deadline none'];

let stage, direct, proxied;

before(async () => {
  stage = await openStage({
    scheme: 'h2c',
    first: '/',
    launch: (port) => ({ program: 'python', args: ['-u', path.join(import.meta.dirname, 'echo_server.py'), `${port}`], env: {}, ready: 'serving' }),
  });
  direct = await run([`127.0.0.1:${stage.port}`], '');
  proxied = await run(throughProxy(), stage.session);
});

after(() => stage?.stop());

const throughProxy = () => [`127.0.0.1:${stage.exposedPort}`, HOST, path.join(stage.proxy.state, 'certs/app/ca.pem')];

// Runs the client; its results by name.
async function run(args, cookie) {
  const child = spawn(path.join(stage.bin, 'python'), [CLIENT, ...args], { stdio: ['pipe', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.on('data', (chunk) => { output += chunk; });
  child.stdin.end(`${cookie}\n`);
  const [code] = await once(child, 'close');
  assert.equal(code, 0, output);
  return new Map(output.trim().split('\n').map((line) => JSON.parse(line)).map(({ name, ...result }) => [name, result]));
}

const NAMES = ['unary', 'unary, compressed', 'unary, 8 MiB', 'unary, empty', 'client stream', 'server stream', 'server stream of nothing', 'both ways',
  'error NOT_FOUND', 'error UNAUTHENTICATED', 'error INTERNAL', 'error RESOURCE_EXHAUSTED', 'error after a message', 'unknown method', 'deadline',
  'deadline of a stream', 'cancelled'];

describe('the same as without the proxy', () => {
  test('as many calls', () => assert.deepEqual([...direct.keys()], NAMES));
  for (const name of NAMES) {
    test(name, () => {
      const wanted = direct.get(name);
      // The one thing that the proxy adds.
      const named = wanted.trailers.map(([key, value]) => [key, key === 'x-user' ? 'bob' : value]);
      assert.deepEqual(proxied.get(name), { ...wanted, trailers: named });
    });
  }
});

test('the application got and gave what was meant', () => {
  const { messages, head, trailers } = proxied.get('unary');
  assert.deepEqual([messages, head, trailers],
    [['hello'], [['x-head', '1'], ['x-head-bin', '00ff']], [['x-data-bin', '0001feff'], ['x-user', 'bob']]]);
  const { code, details } = proxied.get('error NOT_FOUND');
  assert.deepEqual([code, details], ['NOT_FOUND', 'Straße 日本 nicht gefunden: 100 %']);
  assert.equal(proxied.get('server stream').messages.length, 500);
  assert.equal(proxied.get('deadline').code, 'DEADLINE_EXCEEDED');
  assert.equal(proxied.get('cancelled').code, 'CANCELLED');
});

test('calls that a client gives up end at the application, which knew their deadlines', async () => {
  const ends = () => stage.app.output().split('\n').filter((line) => line.startsWith('gone')).sort();
  // Directly, and through the proxy.
  const wanted = [...GIVEN_UP, ...GIVEN_UP].sort();
  await until('the end of all calls', async () => ends().length >= wanted.length);
  assert.deepEqual(ends(), wanted);
});

test('who may not is refused in the terms of gRPC', async () => {
  assert.equal(proxied.get('allowed').code, 'OK');
  assert.equal(proxied.get('not allowed').code, 'PERMISSION_DENIED');
  const stranger = await run(throughProxy(), '');
  assert.deepEqual([...stranger.values()].map(({ code }) => code), ['UNAUTHENTICATED', 'UNAUTHENTICATED']);
});
