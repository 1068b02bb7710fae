// An application on Node's http: answers with the method and the target, and writes down every request that it read to
// its end: method, target, and body in hex, with tabs between. Arguments: port, file.
import fs from 'node:fs';
import http from 'node:http';

const [port, file] = process.argv.slice(2);
const log = fs.openSync(file, 'a');
const server = http.createServer({ keepAliveTimeout: 600_000, requestTimeout: 0 }, (request, response) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    fs.writeSync(log, `${request.method}\t${request.url}\th:${Buffer.concat(chunks).toString('hex')}\n`);
    response.end(`${request.method} ${request.url}`);
  });
});
server.listen(Number(port), '127.0.0.1');
