// The contract over HTTP: POST /run/{algorithm}, GET /schemas, GET /healthz/live and /healthz/ready.

import { createServer } from "node:http";

import { Problem } from "./problem.js";
import { allows, runTokenOf } from "./tokens.js";

/** A controller sends at most `slots` calls at once, and as many again while calls are short. */
const CALLS_PER_SLOT = 2;
/** Whoever needs longer to send a request is cut off, and answered 408: it holds a slot meanwhile. */
const REQUEST_SECONDS = 30;

/**
 * `algorithms` are those that this runner offers; `boot` names this process. With its `token` it takes runs from its
 * environment alone. Call `listen` of its `server`.
 */
export class Runner {
  #algorithms;
  #boot;
  #maxBodyBytes;
  #log;
  #runToken;
  #inFlight = new Map();
  #draining = false;
  #unready = "";

  constructor({ algorithms, boot, maxBodyBytes, log, token = "", requestSeconds = REQUEST_SECONDS }) {
    this.#algorithms = new Map(algorithms.map((each) => [each.description.name, each]));
    this.#boot = boot;
    this.#maxBodyBytes = maxBodyBytes;
    this.#log = log;
    this.#runToken = token && runTokenOf(token);
    const milliseconds = requestSeconds * 1000;
    const timeouts = {
      requestTimeout: milliseconds,
      // Node takes the larger of the two for the whole request.
      headersTimeout: milliseconds,
      connectionsCheckingInterval: milliseconds / 6,
    };
    this.server = createServer(timeouts, (request, response) => this.#handle(request, response));
  }

  /** From now on nothing new starts: whoever asks is told 503. */
  drain() {
    this.#draining = true;
  }

  /** `reason` says why it cannot do all that it is for; "": it can. Runs are answered in any case. */
  unready(reason) {
    this.#unready = reason;
  }

  /** Listens no more; resolves when all that runs has been answered. */
  close() {
    const closed = new Promise((resolve) => this.server.close(resolve));
    this.server.closeIdleConnections();
    return closed;
  }

  async #handle(request, response) {
    try {
      this.#send(response, 200, await this.#answer(request));
    } catch (error) {
      if (request.errored) return; // it was cut off while it was being sent: nobody waits for an answer
      const problem = error instanceof Problem ? error : this.#unexpected(error);
      this.#send(response, problem.status, problem.body, problem.headers);
    }
  }

  async #answer(request) {
    const path = request.url.split("?", 1)[0];
    const run = /^\/run\/([^/]+)$/.exec(path);
    if (run) {
      expectMethod(request, "POST");
      this.#expectToken(request);
      return this.#run(decoded(run[1]), request);
    }
    switch (path) {
      case "/schemas":
        expectMethod(request, "GET");
        return [...this.#algorithms.values()].map((each) => each.description);
      case "/healthz/live":
        expectMethod(request, "GET");
        return { live: true };
      case "/healthz/ready":
        expectMethod(request, "GET");
        if (this.#draining) throw new Problem(503, "not_ready", "this runner is stopping");
        if (this.#unready) throw new Problem(503, "not_ready", this.#unready);
        return { ready: true, reasons: {} };
      default:
        throw new Problem(404, "not_found", `there is nothing at ${path.slice(0, 80)}; see GET /schemas`);
    }
  }

  #expectToken(request) {
    if (!this.#runToken || allows(this.#runToken, request.headers.authorization)) return;
    const headers = { "WWW-Authenticate": 'Bearer realm="plugplay"' };
    throw new Problem(401, "unauthorized", "this call needs the token for runs of this runner", { headers });
  }

  async #run(name, request) {
    const algorithm = this.#algorithms.get(name);
    if (!algorithm) {
      const names = [...this.#algorithms.keys()].join(", ");
      throw new Problem(404, "unknown_algorithm", `no algorithm ${JSON.stringify(name.slice(0, 80))} here; it has ${names}`);
    }
    if (this.#draining) {
      const headers = { "Retry-After": "1" };
      throw new Problem(503, "draining", "this runner is stopping; send it to another one", { headers });
    }
    const inFlight = this.#inFlight.get(name) ?? 0;
    if (inFlight >= CALLS_PER_SLOT * algorithm.description.limits.slots) {
      throw new Problem(429, "busy", "every slot is taken; ask again", { headers: { "Retry-After": "0.05" } });
    }
    this.#inFlight.set(name, inFlight + 1);
    try {
      return await call(algorithm, parse(await read(request, this.#maxBodyBytes)), this.#log);
    } finally {
      this.#inFlight.set(name, this.#inFlight.get(name) - 1);
    }
  }

  #unexpected(error) {
    this.#log("a request failed", { error: error.stack });
    return new Problem(500, "internal", "this runner has a fault; its log says which");
  }

  #send(response, status, body, headers = {}) {
    const bytes = Buffer.from(JSON.stringify(body));
    response.writeHead(status, {
      "Content-Type": "application/json",
      "Content-Length": bytes.length,
      "Runner-Boot": this.#boot,
      // While it stops, whoever is connected must not send another request on this connection.
      ...(this.#draining && { Connection: "close" }),
      ...headers,
    });
    response.end(bytes);
  }
}

async function call(algorithm, payload, log) {
  const errors = algorithm.mistakesOf(payload);
  if (errors.length) {
    const detail = errors.map(({ loc, msg }) => `${loc.join(".") || "payload"}: ${msg}`).join("; ");
    throw new Problem(422, "invalid_payload", detail, { more: { errors } });
  }
  try {
    const result = await algorithm.run(payload);
    if (result === undefined) throw new Error("the algorithm returned nothing");
    return { result };
  } catch (error) {
    // The message is for the sender, the stack is not. `retryable` makes a controller try again later.
    log("a run failed", { algorithm: algorithm.description.name, error: error.stack });
    const more = { retryable: error.retryable === true };
    throw new Problem(500, "handler_error", `${error.name}: ${error.message}`, { more });
  }
}

/** What is too much is read and thrown away: who is still sending would never see the answer otherwise. */
async function read(request, maxBytes) {
  const parts = [];
  let size = 0;
  for await (const part of request) {
    size += part.length;
    if (size <= maxBytes) parts.push(part);
  }
  if (size > maxBytes) {
    throw new Problem(413, "too_large", `a payload has at most ${maxBytes} bytes; send a reference instead`);
  }
  return Buffer.concat(parts);
}

function parse(bytes) {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw new Problem(400, "malformed", `the body is not JSON: ${error.message}`);
  }
}

function expectMethod(request, method) {
  if (request.method !== method) {
    throw new Problem(405, "method_not_allowed", `use ${method}`, { headers: { Allow: method } });
  }
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
