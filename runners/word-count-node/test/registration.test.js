import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { test } from "node:test";

import { Registration } from "../registration.js";

const body = { name: "words", host: "http://here:8100", boot: "b 1", level: "plain", algorithms: [] };
const quiet = () => {};

/** Answers like discovery; `refusals` registrations are refused first. */
async function discovery(lease, refusals = 0, clashes = () => undefined) {
  const calls = [];
  const shown = [];
  const server = createServer(async (request, response) => {
    let text = "";
    for await (const part of request) text += part;
    calls.push({ method: request.method, path: request.url, body: text && JSON.parse(text) });
    shown.push(request.headers.authorization);
    server.emit("call");
    if (request.method === "DELETE") return response.writeHead(204).end();
    response.writeHead(calls.length <= refusals ? 503 : 200);
    return response.end(JSON.stringify({ lease_seconds: lease, clashes: clashes(calls.length) }));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const called = async (times) => {
    while (calls.length < times) await once(server, "call");
  };
  return { server, calls, shown, called, url: `http://127.0.0.1:${server.address().port}` };
}

test("it registers, renews each third of the lease, and leaves", { timeout: 20000 }, async () => {
  const { server, calls, called, url } = await discovery(0.3);
  const registration = new Registration({ discovery: url, body, log: quiet });
  registration.start();
  await called(3);
  await registration.stop();
  assert.deepEqual(calls[0], { method: "PUT", path: "/runners/words-here-8100", body });
  assert.deepEqual(calls[2], calls[0]);
  assert.deepEqual(calls.at(-1), { method: "DELETE", path: "/runners/words-here-8100?boot=b%201", body: "" });
  server.close();
});

test("with a token it shows it, also when it leaves", { timeout: 20000 }, async () => {
  const { server, calls, shown, called, url } = await discovery(30);
  const registration = new Registration({ discovery: url, body, token: "ppr_words.c0de", log: quiet });
  registration.start();
  await called(1);
  await registration.stop();
  assert.deepEqual(calls.map(({ method }) => method), ["PUT", "DELETE"]);
  assert.deepEqual(shown, ["Bearer ppr_words.c0de", "Bearer ppr_words.c0de"]);
  server.close();
});

test("it goes on when discovery refuses, and says why", { timeout: 20000 }, async () => {
  const { server, calls, called, url } = await discovery(30, 1);
  const told = [];
  const log = (event, fields) => told.push([event, fields?.reason]);
  const registration = new Registration({ discovery: url, body, log });
  registration.start();
  await called(2);
  await registration.stop();
  assert.match(told[0][1], /^503/);
  assert.deepEqual(told.map(([event]) => event), ["cannot register; trying on", "registered", "taken off the list"]);
  assert.equal(calls.at(-1).method, "DELETE");
  server.close();
});

test("without discovery it neither ends nor leaves", { timeout: 20000 }, async () => {
  const { server, url, calls } = await discovery(30);
  server.close();
  await once(server, "close");
  let tried;
  const failed = new Promise((resolve) => (tried = resolve));
  const registration = new Registration({ discovery: url, body, log: (event, { reason }) => tried(reason) });
  registration.start();
  assert.match(await failed, /ECONNREFUSED/);
  await registration.stop();
  assert.deepEqual(calls, []);
});

test("an algorithm of another runner is told until it is this one's", { timeout: 20000 }, async () => {
  const { server, called, url } = await discovery(0.3, 0, (calls) => (calls < 3 ? { word_count: "other" } : {}));
  const told = [];
  const registration = new Registration({ discovery: url, body, log: quiet, unready: (reason) => told.push(reason) });
  registration.start();
  await called(4);
  await registration.stop();
  assert.match(told[0], /'word_count' belongs to runner 'other'.*worker take-over word_count words/);
  assert.deepEqual(told.slice(1), [""]);
  server.close();
});
