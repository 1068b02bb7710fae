// People with sessions: a stage whose application has streams, and who has logged in to it in Chromium.
import { WebSocketServer } from 'ws';
import { openStage, serve } from './stage.mjs';
import { logInAtProvider, request } from './support.mjs';

// With a refresh token, which oidc-provider only gives together with the question for consent.
const OFFLINE = ['OIDCAuthorizationParameters: { prompt: consent }'];

// A stage whose sessions have refresh tokens. The application has a page, a quiet WebSocket at /socket, quiet events at
// /events, and answers everything else with the user that it was told. Everything else is as in `openStage`.
export function openLiveStage({ service = [], ...given } = {}) {
  return openStage({
    launch: (port) => serve(port, answer, (server) => new WebSocketServer({ server })),
    scopes: '[openid, offline_access, email, profile, groups]',
    service: [...OFFLINE, ...service],
    ...given,
  });
}

function answer({ url, headers }, response) {
  if (url === '/') response.setHeader('content-type', 'text/html').end('<title>home</title><h1>home</h1>');
  else if (url === '/events') response.setHeader('content-type', 'text/event-stream').write('retry: 100\ndata: first\n\n');
  else response.setHeader('content-type', 'application/json').end(JSON.stringify({ user: headers['x-user'] }));
}

// Somebody with a browser of their own who has logged in. What their pages complain of is in `complaints`.
export async function arrive(browsers, { base }, user) {
  const context = await browsers.newContext();
  const complaints = [];
  context.on('console', (message) => { if (/Content Security Policy|Refused to/.test(message.text())) complaints.push(message.text()); });
  const page = await context.newPage();
  await page.goto(`${base}/`);
  await logInAtProvider(page, user);
  const cookies = async () => (await context.cookies(base)).filter(({ name }) => name.startsWith('__Host-portcullis'));
  return {
    context, page, complaints, cookies,
    // The session as a Cookie field.
    cookie: async () => (await cookies()).map(({ name, value }) => `${name}=${value}`).join('; '),
    // The statuses of `count` requests that the page makes all at once.
    fetch: (count = 1) => page.evaluate((count) => Promise.all(Array.from({ length: count }, async (_, at) => (await fetch(`/api/${at}`)).status)), count),
    close: () => context.close(),
  };
}

// What a session is worth without its browser: the status of a request with a copy of its cookie.
export const replay = async ({ base }, cookie) => (await request(`${base}/api`, { headers: { cookie } })).status;

// Opens a WebSocket and an EventSource in somebody's page. `over()` tells what has ended so far: `at`, and for the one
// `code` and `wasClean`, for the other the `state` it is in for good; `ends()` waits for both.
export async function openStreams({ page }) {
  const streams = await page.evaluateHandle(() => new Promise((resolve, reject) => {
    const over = {};
    const socket = new WebSocket(`wss://${location.host}/socket`);
    const events = new EventSource('/events');
    const ends = Promise.all([
      new Promise((ended) => { socket.onclose = ({ code, wasClean }) => { over.socket = { at: Date.now(), code, wasClean }; ended(); }; }),
      new Promise((ended) => {
        events.onerror = () => {
          over.events ??= { at: Date.now() };
          // Otherwise it is about to try again.
          if (events.readyState === EventSource.CLOSED) { over.events.state = 'closed'; ended(); }
        };
      }),
    ]).then(() => over);
    const open = Promise.all([
      new Promise((opened) => { socket.onopen = opened; }), new Promise((opened) => { events.onmessage = opened; }),
    ]);
    open.then(() => resolve({ over, ends }));
    ends.then(() => reject(new Error('the streams did not open')));
  }));
  return { over: () => streams.evaluate(({ over }) => over), ends: () => streams.evaluate(({ ends }) => ends) };
}
