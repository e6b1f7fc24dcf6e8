// libraries - what stands between the server and a page in practice: a development server that
// compresses, and a polyfill that sends fields of its own.
//
//     npm install --prefix DIR playwright-core eventsource1@npm:eventsource@1 express compression http-proxy-middleware
//     node tests/libraries.mjs ./sse DIR
//
// Express with compression and http-proxy-middleware must pass each message on at once to a client
// that accepts gzip. The browser build of eventsource 1 must connect from a page of another origin in
// Chromium, and resume after a restart. Prints "libraries: ok", or what was wrong, and exits 0 or 1.

import { once } from "node:events";
import { createRequire } from "node:module";
import path from "node:path";
import { launch } from "./browsers.mjs";
import { start as startServer } from "./server.mjs";

const [program, modules] = process.argv.slice(2);
const require = createRequire(path.resolve(modules, "here"));
const express = require("express");

// Keep-alives are an hour apart: none pushes a message out of a buffer.
const start = (port) => startServer(program, "--port", String(port), "--retry", "200", "--heartbeat", "3600", "--cors", origin);
const send = (to, body) => fetch(to, { method: "POST", body });

// The development server has a page with the polyfill, and passes the rest on to the server.
const app = express();
app.use(require("compression")());
app.use("/polyfill", express.static(path.join(path.dirname(require.resolve("eventsource1/package.json")), "example")));
app.get("/page", (_, answer) => answer.send('<!doctype html><script src="/polyfill/eventsource-polyfill.js"></script>'));
const listener = app.listen(0, "127.0.0.1");
await once(listener, "listening");
const origin = `http://127.0.0.1:${listener.address().port}`;
let server = await start(0);
const { url, port } = server;
app.use(require("http-proxy-middleware").createProxyMiddleware({ target: url }));

async function developmentServer() {
  const described = await fetch(`${origin}/openapi.json`);
  if (!described.headers.get("content-encoding")) throw new Error("it does not compress");
  const stream = await fetch(`${origin}/sse/connect/alice`, { signal: AbortSignal.timeout(10000) });
  let got = "";
  let sent;
  for await (const text of stream.body.pipeThrough(new TextDecoderStream())) {
    got += text;
    if (got.includes("data: User 'alice' connected\n\n")) sent ??= await send(`${origin}/sse/send/alice`, "hello");
    if (got.includes("data: hello\n\n")) return;
  }
  throw new Error(`the stream ends after ${JSON.stringify(got)}`);
}

// The page is the development server's, its stream comes straight from the server.
async function polyfill() {
  const browser = await launch("chromium", modules);
  const page = await browser.page();
  const due = [];
  const arrives = async (...events) => {
    due.push(...events);
    await page.until((n) => window.got.length >= n, due.length).catch(() => {});
    const got = await page.evaluate(() => window.got);
    if (got.join() !== due.join()) throw new Error(`came ${JSON.stringify(got)}, not ${JSON.stringify(due)}; ${page.problems.slice(-2)}`);
  };
  try {
    await page.goto(`${origin}/page`);
    await page.evaluate((url) => {
      window.got = [];
      const source = new EventSourcePolyfill(url);
      const take = (e) => e.data.startsWith("<3") || window.got.push(`${e.type}: ${e.data}`);
      for (const type of ["message", "gap"]) source.addEventListener(type, take);
    }, `${url}/sse/connect/bob`);
    await arrives("message: User 'bob' connected");
    await send(`${url}/sse/send/bob`, "hello");
    await arrives("message: hello");
    await server.stop();
    server = await start(port);
    await arrives('gap: {"missed":null}', "message: User 'bob' connected"); // told only who resumes
    await send(`${url}/sse/send/bob`, "hello again");
    await arrives("message: hello again");
  } finally {
    await browser.close();
  }
}

const problems = [];
for (const test of [developmentServer, polyfill]) await test().catch((error) => problems.push(`${test.name}: ${error.message}`));
await server.stop();
console.log(problems.length ? `libraries: ${problems.join("; ")}` : "libraries: ok");
process.exit(problems.length ? 1 : 0);
