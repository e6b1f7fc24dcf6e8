// page - is the page at / what it says, in Chromium and in Firefox?
//
//     npm install --prefix DIR playwright-core puppeteer-core axe-core
//     node tests/page.mjs ./sse DIR [chromium|firefox [SHOTS]]
//
// Takes a build with OpenSSL, for the part with tokens. In that browser, or both, with a real server: every
// route is listed and can be tried, and its line for curl does the same in a shell; streams are opened
// by keyboard and closed, several at once, and show every kind of event; users are shown as they come;
// when the server is stopped and started again the page says so, is back by itself and shows that
// messages may be missing. It works below a proxy's path as well. Nothing that is sent to a user runs as a
// script; axe-core finds nothing, in light and dark and on the width of a phone, and there every control is
// large enough and reached with Tab. Delays from a send to the page are printed, not judged.
// With SHOTS, a folder, screenshots go there. A browser that is missing is skipped; with CI=true that
// is a failure. Prints "page: ok", or what was wrong, and exits 0 or 1.

import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { pipeline } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { launch, missing } from "./browsers.mjs";
import { mint, start as startServer } from "./server.mjs";

const [program, modules, chosen, shots] = process.argv.slice(2);
const axe = readFileSync(createRequire(path.resolve(modules, "here")).resolve("axe-core/axe.min.js"), "utf8");
const folder = mkdtempSync(path.join(tmpdir(), "sse-page."));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
const problems = [];
const kept = []; // streams whose answers would else be collected, and closed
let now; // what is being looked at

function is(what, expected, got) {
  if (got !== expected) problems.push(`${now}: ${what}: expected ${JSON.stringify(expected)}, got ${JSON.stringify(got)}`);
}

// ---- The server --------------------------------------------------------------------------------

async function start(port, ...options) {
  const server = await startServer(program, "--port", String(port), "--retry", "300", "--heartbeat", "1", ...options);
  const ask = (at, body) => fetch(server.url + at, { method: body === undefined ? "GET" : "POST", body });
  return { ...server, ask };
}

// A proxy that serves all of the server below /push/, and notes what is asked for elsewhere.
async function proxyTo(server) {
  const elsewhere = [];
  const proxy = http.createServer((request, response) => {
    const { url, method, headers } = request;
    if (!url.startsWith("/push/")) {
      elsewhere.push(url);
      return response.writeHead(404).end();
    }
    const onward = http.request(server.url + url.slice(5), { method, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      pipeline(answer, response, () => {});
    });
    pipeline(request, onward, (error) => error && response.destroy());
    response.on("close", () => onward.destroy());
  });
  await new Promise((done) => proxy.listen(0, "127.0.0.1", done));
  const stop = () => (proxy.close(), proxy.closeAllConnections());
  return { at: `127.0.0.1:${proxy.address().port}/push/`, elsewhere, stop };
}

// ---- What the page shows -----------------------------------------------------------------------

// Opens it, and puts two functions there for what follows: they find the newest stream of a user, and
// the card of a route.
async function visit(page, url) {
  await page.goto(url);
  await page.evaluate(() => {
    const titled = (cards) => (title) => [...document.querySelectorAll(cards)].find((card) => card.querySelector("h3").textContent === title);
    window.streamOf = titled("#streams article");
    window.cardOf = titled("article:has(form)");
  });
}

// The newest stream of that user: its state, and its log as "kind id event data".
const stream = (page, user) =>
  page.evaluate((user) => {
    const card = streamOf(user);
    const rows = [...card.querySelectorAll("li")].map((li) => {
      const [, id = "", event = ""] = / id \S+-(\d+)(?: event (\S+))?/.exec(li.childNodes[2].textContent + li.childNodes[3].textContent) ?? [];
      return { kind: li.className, id, event, data: li.querySelector("div").textContent };
    });
    return { state: card.querySelector("span").textContent, rows };
  }, user);

// Waits until the newest stream of that user shows so many events of a kind, or its state begins so.
const shows = (page, user, kind, count = 1) =>
  page.until(
    ([user, kind, count]) => {
      const card = streamOf(user);
      return card?.querySelectorAll(`li.${kind}`).length >= count;
    },
    [user, kind, count],
  );
const stateIs = (page, user, state) =>
  page.until(
    ([user, state]) =>
      streamOf(user)
        ?.querySelector("span")
        .textContent.startsWith(state),
    [user, state],
  );
const serverIs = (page, words) => page.until((words) => document.getElementById("server").textContent.startsWith(words), words);
const userIs = (page, ...cells) =>
  page.until((row) => [...document.querySelectorAll("#users tr")].some((tr) => [...tr.cells].map((td) => td.textContent).join() === row), cells.join());

// The card of a route: presses one of its buttons, and tells what it shows.
const press = (page, route, button) =>
  page.evaluate(
    ([route, button]) => {
      const card = cardOf(route);
      [...card.querySelectorAll("button")].find((b) => b.textContent === button).click();
    },
    [route, button],
  );
const fill = (page, route, label, value) =>
  page.evaluate(
    ([route, label, value]) => {
      const card = cardOf(route);
      const field = [...card.querySelectorAll("label")].find((l) => l.textContent.startsWith(label)).querySelector("input, textarea");
      field.value = value;
      field.dispatchEvent(new Event("input", { bubbles: true }));
    },
    [route, label, value],
  );
const output = async (page, route, begins) => {
  await page.until(
    ([route, begins]) =>
      cardOf(route)
        .querySelector("output")
        .textContent.startsWith(begins),
    [route, begins],
  );
  return (await cards(page)).find((card) => card.name === route).output;
};
const cards = (page) =>
  page.evaluate(() =>
    [...document.querySelectorAll("article:has(form)")].map((a) => ({
      name: a.querySelector("h3").textContent,
      curl: a.querySelector("code").textContent,
      output: a.querySelector("output").textContent,
    })),
  );

// Goes with the Tab key to what has this label or text; somebody without a mouse must get there.
async function tabTo(page, label) {
  const at = () =>
    page.evaluate(() => {
      const e = document.activeElement;
      return e.labels?.[0]?.textContent.trim() || e.ariaLabel || e.textContent.trim();
    });
  for (let i = 0; i < 200; i++) {
    if ((await at()) === label) return;
    await page.keyboard.press("Tab");
  }
  problems.push(`${now}: the Tab key does not lead to ${label}`);
}

// Every control is large enough for a finger (WCAG 2.2, 2.5.8), and the Tab key leads to each that is
// visible, in their order, and back.
async function operable(page) {
  const [all, small] = await page.evaluate(() => {
    window.stops = [...document.querySelectorAll("a, button, input, textarea, [tabindex]")].filter((e) => e.checkVisibility());
    const sizes = stops.filter((e) => e.matches("a, button, input, textarea")).map((e) => [e, e.getBoundingClientRect()]);
    const small = sizes.filter(([, { width, height }]) => width < 24 || height < 24);
    return [[...stops.keys()], small.map(([e, { width, height }]) => `${e.tagName} ${e.id} ${width} x ${height}`)];
  });
  is("controls under 24 px", "", small.join());
  const walk = async (first, end, press) => {
    await page.evaluate((first) => stops[first].focus(), first);
    const found = [];
    for (let i = 0; i < all.length + 5 && found.at(-1) !== end; i++) {
      await press();
      const at = await page.evaluate(() => (stops.includes(document.activeElement) ? stops.indexOf(document.activeElement) : document.activeElement.tagName));
      if (at !== "BODY") found.push(at); // there it begins anew
    }
    return found.join();
  };
  const last = all.length - 1;
  is("the way of Tab", all.join(), await walk(last, last, () => page.keyboard.press("Tab")));
  await page.keyboard.down("Shift");
  is("and back", all.toReversed().slice(1).join(), await walk(last, 0, () => page.keyboard.press("Tab")));
  await page.keyboard.up("Shift");
}

async function accessible(page) {
  await page.evaluate(axe);
  const found = await page.evaluate(async () => (await window.axe.run()).violations.map((v) => `${v.id} (${v.nodes.map((n) => n.target).slice(0, 3)})`));
  is("what axe-core finds", "", found.join("; "));
  const wide = await page.evaluate(() => {
    const most = document.documentElement.clientWidth;
    return document.documentElement.scrollWidth > most ? [...document.body.querySelectorAll("*")].filter((e) => e.getBoundingClientRect().right > most).map((e) => e.tagName) : [];
  });
  is("wider than its window", "", wide.join());
  await operable(page);
}

const shoot = (page, name) => shots && page.screenshot({ path: path.join(shots, `${name}.png`), fullPage: true });

function shell(line, environment = {}) {
  return new Promise((resolve) => {
    const env = { ...process.env, ...environment };
    execFile("sh", ["-c", `${line.replace("curl", "curl -qs --noproxy '*' -m 2 -w ' %{http_code}'")}`], { env }, (error, out) => resolve(out));
  });
}

// ---- What it must do ---------------------------------------------------------------------------

async function routes(page, server) {
  const api = await (await server.ask("/openapi.json")).json();
  const listed = Object.entries(api.paths).flatMap(([at, methods]) => Object.keys(methods).map((m) => `${m.toUpperCase()} ${at}`));
  await page.until((n) => document.querySelectorAll("article:has(form)").length === n, listed.length);
  is("the routes", listed.toSorted().join(), (await cards(page)).map((card) => card.name).sort().join());

  await press(page, "POST /sse/send/{userId}", "Try");
  is("a receipt", true, /^202 \{"id":"[0-9a-f]+-1","user":"alice","status":"Disconnected"/.test(await output(page, "POST /sse/send/{userId}", "202")));
  await press(page, "GET /sse/status/{userId}", "Try");
  is("a status", '200 {"user":"alice","status":"Disconnected","streams":0,"queued":1}\n', await output(page, "GET /sse/status/{userId}", "200"));
  await fill(page, "GET /sse/status/{userId}", "userId", "no/body's ünï");
  await press(page, "GET /sse/status/{userId}", "Try");
  is("an error", true, (await output(page, "GET /sse/status/{userId}", "404")).includes("user 'no/body's ünï' was never seen here"));

  const connect = "GET /sse/connect/{userId}";
  await fill(page, connect, "lastEventId", "x y");
  await fill(page, connect, "Last-Event-ID", "it's");
  is("a query and a field", `curl -N -H 'Last-Event-ID: it'\\''s' '${server.url}/sse/connect/alice?lastEventId=x%20y'`, (await cards(page)).find((card) => card.name === connect).curl);
  await fill(page, "POST /sse/send/{userId}", "userId", "shell");
  await fill(page, "POST /sse/send/{userId}", "event", "");
  await fill(page, "POST /sse/send/{userId}", "body", "@it's \"$HOME\" `x`\n\\2");
  for (const { name } of await cards(page)) if (name.includes("/sse/task")) await fill(page, name, "userId", "runner");
  const lines = async (cards) => {
    for (const [i, out] of (await Promise.all(cards.map(({ curl }) => shell(curl)))).entries()) {
      const { name, curl } = cards[i];
      const wanted = name === "GET /sse/status/{userId}" ? " 404" : name.includes("/sse/task") ? " 000" : /send|broadcast/.test(name) ? " 202" : " 200";
      if (!out.endsWith(wanted)) problems.push(`${now}: ${curl} gives ${out.slice(-100)}`);
    }
  };
  const all = await cards(page);
  await lines(all.filter(({ name }) => name.includes("connect/"))); // a stream, which takes what waits for alice
  await lines(all.filter(({ name }) => !name.includes("connect/")));
  const sent = await shell(`curl -N ${server.url}/sse/connect/shell`);
  is("what the shell sent", true, sent.includes('data: @it\'s "$HOME" `x`\ndata: \\2\n\n'));
  await fill(page, "POST /sse/send/{userId}", "userId", "alice");
  await fill(page, "POST /sse/send/{userId}", "body", "hello");
  await fill(page, connect, "lastEventId", "");
  await fill(page, connect, "Last-Event-ID", "");
}

async function streams(page, server) {
  await page.evaluate(() => document.activeElement.blur());
  await tabTo(page, "User");
  await page.keyboard.press("Enter");
  await shows(page, "alice", "keep-alive");
  await stateIs(page, "alice", "open, reconnects: 0");
  await shows(page, "alice", "message"); // what waited: a broadcast from a shell, whose stream had the one before
  is("the log has the focus", "Log of alice", await page.evaluate(() => document.activeElement.ariaLabel));
  const before = (await stream(page, "alice")).rows;
  is("its log", "retry,connected,keep-alive,message", before.slice(0, 4).map((row) => row.kind).join());
  is("its retry", "300 ms", before[0].data);

  const bodies = ["<img src=x onerror='window.hit=1'>", "two\nlines", "{\"a\": 1}", "", " space ", "🙂 é"];
  for (const body of bodies) await server.ask("/sse/send/alice?event=tick", body);
  await shows(page, "alice", "message", 1 + bodies.length);
  const messages = (await stream(page, "alice")).rows.filter((row) => row.kind === "message").slice(1);
  is("messages", JSON.stringify(bodies), JSON.stringify(messages.map((row) => row.data)));
  is("their ids", bodies.map((_, i) => 3 + i).join(), messages.map((row) => row.id).join());
  is("their event", "tick", messages[0].event);
  is("what they run", undefined, await page.evaluate(() => window.hit));
  await shows(page, "alice", "keep-alive", 3);

  await press(page, "POST /sse/disconnect/{userId}", "Try");
  await shows(page, "alice", "disconnected");
  await server.ask("/sse/send/alice", "while it was away");
  await stateIs(page, "alice", "open, reconnects: 1");
  await shows(page, "alice", "message", 2 + bodies.length);
  is("lost by that", 0, (await stream(page, "alice")).rows.filter((row) => row.kind === "gap").length);

  for (let i = 0; i < 70; i++) await server.ask("/sse/send/bob", `${i}`);
  await userIs(page, "bob", "Disconnected", "0", "64");
  await fill(page, "GET /sse/connect/{userId}", "Last-Event-ID", "nonsense");
  await fill(page, "GET /sse/connect/{userId}", "userId", "eve");
  await press(page, "GET /sse/connect/{userId}", "Try");
  await shows(page, "eve", "keep-alive");
  is("before the greeting", "gap,retry,connected", (await stream(page, "eve")).rows.slice(0, 3).map((row) => row.kind).join());
  await server.ask("/sse/disconnect/eve?hold=60");
  await stateIs(page, "eve", "held");
  await fill(page, "GET /sse/connect/{userId}", "Last-Event-ID", "");
  await fill(page, "GET /sse/connect/{userId}", "userId", "bob");
  await press(page, "GET /sse/connect/{userId}", "Try");
  await shows(page, "bob", "message", 64);
  is("a gap", '{"missed":6}', (await stream(page, "bob")).rows.find((row) => row.kind === "gap").data);
  await userIs(page, "bob", "Connected", "1", "0");
  await server.ask("/sse/disconnect/bob?hold=60");
  await stateIs(page, "bob", "held");
  await userIs(page, "bob", "Disconnected", "0", "0");
  await server.ask("/sse/send/wait%20ing", "x");
  await userIs(page, "wait ing", "Disconnected", "0", "1");
}

async function many(page, server) {
  const open = (user) =>
    page.evaluate((user) => {
      document.getElementById("who").value = user;
      document.querySelector("#opener button").click();
    }, user);
  for (const user of ["c1", "c2", "c3"]) {
    await open(user);
    await stateIs(page, user, "open");
  }
  await open("c4");
  await page.until(() => document.getElementById("full").textContent.startsWith("Four streams or tasks are under way"));
  await server.ask("/sse/broadcast", "to all");
  for (const user of ["alice", "c1", "c2", "c3"]) await shows(page, user, "message");
  await shoot(page, `${now}`);
  for (const user of ["c1", "c2", "c3"]) {
    await page.evaluate((user) => {
      const card = streamOf(user);
      card.querySelector("button").click();
    }, user);
    await stateIs(page, user, "closed");
    await userIs(page, user, "Disconnected", "0", "0");
  }
  await open("c4");
  await stateIs(page, "c4", "open");
  is("the notice is gone", "", await page.evaluate(() => document.getElementById("full").textContent));

  for (let i = 0; i < 16; i++) kept.push(await fetch(`${server.url}/sse/connect/crowd`));
  await userIs(page, "crowd", "Connected", "16", "0");
  await open("crowd");
  await shows(page, "crowd", "refused");
  is("a refusal", true, (await stream(page, "crowd")).rows[0].data.startsWith("429: user 'crowd' holds as many"));
  await stateIs(page, "crowd", "broken off, asks again in 5 s");
  await page.evaluate(() => streamOf("crowd").querySelector("button").click());
  await stateIs(page, "crowd", "closed, reconnects: 0");
}

// From the moment a request is sent, by this program, to that at which its row is in the page's log.
async function delays(page, server) {
  await page.evaluate(() => {
    window.seen = [];
    const log = streamOf("alice").querySelector(".log");
    new MutationObserver((changes) => {
      for (const row of changes.flatMap((change) => [...change.addedNodes])) {
        const [, number] = /probe (\d+)\./.exec(row.textContent) ?? [];
        if (number) window.seen[number] = performance.timeOrigin + performance.now();
      }
    }).observe(log, { childList: true });
  });
  const agent = new http.Agent({ keepAlive: true });
  const sent = [];
  for (let i = 0; i < 200; i++) {
    await new Promise((done) => {
      const request = http.request(`${server.url}/sse/send/alice`, { method: "POST", agent }, (answer) => answer.resume().on("end", done));
      sent.push(performance.timeOrigin + performance.now());
      request.end(`probe ${i}.`);
    });
    await sleep(10);
  }
  await page.until((n) => window.seen.filter(Boolean).length === n, sent.length);
  agent.destroy();
  const seen = await page.evaluate(() => window.seen);
  const times = seen.map((time, i) => time - sent[i]).sort((a, b) => a - b);
  return `median ${times[100].toFixed(1)} ms, 95th percentile ${times[190].toFixed(1)} ms, most ${times[199].toFixed(1)} ms`;
}

async function restart(page, server) {
  const before = (await stream(page, "alice")).rows.filter((row) => row.kind === "message").length;
  await server.stop();
  await serverIs(page, "The server is gone");
  await page.until(() => streamOf("alice").querySelector("li:last-child").className === "retry");
  const told = parseInt((await stream(page, "alice")).rows.at(-1).data);
  is("a retry at the end", true, told >= 300 && told <= 1500);
  await stateIs(page, "alice", `broken off, asks again in ${told / 1000} s`);
  const again = await start(server.port);
  await serverIs(page, "The server is back");
  await shows(page, "alice", "gap");
  is("what may be missing", '{"missed":null}', (await stream(page, "alice")).rows.find((row) => row.kind === "gap").data);
  await again.ask("/sse/send/alice", "after the restart");
  await shows(page, "alice", "message", before + 1);
  await stateIs(page, "alice", "open");
  return again;
}

// Below a proxy's path. The user and password that a proxy may want can stand in the page's URL.
async function proxied(browser, server) {
  const proxy = await proxyTo(server);
  const page = await browser.page();
  await visit(page, `http://user:word@${proxy.at}?a#b`);
  await serverIs(page, "The server is there");
  await userIs(page, "c1", "Disconnected", "0", "0");
  await fill(page, "GET /sse/connect/{userId}", "userId", "proxied");
  await press(page, "GET /sse/connect/{userId}", "Try");
  await stateIs(page, "proxied", "open");
  await fill(page, "POST /sse/send/{userId}", "userId", "proxied");
  await press(page, "POST /sse/send/{userId}", "Try");
  await shows(page, "proxied", "message");
  const lines = await cards(page);
  is("lines for curl that do not name it", "", lines.map(({ curl }) => curl).filter((curl) => !curl.includes(` 'http://${proxy.at}`)).join());
  is("what one gives", true, (await shell(lines.find(({ name }) => name.includes("send")).curl)).endsWith(" 202"));
  await shows(page, "proxied", "message", 2);
  is("the link", "/push/openapi.json", await page.evaluate(() => document.querySelector("a").pathname));
  is("asked for elsewhere", "", proxy.elsewhere.join());
  await page.close();
  proxy.stop();
}

// Two pages, whose streams take all six connections of the browser: that is no reason to say that the
// server is gone.
async function tabs(browser, server) {
  const pages = [await browser.page({ shared: true }), await browser.page({ shared: true })];
  for (const [i, page] of pages.entries()) {
    await visit(page, server.url);
    await page.until(() => document.querySelectorAll("article:has(form)").length > 0);
    await page.evaluate((i) => {
      for (let n = 0; n < 4; n++) {
        document.getElementById("who").value = `tab${i}-${n}`;
        document.querySelector("#opener button").click();
      }
    }, i);
  }
  await stateIs(pages[1], "tab1-3", "waiting for a connection");
  await serverIs(pages[1], "No answer for five seconds");
  const { users } = await (await server.ask("/sse/users")).json();
  is("streams that are open", 6, users.filter(({ user, status }) => user.startsWith("tab") && status === "Connected").length);
  for (const page of pages) await page.close();
}

async function tokens(browser) {
  const secret = "0123456789abcdef0123456789abcdef";
  writeFileSync(path.join(folder, "secret"), secret);
  const token = mint(secret, { scope: "sse:admin" });
  const server = await start(0, "--auth-secret", path.join(folder, "secret"), "--heartbeat-as", "comment", "--greeting-as", "event");
  const page = await browser.page();
  await visit(page, server.url);
  await page.until(() => document.getElementById("listed").textContent.startsWith("401: "));
  await tabTo(page, "Access token, which this server asks for (sse:admin shows all)");
  await page.keyboard.type(token);
  await page.until(() => document.getElementById("listed").textContent === "");
  await tabTo(page, "User");
  await page.keyboard.press("Enter");
  await shows(page, "alice", "keep-alive", 2); // as comments, which no EventSource shows
  await press(page, "POST /sse/send/{userId}", "Try");
  await shows(page, "alice", "message");
  const { rows } = await stream(page, "alice");
  is("its greeting", "connected 0", `${rows[1].event} ${rows[1].id}`);
  is("after comments", "message 1 hello", rows.filter(({ kind }) => kind === "message").map(({ event, id, data }) => `${event} ${id} ${data}`).join());
  await accessible(page);
  await page.focus("#beats");
  await tabTo(page, "userId"); // the first card is that of send
  await page.keyboard.press("Enter");
  await shows(page, "alice", "message", 2);
  const { curl } = (await cards(page)).find((card) => card.name === "GET /sse/users");
  is("the line for curl", false, curl.includes(token));
  is("and what it gives", true, (await shell(curl, { TOKEN: token })).endsWith(" 200"));
  await server.stop();
}

for (const name of chosen ? [chosen] : ["chromium", "firefox"]) {
  const lacks = missing(name, modules);
  if (lacks) {
    if (process.env.CI === "true") problems.push(`${lacks} is missing`);
    else console.log(`${name} is skipped: ${lacks} is missing`);
    continue;
  }
  now = name;
  const began = Date.now();
  let browser = await launch(name, modules);
  try {
    let server = await start(0);
    const page = await browser.page({ width: 1280, height: 900 });
    await visit(page, server.url);
    await serverIs(page, "The server is there");
    await routes(page, server);
    await streams(page, server);
    await many(page, server);
    await accessible(page);
    const heard = page.problems.filter((text) => !/status of 4(04|29)/.test(text)); // asked for above
    is("errors in the console", "", heard.join("; "));
    await proxied(browser, server);
    await tabs(browser, server);
    console.log(`${name}: from a send to the page: ${await delays(page, server)}`);
    server = await restart(page, server);
    await tokens(browser);
    await browser.close();

    now = `${name}, dark, narrow`;
    browser = await launch(name, modules, { dark: true });
    const narrow = await browser.page({ width: 320, height: 640 });
    await visit(narrow, server.url);
    await narrow.until(() => document.querySelectorAll("article:has(form)").length > 0);
    await tabTo(narrow, "User");
    await narrow.keyboard.press("Enter");
    await server.ask("/sse/send/alice", "a word");
    await shows(narrow, "alice", "message");
    await accessible(narrow);
    await shoot(narrow, `${name}-dark-narrow`);
    await server.stop();
  } catch (error) {
    problems.push(`${now}: ${error.stack}`);
  }
  await browser.close();
  console.log(`${name}: ${Math.round((Date.now() - began) / 1000)} s`);
}
console.log(problems.length ? `page: ${problems.join("\n")}` : "page: ok");
process.exit(problems.length ? 1 : 0);
