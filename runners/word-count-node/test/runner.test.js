import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { after, before, test } from "node:test";

import { Runner } from "../runner.js";
import { runTokenOf } from "../tokens.js";
import { algorithm } from "../word_count.js";

const MAX_BODY_BYTES = 1000;
const waiting = [];
const slow = {
  description: { name: "slow", limits: { slots: 1 } },
  mistakesOf: () => [],
  run: () => new Promise((resolve) => waiting.push(resolve)),
};
const failing = {
  description: { name: "failing", limits: { slots: 1 } },
  mistakesOf: () => [],
  run: () => {
    throw Object.assign(new RangeError("no such thing"), { retryable: true });
  },
};
const logged = [];

async function started(...algorithms) {
  const log = (event, fields) => logged.push({ event, ...fields });
  const runner = new Runner({ algorithms, boot: "boot-1", maxBodyBytes: MAX_BODY_BYTES, log });
  runner.server.listen(0, "127.0.0.1");
  await once(runner.server, "listening");
  return { runner, url: `http://127.0.0.1:${runner.server.address().port}` };
}

let runner;
let url;
before(async () => ({ runner, url } = await started(algorithm, failing)));
after(() => {
  runner.server.closeAllConnections();
  return runner.close();
});

const run = (name, body, at = url) => fetch(`${at}/run/${name}`, { method: "POST", body });

async function isProblem(answer, status, code) {
  const problem = await answer.json();
  assert.equal(answer.status, status);
  assert.equal(answer.headers.get("content-type"), "application/problem+json");
  assert.equal(answer.headers.get("runner-boot"), "boot-1");
  assert.deepEqual([problem.status, problem.code], [status, code]);
  return problem.detail;
}

test("a payload that fits gets its result", async () => {
  const answer = await run("word_count", '{"text": "a b"}');
  assert.equal(answer.status, 200);
  assert.equal((await answer.json()).result.words, 2);
  assert.equal(answer.headers.get("runner-boot"), "boot-1");
});

test("what cannot be run is told with a sentence", async () => {
  assert.match(await isProblem(await run("word_cuont", "{}"), 404, "unknown_algorithm"), /it has word_count/);
  assert.match(await isProblem(await run("word_count", '{"txt": "a"}'), 422, "invalid_payload"), /text: is missing/);
  assert.match(await isProblem(await run("word_count", '{"text'), 400, "malformed"), /not JSON/);
  const latin = Buffer.from('{"text": "\xe9"}', "latin1");
  assert.match(await isProblem(await run("word_count", latin), 400, "malformed"), /not JSON/);
  const long = JSON.stringify({ text: "a".repeat(MAX_BODY_BYTES) });
  assert.match(await isProblem(await run("word_count", long), 413, "too_large"), /at most 1000 bytes/);
  await isProblem(await fetch(`${url}/run/word_count`), 405, "method_not_allowed");
  await isProblem(await fetch(`${url}/nothing`), 404, "not_found");
  await isProblem(await run("%", "{}"), 404, "unknown_algorithm");
});

test("a handler that throws is a problem without a stack, which the log has", async () => {
  const answer = await run("failing", "{}");
  const problem = await answer.json();
  assert.deepEqual([answer.status, problem.code, problem.retryable], [500, "handler_error", true]);
  assert.equal(problem.detail, "RangeError: no such thing");
  assert.match(logged.at(-1).error, /runner.test.js/);
});

test("schemas and health are shown", async () => {
  const [described] = await (await fetch(`${url}/schemas`)).json();
  assert.deepEqual(described, algorithm.description);
  for (const path of ["/healthz/live", "/healthz/ready"]) assert.equal((await fetch(url + path)).status, 200);
});

test("with a token it takes runs from its environment alone", async (context) => {
  const token = "ppr_word-count-node.c0de";
  const log = (_, fields) => assert.fail(JSON.stringify(fields));
  const guarded = new Runner({ algorithms: [algorithm], boot: "boot-1", maxBodyBytes: MAX_BODY_BYTES, token, log });
  guarded.server.listen(0, "127.0.0.1");
  await once(guarded.server, "listening");
  context.after(() => guarded.close());
  const at = `http://127.0.0.1:${guarded.server.address().port}`;
  const send = (headers) => fetch(`${at}/run/word_count`, { method: "POST", body: '{"text": "a b"}', headers });
  for (const headers of [{}, { Authorization: `Bearer ${token}` }, { Authorization: "Bearer ppx_guessed" }]) {
    const answer = await send(headers);
    assert.match(answer.headers.get("www-authenticate"), /^Bearer/);
    await isProblem(answer, 401, "unauthorized");
  }
  await isProblem(await run("guessed", "{}", at), 401, "unauthorized");
  const answer = await send({ Authorization: `Bearer ${runTokenOf(token)}` });
  assert.equal((await answer.json()).result.words, 2);
  for (const path of ["/schemas", "/healthz/live", "/healthz/ready"]) assert.equal((await fetch(at + path)).status, 200);
});

test("a request that is cut off is no error", async () => {
  const before = logged.length;
  const socket = connect(new URL(url).port, "127.0.0.1");
  socket.write("POST /run/word_count HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\n{");
  await once(runner.server, "request");
  socket.destroy();
  assert.equal((await run("word_count", '{"text": ""}')).status, 200);
  assert.equal(logged.length, before);
});

test("who does not end a request is cut off, and leaves the slot", { timeout: 20000 }, async () => {
  const log = () => {};
  const hasty = new Runner({ algorithms: [slow], boot: "boot-1", maxBodyBytes: MAX_BODY_BYTES, log, requestSeconds: 0.6 });
  hasty.server.listen(0, "127.0.0.1");
  await once(hasty.server, "listening");
  const { port } = hasty.server.address();
  const unfinished = [1, 2].map(() => {
    const socket = connect(port, "127.0.0.1");
    socket.write("POST /run/slow HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\n{");
    return socket;
  });
  for (const socket of unfinished) {
    const [said] = await once(socket, "data");
    assert.match(said.toString(), /^HTTP\/1.1 408/);
    socket.destroy();
  }
  const answered = run("slow", "{}", `http://127.0.0.1:${port}`);
  while (!waiting.length) await new Promise(setImmediate);
  waiting.shift()(7);
  assert.equal((await answered).status, 200);
  await hasty.close();
});

test("a full runner says so, and one that stops ends what it has", { timeout: 20000 }, async () => {
  const full = await started(slow);
  const taken = [run("slow", "{}", full.url), run("slow", "{}", full.url)];
  while (waiting.length < 2) await new Promise(setImmediate);
  const busy = await run("slow", "{}", full.url);
  assert.equal(busy.headers.get("retry-after"), "0.05");
  await isProblem(busy, 429, "busy");
  full.runner.drain();
  const draining = await run("slow", "{}", full.url);
  assert.equal(draining.headers.get("retry-after"), "1");
  await isProblem(draining, 503, "draining");
  await isProblem(await fetch(`${full.url}/healthz/ready`), 503, "not_ready");
  const closed = full.runner.close();
  for (const resolve of waiting) resolve(7);
  for (const answer of await Promise.all(taken)) assert.deepEqual(await answer.json(), { result: 7 });
  await closed;
});
