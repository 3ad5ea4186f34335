// Tells discovery that this runner is there, again and again, and takes it off the list in the end.
//
// The least that would do is one call, without a schema and without an end:
//     POST /algorithms {"algorithm": "word_count", "host": "http://here:8100"}

import { setTimeout as sleep } from "node:timers/promises";

const RENEW_SECONDS = 10;
const FIRST_BACKOFF_SECONDS = 0.5;
const MAX_BACKOFF_SECONDS = 15;
/** What belongs to another runner may be given up there: asked as often, so that it works soon after. */
const CLASH_SECONDS = 2;
const CALL_SECONDS = 5;
/** A stop is held up no longer than this; then the end of the lease takes the runner off the list. */
const LEAVE_SECONDS = 3;

/** `body` is what `PUT /runners/{id}` takes: name, host, boot, level, algorithms; `token` is this runner's, or "". */
export class Registration {
  #url;
  #body;
  #token;
  #log;
  #unready;
  #stop = new AbortController();
  #living = Promise.resolve();
  #failures = 0;
  #registered = false;
  #clashes = {};

  /** `unready` is called with why this runner gets no tasks of what it offers, or with "". */
  constructor({ discovery, body, token = "", log, unready = () => {} }) {
    const id = `${body.name}-${new URL(body.host).host}`.replace(/[^A-Za-z0-9._-]+/g, "-").slice(0, 200);
    this.#url = `${discovery}/runners/${id}`;
    this.#body = body;
    this.#token = token;
    this.#log = log;
    this.#unready = unready;
  }

  start() {
    this.#living = this.#live();
  }

  /** A renewal that is under way ends first: it would put the runner on the list again. */
  async stop() {
    this.#stop.abort();
    await Promise.race([this.#living, sleep(LEAVE_SECONDS * 1000, undefined, { ref: false })]);
    if (!this.#registered) return;
    const boot = encodeURIComponent(this.#body.boot);
    const refused = await this.#call("DELETE", `${this.#url}?boot=${boot}`, undefined, LEAVE_SECONDS);
    this.#log("taken off the list", typeof refused === "string" ? { reason: refused } : {});
  }

  async #live() {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const seconds = await this.#register();
      await sleep(seconds * 1000, undefined, { signal }).catch(() => {});
    }
  }

  /** The seconds until the next time. */
  async #register() {
    const answer = await this.#call("PUT", this.#url, JSON.stringify(this.#body), CALL_SECONDS);
    if (typeof answer !== "string") {
      if (!this.#registered) this.#log("registered", { url: this.#url });
      this.#registered = true;
      this.#failures = 0;
      this.#tellClashes(answer.clashes ?? {});
      const lease = Number(answer.lease_seconds);
      const most = Object.keys(this.#clashes).length > 0 ? CLASH_SECONDS : RENEW_SECONDS;
      return lease > 0 ? Math.min(most, lease / 3) : most;
    }
    this.#failures += 1;
    if (this.#failures === 1 || this.#failures % 20 === 0) {
      this.#log("cannot register; trying on", { url: this.#url, reason: answer });
    }
    const most = Math.min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** Math.min(10, this.#failures - 1));
    return most * (0.5 + Math.random() / 2); // so that a whole environment does not come back in one instant
  }

  /** An algorithm belongs to the first name that registered it; `clashes` are those of another. */
  #tellClashes(clashes) {
    if (JSON.stringify(clashes) === JSON.stringify(this.#clashes)) return;
    this.#clashes = clashes;
    const reasons = Object.entries(clashes).map(
      ([algorithm, owner]) =>
        `'${algorithm}' belongs to runner '${owner}', which registered it first; give one of the two another name, ` +
        `or decide for this runner: worker take-over ${algorithm} ${this.#body.name}`,
    );
    for (const reason of reasons) this.#log("an algorithm belongs to another runner", { reason });
    this.#unready(reasons.join("; "));
  }

  /** The answer when it was accepted, else why not, as a string. */
  async #call(method, url, body, seconds) {
    try {
      const headers = {
        ...(body !== undefined && { "Content-Type": "application/json" }),
        ...(this.#token && { Authorization: `Bearer ${this.#token}` }),
      };
      const signal = AbortSignal.timeout(seconds * 1000);
      const answer = await fetch(url, { method, headers, body, signal, redirect: "error" });
      const text = await answer.text();
      if (!answer.ok) return `${answer.status}: ${text.slice(0, 500)}`;
      return text ? (JSON.parse(text) ?? {}) : {};
    } catch (error) {
      return `${error.name}: ${error.cause?.message ?? error.message}`;
    }
  }
}
