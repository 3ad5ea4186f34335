// What the operator can choose, from environment variables; the names are those of every other runner.

import { hostname } from "node:os";

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
  return {
    name: text("RUNNER_NAME", containerName || "word-count-node"),
    host,
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
