import assert from "node:assert/strict";
import { hostname } from "node:os";
import { test } from "node:test";

import { advertisedUrl, readSettings } from "../settings.js";

test("without variables it is for one machine", () => {
  const { host, port, advertiseHost, discovery, name } = readSettings({ DISCOVERY_URL: "" });
  assert.deepEqual([host, port, advertiseHost, discovery, name], ["127.0.0.1", 8100, "127.0.0.1", "", "word-count-node"]);
});

test("in a container it tells its own host name, or the one it was given", () => {
  assert.equal(readSettings({ HOST: "0.0.0.0" }).advertiseHost, hostname());
  assert.equal(readSettings({ HOST: "0.0.0.0", CONTAINER_NAME: "words" }).advertiseHost, "words");
  assert.equal(readSettings({ HOST: "0.0.0.0", ADVERTISE_HOST: "10.0.0.7" }).advertiseHost, "10.0.0.7");
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
