// clients - clients that people use, each taken through a lost stream and a restart.
//
//     npm install --prefix DIR eventsource eventsource-parser @microsoft/fetch-event-source playwright-core puppeteer-core
//     node tests/clients.mjs ./sse DIR [NAME...]
//
// Every client has a server of its own, and all run at once. What must arrive, in this order, each
// message once and as it was sent but for line ends, which the format makes LF:
//
//   1. the greeting, a keep-alive, messages of every kind, and one after more keep-alives;
//   2. after the server has ended the stream, what was sent meanwhile. Another stream of the user has
//      had it by then, so a client gets it only if it resumes where it was;
//   3. after a restart on the same port, where the first to come is turned away, `gap`, then what was
//      sent to the new server;
//   4. a disconnect with hold: 204 makes it stay away, if it knows what that means.
//
// A client whose tool is missing is skipped; with CI=true that is a failure. Names say which clients
// to run. Prints the times of each, and "clients: ok" or what was wrong, and exits 0 or 1.

import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { launch, missing } from "./browsers.mjs";
import { start as startServer } from "./server.mjs";

const [program, modules, ...chosen] = process.argv.slice(2);
const here = path.dirname(fileURLToPath(import.meta.url));
const work = mkdtempSync(path.join(os.tmpdir(), "sse-clients."));
process.on("exit", () => rmSync(work, { recursive: true, force: true }));

const retry = 500; // Firefox waits no less than that
const patience = 60000; // milliseconds; on a busy machine a browser may need some of it to start

// ---- The server --------------------------------------------------------------------------------

const start = (port, options) => startServer(program, "--port", String(port), "--retry", String(retry), "--heartbeat", "1", ...options);

// One request on a connection of its own, which a restart cannot cut off.
async function ask(port, method, target, body) {
  const request = http.request({ host: "127.0.0.1", port, method, path: target, agent: false });
  request.end(body);
  const [answer] = await once(request, "response");
  answer.setEncoding("utf8");
  let text = "";
  for await (const part of answer) text += part;
  if (answer.statusCode >= 300) throw new Error(`${method} ${target} got ${answer.statusCode} ${text}`);
  return JSON.parse(text);
}

// Another stream of the user, from the newest message on; seen() ends it when it has had that text so often.
async function watch(port, target) {
  const request = http.get({ host: "127.0.0.1", port, path: target, agent: false });
  const [answer] = await once(request, "response");
  answer.setEncoding("utf8");
  let text = "";
  answer.on("data", (part) => (text += part));
  answer.on("error", () => {}); // it is cut off below
  request.on("error", () => {});
  return {
    seen: (part, times = 1) =>
      eventually(`another stream of the user gets ${part}`, () => text.split(part).length > times).finally(() =>
        request.destroy(),
      ),
  };
}

// Listens where the server was, and cuts off who comes, until somebody has.
async function turnAway(port) {
  let came = false;
  const listener = net.createServer((socket) => {
    came = true;
    socket.on("error", () => {});
    socket.destroy();
  });
  listener.listen(port, "127.0.0.1");
  await once(listener, "listening");
  await eventually("it comes while the server is away", () => came);
  listener.close();
  await once(listener, "close");
}

// Waits until the condition holds, for a minute at most.
async function eventually(what, condition) {
  for (const until = Date.now() + patience; !condition(); await sleep(10)) {
    if (Date.now() > until) throw new Error(`never: ${what}`);
  }
}

// ---- Clients -----------------------------------------------------------------------------------

// What a client has got: events in order, the retries that it shows, whether it has given up.
class Client {
  events = [];
  retries = [];
  closed = false;
  failure = "";
  take(line) {
    if (line.closed) this.closed = true;
    else if (line.problem) this.failure ||= line.problem;
    else if (line.retry !== undefined) this.retries.push(line.retry);
    else if (!line.data.startsWith("<3") || this.events.at(-1)?.data.endsWith(" connected")) this.events.push(line);
    // else: a keep-alive that comes when its time has come, not the one that a stream begins with
  }
}

// A program that prints its events. It is ended by timeout(1) should this one be killed.
function child(command, ...args) {
  return async (url) => {
    const client = new Client();
    const running = spawn("timeout", ["120", command, ...args.map((arg) => (arg === "URL" ? url : arg))], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    const ended = once(running, "close").then(() => client.closed || (client.failure ||= `it ended: ${errors}`));
    let errors = "";
    running.stderr.on("data", (text) => (errors += text));
    createInterface({ input: running.stdout }).on("line", (line) => client.take(JSON.parse(line)));
    client.close = () => {
      running.kill("SIGTERM");
      return ended;
    };
    return client;
  };
}

// A page of the server's own origin with an EventSource.
function inPage(name) {
  return async (url) => {
    const browser = await launch(name, modules);
    const client = new Client();
    const page = await browser.page();
    await page.goto(new URL("/health", url).href);
    await page.evaluate((url) => {
      window.lines = [];
      const source = new EventSource(url);
      for (const type of ["message", "tick", "gap", "disconnected"]) {
        source.addEventListener(type, (e) => window.lines.push({ id: e.lastEventId, event: e.type, data: e.data }));
      }
      source.onerror = () => source.readyState === EventSource.CLOSED && window.lines.push({ closed: true });
    }, url);
    let open = true;
    const polled = (async () => {
      for (; open; await sleep(20)) (await page.evaluate(() => window.lines.splice(0))).forEach((line) => client.take(line));
    })().catch((error) => (client.failure ||= error.message));
    client.close = async () => {
      open = false;
      await polled;
      await browser.close();
    };
    return client;
  };
}

const runs = (...command) => {
  try {
    return execFileSync(command[0], command.slice(1), { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
  } catch {
    return undefined;
  }
};
const installed = (name) => {
  try {
    return createRequire(path.resolve(modules, "here"))(`${name}/package.json`).version;
  } catch {
    return undefined;
  }
};
const script = (name) => path.join(here, "clients", name);

// For Go: Debian's libraries, which are no modules, and no cache outside of here.
process.env.GOPATH ??= "/usr/share/gocode";
Object.assign(process.env, { GO111MODULE: "off", GOCACHE: path.join(work, "go") });

// needs() names what is missing. `obeys`: it stays away when it is answered 204. Its server has `options`.
// `loses`: the empty lines that it does not show where data begins with them.
const clients = {
  curl: {
    needs: () => (!runs("curl", "--version") && "curl") || (!installed("eventsource-parser") && "eventsource-parser"),
    open: child(process.execPath, script("eventsource-parser.mjs"), "URL", modules, "curl"),
    obeys: true,
  },
  "eventsource-parser": {
    needs: () => !installed("eventsource-parser") && "eventsource-parser",
    open: child(process.execPath, script("eventsource-parser.mjs"), "URL", modules, "fetch"),
    obeys: true,
  },
  eventsource: {
    needs: () => !installed("eventsource") && "eventsource",
    open: child(process.execPath, script("eventsource.mjs"), "URL", modules),
    obeys: true,
  },
  "fetch-event-source": {
    needs: () => !installed("@microsoft/fetch-event-source") && "@microsoft/fetch-event-source",
    open: child(process.execPath, script("fetch-event-source.mjs"), "URL", modules),
    obeys: true,
    options: ["--greeting-as=event", "--heartbeat-as=comment"], // so that all its messages are the sender's
    loses: /^\n+/,
  },
  python: {
    needs: () => !runs("python3", "--version") && "python3",
    open: child("python3", script("client.py"), "URL"),
    obeys: true,
  },
  go: {
    needs: () =>
      (!runs("go", "version") && "go") ||
      (!runs("go", "list", "github.com/donovanhide/eventsource") && "github.com/donovanhide/eventsource"),
    async open(url) {
      const build = spawn("go", ["build", "-o", path.join(work, "client"), script("client.go")], { stdio: "inherit" });
      const [status] = await once(build, "close");
      if (status !== 0) throw new Error("go does not build it");
      return child(path.join(work, "client"), "URL")(url);
    },
    obeys: false,
  },
  chromium: { needs: () => missing("chromium", modules), open: inPage("chromium"), obeys: true },
  firefox: { needs: () => missing("firefox", modules), open: inPage("firefox"), obeys: true },
};

// ---- What each is taken through ----------------------------------------------------------------

const messages = [
  ["plain"],
  ["one\r\ntwo\rthree\nfour"],
  ["Grüße, 世界 😀 👩‍👩‍👧 \u{10FFFF}\u2028\uFEFF"],
  [""],
  ["tock", "tick"],
  ["\n"],
  [" leading: id: 7\n\nevent: x\n\n"],
  ['{"a":[1,2]}', "tick"],
  ["x".repeat(20000)],
];

async function take(name, { open, obeys, options = [], loses = "" }) {
  const user = `${name} ü`;
  const route = (verb) => `/sse/${verb}/${encodeURIComponent(user)}`;
  let server = await start(0, options);
  const port = server.port;
  const due = [];
  let client;

  // What a client has got that was not due; an event that is due without an id may have any.
  const show = (event) => JSON.stringify(event)?.slice(0, 200) ?? "nothing";
  const wrong = () => {
    const i = client.events.findIndex((got, i) => !due[i] || Object.keys(due[i]).some((key) => got[key] !== due[i][key]));
    return i < 0 ? "" : `event ${i} is ${show(client.events[i])}, not ${show(due[i])}`;
  };
  const arrives = async (...events) => {
    due.push(...events);
    const all = () => client.events.length >= due.length;
    await eventually("it arrives", () => client.failure || wrong() || all()).catch(() => {});
    const problem = client.failure || wrong() || (all() ? "" : `never came: ${show(due[client.events.length])}`);
    if (problem) throw new Error(problem);
  };
  const greeting = { event: options.includes("--greeting-as=event") ? "connected" : "message", data: `User '${user}' connected` };
  const keepAlives = options.includes("--heartbeat-as=comment") ? [] : [{ event: "message", data: "<3: Keep alive" }];
  const disconnected = { event: "disconnected", data: `User '${user}' disconnected` };
  const send = async (body, event) => {
    const receipt = await ask(port, "POST", route("send") + (event ? `?event=${event}` : ""), body);
    due.push({ id: receipt.id, event: event ?? "message", data: body.replace(/\r\n|\r/g, "\n").replace(loses, "") });
    return receipt;
  };
  // It must not come back sooner than it was last told to.
  const cameBack = (since, told) => {
    const ms = Date.now() - since;
    if (ms < told * 0.9) throw new Error(`it was told to come back after ${told} ms, and came after ${ms}`);
    return ms;
  };

  try {
    client = await open(`http://127.0.0.1:${port}${route("connect")}`);
    await arrives(greeting, ...keepAlives);
    for (const message of messages) await send(...message);
    await (await watch(port, route("connect"))).seen("<3: Keep alive\n", 3);
    await send("after keep-alives");
    await arrives();
    if (client.retries.length && client.retries.join() !== String(retry)) {
      throw new Error(`it was told to retry after ${client.retries}`);
    }

    // Until it has been away for all that was sent; a busy machine may make that more than one try.
    let away = false;
    let back = 0;
    for (let tries = 1; !away; tries++) {
      if (tries > 5) throw new Error("it comes back too soon for anything to be sent meanwhile");
      const last = due.findLast((event) => event.id).id;
      const since = Date.now();
      await ask(port, "POST", route("disconnect"));
      due.push(disconnected, { ...greeting, id: last }, ...keepAlives);
      const other = await watch(port, route("connect"));
      const receipts = [];
      for (const body of ["meanwhile", "mean\nwhile", "and 😀"]) receipts.push(await send(body));
      await other.seen(`id: ${receipts.at(-1).id}\n`);
      await arrives();
      back = cameBack(since, retry);
      away = receipts.every((receipt) => receipt.streams === 1);
    }
    await send("live again");
    await arrives();

    const since = Date.now();
    const retries = client.retries.length;
    await server.stop();
    server = undefined;
    await turnAway(port);
    let told = retry;
    if (retries) {
      await eventually("it is told when to come back", () => client.retries.length > retries);
      told = client.retries.at(-1);
    }
    cameBack(since, told);
    if (told < retry || told > 5 * retry) throw new Error(`at the end it was told to retry after ${told} ms`);
    server = await start(port, options);
    due.push({ event: "gap", data: '{"missed":null}' }, greeting, ...keepAlives);
    await send("from the new server");
    await arrives();
    const restarted = Date.now() - since;
    await send("the last one");
    await arrives();

    if (obeys) {
      await ask(port, "POST", route("disconnect") + "?hold=60");
      await arrives(disconnected);
      await eventually("it stays away when it is answered 204", () => client.closed);
      await arrives();
    }
    return `back ${back} ms after a disconnect, ${restarted} ms after a stop`;
  } finally {
    await client?.close();
    await server?.stop();
  }
}

const problems = [];
await Promise.all(
  Object.entries(clients).map(async ([name, client]) => {
    if (chosen.length && !chosen.includes(name)) return;
    const began = Date.now();
    try {
      const need = client.needs();
      if (need) {
        console.log(`SKIPPED ${name}: ${need} is missing`);
        if (process.env.CI === "true") problems.push(`${name}: ${need} is missing`);
        return;
      }
      const times = await take(name, client);
      console.log(`${name}: ${times}; ${Date.now() - began} ms in all`);
    } catch (error) {
      problems.push(`${name}: ${error.message}`);
    }
  }),
);
console.log(problems.length ? `clients: ${problems.join("; ")}` : "clients: ok");
process.exit(problems.length ? 1 : 0);
