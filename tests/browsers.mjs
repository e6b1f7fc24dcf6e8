// browsers - Chromium and Firefox for tests, one like the other.
//
//     npm install --prefix DIR playwright-core puppeteer-core
//
//     import { launch } from "./browsers.mjs";
//     const browser = await launch("firefox", DIR, { dark: true });
//     const page = await browser.page({ width: 320, height: 640 });
//     await page.goto("http://127.0.0.1:8080/");
//     await page.until((n) => window.got.length >= n, 3);
//     if (page.problems.length) ...
//     await browser.close();
//
// Both browsers are the system's own. Chromium is driven through playwright-core; that would want a
// Firefox of its own making, so Firefox is driven through puppeteer-core, over WebDriver BiDi. Of what
// the pages of both can do, this takes what is the same: goto, evaluate with one argument, click, focus,
// keyboard.type and .press, screenshot; and adds until(), which polls in the page. Each page is in a
// context of its own, which shares neither cookies nor connections with another, unless it is asked for
// with `shared`. What a page throws, and what it or the browser writes to the console as an error, is in
// its `problems`.

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const programs = { chromium: "/usr/bin/chromium", firefox: "/usr/bin/firefox-esr" };
const drivers = { chromium: "playwright-core", firefox: "puppeteer-core" };
const load = (name, modules) => createRequire(path.resolve(modules, "here"))(drivers[name]);
const patience = 30000;

// What is missing to launch that browser; nothing if it can be.
export function missing(name, modules) {
  if (!existsSync(programs[name])) return programs[name];
  try {
    load(name, modules);
  } catch {
    return drivers[name];
  }
}

function watched(page) {
  page.problems = [];
  page.on("pageerror", (error) => page.problems.push(error.message));
  page.on("console", (message) => message.type() === "error" && page.problems.push(message.text()));
  return page;
}

async function chromium(modules, { dark, insecure }) {
  const browser = await load("chromium", modules).chromium.launch({
    executablePath: programs.chromium,
    args: ["--disable-features=LocalNetworkAccessChecks", "--no-sandbox", "--disable-gpu", "--disable-quic"],
  });
  let common; // the context of pages that share one
  return {
    close: () => browser.close(),
    async page(viewport, shared) {
      const context = () => browser.newContext({ viewport, ignoreHTTPSErrors: insecure, colorScheme: dark ? "dark" : "light" });
      const page = await (await (shared ? (common ??= context()) : context())).newPage();
      page.until = (condition, argument) => page.waitForFunction(condition, argument, { timeout: patience });
      return watched(page);
    },
  };
}

// Its color scheme is a preference, so all pages of one Firefox are dark or none is.
async function firefox(modules, { dark, insecure }) {
  const browser = await load("firefox", modules).launch({
    browser: "firefox",
    executablePath: programs.firefox,
    acceptInsecureCerts: insecure,
    timeout: 60000,
    extraPrefsFirefox: {
      "devtools.jsonview.enabled": false, // its viewer of JSON lets no script in
      "layout.css.prefers-color-scheme.content-override": dark ? 0 : 1,
    },
  });
  let common;
  return {
    close: () => browser.close(),
    async page(viewport, shared) {
      const context = () => browser.createBrowserContext();
      const page = await (await (shared ? (common ??= context()) : context())).newPage();
      await page.setViewport(viewport);
      page.until = (condition, argument) => page.waitForFunction(condition, { timeout: patience }, argument);
      return watched(page);
    },
  };
}

// `dark` is for all of its pages; with `insecure` it takes any certificate.
export async function launch(name, modules, { dark = false, insecure = false } = {}) {
  const browser = await { chromium, firefox }[name](modules, { dark, insecure });
  return { name, close: browser.close, page: ({ width = 1024, height = 768, shared = false } = {}) => browser.page({ width, height }, shared) };
}
