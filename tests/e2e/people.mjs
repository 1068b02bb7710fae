// People with sessions: a stage whose application has streams, and who has logged in to it in Chromium.
import { setTimeout as pause } from 'node:timers/promises';
import { WebSocketServer } from 'ws';
import { openStage, serve } from './stage.mjs';
import { logInAtProvider, request } from './support.mjs';

// With a refresh token, which oidc-provider only gives together with the question for consent.
const OFFLINE = ['OIDCAuthorizationParameters: { prompt: consent }'];

// A stage whose sessions have refresh tokens. The application has a page, a quiet WebSocket at /socket, quiet events at
// /events, a download that never ends at /download, and answers everything else with the user that it was told.
// Everything else is as in `openStage`.
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
  else if (url === '/download') response.setHeader('content-type', 'application/octet-stream').write(Buffer.alloc(100_000));
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

// When the tokens that the provider gave last, for `lifetime` seconds, are to be refreshed, which is after half of that:
// the clock is all that there is to wait for.
export async function due({ idp }, lifetime) {
  const { at } = idp.events('grant.success').at(-1);
  // Times in tokens are whole seconds.
  await pause(at + (lifetime / 2 + 1) * 1000 - Date.now());
}

// What a session is worth without its browser: the status of a request with a copy of its cookie.
export const replay = async ({ base }, cookie) => (await request(`${base}/api`, { headers: { cookie } })).status;

// Opens a WebSocket, an EventSource and a download in somebody's page. `over()` tells what has ended so far, and when;
// `ends()` waits for all of them, and says in a word how each has ended, and `at` what time the last of them.
export async function openStreams({ page }) {
  const streams = await page.evaluateHandle(() => new Promise((resolve, reject) => {
    const over = {};
    const end = (name, how) => { over[name] ??= { at: Date.now(), how }; };
    const opened = [];
    const ended = [];
    // Each says when it is open, and when it is over for good.
    const stream = (begin) => { opened.push(new Promise((open) => { ended.push(new Promise((close) => { begin(open, close); })); })); };
    stream((open, close) => {
      const socket = new WebSocket(`wss://${location.host}/socket`);
      socket.onopen = open;
      socket.onclose = ({ code, wasClean }) => { end('socket', `${code} ${wasClean ? 'clean' : 'broken'}`); close(); };
    });
    stream((open, close) => {
      const events = new EventSource('/events');
      events.onmessage = open;
      events.onerror = () => {
        end('events', 'closed');
        // Otherwise it is about to try again.
        if (events.readyState === EventSource.CLOSED) close();
      };
    });
    stream(async (open, close) => {
      try {
        const reader = (await fetch('/download')).body.getReader();
        while (!(await reader.read()).done) open();
        end('download', 'as if it were whole');
      } catch {
        end('download', 'broken');
      }
      close();
    });
    const ends = Promise.all(ended).then(() => over);
    Promise.all(opened).then(() => resolve({ over, ends }));
    ends.then(() => reject(new Error(`the streams did not open: ${JSON.stringify(over)}`)));
  }));
  return {
    over: () => streams.evaluate(({ over }) => over),
    ends: async () => {
      // If some go on, what has ended is told all the same.
      const enough = ({ over, ends }) => Promise.race([ends, new Promise((resolve) => { setTimeout(() => resolve(over), 10_000); })]);
      const over = Object.entries(await streams.evaluate(enough));
      return { how: Object.fromEntries(over.map(([name, { how }]) => [name, how])), at: Math.max(...over.map(([, { at }]) => at)) };
    },
  };
}

// How streams end with their session. A download must not look whole.
export const ENDED = { socket: '1008 clean', events: 'closed', download: 'broken' };
