// browser - a real EventSource against a real server.
//
//     npm install --prefix DIR playwright-core
//     node tests/browser.mjs ./sse DIR [/usr/bin/chromium]
//
// Bodies of any UTF-8 up to the limit must arrive in the browser as they were sent, but for line
// ends, which the format makes LF; after a restart of the server the browser must come back by
// itself and be told that messages may be missing; a disconnect with hold must make it stay away.
// Prints "browser: ok", or what was wrong, and exits 0 or 1.

import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import path from "node:path";

const [program, modules, browserPath = "/usr/bin/chromium"] = process.argv.slice(2);
const { chromium } = createRequire(path.resolve(modules, "here"))("playwright-core");
const problems = [];

function start(port) {
  return new Promise((resolve, reject) => {
    const server = spawn(program, ["-q", "--port", String(port), "--retry", "200"], {
      stdio: ["ignore", "pipe", "ignore"],
    });
    server.on("error", reject);
    server.stdout.on("data", (line) => {
      resolve({ server, port: Number(/:(\d+)\s*$/.exec(line.toString())[1]) });
    });
  });
}

function stop(server) {
  return new Promise((resolve) => {
    server.on("exit", resolve);
    server.kill("SIGTERM");
  });
}

// Text of `length` bytes, more or less, from all planes of Unicode and with every kind of line end.
function text(length, seed) {
  let random = seed;
  const next = (limit) => (random = (random * 1103515245 + 12345) % 2147483648) % limit;
  const pieces = ["a", " ", ":", "\r", "\n", "\r\n", "é", "€", "😀", "\u{10FFFF}", "\u2028", "\uFEFF", "data: ", "\t", "\u0001"];
  let out = "";
  let bytes = 0;
  while (bytes < length - 6) {
    const piece = next(3) ? String.fromCodePoint(32 + next(0xd000)) : pieces[next(pieces.length)];
    out += piece;
    bytes += Buffer.byteLength(piece);
  }
  return out;
}

const { server, port } = await start(0);
const browser = await chromium.launch({
  executablePath: browserPath,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const url = `http://127.0.0.1:${port}`;
const send = (body, query = "") => fetch(`${url}/sse/send/alice${query}`, { method: "POST", body });
const page = await browser.newPage();
await page.goto(`${url}/health`);
await page.evaluate(() => {
  window.got = [];
  window.gaps = [];
  window.ticks = [];
  window.source = new EventSource("/sse/connect/alice");
  window.source.onmessage = (e) => {
    if (!e.data.startsWith("<3") && !e.data.startsWith("User 'alice'")) window.got.push(e.data);
  };
  window.source.addEventListener("gap", (e) => window.gaps.push(e.data));
  window.source.addEventListener("tick", (e) => window.ticks.push([e.data, e.lastEventId]));
  return new Promise((resolve) => (window.source.onopen = resolve));
});

const bodies = ["", "plain", "\n", "a\rb\nc\r\nd\n\re", " leading", "  two", "\n\n\n", "id: 7\nevent: x\n\ndata: y"];
for (let i = 1; i <= 24; i++) bodies.push(text(i < 20 ? i * 97 : 65536, i));
for (const body of bodies) {
  const answer = await send(body);
  if (answer.status !== 202) problems.push(`a body of ${Buffer.byteLength(body)} bytes got ${answer.status}`);
}
await page.waitForFunction((n) => window.got.length >= n, bodies.length);
const got = await page.evaluate(() => window.got);
bodies.forEach((body, i) => {
  if (got[i] !== body.replace(/\r\n|\r/g, "\n")) problems.push(`body ${i} came changed`);
});

const receipt = await (await send("tock", "?event=tick")).json();
await page.waitForFunction(() => window.ticks.length > 0);
const [tick] = await page.evaluate(() => window.ticks);
if (tick[0] !== "tock" || tick[1] !== receipt.id) problems.push(`an event came as ${tick}`);

await stop(server);
const again = (await start(port)).server;
await page.waitForFunction(() => window.gaps.length > 0);
const gaps = await page.evaluate(() => window.gaps);
if (gaps.length !== 1 || gaps[0] !== '{"missed":null}') problems.push(`after the restart: ${gaps}`);
await send("after the restart");
await page.waitForFunction(() => window.got.at(-1) === "after the restart");

await fetch(`${url}/sse/disconnect/alice?hold=60`, { method: "POST" });
await page.waitForFunction(() => window.source.readyState === EventSource.CLOSED);

await browser.close();
await stop(again);
console.log(problems.length ? `browser: ${problems.join("; ")}` : "browser: ok");
process.exit(problems.length ? 1 : 0);
