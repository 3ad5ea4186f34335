import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { advertisedUrl, readSettings } from "../settings.js";

test("without variables it is for one machine", () => {
  const { host, port, advertiseHost, discovery, name } = readSettings({ DISCOVERY_URL: "" });
  assert.deepEqual([host, port, advertiseHost, discovery, name], ["127.0.0.1", 8100, "127.0.0.1", "", "word-count-node"]);
});

test("in a container it tells its own host name, or the one it was given", () => {
  const container = { HOST: "0.0.0.0", AUTH: "none" };
  assert.equal(readSettings(container).advertiseHost, hostname());
  assert.equal(readSettings({ ...container, CONTAINER_NAME: "words" }).advertiseHost, "words");
  assert.equal(readSettings({ ...container, ADVERTISE_HOST: "10.0.0.7" }).advertiseHost, "10.0.0.7");
});

test("it does not listen where others reach it without a token, unless that is meant", () => {
  for (const HOST of ["0.0.0.0", "::", "10.0.0.7", "words", "127.0.0.1.example"]) {
    assert.throws(() => readSettings({ HOST }), /must not listen on .*set RUNNER_TOKEN_FILE, or AUTH=none/);
    assert.equal(readSettings({ HOST, AUTH: "none" }).token, "");
    assert.equal(readSettings({ HOST, RUNNER_TOKEN: "ppr_word-count-node.c0de" }).token, "ppr_word-count-node.c0de");
  }
  for (const HOST of ["127.0.0.1", "::1", "localhost"]) {
    assert.equal(readSettings({ HOST }).token, "");
    assert.throws(() => readSettings({ HOST, AUTH: "tokens" }), /AUTH=tokens, and there is none/);
  }
});

test("the token can be in a file, and is in no message", (context) => {
  const folder = mkdtempSync(join(tmpdir(), "words-"));
  context.after(() => rmSync(folder, { recursive: true }));
  const RUNNER_TOKEN_FILE = join(folder, "token");
  assert.throws(() => readSettings({ RUNNER_TOKEN_FILE }), /names a file that cannot be read/);
  writeFileSync(RUNNER_TOKEN_FILE, "\n");
  assert.throws(() => readSettings({ RUNNER_TOKEN_FILE }), /names an empty file/);
  writeFileSync(RUNNER_TOKEN_FILE, "ppr_a%2Fb.c0de\n");
  assert.equal(readSettings({ RUNNER_TOKEN_FILE, RUNNER_NAME: "a/b" }).token, "ppr_a%2Fb.c0de");
  assert.throws(() => readSettings({ RUNNER_TOKEN_FILE, RUNNER_TOKEN: "x" }), /are both set/);
  const hides = (error) => /not that of runner "word-count-node"/.test(error.message) && !error.message.includes("c0de");
  assert.throws(() => readSettings({ RUNNER_TOKEN_FILE }), hides);
  assert.throws(() => readSettings({ RUNNER_TOKEN: "pps_c0de" }), hides);
});

test("the address of others is a URL", () => {
  assert.equal(advertisedUrl("words", 8100), "http://words:8100");
  assert.equal(advertisedUrl("words:80", 8100), "http://words:80");
  assert.equal(advertisedUrl("::1", 8100), "http://[::1]:8100");
  assert.equal(advertisedUrl("[::1]:80", 8100), "http://[::1]:80");
});

test("discovery is found by its URL or by its container's name", () => {
  assert.equal(readSettings({ DISCOVERY_URL: "http://there:8010/" }).discovery, "http://there:8010");
  assert.equal(readSettings({ DISCOVERY_URL: "there:8010" }).discovery, "http://there:8010");
  assert.equal(readSettings({ RUNNER_DISCOVERY_CONTAINER_NAME: "there" }).discovery, "http://there:8010");
});

test("a value that cannot be used is told with its name", () => {
  assert.throws(() => readSettings({ PORT: "80a" }), /PORT must be a number from 0 to 65535, not "80a"/);
  assert.throws(() => readSettings({ PORT: "80.5" }), /PORT must be a whole number, not "80.5"/);
  assert.throws(() => readSettings({ ADVERTISE_HOST: "a b" }), /ADVERTISE_HOST must be a host or host:port, not "a b"/);
});
