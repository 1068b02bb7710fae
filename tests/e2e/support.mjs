// Starts what a test needs: the proxy under test, the app behind it, a browser; and stops it all again.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import https from 'node:https';
import { chromium } from 'playwright-core';

export const ROOT = path.resolve(import.meta.dirname, '../..');
export const BINARY = process.env.PORTCULLIS ?? path.join(ROOT, 'target/debug/portcullis');
export const ARTIFACTS = path.join(ROOT, 'tests/artifacts');
fs.mkdirSync(ARTIFACTS, { recursive: true });

// Ports that are free now, all different.
export async function freePorts(count) {
  const servers = await Promise.all(Array.from({ length: count }, async () => {
    const server = net.createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return server;
  }));
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

// Runs a program; `ready(text)` looks at everything it has printed and says when it is up.
export async function start(command, args, { env = {}, ready, cwd } = {}) {
  const child = spawn(command, args, { env: { ...process.env, ...env }, cwd, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  const exited = once(child, 'exit');
  await new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${command} was not ready in 30 s:\n${output}`)), 30_000);
    const settle = (outcome, value) => { clearTimeout(timer); outcome(value); };
    const take = (chunk) => { output += chunk; if (ready(output)) settle(resolve); };
    child.stdout.on('data', take);
    child.stderr.on('data', take);
    child.once('error', (error) => settle(reject, error));
    child.once('exit', (code) => settle(reject, new Error(`${command} ended with ${code}:\n${output}`)));
  });
  return {
    child,
    output: () => output,
    stop: async () => { if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM'); return (await exited)[0]; },
  };
}

// Waits until `probe` gives something true; for conditions that nothing announces.
export async function until(what, probe, milliseconds = 15_000) {
  const end = Date.now() + milliseconds;
  for (;;) {
    const value = await probe().catch(() => undefined);
    if (value) return value;
    if (Date.now() > end) throw new Error(`not within ${milliseconds} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

// The proxy with a configuration text; gives its log as parsed lines. `state` is its directory if it has one already.
export async function startProxy(yaml, { env = {}, state = fs.mkdtempSync(path.join(os.tmpdir(), 'portcullis-e2e-')) } = {}) {
  const file = path.join(state, 'portcullis.yaml');
  fs.writeFileSync(file, yaml);
  const running = await start(BINARY, ['run', '-c', file], {
    env: { STATE_DIRECTORY: state, ...env },
    ready: (text) => text.includes('"event":"started"'),
  });
  const log = () => running.output().split('\n').filter((line) => line.startsWith('{')).map((line) => JSON.parse(line));
  return {
    ...running, log, state,
    events: (name) => log().filter(({ event }) => event === name),
    // Ends it as an operator would, and wants it to go in peace.
    end: async () => {
      const code = await running.stop();
      if (code !== 0) throw new Error(`portcullis ended with ${code}:\n${running.output()}`);
    },
    crash: async () => { running.child.kill('SIGKILL'); await running.stop(); },
    restarted: () => startProxy(yaml, { env, state }),
  };
}

// One HTTPS request without a browser. The host is resolved to 127.0.0.1 whatever it is.
export function request(url, { method = 'GET', headers = {}, body, agent } = {}) {
  const target = new URL(url);
  return new Promise((resolve, reject) => {
    const outgoing = https.request({
      host: '127.0.0.1', servername: net.isIP(target.hostname) ? undefined : target.hostname, port: target.port,
      path: url.slice(target.origin.length) || '/', method, agent, rejectUnauthorized: false,
      headers: { host: target.host, ...headers },
    }, (response) => {
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('end', () => resolve({
        status: response.statusCode, headers: response.headers, text: Buffer.concat(chunks).toString(),
      }));
      response.on('error', reject);
    });
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}

const CHROMIUM = {
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  headless: true,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
};

// A Chromium of one person.
export async function openBrowser() {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'portcullis-chromium-'));
  const context = await chromium.launchPersistentContext(profile, { ...CHROMIUM, ignoreHTTPSErrors: true });
  return { context, close: async () => { await context.close(); fs.rmSync(profile, { recursive: true, force: true }); } };
}

// A Chromium of several people who share nothing: a new one with every `newContext()`.
export async function openBrowsers() {
  const browser = await chromium.launch(CHROMIUM);
  return { newContext: () => browser.newContext({ ignoreHTTPSErrors: true }), close: () => browser.close() };
}

// Logs a user in on oidc-provider's own pages, wherever the page stands now.
export async function logInAtProvider(page, user) {
  await page.fill('input[name="login"]', user);
  await page.fill('input[name="password"]', 'any');
  await Promise.all([page.waitForNavigation(), page.click('button[type="submit"]')]);
  const consent = await page.$('form button[type="submit"]');
  if (consent && new URL(page.url()).pathname.startsWith('/interaction/')) {
    await Promise.all([page.waitForNavigation(), consent.click()]);
  }
}

// Says yes to oidc-provider's question whether to sign out there.
export async function logOutAtProvider(page) {
  await Promise.all([page.waitForNavigation(), page.click('button[name="logout"]')]);
}
