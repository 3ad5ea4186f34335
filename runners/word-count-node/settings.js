// What the operator can choose, from environment variables; the names are those of every other runner.

import { readFileSync } from "node:fs";
import { hostname } from "node:os";

import { nameIn } from "./tokens.js";

const EVERY_INTERFACE = new Set(["0.0.0.0", "::"]);
const MEBIBYTE = 1024 * 1024;

/** Throws an Error whose message names the variable. An empty variable counts as unset. */
export function readSettings(environment) {
  const text = (name, otherwise) => environment[name] || otherwise;
  const number = (name, otherwise, least, most) => {
    const value = Number(text(name, otherwise));
    if (!(value >= least && value <= most)) {
      throw new Error(`${name} must be a number from ${least} to ${most}, not ${JSON.stringify(environment[name])}.`);
    }
    return value;
  };
  const whole = (name, otherwise, least, most) => {
    const value = number(name, otherwise, least, most);
    if (!Number.isInteger(value)) throw new Error(`${name} must be a whole number, not ${JSON.stringify(environment[name])}.`);
    return value;
  };
  const containerName = text("CONTAINER_NAME", "");
  const host = text("HOST", "127.0.0.1");
  const name = text("RUNNER_NAME", containerName || "word-count-node");
  return {
    name,
    host,
    token: runnerToken(environment, name, host),
    port: whole("PORT", 8100, 0, 65535),
    // Everybody's address is nobody's: others reach this machine by its name.
    advertiseHost: reachable(text("ADVERTISE_HOST", EVERY_INTERFACE.has(host) ? containerName || hostname() : host)),
    discovery: discoveryUrl(text, whole),
    graceSeconds: number("GRACE_SECONDS", 10, 0, 86400),
    maxBodyBytes: whole("MAX_BODY_BYTES", 16 * MEBIBYTE, 1, 1024 * MEBIBYTE),
  };
}

/** The base URL under which others reach this runner. */
export function advertisedUrl(advertiseHost, port) {
  const hasPort = /^(\[.*\]|[^:]+):\d+$/.test(advertiseHost);
  const host = advertiseHost.includes(":") && !hasPort && !advertiseHost.startsWith("[") ? `[${advertiseHost}]` : advertiseHost;
  return hasPort ? `http://${host}` : `http://${host}:${port}`;
}

/** This runner's own token, "" without one. Nobody but this machine reaches a runner that asks for none. */
function runnerToken(environment, name, host) {
  const token = secret(environment, "RUNNER_TOKEN");
  if (!token) {
    const auth = environment.AUTH?.trim().toLowerCase() ?? "";
    if (auth === "tokens") throw new Error("AUTH=tokens, and there is none: set RUNNER_TOKEN_FILE.");
    if (auth === "none" || isLoopback(host)) return "";
    throw new Error(
      `without a token it must not listen on ${host}, where others reach it: set RUNNER_TOKEN_FILE, ` +
        "or AUTH=none if everybody who reaches it may do everything.",
    );
  }
  if (nameIn(token) !== name) {
    throw new Error(`RUNNER_TOKEN is not that of runner ${JSON.stringify(name)}; set RUNNER_NAME to the name in it.`);
  }
  return token;
}

/** A secret is in the variable, or in the file that the variable with _FILE names. It is in no message. */
function secret(environment, name) {
  const path = environment[`${name}_FILE`];
  if (!path) return environment[name]?.trim() ?? "";
  if (environment[name]) throw new Error(`${name} and ${name}_FILE are both set; unset one of them.`);
  let content;
  try {
    content = readFileSync(path, "utf8").trim();
  } catch {
    throw new Error(`${name}_FILE names a file that cannot be read; check its name, its owner and its mode.`);
  }
  if (!content) throw new Error(`${name}_FILE names an empty file; write the token into it.`);
  return content;
}

function isLoopback(host) {
  return /^(localhost|.*\.localhost|127(\.\d{1,3}){3}|::1|\[::1\])$/.test(host);
}

function reachable(host) {
  try {
    new URL(advertisedUrl(host, 80));
    return host;
  } catch {
    throw new Error(`ADVERTISE_HOST must be a host or host:port, not ${JSON.stringify(host)}.`);
  }
}

function discoveryUrl(text, number) {
  const name = text("RUNNER_DISCOVERY_CONTAINER_NAME", "");
  const url = text("DISCOVERY_URL", name && `${name}:${number("RUNNER_DISCOVERY_PORT", 8010, 1, 65535)}`);
  return (url && !url.includes("://") ? `http://${url}` : url).replace(/\/+$/, "");
}
