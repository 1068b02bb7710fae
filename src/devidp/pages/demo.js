"use strict";
const out = document.getElementById("out");
const NAMES = { 200: "OK", 201: "Created", 401: "Unauthorized", 403: "Forbidden", 405: "Method Not Allowed", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout" };
let running = null;

async function call(method, path) {
  running?.abort();
  const stop = running = new AbortController();
  const say = (text) => { if (running === stop) out.textContent += text; };
  out.textContent = `${method} ${path}\n`;
  try {
    const answer = await fetch(path, { method, signal: stop.signal, headers: { Accept: "application/json" } });
    say(`\n${answer.status} ${NAMES[answer.status] ?? answer.statusText}\n`);
    for (const name of ["WWW-Authenticate", "Content-Type"]) {
      if (answer.headers.has(name)) say(`${name}: ${answer.headers.get(name)}\n`);
    }
    say("\n");
    if ((answer.headers.get("Content-Type") ?? "").startsWith("text/event-stream")) {
      const parts = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let count = 0; count < 5; count++) {
        const { done, value } = await parts.read();
        if (done) return;
        say(value);
      }
      stop.abort();
      out.textContent += "(enough)\n";
      return;
    }
    const text = await answer.text();
    try { say(JSON.stringify(JSON.parse(text), null, 2)); } catch { say(text); }
  } catch (error) {
    if (error.name !== "AbortError") say(`\n${error}\n`);
  }
}

for (const button of document.querySelectorAll("[data-path]")) {
  button.addEventListener("click", () => call(button.dataset.method, button.dataset.path));
}
