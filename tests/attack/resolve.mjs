// What Node makes of request targets, one a line: the host of the WHATWG URL, its path decoded once, and the path that
// the older `url.parse` gives, decoded and normalised as static file servers do.
import path from 'node:path';
import readline from 'node:readline';
import url from 'node:url';

const decoded = (text) => { try { return decodeURIComponent(text); } catch { return unescape(text); } };
const lines = [];
for await (const line of readline.createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  const modern = new URL(line, 'http://app.test');
  const old = url.parse(line);
  lines.push(JSON.stringify([modern.host, decoded(modern.pathname), old.host ?? 'app.test', path.posix.normalize(decoded(old.pathname ?? '/'))]));
  if (lines.length >= 1000) process.stdout.write(`${lines.splice(0).join('\n')}\n`);
}
process.stdout.write(lines.map((line) => `${line}\n`).join(''));
