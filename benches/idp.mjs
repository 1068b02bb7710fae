// The provider of the end-to-end tests, for the benchmark: one client with a callback for every proxy.
//
//   node idp.mjs PORT CALLBACK...      prints "ready"
import { CLIENT_ID, startIdp } from '../tests/e2e/idp.mjs';

const [port, ...callbacks] = process.argv.slice(2);
await startIdp({
  port: Number(port), redirectUri: callbacks, clientSecret: process.env.CLIENT_SECRET, pkceRequired: false,
});
console.log(`ready ${CLIENT_ID}`);
