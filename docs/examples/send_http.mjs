// Sends one task to the gateway with nothing but Node's own fetch, waits for the result and prints it.
//
//     GATEWAY_URL=http://127.0.0.1:8000 node send_http.mjs

import { randomUUID } from "node:crypto";

const gateway = process.env.GATEWAY_URL ?? "http://127.0.0.1:8000";
const algorithm = process.env.ALGORITHM ?? "language_detection";
const payload = process.env.PAYLOAD ?? '{"text": "Bonjour tout le monde"}';
// With an id of your own the same call can be made again after any error, and it is still one task.
const headers = { "Content-Type": "application/json", "Idempotency-Key": randomUUID(), Prefer: "wait=20" };

let task = await call(`/algorithms/${algorithm}/tasks`, { method: "POST", headers, body: payload });
while (!["succeeded", "failed", "cancelled"].includes(task.state)) {
  task = await call(`/tasks/${task.id}`, { headers: { Prefer: "wait=20" } }); // as soon as it has ended, or after 20 s
}
if (task.state !== "succeeded") fail(task.error?.message ?? task.state);
console.log(JSON.stringify(task.result));

async function call(path, options) {
  const answer = await fetch(gateway + path, options);
  const told = await answer.json();
  return answer.ok ? told : fail(told.detail); // every error has a sentence
}

function fail(reason) {
  console.error(reason);
  process.exit(1);
}
