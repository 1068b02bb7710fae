// An application behind the proxy, and somebody who has logged in to it at oidc-provider in Chromium.
import path from 'node:path';
import { HOST, openStage as openEmptyStage } from '../e2e/stage.mjs';
import { logInAtProvider, openBrowser, ROOT, start } from '../e2e/support.mjs';

export { HOST };
// Where the applications are installed by tools.sh.
const BIN = path.join(ROOT, '.tools/apps/bin');

// Starts everything. `launch(port, folder)` gives the program of .tools/apps, its arguments and environment, and the
// text that says that it is up; `scheme` is how the proxy reaches it; `first` is where the user comes first.
export async function openStage({ launch, scheme = 'http', first, user = 'bob' }) {
  const run = (port, folder) => {
    const { program, args, env, ready } = launch(port, folder);
    return start(path.join(BIN, program), args, { env, cwd: folder, ready: (text) => text.includes(ready) });
  };
  const stage = await openEmptyStage({
    launch: run, scheme, limits: '{ shutdownDelay: 0s, drain: 2s }',
    endpoints: [
      '{ URI: /admin.Admin/*, methods: ["*"], allowedScopes: [[groups=admin]] }',
      '{ URI: /*, methods: ["*"], allowedScopes: [[groups=staff]] }',
    ],
  });
  const browser = await openBrowser();
  const stop = async () => { await browser.close(); await stage.stop(); };
  try {
    const page = await browser.context.newPage();
    await page.goto(`${stage.base}${first}`);
    await logInAtProvider(page, user);
    const cookies = await browser.context.cookies(stage.base);
    const session = cookies.filter(({ name }) => name.startsWith('__Host-portcullis')).map(({ name, value }) => `${name}=${value}`).join('; ');
    return { ...stage, page, session, bin: BIN, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
