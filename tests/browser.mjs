// browser - a real EventSource against a real server.
//
//     npm install --prefix DIR playwright-core
//     node tests/browser.mjs ./sse DIR [CERT KEY SECRET]
//
// Bodies of any UTF-8 up to the limit must arrive in the browser as they were sent, but for line
// ends, which the format makes LF; after a restart of the server the browser must come back by
// itself and be told that messages may be missing; a disconnect with hold must make it stay away.
// With a certificate, its key and a file with a secret, in a build with OpenSSL, all of that goes over
// HTTPS, and then a page of another origin uses a server that asks for tokens: it may if it is listed,
// after a preflight, and learns of refusals; a page that is not listed learns nothing.
// Prints "browser: ok", or what was wrong, and exits 0 or 1.

import { readFileSync } from "node:fs";
import { launch } from "./browsers.mjs";
import { mint, start as startServer } from "./server.mjs";

const [program, modules, cert, key, secretFile] = process.argv.slice(2);
if (cert) process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0"; // the certificate is its own authority
const problems = [];

const secure = cert ? ["--cert", cert, "--key", key] : [];
const start = (port, ...options) => startServer(program, "--port", String(port), "--retry", "200", ...secure, ...options);

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

const token = (claims) => mint(readFileSync(secretFile, "utf8").replace(/\n$/, ""), claims);

// A blank page of that origin.
async function pageOf(origin) {
  const page = await browser.page();
  await page.route(origin + "/", (route) => route.fulfill({ contentType: "text/html", body: "<p>here" }));
  await page.goto(origin + "/");
  return page;
}

async function useTokens() {
  const server = await start(0, "--auth-secret", secretFile, "--cors", "https://app.example");
  const { url } = server;
  const bob = token({ sub: "bob", scope: "sse:publish" });
  const ask = ([url, method, token]) =>
    fetch(url, { method, credentials: "include", headers: token ? { Authorization: `Bearer ${token}` } : {}, body: method === "POST" ? "hello" : undefined })
      .then(async (answer) => `${answer.status} ${(await answer.text()).slice(0, 8)}`, () => "kept out");
  const expect = (what, expected, got) => got.startsWith(expected) || problems.push(`${what}: ${got}`);

  const listed = await pageOf("https://app.example");
  expect("with a token", "202 {", await listed.evaluate(ask, [`${url}/sse/send/bob`, "POST", bob]));
  expect("without", "401 {", await listed.evaluate(ask, [`${url}/sse/send/bob`, "POST"]));
  expect("for what it is not for", "403 {", await listed.evaluate(ask, [`${url}/sse/users`, "GET", bob]));
  const listen = ([url, millis]) =>
    new Promise((resolve) => {
      const source = new EventSource(url, { withCredentials: true });
      const got = [];
      source.onmessage = (e) => got.push(e.data) && e.data === "hello" && resolve("hello");
      source.onerror = () => source.readyState === EventSource.CLOSED && resolve("closed");
      setTimeout(() => resolve(`only ${got}`), millis);
    });
  expect("an EventSource with a token", "hello", await listed.evaluate(listen, [`${url}/sse/connect/bob?access_token=${bob}`, 20000]));
  expect("without one", "closed", await listed.evaluate(listen, [`${url}/sse/connect/bob`, 20000]));
  const brief = token({ sub: "carol", exp: Math.floor(Date.now() / 1000) + 2 });
  expect("whose token expires", "closed", await listed.evaluate(listen, [`${url}/sse/connect/carol?access_token=${brief}`, 20000]));

  const foreign = await pageOf("https://evil.example");
  expect("a page that is not listed", "kept out", await foreign.evaluate(ask, [`${url}/sse/send/bob`, "POST", bob]));
  expect("its EventSource", "closed", await foreign.evaluate(listen, [`${url}/sse/connect/bob?access_token=${bob}`, 20000]));
  await server.stop();
}

const server = await start(0);
const { url, port } = server;
const browser = await launch("chromium", modules, { insecure: true });
const send = (body, query = "") => fetch(`${url}/sse/send/alice${query}`, { method: "POST", body });
const page = await browser.page();
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

await server.stop();
const again = await start(port);
await page.waitForFunction(() => window.gaps.length > 0);
const gaps = await page.evaluate(() => window.gaps);
if (gaps.length !== 1 || gaps[0] !== '{"missed":null}') problems.push(`after the restart: ${gaps}`);
await send("after the restart");
await page.waitForFunction(() => window.got.at(-1) === "after the restart");

await fetch(`${url}/sse/disconnect/alice?hold=60`, { method: "POST" });
await page.waitForFunction(() => window.source.readyState === EventSource.CLOSED);

await again.stop();
if (cert) await useTokens();
await browser.close();
console.log(problems.length ? `browser: ${problems.join("; ")}` : "browser: ok");
process.exit(problems.length ? 1 : 0);
