import assert from "node:assert/strict";
import { test } from "node:test";

import { algorithm, description } from "../word_count.js";

test("the example is what comes out", () => {
  assert.deepEqual(algorithm.run(description.example.payload), description.example.result);
});

test("words of any script are counted, in small letters", () => {
  const { words, characters, most_common: common } = algorithm.run({ text: "Straße, STRASSE – l'été 😀 слово Слово" });
  assert.equal(words, 5);
  assert.equal(characters, 37);
  assert.deepEqual(common[0], { word: "слово", count: 2 });
});

test("words that are names of an object's own things are words", () => {
  const { most_common: common } = algorithm.run({ text: "constructor __proto__ constructor" });
  assert.deepEqual(common[0], { word: "constructor", count: 2 });
});

test("an empty text has no words", () => {
  assert.deepEqual(algorithm.run({ text: "" }), { words: 0, characters: 0, most_common: [] });
});

for (const [payload, message] of [
  [null, "must be an object"],
  [["text"], "must be an object"],
  [{}, "is missing"],
  [{ text: 1 }, "must be a string"],
  [{ text: "", top: 3 }, "is not a field"],
]) {
  test(`${JSON.stringify(payload)} does not fit: ${message}`, () => {
    assert.match(algorithm.mistakesOf(payload)[0].msg, new RegExp(message));
  });
}

test("what fits has no mistakes", () => {
  assert.deepEqual(algorithm.mistakesOf({ text: "" }), []);
});
