// A reporter for `node --test`: one line for each test, with its file and the suites that it is in.
import path from 'node:path';

export default async function* lines(events) {
  yield `run ${process.env.RUN}\n`;
  const names = [];
  for await (const { type, data } of events) {
    if (type === 'test:start') {
      names.length = data.nesting;
      names.push(data.name);
    }
    if ((type !== 'test:pass' && type !== 'test:fail') || data.details?.type === 'suite') continue;
    // Tests that run at once start before others end: what is above is of this one all the same.
    const name = [...names.slice(0, data.nesting), data.name].join(' > ');
    const missed = data.skip !== undefined || data.todo !== undefined;
    const outcome = type === 'test:fail' ? 'FAIL' : missed ? 'skipped' : 'pass';
    yield `${outcome}  ${path.basename(data.file ?? '')}: ${name}\n`;
  }
}
