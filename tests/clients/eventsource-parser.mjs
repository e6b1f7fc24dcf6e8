// The npm package eventsource-parser, as a client of tests/clients.mjs: over fetch(), or over what
// curl prints.
//
//     npm install --prefix DIR eventsource-parser
//     node tests/clients/eventsource-parser.mjs URL DIR fetch|curl
//
// Prints a line of JSON for each event and each retry, and {"closed":true} once it is answered other
// than with a stream. A parser does not reconnect, nor does `curl -N`: this does, with Last-Event-ID,
// after the time that it was told.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const [url, modules, transport] = process.argv.slice(2);
const { createParser } = createRequire(path.resolve(modules, "here"))("eventsource-parser");
const print = (object) => process.stdout.write(JSON.stringify(object) + "\n");

let lastId = "";
let retry = 3000;

const parser = createParser({
  onEvent({ id, event, data }) {
    if (id !== undefined) lastId = id;
    print({ id, event: event ?? "message", data });
  },
  onRetry(ms) {
    retry = ms;
    print({ retry });
  },
  onError: (error) => print({ problem: error.message }),
});

// Each hands its bytes to feed(), and returns the status, or undefined if there was no answer.
const transports = {
  async fetch(headers, feed) {
    let status;
    try {
      const answer = await fetch(url, { headers });
      status = answer.status;
      for await (const bytes of answer.body ?? []) feed(bytes);
    } catch {
      // turned away, or cut off: the same as an end
    }
    return status;
  },
  async curl(headers, feed) {
    const fields = Object.entries(headers).flatMap((field) => ["-H", field.join(": ")]);
    const curl = spawn("curl", ["-sN", "--fail", "--noproxy", "*", "-w", "%{stderr}%{http_code}", ...fields, url]);
    let status = "";
    curl.stdout.on("data", feed);
    curl.stderr.on("data", (text) => (status += text));
    await once(curl, "close");
    return Number(status) || undefined;
  },
};

for (;;) {
  const decoder = new TextDecoder();
  const status = await transports[transport](lastId ? { "Last-Event-ID": lastId } : {}, (bytes) =>
    parser.feed(decoder.decode(bytes, { stream: true })),
  );
  parser.reset();
  if (status !== undefined && status !== 200) break;
  await sleep(retry);
}
print({ closed: true });
