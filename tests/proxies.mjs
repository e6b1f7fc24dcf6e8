// proxies - EventSources behind the proxies of the README, while the server restarts.
//
//     npm install --prefix DIR eventsource playwright-core puppeteer-core
//     node tests/proxies.mjs ./sse DIR [nginx|haproxy|caddy...]
//
// npm's eventsource, and pages in Chromium and Firefox, each of the proxy's own origin and of another one
// with credentials, have a stream each. Then the server is away for five seconds at least: first the
// proxy's connections are reset, then they are refused, until every client has met both (behind haproxy,
// until Firefox has come: there a reset reaches the client as one, and Firefox gives up after some in a
// row). When the server is back on its port, each must have what is sent to it then, and nothing twice.
//
// Runs itself again in namespaces of its own, as root, where the ports are free and push.example.org is
// this machine. Prints "proxies: ok", or what was wrong, and exits 0 or 1.

import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { launch } from "./browsers.mjs";
import { start as startServer } from "./server.mjs";

const [program, modules, ...chosen] = process.argv.slice(2);
if (!process.env.SSE_PROXIES) {
  const work = mkdtempSync(path.join(os.tmpdir(), "sse-proxies."));
  const prepare = `ip link set lo up && echo 127.0.0.1 localhost push.example.org >"$0/hosts" &&
    mount --bind "$0/hosts" /etc/hosts && exec "$@"`;
  const command = ["sh", "-c", prepare, work, process.execPath, ...process.argv.slice(1)];
  const env = { ...process.env, SSE_PROXIES: work, NODE_TLS_REJECT_UNAUTHORIZED: "0" };
  const { status } = spawnSync("unshare", ["--net", "--mount", ...command], { stdio: "inherit", env });
  rmSync(work, { recursive: true, force: true });
  process.exit(status ?? 1);
}
const work = process.env.SSE_PROXIES;
const push = "https://push.example.org";
const other = "http://localhost:3000";
const patience = 60000; // milliseconds
const problems = [];
const start = () => startServer(program, "--port", "8080", "--retry", "200", "--cors", push, "--cors", other);

// Waits until the condition holds, for a minute at most.
async function eventually(what, condition) {
  for (const until = Date.now() + patience; !(await condition()); await sleep(20)) {
    if (Date.now() > until) throw new Error(`never: ${what}`);
  }
}

// In a page, or here: what its EventSource has got.
function listen([url, withCredentials]) {
  const source = new EventSource(url, { withCredentials });
  const seen = (globalThis.seen = { opened: 0, failed: 0, closed: false, got: [] });
  source.onopen = () => seen.opened++;
  source.onerror = () => (seen.closed = source.readyState === 2) || seen.failed++;
  source.onmessage = (e) => /^(before|after)$/.test(e.data) && seen.got.push(e.data);
  source.addEventListener("gap", (e) => seen.got.push(e.data));
}

// Listens where the server was, and resets the connections on which requests come, as long as `meanwhile`
// takes, which can ask whether Firefox has come.
async function resetting(meanwhile) {
  let firefox = false;
  const listener = net.createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", (head) => {
      firefox ||= String(head).includes("Firefox");
      socket.resetAndDestroy();
    });
  });
  listener.listen(8080, "127.0.0.1");
  await meanwhile(() => firefox).finally(() => listener.close());
}

async function take(name) {
  const proxy = spawn(fileURLToPath(new URL("proxy", import.meta.url)), [name, work], { stdio: ["ignore", "ignore", "pipe"] });
  const ended = once(proxy, "exit");
  let log = "";
  proxy.stderr.on("data", (text) => (log += text));
  const killed = () => proxy.kill();
  process.on("exit", killed);
  let server = await start();
  try {
    const answers = () => fetch(`${push}/health`).then((answer) => answer.ok, () => false);
    await eventually("the proxy starts", answers).catch((error) => {
      throw new Error(`${error.message}: ${log}`);
    });

    const clients = [{ is: "npm's eventsource", evaluate: async (f, argument) => f(argument) }];
    for (const browser of browsers) {
      for (const origin of [push, other]) {
        const page = await browser.page();
        await page.goto(`${origin}/health`);
        clients.push({ is: `${browser.name} at ${origin}`, evaluate: (f, argument) => page.evaluate(f, argument), origin });
      }
    }
    // Waits until each is so; that none gives up.
    const all = async (what, holds) => {
      for (const client of clients) {
        await eventually(`${client.is} ${what}`, async () => {
          client.seen = await client.evaluate(() => globalThis.seen);
          if (client.seen.closed) throw new Error(`${client.is} has given up before it ${what}`);
          return holds(client);
        });
      }
    };
    // Waits until that number has grown for each.
    const more = async (number, by, what) => {
      clients.forEach((client) => (client.least = client.seen[number] + by));
      await all(what, (client) => client.seen[number] >= client.least);
    };
    const send = (body) => fetch(`${push}/sse/send/alice`, { method: "POST", body });

    for (const client of clients) await client.evaluate(listen, [`${push}/sse/connect/alice`, client.origin === other]);
    await all("opens", ({ seen }) => seen.opened === 1);
    await send("before");
    await all("has the first message", ({ seen }) => seen.got.length === 1);

    await server.stop();
    const away = sleep(5000);
    await resetting((firefox) =>
      name === "haproxy" ? eventually("Firefox comes", firefox) : more("failed", 2, "comes while connections are reset"),
    );
    await more("opened", 1, "is told to come back when they are refused");
    await away;
    server = await start();
    await send("after");
    await all("has the message sent after the restart", ({ seen }) => seen.got.at(-1) === "after");
    for (const { is, seen } of clients) {
      if (seen.got.join() !== 'before,{"missed":null},after') problems.push(`${name}: ${is} got ${seen.got}`);
    }
  } catch (error) {
    problems.push(`${name}: ${error.message}`);
  } finally {
    await server.stop().catch(() => {});
    proxy.kill();
    await ended;
    process.off("exit", killed);
  }
}

globalThis.EventSource = createRequire(path.resolve(modules, "here"))("eventsource").EventSource;
const page = http.createServer((request, answer) => answer.end("here")).listen(3000, "127.0.0.1");
const browsers = [];
for (const name of ["chromium", "firefox"]) browsers.push(await launch(name, modules, { insecure: true }));
for (const name of chosen.length ? chosen : ["nginx", "haproxy", "caddy"]) {
  const began = Date.now();
  await take(name);
  console.log(`${name}: ${Date.now() - began} ms`);
}
for (const browser of browsers) await browser.close();
console.log(problems.length ? `proxies: ${problems.join("; ")}` : "proxies: ok");
process.exit(problems.length ? 1 : 0);
