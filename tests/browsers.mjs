// browsers - Chromium and Firefox for tests, one like the other.
//
//     npm install --prefix DIR puppeteer-core
//
//     import { launch } from "./browsers.mjs";
//     const browser = await launch("firefox", DIR, { dark: true });
//     const page = await browser.page({ width: 320, height: 640 });
//     await page.goto("http://127.0.0.1:8080/");
//     await page.waitForFunction((n) => window.got.length >= n, {}, 3);
//     if (page.problems.length) ...
//     await browser.close();
//
// Each page is in a context of its own: it shares neither cookies nor storage with another. What a
// page throws, and what it or the browser writes to the console as an error, is in its `problems`.
// Both browsers are the system's own, and puppeteer-core, whose pages these are, speaks to Chromium
// over its debugging protocol and to Firefox over WebDriver BiDi. Firefox cannot change all of it once
// it runs: the color scheme is a preference there, so all pages of one Firefox are dark or none is, and
// emulateMediaFeatures() and setJavaScriptEnabled() throw.

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const programs = { chromium: "/usr/bin/chromium", firefox: "/usr/bin/firefox-esr" };
const load = (modules) => createRequire(path.resolve(modules, "here"))("puppeteer-core");

// What is missing to launch that browser; nothing if it can be.
export function missing(name, modules) {
  if (!existsSync(programs[name])) return programs[name];
  try {
    load(modules);
  } catch {
    return "puppeteer-core";
  }
}

// `dark` is for all of its pages; with `insecure` it takes any certificate.
export async function launch(name, modules, { dark = false, insecure = false } = {}) {
  const firefox = name === "firefox";
  const browser = await load(modules).launch({
    browser: firefox ? "firefox" : "chrome",
    executablePath: programs[name],
    headless: true,
    acceptInsecureCerts: insecure,
    timeout: 60000,
    args: firefox
      ? []
      : ["--disable-features=LocalNetworkAccessChecks", "--no-sandbox", "--disable-gpu", "--disable-quic"],
    extraPrefsFirefox: {
      "devtools.jsonview.enabled": false, // its viewer of JSON lets no script in
      "layout.css.prefers-color-scheme.content-override": dark ? 0 : 1,
    },
  });
  return {
    name,
    version: await browser.version(),
    close: () => browser.close(),
    async page({ width = 1024, height = 768 } = {}) {
      const page = await (await browser.createBrowserContext()).newPage();
      page.setDefaultTimeout(30000);
      page.problems = [];
      page.on("pageerror", (error) => page.problems.push(error.message));
      page.on("console", (message) => {
        if (message.type() === "error") page.problems.push(message.text());
      });
      await page.setViewport({ width, height });
      if (!firefox) {
        await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }]);
      }
      return page;
    },
  };
}
