// The npm package eventsource, as a client of tests/clients.mjs.
//
//     npm install --prefix DIR eventsource
//     node tests/clients/eventsource.mjs URL DIR
//
// Prints a line of JSON for each event, and {"closed":true} once it has given up.

import { createRequire } from "node:module";
import path from "node:path";

const [url, modules] = process.argv.slice(2);
const { EventSource } = createRequire(path.resolve(modules, "here"))("eventsource");
const print = (object) => process.stdout.write(JSON.stringify(object) + "\n");

const source = new EventSource(url);
for (const type of ["message", "tick", "gap", "disconnected"]) {
  source.addEventListener(type, (e) => print({ id: e.lastEventId, event: e.type, data: e.data }));
}
source.onerror = () => source.readyState === EventSource.CLOSED && print({ closed: true });
