// A real, certified OpenID provider (npm oidc-provider) on loopback, with one client and a handful of users.
// Every user has the password-less login of oidc-provider's development pages: any name in USERS.
import { once } from 'node:events';
import http from 'node:http';
import Provider from 'oidc-provider';

export const CLIENT_ID = 'portcullis-e2e';
// Characters that must be form-encoded before Basic authentication (RFC 6749 section 2.3.1).
export const CLIENT_SECRET = 'p@ss w/+%:~';

const manyGroups = Array.from({ length: 400 }, (_, n) => `department-of-redundancy-${String(n).padStart(4, '0')}`);
const hugeGroups = Array.from({ length: 3000 }, (_, n) => `department-of-redundancy-${String(n).padStart(4, '0')}`);

export const USERS = {
  alice: { email: 'alice@acme.example', email_verified: true, groups: ['staff', 'admin'], name: 'Alice Ångström' },
  bob: { email: 'bob@acme.example', email_verified: true, groups: ['staff'], name: 'Bob' },
  carol: { email: 'carol@acme.example', email_verified: false, groups: [], name: 'Carol' },
  many: { email: 'many@acme.example', email_verified: true, groups: ['staff', ...manyGroups], name: 'Zoë Много' },
  huge: { email: 'huge@acme.example', email_verified: true, groups: ['staff', ...hugeGroups], name: 'Huge' },
};

// Starts a provider. `claimsInIdToken: false` is its default: the ID token has only `sub`, the rest is in UserInfo.
// `redirectUri` is one address or several.
export async function startIdp({
  redirectUri, clientSecret = CLIENT_SECRET, pkceRequired = true, claimsInIdToken = true, port = 0,
}) {
  const server = http.createServer();
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  const issuer = `http://localhost:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{
      client_id: CLIENT_ID,
      client_secret: clientSecret,
      redirect_uris: [redirectUri].flat(),
      grant_types: ['authorization_code'],
      response_types: ['code'],
    }],
    conformIdTokenClaims: !claimsInIdToken,
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'], groups: ['groups'] },
    scopes: ['openid', 'email', 'profile', 'groups'],
    pkce: { required: () => pkceRequired },
    cookies: { keys: ['only for tests'] },
    features: { devInteractions: { enabled: true }, rpInitiatedLogout: { enabled: true } },
    findAccount: (_ctx, id) => (USERS[id] ? { accountId: id, claims: () => ({ sub: id, ...USERS[id] }) } : undefined),
  });
  const calls = [];
  const handle = provider.callback();
  server.on('request', (request, response) => {
    calls.push(`${request.method} ${request.url.split('?')[0]}`);
    handle(request, response);
  });
  return {
    issuer,
    calls,
    port: server.address().port,
    stop: () => new Promise((resolve) => { server.close(resolve); server.closeAllConnections(); }),
  };
}
