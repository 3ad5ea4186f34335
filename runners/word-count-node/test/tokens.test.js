import assert from "node:assert/strict";
import { test } from "node:test";

import { allows, nameIn, runTokenOf } from "../tokens.js";

// Made by the environment: key "k" 32 times, runner "word-count-node".
const TOKEN = "ppr_word-count-node.Fhbw5wSENvjRg_bOliDmaUk9TxDLCRl_yL0moWbWRH4";
const RUN_TOKEN = "ppx_dzXRPIQVDmtfLvmJGdrzNszw7Pe8_l8J_XBtZW5gbic";

test("the token for runs is what controllers show", () => {
  assert.equal(runTokenOf(TOKEN), RUN_TOKEN);
});

test("a token tells whose it is", () => {
  assert.equal(nameIn(TOKEN), "word-count-node");
  assert.equal(nameIn("ppr_a%2Fb.c.c0de"), "a/b.c");
  for (const none of ["", "ppr_", "ppr_name", "ppr_.c0de", "ppr_name.", "ppr_%.c0de", RUN_TOKEN]) {
    assert.equal(nameIn(none), undefined);
  }
});

test("the header must have that token, and nothing else", () => {
  assert.ok(allows(RUN_TOKEN, `Bearer ${RUN_TOKEN}`));
  assert.ok(allows(RUN_TOKEN, `bearer  ${RUN_TOKEN}`));
  const others = [undefined, "", "Bearer", "Bearer ", RUN_TOKEN, `Basic ${RUN_TOKEN}`, `Bearer ${TOKEN}`, `Bearer ${RUN_TOKEN}x`];
  for (const header of others) assert.ok(!allows(RUN_TOKEN, header), header);
});
