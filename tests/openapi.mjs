// openapi - is /openapi.json what programs take it for?
//
//     npm install --prefix DIR playwright-core @seriousme/openapi-schema-validator openapi-to-postmanv2 swagger-ui-dist
//     node tests/openapi.mjs ./sse DIR
//
// It must be valid, with and without tokens; Postman's converter must take every operation over; and
// in Swagger UI, as a page of a listed origin, every operation must succeed when it is tried with the
// values that stand there. Prints "openapi: ok", or what was wrong, and exits 0 or 1.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { launch } from "./browsers.mjs";
import { start as startServer } from "./server.mjs";

const [program, modules] = process.argv.slice(2);
const require = createRequire(path.resolve(modules, "here"));
const postman = require("openapi-to-postmanv2");
const { Validator } = await import(pathToFileURL(require.resolve("@seriousme/openapi-schema-validator")));
const swagger = path.dirname(require.resolve("swagger-ui-dist/package.json"));
const problems = [];

const start = (...options) => startServer(program, "--port", "0", ...options);

async function validate(what, text) {
  const result = await new Validator().validate(JSON.parse(text));
  if (!result.valid) problems.push(`${what}: ${JSON.stringify(result.errors)}`);
}

// Every operation as "METHOD /path", with {userId} or :userId.
function operations(api) {
  return Object.entries(api.paths).flatMap(([at, methods]) => Object.keys(methods).map((method) => `${method.toUpperCase()} ${at}`));
}

function importToPostman(text) {
  return new Promise((resolve) => {
    postman.convert({ type: "string", data: text }, {}, (error, outcome) => {
      if (error || !outcome.result) return resolve([`failed: ${error ?? outcome.reason}`]);
      const requests = (items) => items.flatMap((item) => (item.item ? requests(item.item) : [item.request]));
      resolve(requests(outcome.output[0].data.item).map(({ method, url }) => `${method} /${url.path.join("/").replace(":userId", "{userId}")}`));
    });
  });
}

// Swagger UI, as a page of http://docs.example.
async function openSwagger(browser, url) {
  const page = await browser.page();
  await page.route("http://docs.example/**", (route) => {
    const name = new URL(route.request().url()).pathname;
    if (name !== "/") return route.fulfill({ path: path.join(swagger, name) });
    const body = `<!doctype html><meta charset="utf-8"><div id="ui"></div><script src="/swagger-ui-bundle.js"></script>
      <script>SwaggerUIBundle({ url: "${url}/openapi.json", dom_id: "#ui", docExpansion: "full", tryItOutEnabled: true })</script>`;
    return route.fulfill({ contentType: "text/html", body });
  });
  await page.goto("http://docs.example/");
  await page.waitForSelector(".opblock .execute");
  return page;
}

// Presses Execute of every operation, with the values that stand there, and waits for all answers.
async function executeAll(page, url, wanted) {
  const blocks = await page.locator(".opblock").all();
  const names = [];
  const answers = [];
  for (const block of blocks) {
    const method = await block.locator(".opblock-summary-method").innerText();
    const at = await block.locator(".opblock-summary-path").getAttribute("data-path");
    const asked = new URL(url + at.replace("{userId}", "alice")).pathname;
    names.push(`${method} ${at}`);
    answers.push(page.waitForResponse((answer) => answer.request().method() === method && new URL(answer.url()).pathname === asked));
    await block.locator("button.execute").click();
  }
  if (names.toSorted().join() !== wanted.toSorted().join()) problems.push(`Swagger UI shows ${names}`);
  for (const [i, answer] of (await Promise.all(answers)).entries()) {
    if (answer.status() !== 200 && answer.status() !== 202) problems.push(`${names[i]} in Swagger UI: ${answer.status()}`);
  }
}

const server = await start("--cors", "http://docs.example");
const { url } = server;
const text = await (await fetch(`${url}/openapi.json`)).text();
const all = operations(JSON.parse(text));
await validate("the description", text);
const imported = await importToPostman(text);
if (imported.sort().join() !== all.toSorted().join()) problems.push(`Postman has ${imported}`);

await fetch(`${url}/sse/send/alice`, { method: "POST", body: "so that alice is known" });
const browser = await launch("chromium", modules);
await executeAll(await openSwagger(browser, url), url, all);
await browser.close();
await server.stop();

const folder = mkdtempSync(path.join(tmpdir(), "openapi-"));
writeFileSync(path.join(folder, "secret"), "0123456789abcdef0123456789abcdef");
try {
  const guarded = await start("--auth-secret", path.join(folder, "secret"));
  const described = await (await fetch(`${guarded.url}/openapi.json`)).text();
  await validate("the description where tokens are asked for", described);
  if (!described.includes('"bearer":{"type":"http"')) problems.push("tokens are asked for, but not described");
  await guarded.stop();
} finally {
  rmSync(folder, { recursive: true });
}
console.log(problems.length ? `openapi: ${problems.join("; ")}` : "openapi: ok");
process.exit(problems.length ? 1 : 0);
