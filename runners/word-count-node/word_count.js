// The algorithm: a plain function, and what others have to know to call it. Knows nothing of HTTP.

const MOST_COMMON = 5;
const WORD = /[\p{L}\p{M}\p{N}]+(?:['’-][\p{L}\p{M}\p{N}]+)*/gu;

function wordCount({ text }) {
  const counts = new Map();
  let words = 0;
  for (const [word] of text.matchAll(WORD)) {
    words += 1;
    const key = word.toLowerCase();
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  let characters = 0;
  for (const _ of text) characters += 1; // code points: an emoji is one, not two
  const sorted = [...counts].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1));
  const mostCommon = sorted.slice(0, MOST_COMMON).map(([word, count]) => ({ word, count }));
  return { words, characters, most_common: mostCommon };
}

/** One entry for each field at fault; none when the payload fits `input_schema`. */
function mistakesOf(payload) {
  if (payload === null || typeof payload !== "object" || Array.isArray(payload)) {
    return [{ loc: [], msg: 'must be an object: {"text": "…"}', type: "object_type" }];
  }
  const mistakes = [];
  if (!Object.hasOwn(payload, "text")) {
    mistakes.push({ loc: ["text"], msg: "is missing", type: "missing" });
  } else if (typeof payload.text !== "string") {
    mistakes.push({ loc: ["text"], msg: "must be a string", type: "string_type" });
  }
  for (const field of Object.keys(payload)) {
    if (field !== "text") mistakes.push({ loc: [field], msg: "is not a field", type: "extra_forbidden" });
  }
  return mistakes;
}

const count = { type: "integer", minimum: 0 };

/** What goes to discovery and is shown by `GET /schemas`, word for word. */
export const description = {
  name: "word_count",
  summary: "Counts the words of a text",
  description: "Words and characters of a text, and the words that it has most often, in small letters.",
  input_schema: {
    type: "object",
    properties: { text: { type: "string", description: "The text." } },
    required: ["text"],
    additionalProperties: false,
  },
  output_schema: {
    type: "object",
    properties: {
      words: count,
      characters: count,
      most_common: {
        type: "array",
        maxItems: MOST_COMMON,
        items: {
          type: "object",
          properties: { word: { type: "string" }, count },
          required: ["word", "count"],
        },
      },
    },
    required: ["words", "characters", "most_common"],
  },
  example: {
    payload: { text: "Plug and play and pause" },
    result: {
      words: 5,
      characters: 23,
      most_common: [
        { word: "and", count: 2 },
        { word: "pause", count: 1 },
        { word: "play", count: 1 },
        { word: "plug", count: 1 },
      ],
    },
  },
  limits: { timeout_seconds: 30, slots: 4 },
};

export const algorithm = { description, run: wordCount, mistakesOf };
