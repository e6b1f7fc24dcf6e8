// node - a push server on Node's own http module, for tests/bench.c to measure.
//
//     PORT=8000 CONNECTIONS=20000 [CERT=... KEY=...] node tests/peers/node.mjs
//
// GET /sse/connect/USER and POST /sse/send/USER on 127.0.0.1, in one process. No example of a safe
// server: whoever can reach it may send to anyone, a reader that does not read fills the memory,
// and there is no history to resume from.
import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";

const { PORT, CERT, KEY } = process.env;
const BEAT_MS = 5000;
const MESSAGE_BYTES = 65536;

const users = new Map(); // name -> { id, streams }
const beating = new Set(); // all streams

function userOf(name) {
  let user = users.get(name);
  if (!user) users.set(name, (user = { id: 0, streams: new Set() }));
  return user;
}

function connect(user, response) {
  response.useChunkedEncodingByDefault = false; // ends with the connection: that is cheaper
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
  response.write(": hi\n\n");
  user.streams.add(response);
  beating.add(response);
  response.on("close", () => {
    user.streams.delete(response);
    beating.delete(response);
  });
}

function answer(response, status, value) {
  const body = JSON.stringify(value) + "\n";
  response.writeHead(status, {
    "Content-Type": "application/json",
    "Content-Length": Buffer.byteLength(body),
  });
  response.end(body);
}

function send(user, body, response) {
  const id = ++user.id;
  const text = `id: ${id}\ndata: ${body.replace(/\r\n|\r|\n/g, "\ndata: ")}\n\n`;
  for (const stream of user.streams) stream.write(text);
  const streams = user.streams.size;
  answer(response, 202, { id: `${id}`, status: streams ? "Connected" : "Disconnected", streams });
}

function collect(user, request, response) {
  let body = "";
  request.setEncoding("utf8");
  request.on("data", (piece) => {
    if (body.length <= MESSAGE_BYTES) body += piece;
  });
  request.on("end", () => {
    if (body.length > MESSAGE_BYTES) answer(response, 413, { error: "the message is too long" });
    else send(user, body, response);
  });
}

function handle(request, response) {
  const { method, url } = request;
  if (method === "GET" && url.startsWith("/sse/connect/")) connect(userOf(url.slice(13)), response);
  else if (method === "POST" && url.startsWith("/sse/send/"))
    collect(userOf(url.slice(10)), request, response);
  else answer(response, 404, { error: "there is /sse/connect/USER and /sse/send/USER" });
}

const options = { noDelay: true, keepAliveTimeout: 3600_000, requestTimeout: 0 };
const server = CERT
  ? https.createServer({ ...options, cert: readFileSync(CERT), key: readFileSync(KEY) }, handle)
  : http.createServer(options, handle);
server.listen({ port: Number(PORT), host: "127.0.0.1", backlog: 4096 });

setInterval(() => {
  for (const stream of beating) stream.write(": on\n\n");
}, BEAT_MS);
