// Reads the settings, serves, registers; on SIGTERM takes itself off the list, ends what runs, and leaves.

import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { isDeepStrictEqual } from "node:util";

import { Registration } from "./registration.js";
import { Runner } from "./runner.js";
import { advertisedUrl, readSettings } from "./settings.js";
import { algorithm } from "./word_count.js";

const algorithms = [algorithm];

function log(event, fields = {}) {
  console.log(JSON.stringify({ timestamp: new Date().toISOString(), service: "runner", event, ...fields }));
}

function fail(message) {
  console.error(message);
  process.exit(2);
}

/** Nobody is told of a runner whose own example does not come out. */
async function selfTest({ description, run }) {
  const { payload, result } = description.example;
  const found = await run(payload);
  if (!isDeepStrictEqual(found, result)) {
    fail(`the example of ${description.name} gives ${JSON.stringify(found)}; correct the example or the algorithm.`);
  }
}

function settingsOrExit() {
  try {
    return readSettings(process.env);
  } catch (error) {
    return fail(error.message);
  }
}

const settings = settingsOrExit();
await Promise.all(algorithms.map(selfTest));

const boot = randomUUID();
const { token, maxBodyBytes } = settings;
const runner = new Runner({ algorithms, boot, maxBodyBytes, token, log });
runner.server.listen(settings.port, settings.host);
await once(runner.server, "listening").catch((error) => fail(`cannot listen: ${error.message}; choose another PORT.`));
const host = advertisedUrl(settings.advertiseHost, runner.server.address().port);
log("serving", { host, algorithms: algorithms.map((each) => each.description.name) });

// "plain": controllers send one task a call, to POST /run/{algorithm}.
const body = { name: settings.name, host, boot, level: "plain", algorithms: algorithms.map((each) => each.description) };
const unready = (reason) => runner.unready(reason);
const registration = settings.discovery ? new Registration({ discovery: settings.discovery, body, token, log, unready }) : null;
registration?.start();

let stopping = false;
async function stop(signal) {
  if (stopping) process.exit(1); // whoever asks twice does not want to wait
  stopping = true;
  log("stopping", { signal });
  runner.drain();
  setTimeout(() => {
    log("the grace is over; what still runs is given up");
    process.exit(1);
  }, settings.graceSeconds * 1000).unref();
  await registration?.stop();
  await runner.close();
  log("stopped");
  process.exit(0);
}
process.on("SIGTERM", stop);
process.on("SIGINT", stop);
