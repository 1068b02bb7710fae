// A real, certified OpenID provider (npm oidc-provider) on loopback, with one client and a handful of users.
// Every user has the password-less login of oidc-provider's development pages: any name in USERS.
import { once } from 'node:events';
import http from 'node:http';
import https from 'node:https';
import Provider from 'oidc-provider';

export const CLIENT_ID = 'portcullis-e2e';
// Characters that must be form-encoded before Basic authentication (RFC 6749 section 2.3.1).
export const CLIENT_SECRET = 'p@ss w/+%:~';

const manyGroups = Array.from({ length: 400 }, (_, n) => `department-of-redundancy-${String(n).padStart(4, '0')}`);
const hugeGroups = Array.from({ length: 3000 }, (_, n) => `department-of-redundancy-${String(n).padStart(4, '0')}`);

const USERS = {
  alice: { email: 'alice@acme.example', email_verified: true, groups: ['staff', 'admin'], name: 'Alice Ångström' },
  bob: { email: 'bob@acme.example', email_verified: true, groups: ['staff'], name: 'Bob' },
  carol: { email: 'carol@acme.example', email_verified: false, groups: [], name: 'Carol' },
  many: { email: 'many@acme.example', email_verified: true, groups: ['staff', ...manyGroups], name: 'Zoë Много' },
  huge: { email: 'huge@acme.example', email_verified: true, groups: ['staff', ...hugeGroups], name: 'Huge' },
};

// What of the provider's doings is kept, and what of each.
const EVENTS = {
  'grant.success': (ctx) => ({ grant: ctx.oidc.params.grant_type }),
  'grant.error': (ctx, error) => ({ grant: ctx.oidc?.params?.grant_type, error: `${error.error}: ${error.error_detail ?? error.error_description}` }),
  'grant.revoked': (_ctx, id) => ({ id }),
  'refresh_token.saved': ({ jti }) => ({ jti }),
  'refresh_token.consumed': ({ jti }) => ({ jti }),
  // Because somebody named it; the others of a grant that is revoked go without this.
  'refresh_token.destroyed': ({ jti }) => ({ jti }),
  'authorization.success': (ctx) => ({ user: ctx.oidc.session.accountId, sid: ctx.oidc.session.sidFor(CLIENT_ID) }),
  'end_session.success': () => ({}),
  'backchannel.success': (_ctx, _client, user, sid) => ({ user, sid }),
  'backchannel.error': (_ctx, error, _client, user, sid) => ({ user, sid, error: String(error) }),
  server_error: (_ctx, error) => ({ error: String(error.stack) }),
};

// Starts a provider.
// `redirectUri` is one address or several; the way back from a logout is the usual path beside each.
// `claimsInIdToken: false` is the provider's default: the ID token has only `sub`, the rest is in UserInfo.
// `tokenLifetime` is that of access and ID tokens in seconds. Refresh tokens, for the scope `offline_access`, rotate, and
// reuse of one revokes the grant.
// `backChannel: { uri, sessionRequired, authority }` has logouts told to `uri`, whose certificate `authority()` vouches for.
export async function startIdp({
  redirectUri, clientSecret = CLIENT_SECRET, pkceRequired = true, claimsInIdToken = true, port = 0, tokenLifetime, backChannel,
}) {
  const server = http.createServer();
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  const issuer = `http://localhost:${server.address().port}`;
  const users = structuredClone(USERS);
  const redirectUris = [redirectUri].flat();
  const provider = new Provider(issuer, {
    clients: [{
      client_id: CLIENT_ID,
      client_secret: clientSecret,
      redirect_uris: redirectUris,
      post_logout_redirect_uris: redirectUris.map((uri) => new URL('/aporeto/oidc/logout', uri).href),
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      ...(backChannel && { backchannel_logout_uri: backChannel.uri, backchannel_logout_session_required: backChannel.sessionRequired }),
    }],
    conformIdTokenClaims: !claimsInIdToken,
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'], groups: ['groups'] },
    scopes: ['openid', 'offline_access', 'email', 'profile', 'groups'],
    pkce: { required: () => pkceRequired },
    rotateRefreshToken: true,
    ...(tokenLifetime && { ttl: { AccessToken: tokenLifetime, IdToken: tokenLifetime } }),
    cookies: { keys: ['only for tests'] },
    features: {
      devInteractions: { enabled: true }, rpInitiatedLogout: { enabled: true }, revocation: { enabled: true },
      backchannelLogout: { enabled: backChannel !== undefined },
    },
    // Its own would call neither loopback nor a certificate of our own authority.
    ...(backChannel && { fetch: (url, options) => call(url, options, backChannel.authority()) }),
    findAccount: (_ctx, id) => (users[id] ? { accountId: id, claims: () => ({ sub: id, ...users[id] }) } : undefined),
  });
  const events = [];
  for (const [name, of] of Object.entries(EVENTS)) provider.on(name, (...given) => events.push({ name, at: Date.now(), ...of(...given) }));
  const calls = [];
  const pages = new Map();
  const handle = provider.callback();
  let held;
  server.on('request', (request, response) => {
    const [target] = request.url.split('?');
    calls.push(`${request.method} ${target}`);
    if (target === '/token' && held) {
      const end = response.end.bind(response);
      const promise = held;
      response.end = (...given) => { promise.then(() => end(...given)); return response; };
    }
    if (pages.has(target)) response.setHeader('content-type', 'text/html').end(pages.get(target));
    else handle(request, response);
  });
  const named = (name) => events.filter((event) => event.name === name);
  return {
    issuer,
    // What was asked, `GET /auth`, and what came of it.
    calls,
    events: named,
    // May be changed at any time.
    users,
    // More pages of this origin: HTML by path.
    pages,
    refreshes: () => named('grant.success').filter(({ grant }) => grant === 'refresh_token').length,
    // Whether a refresh token, named by its `jti`, could still be redeemed.
    redeemable: async (jti) => { const token = await provider.RefreshToken.find(jti); return token !== undefined && !token.consumed; },
    // Keeps back what the token endpoint answers, after it has done its part, until the function that this gives is called.
    hold: () => {
      let answer;
      held = new Promise((resolve) => { answer = resolve; });
      return () => { held = undefined; answer(); };
    },
    // Is not there for a while, and knows everything when it is back.
    leave: () => new Promise((resolve) => { server.close(resolve); server.closeAllConnections(); }),
    comeBack: async () => { server.listen(new URL(issuer).port, '127.0.0.1'); await once(server, 'listening'); },
    port: server.address().port,
    stop: () => new Promise((resolve) => { server.close(resolve); server.closeAllConnections(); }),
  };
}

// `fetch` as far as the provider needs it, on loopback and with an authority of our own.
function call(url, { method, headers, body }, ca) {
  const { host, hostname, port, pathname } = new URL(url);
  return new Promise((resolve, reject) => {
    const options = {
      host: '127.0.0.1', servername: hostname, port, path: pathname, method, ca, agent: false, headers: { ...Object.fromEntries(headers), host },
    };
    const request = https.request(options, (answer) => {
      const chunks = [];
      answer.on('data', (chunk) => chunks.push(chunk));
      answer.on('end', () => resolve(new Response(answer.statusCode === 204 ? null : Buffer.concat(chunks), { status: answer.statusCode })));
      answer.on('error', reject);
    });
    request.on('error', reject);
    request.end(`${body}`);
  });
}
