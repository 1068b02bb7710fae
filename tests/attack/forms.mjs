// Return URLs that are known to lead elsewhere, by a grammar and a fixed seed. Strings of code units below 256 stand
// for bytes: what is not ASCII is UTF-8, or nothing.

const utf8 = (text) => Buffer.from(text, 'utf8').toString('latin1');

const leads = (base) => {
  const host = new URL(base).host;
  return [
    '', '/', '//', '///', '////', '/\\', '\\/', '\\\\', '\\', '\\\\\\', '/\\/', '//\\', '/\t/', '/\n/', '/\r/', '/\r\n/', '\t//', ' //', '//\t',
    '/ /', '/\x00/', '\x00//', '\x01//', '/\x0b/', '/\x0c/', '/%09/', '/%0a/', '/%0d/', '/%00/', '/%20/', '/%5c', '/%5c/', '/%2f', '/%2f/', '%2f%2f', '%5c%5c',
    '/%252f', '/%255c', '/./', '/.//', '/..//', '/../', '/..', '/%2e/', '/%2e//', '/%2e%2e//', '/.%2f/', '/%2e%2f', './/', '../', '.', '..//',
    'http:', 'https:', 'http:/', 'https:/', 'http://', 'https://', 'https:///', 'https:\\\\', 'https:/\\', 'HtTpS://', 'ht\ttps://', 'https\t://', ' https://',
    '\x1fhttps://', 'javascript:', 'javascript://', 'java\tscript:', 'JaVaScRiPt:alert(1)//', 'data:text/html,', 'vbscript:', 'blob:https://', 'file://', 'ws://', 'about:',
    'mailto:', 'view-source:https://', '/javascript:', '/https://', '/https:', '/;//', '/;@', '/:@', '/?//', '/#//', '?//', '#//', '@', '/@', '//@', '/*/', '/~//',
    '/;/', ';//', ':', '://', '//:', '/:/', ':80//', '/.;//', '/..;/', '/app//', '/app/\\', '/app/..//', '/app/../..//', '/app/%2e%2e//', '/app@', '/app:',
    utf8('\u2044\u2044'), utf8('/\u2044'), utf8('/\u2215'), utf8('\uff0f\uff0f'), utf8('/\uff0f'), utf8('/\uff3c'), utf8('\u3002'), utf8('/\u200b/'), utf8('\ufeff//'), utf8('/\u00ad/'),
    utf8('\u00a0//'), utf8('\u2028//'), utf8('\u0085//'), '/%ef%bc%8f', '/%ef%bc%bc', '/%e2%80%8b/', '/%c0%af', '/\xc0\xaf', '/\xff/', '%c0%ae%c0%ae/', '/%u002f', '/%u005c',
    base, `${base}@`, `${base}.`, `${base}:`, `${base}/\\`, `${base}//`, `${base}/..//`, `${base}\\@`, `${base}%2f@`, `${base}#@`, `${base}?@`, `${base};`, `${base}\t`,
    `//${host}@`, `//${host}\\@`, `//${host}%2f@`, `//${host}#@`, `//${host}?@`, `//${host}.`, `/${host}@`, `https:${host}@`, `/\\${host}@`,
    '/aporeto/oidc/login?return=//', '/aporeto/oidc/login?return=/\\', '/aporeto/oidc/logout?x=', '/aporeto/oidc/callback?state=', '/aporeto/oidc/session?',
    '\r\nLocation: https://', '/\r\nLocation: https://', '/%0d%0aLocation:%20https://', utf8('/\u560d\u560aLocation: https://'), '/app\r\n\r\n<script src=//',
  ];
};

const HOSTS = [
  'evil.test', 'evil.test:443', 'user@evil.test', 'user:pw@evil.test', 'app.localhost@evil.test', 'app.localhost:443@evil.test', 'app.localhost.evil.test', 'EVIL.test',
  utf8('evil\u3002test'), utf8('ev\u0131l.test'), utf8('\u24d4vil.test'), '2130706434', '0x7f000002', '0177.0.0.2', '127.2', '127.0.0.2', '[::1]', '[::ffff:127.0.0.2]', 'evil.test.',
  'evil%2etest', 'evil.test%2f.app.localhost', 'evil.test\\.app.localhost', 'evil.test#.app.localhost', 'evil.test?.app.localhost', 'evil.test;.app.localhost', 'evil.test%00.app.localhost',
  'xn--evl-qta.test', 'localhost', 'app', '', '%65vil.test', 'evil\t.test', 'evil\r\n.test', '@evil.test', ':@evil.test', '\\evil.test', '/evil.test', '//evil.test',
];

const TAILS = [
  '', '', '', '/', '//', '/app', '/app/', '/%2e%2e', '?x', '?x=//evil.test', '#x', '#//evil.test', '/../', '/..', '/.', '%2f..', '\\', '\\..', ':80', ':', '@', '/app?next=https://evil.test',
  '%00', '%0d%0aSet-Cookie:a=b', '\r\nSet-Cookie: a=b', ';', ';x=1', '\t', ' ', '.', '%09', '%20', '&return=//evil.test', '&x=1', '"><script>', "'", '<svg/onload=1>', '%', '%zz', '/app%2f..', '\x7f',
];

const INSERTED = ['\t', '\n', '\r', '\0', ' ', '\\', '/', '.', '%09', '%0a', '%5c', '%2f', '@', ':', ';', '?', '#', '\x0b', '\x1f', '\x7f', '\xff', '%', '%00', utf8('\u200b'), utf8('\uff0f')];

// Small and good enough: mulberry32.
export function random(seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  next.of = (list) => list[Math.floor(next() * list.length)];
  return next;
}

export const escapeByte = (unit) => `%${unit.charCodeAt(0).toString(16).padStart(2, '0')}`;

// `count` different forms. A quarter are paths that a login could well return to, made odd in one place.
export function forms(count, base, seed) {
  const next = random(seed);
  const all = leads(base);
  const found = new Set();
  while (found.size < count) {
    const harmless = next() < 0.25;
    let form = harmless ? next.of(['/app', '/app/', '/app/x?y=1', '/a/b/c', '/app/%41', '/', '/app;x=1', '/app/?a=//b']) + next.of(TAILS) : next.of(all) + next.of(HOSTS) + next.of(TAILS);
    const changes = Math.floor(next() * 3);
    for (let change = 0; change < changes; change += 1) {
      const at = Math.floor(next() * (form.length + 1));
      const kind = next();
      if (kind < 0.6) form = form.slice(0, at) + next.of(INSERTED) + form.slice(at);
      else if (kind < 0.8 && at < form.length) form = form.slice(0, at) + escapeByte(form[at]) + form.slice(at + 1);
      else if (kind < 0.9) form = form.replaceAll('/', next.of(['\\', '%2f', '/', '//']));
      else form = form.toUpperCase();
    }
    found.add(form);
  }
  return [...found];
}
