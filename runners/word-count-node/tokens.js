// Who may send this runner runs: whoever has the token that is made from the runner's own.

import { createHmac, timingSafeEqual } from "node:crypto";

/** The name that a runner's token, "ppr_NAME.code", is for; undefined if it is no such token. */
export function nameIn(token) {
  const [, name] = /^ppr_(.+)\.[^.]+$/.exec(token) ?? [];
  try {
    return name && decodeURIComponent(name);
  } catch {
    return undefined;
  }
}

/** What controllers of this environment show to the runner with this token. */
export function runTokenOf(runnerToken) {
  return `ppx_${createHmac("sha256", runnerToken).update("run").digest("base64url")}`;
}

/** Whether the value of an Authorization header has this token; how long it takes tells nothing of the token. */
export function allows(token, header = "") {
  const [, given] = /^bearer +(.*)$/i.exec(header.trim()) ?? [];
  if (given === undefined) return false;
  // Of equal length, whatever was given.
  const digest = (text) => createHmac("sha256", token).update(text).digest();
  return timingSafeEqual(digest(given), digest(token));
}
