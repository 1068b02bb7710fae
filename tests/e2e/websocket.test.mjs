// WebSocket through the proxy: Chromium's own, over HTTP/2 after a real login; and frames by hand, over HTTP/1.1 and
// HTTP/2, whose every byte of answer must be what the application answers directly.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http2 from 'node:http2';
import net from 'node:net';
import tls from 'node:tls';
import { after, before, describe, test } from 'node:test';
import { WebSocketServer } from 'ws';
import { CASES, parse, verdict } from './frames.mjs';
import { HOST, openStage, serve } from './stage.mjs';
import { logInAtProvider, openBrowser } from './support.mjs';

const MOST_BYTES = 2 << 20;
// Cases at a time: they wait for each other's round trips only.
const ABREAST = 8;

let stage, browser, cookie, base, exposedPort, appPort;
const seen = [];

function acceptSockets(server) {
  const sockets = new WebSocketServer({
    server, maxPayload: MOST_BYTES, perMessageDeflate: { threshold: 0 },
    handleProtocols: (offered) => (offered.has('chat') ? 'chat' : false),
  });
  sockets.on('connection', (socket, request) => {
    seen.push(request);
    socket.on('error', () => {});
    socket.on('message', (data, binary) => socket.send(data, { binary }));
  });
}

before(async () => {
  stage = await openStage({
    launch: (port) => serve(port, (_, response) => response.end('<title>home</title>'), acceptSockets),
    // A WebSocket is a GET to the rules, on both versions.
    endpoints: ['{ URI: /*, methods: [GET], allowedScopes: [[groups=staff]] }'],
  });
  ({ base, exposedPort, port: appPort } = stage);
  browser = await openBrowser();
});

after(async () => {
  await browser?.close();
  await stage?.stop();
});

test('Chromium opens its WebSocket over HTTP/2 with the session', async () => {
  const page = await browser.context.newPage();
  await page.goto(`${base}/`);
  await logInAtProvider(page, 'bob');
  const devtools = await browser.context.newCDPSession(page);
  await devtools.send('Network.enable');
  const handshake = new Promise((resolve) => { devtools.once('Network.webSocketHandshakeResponseReceived', resolve); });
  const heard = await page.evaluate(() => new Promise((resolve, reject) => {
    const socket = new WebSocket(`wss://${location.host}/echo?x=1`, 'chat');
    const heard = [socket.protocol];
    socket.onopen = () => { heard.push(socket.protocol); socket.send('grüße'); socket.send('x'.repeat(200_000)); };
    socket.onmessage = ({ data }) => { heard.push(data.length); if (heard.length === 4) socket.close(4321, 'done'); };
    socket.onclose = ({ code, reason, wasClean }) => resolve([...heard, code, reason, wasClean]);
    socket.onerror = () => reject(new Error('the WebSocket failed'));
  }));
  assert.deepEqual(heard, ['', 'chat', 5, 200_000, 4321, 'done', true]);
  assert.equal((await handshake).response.status, 200, 'HTTP/1.1 would say 101');
  const [{ url, headers }] = seen;
  assert.equal(url, '/echo?x=1');
  assert.equal(headers['x-user'], 'bob');
  assert.equal(headers.origin, base);
  assert.equal(headers.cookie, undefined, 'the session stays here');
  const cookies = await browser.context.cookies(base);
  cookie = cookies.map(({ name, value }) => `${name}=${value}`).join('; ');
});

// The fields that a handshake has on both versions.
function fields({ offer, protocols }) {
  return {
    cookie, 'sec-websocket-version': '13',
    ...(offer && { 'sec-websocket-extensions': offer }), ...(protocols && { 'sec-websocket-protocol': protocols }),
  };
}

// A handshake over HTTP/1.1: the answer, and the stream after it.
async function openHttp1(stream, given) {
  const lines = Object.entries({
    host: `${HOST}:${exposedPort}`, connection: 'Upgrade', upgrade: 'websocket',
    'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==', ...fields(given),
  }).map(([name, value]) => `${name}: ${value}\r\n`);
  stream.write(`GET /case HTTP/1.1\r\n${lines.join('')}\r\n`);
  let head = Buffer.alloc(0);
  while (!head.includes('\r\n\r\n')) {
    head = Buffer.concat([head, stream.read() ?? Buffer.alloc(0)]);
    if (!head.includes('\r\n\r\n')) await once(stream, 'readable');
  }
  const end = head.indexOf('\r\n\r\n');
  const [first, ...rest] = head.subarray(0, end).toString().toLowerCase().split('\r\n');
  const headers = Object.fromEntries(rest.map((line) => line.split(': ')));
  return { status: Number(first.split(' ')[1]), headers, stream, early: head.subarray(end + 4) };
}

const openings = {
  direct: async (given) => {
    const stream = net.connect(appPort, '127.0.0.1');
    stream.setNoDelay();
    return openHttp1(stream, given);
  },
  'HTTP/1.1': async (given) => {
    const stream = tls.connect({ port: exposedPort, host: '127.0.0.1', servername: HOST, rejectUnauthorized: false, ALPNProtocols: ['http/1.1'], allowHalfOpen: true });
    stream.setNoDelay();
    await once(stream, 'secureConnect');
    return openHttp1(stream, given);
  },
  'HTTP/2': async (given, session) => {
    const stream = session.request({
      ':method': 'CONNECT', ':protocol': 'websocket', ':scheme': 'https', ':authority': `${HOST}:${exposedPort}`, ':path': '/case', ...fields(given),
    }, { endStream: false });
    const [headers] = await once(stream, 'response');
    // What says the same on both versions.
    const status = headers[':status'] === 200 ? 101 : headers[':status'];
    return { status, headers, stream, early: Buffer.alloc(0) };
  },
};

// Sends a case and gives all that comes back. The client ends when it has a close frame, or no WebSocket.
async function converse(opening, given, session) {
  const { status, headers, stream, early } = await opening(given, session);
  const negotiated = [headers['sec-websocket-extensions'], headers['sec-websocket-protocol']];
  if (status !== 101) {
    stream.destroy();
    return { status, negotiated, received: Buffer.alloc(0) };
  }
  const chunks = [early];
  const gone = new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('no end of the conversation')), 15_000);
    stream.on('data', (chunk) => {
      chunks.push(chunk);
      // A short chunk may hold a close frame that the application sends first, and waits for ours.
      if (chunk.length < 200 && parse(Buffer.concat(chunks)).at(-1)?.opcode === 8) stream.end();
    });
    stream.once('error', (error) => { clearTimeout(timer); reject(error); });
    stream.once('end', () => { clearTimeout(timer); stream.end(); resolve(); });
  });
  for (const bytes of given.writes) {
    stream.write(bytes);
    await new Promise(setImmediate);
  }
  await gone;
  return { status, negotiated, received: Buffer.concat(chunks) };
}

describe('frames by hand get the same answers as directly, byte for byte', () => {
  let session;
  const answers = {};

  before(async () => {
    session = http2.connect(`https://127.0.0.1:${exposedPort}`, { servername: HOST, rejectUnauthorized: false });
    const [settings] = await once(session, 'remoteSettings');
    assert.equal(settings.enableConnectProtocol, true);
  });
  after(() => session?.destroy());

  for (const [way, opening] of Object.entries(openings)) {
    test(`${CASES.length} cases, ${way}`, async () => {
      answers[way] = [];
      const left = CASES.entries();
      await Promise.all(Array.from({ length: ABREAST }, async () => {
        for (const [at, given] of left) {
          answers[way][at] = await converse(opening, given, session).catch((error) => assert.fail(`${given.name}: ${error}`));
        }
      }));
      for (const [at, { name, wanted }] of CASES.entries()) {
        const { status, negotiated, received } = answers[way][at];
        if (wanted) assert.deepEqual(verdict(received), wanted, name);
        const direct = answers.direct[at];
        assert.deepEqual({ status, negotiated }, { status: direct.status, negotiated: direct.negotiated }, name);
        assert.ok(received.equals(direct.received), `${name}: ${verdict(received)} instead of ${verdict(direct.received)}`);
      }
    });
  }
});
