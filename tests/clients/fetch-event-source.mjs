// The npm package @microsoft/fetch-event-source, as a client of tests/clients.mjs.
//
//     npm install --prefix DIR @microsoft/fetch-event-source
//     node tests/clients/fetch-event-source.mjs URL DIR
//
// Prints a line of JSON for each event, and {"closed":true} once it has given up. The package makes an
// event of any block, also of one without data. It comes back after a stream that ended in order only
// if onclose() throws. It is written for browsers, and looks for window and document.

import { createRequire } from "node:module";
import path from "node:path";

const [url, modules] = process.argv.slice(2);
globalThis.window = globalThis;
globalThis.document = { addEventListener() {}, removeEventListener() {} };
const { fetchEventSource } = createRequire(path.resolve(modules, "here"))("@microsoft/fetch-event-source");
const print = (object) => process.stdout.write(JSON.stringify(object) + "\n");

class Rejected extends Error {}
await fetchEventSource(url, {
  async onopen(answer) {
    if (answer.status !== 200) throw new Rejected();
  },
  onmessage: ({ id, event, data }) => print({ id, event: event || "message", data }),
  onclose() {
    throw new Error("the stream has ended");
  },
  onerror(error) {
    if (error instanceof Rejected) throw error;
  },
}).catch(() => print({ closed: true }));
