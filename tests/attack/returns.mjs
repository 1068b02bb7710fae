// Return URLs: whatever a login is asked to return to, it returns to its own origin, as a WHATWG URL parser reads the
// real 303, and for a sample as Chromium does.
//
//   node returns.mjs COUNT LOGINS PAGES SEED
//
// Every form is given to the login endpoint of the running proxy. The state that it makes of it is brought to the
// callback by a browser with a session, which answers with the 303 to the same place as at the end of a login.
// LOGINS forms make the whole way through oidc-provider, PAGES in Chromium. The same forms are sent as Referer, and as
// the address of the page itself. The last line of the output is JSON: the rows of the report.
import https from 'node:https';
import { arrive } from '../e2e/people.mjs';
import { openStage, serve } from '../e2e/stage.mjs';
import { openBrowsers, request } from '../e2e/support.mjs';
import { escapeByte, forms, random } from './forms.mjs';

const [count, logins, pages, seed] = process.argv.slice(2).map(Number);
const LANES = 8;
const EXAMPLES = 10;
// Fewer of the forms that are kept as they are would mean that nothing but `/` was tried.
const LEAST_KEPT = 0.05;
const NAVIGATION = { accept: 'text/html', 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document' };
const PROGRAM = { accept: 'application/json', 'sec-fetch-mode': 'cors', 'sec-fetch-dest': 'empty' };
const LOGIN = '/aporeto/oidc/login?return=';
const rows = [];
const next = random(seed + 1);

// As a script would put it into a link, or as little escaped as a request line allows.
const escapedFully = (form) => [...form].map((unit) => (/[A-Za-z0-9]/.test(unit) ? unit : escapeByte(unit))).join('');
const escapedLittle = (form) => form.replace(/[^!-~]|[#&+]/g, escapeByte);
const escaped = (form) => (next() < 0.7 ? escapedFully(form) : escapedLittle(form));

// Whether a Location is an address of this origin, whose path no parser changes.
function stays(location, base) {
  if (!location.startsWith(`${base}/`) || /[^!-~]/.test(location)) return false;
  const rest = location.slice(base.length);
  const [path] = rest.split('?');
  // As a whole, and as a script would resolve what follows the origin.
  return [new URL(location), new URL(location, 'https://evil.test/'), new URL(rest, base)].every((url) => url.origin === base && url.pathname === path);
}

// It has to see what is wrong.
function checkThatItCanFail(base) {
  const bad = ['', '/', '//evil.test/', 'https://evil.test/', `${base}@evil.test/`, `${base}.evil.test/`, `${base}//evil.test/`, `${base}/\\evil.test`, `${base}/../x`, `${base}/a b`, `${base}/\u00e9`, base];
  const unseen = bad.filter((location) => stays(location, base));
  if (unseen.length > 0 || !stays(`${base}/a%20b?c=//d`, base)) throw new Error(`the judge of addresses is wrong about ${unseen}`);
}

// Calls `work` for everything, a few at a time.
async function each(list, work) {
  const queue = list.entries();
  await Promise.all(Array.from({ length: LANES }, async () => { for (const [, item] of queue) await work(item); }));
}

function tell(what, wrong, words, enough = true) {
  for (const [form, seen] of wrong.slice(0, EXAMPLES)) console.log(`  ${what}: ${JSON.stringify(form)}: ${seen}`);
  rows.push([what, wrong.length === 0 && enough, `${words}; ${wrong.length} leave the origin`]);
}

const stateOf = (location) => new URL(location).searchParams.get('state');

async function bulk({ base, idp }, all, cookie, agent) {
  const wrong = [];
  const kept = [];
  let refused = 0;
  await each(all, async (form) => {
    const begun = await request(`${base}${LOGIN}${escaped(form)}`, { headers: NAVIGATION, agent });
    // What may not stand in a query unescaped.
    if (begun.status === 400) { refused += 1; return; }
    if (begun.status !== 302 || !begun.headers.location.startsWith(`${idp.issuer}/`)) return wrong.push([form, `the login did not begin: ${begun.status}`]);
    const ended = await request(`${base}/aporeto/oidc/callback?code=x&state=${stateOf(begun.headers.location)}`, { headers: { ...NAVIGATION, cookie }, agent });
    const { location = '' } = ended.headers;
    if (ended.status !== 303 || !stays(location, base)) wrong.push([form, `${ended.status} ${location}`]);
    else if (location !== `${base}/`) kept.push(form);
  });
  tell('return URLs', wrong, `${all.length} forms, ${kept.length} kept as a path, ${all.length - refused - kept.length - wrong.length} became /, ${refused} refused`, kept.length >= all.length * LEAST_KEPT);
  return kept;
}

// What cannot be sent in a field is left out.
async function referers({ base }, all, agent) {
  const wrong = [];
  const sendable = all.filter((form) => /^[\t -~\x80-\xff]*$/.test(form));
  let kept = 0;
  await each(sendable, async (form) => {
    const referer = next() < 0.5 ? form : base + form;
    const answer = await request(`${base}/app`, { method: 'POST', headers: { ...PROGRAM, referer }, agent });
    const login = [...answer.text.matchAll(/"(https?:[^"]*\/aporeto\/oidc\/login[^"]*)"/g)].map(([, url]) => url);
    const back = login.length === 1 ? new URL(login[0]).searchParams.get('return') : undefined;
    if (answer.status !== 401 || !login[0]?.startsWith(`${base}${LOGIN}`) || !stays(base + back, base)) wrong.push([referer, `${answer.status} ${login} ${back}`]);
    else if (back !== '/') kept += 1;
  });
  tell('Referer', wrong, `${sendable.length} sent, ${all.length - sendable.length} cannot be sent, ${kept} kept as a path`);
}

// The form as the address of the page that wants a login.
async function pagesOfTheirOwn({ base, idp }, all, cookie, agent) {
  const wrong = [];
  const sendable = all.filter((form) => /^\/[!-~]*$/.test(form));
  let refused = 0;
  await each(sendable, async (form) => {
    const begun = await request(`${base}${form}`, { headers: NAVIGATION, agent });
    if (begun.status === 400) { refused += 1; return; }
    const { location = '' } = begun.headers;
    // Our own endpoints answer for themselves.
    if ([200, 401].includes(begun.status) && location === '' && unescape(form).startsWith('/aporeto/oidc/')) { refused += 1; return; }
    if (begun.status !== 302 || !location.startsWith(`${idp.issuer}/`)) return wrong.push([form, `${begun.status} ${location}`]);
    const ended = await request(`${base}/aporeto/oidc/callback?code=x&state=${stateOf(location)}`, { headers: { ...NAVIGATION, cookie }, agent });
    if (ended.status !== 303 || !stays(ended.headers.location ?? '', base)) wrong.push([form, `${ended.status} ${ended.headers.location}`]);
  });
  tell('addresses of pages', wrong, `${sendable.length} sent, ${refused} refused`);
}

const cookiesOf = ({ headers }) => (headers['set-cookie'] ?? []).map((line) => line.split(';')[0]).join('; ');

// The whole way, with the provider's session of somebody who has logged in there.
async function whole({ base, idp }, sample, atProvider, agent) {
  const wrong = [];
  await each(sample, async (form) => {
    const begun = await request(`${base}${LOGIN}${escapedFully(form)}`, { headers: NAVIGATION, agent });
    const authorized = await fetch(begun.headers.location, { headers: { cookie: atProvider }, redirect: 'manual' });
    const callback = authorized.headers.get('location') ?? '';
    if (!callback.startsWith(`${base}/aporeto/oidc/callback?`)) return wrong.push([form, `the provider answered ${authorized.status} ${callback}`]);
    const ended = await request(callback, { headers: { ...NAVIGATION, cookie: cookiesOf(begun) }, agent });
    const isLogin = cookiesOf(ended).includes('portcullis-session') || /__Host-portcullis[^=]*=[^;]/.test(cookiesOf(ended));
    if (ended.status !== 303 || !isLogin || !stays(ended.headers.location ?? '', base)) wrong.push([form, `${ended.status} ${ended.headers.location}`]);
  });
  tell('whole logins', wrong, `${sample.length} forms through oidc-provider at ${idp.issuer}`);
}

async function inChromium({ base, idp }, sample, { page }) {
  const wrong = [];
  const elsewhere = [];
  page.on('request', (asked) => { if (![base, idp.issuer].includes(new URL(asked.url()).origin)) elsewhere.push(asked.url()); });
  for (const form of sample) {
    const answer = await page.goto(`${base}${LOGIN}${escapedFully(form)}`).catch((error) => error);
    const { origin } = new URL(page.url());
    if (origin !== base || elsewhere.length > 0 || answer instanceof Error) wrong.push([form, `${page.url()} ${elsewhere.splice(0)} ${answer instanceof Error ? answer.message : ''}`]);
  }
  tell('Chromium', wrong, `${sample.length} forms`);
}

// Half of what was kept, for the rest all end at `/`.
function chosen(number, all, kept) {
  const some = (list, most) => Array.from({ length: Math.min(most, list.length) }, () => next.of(list));
  const of = some(kept, number >> 1);
  return [...of, ...some(all, number - of.length)];
}

const stage = await openStage({
  launch: (port) => serve(port, (_, response) => response.setHeader('content-type', 'text/html').end('<title>app</title>')),
});
const agent = new https.Agent({ keepAlive: true, maxSockets: LANES });
const browsers = await openBrowsers();
try {
  checkThatItCanFail(stage.base);
  const bob = await arrive(browsers, stage, 'bob');
  const cookie = await bob.cookie();
  const atProvider = (await bob.context.cookies(stage.idp.issuer)).map(({ name, value }) => `${name}=${value}`).join('; ');
  const all = forms(count, stage.base, seed);
  const kept = await bulk(stage, all, cookie, agent);
  await referers(stage, all, agent);
  await pagesOfTheirOwn(stage, all, cookie, agent);
  await whole(stage, chosen(logins, all, kept), atProvider, agent);
  await inChromium(stage, chosen(pages, all, kept), bob);
  await bob.close();
} finally {
  agent.destroy();
  await browsers.close();
  await stage.stop();
}
console.log(JSON.stringify(rows));
