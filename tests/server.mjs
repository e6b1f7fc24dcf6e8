// server - a real server for the tests in JavaScript, and tokens for it.
//
//     import { mint, start } from "./server.mjs";
//     const server = await start("./sse", "--port", "0");     // with -q, which they all want
//     await fetch(`${server.url}/health`);                     // and server.port
//     await server.stop();
//
// Servers that were not stopped end with the test.

import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { once } from "node:events";

const running = new Set();
process.on("exit", () => running.forEach((child) => child.kill()));

// Resolves once it listens. stop() ends it, and throws unless its exit status is 0.
export async function start(program, ...options) {
  const child = spawn(program, ["-q", ...options], { stdio: ["ignore", "pipe", "pipe"] });
  const ended = once(child, "exit");
  let log = "";
  running.add(child);
  ended.finally(() => running.delete(child)).catch(() => {});
  child.stderr.on("data", (text) => (log += text));
  const [line] = await Promise.race([once(child.stdout, "data"), ended]);
  const url = /^listening on (\S+)\s*$/.exec(String(line))?.[1];
  if (!url) throw new Error(`the server did not start: ${log}`);
  return {
    url,
    port: Number(new URL(url).port),
    async stop() {
      child.kill("SIGTERM");
      const [status] = await ended;
      if (status !== 0) throw new Error(`the server ended with ${status}: ${log}`);
    },
  };
}

// A token with these claims, good for ten minutes unless they say otherwise.
export function mint(secret, claims) {
  const part = (object) => Buffer.from(JSON.stringify(object)).toString("base64url");
  const signed = `${part({ alg: "HS256" })}.${part({ exp: Math.floor(Date.now() / 1000) + 600, ...claims })}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}
