// node check.mjs MODEL_DIRECTORY golden.jsonl: whether the reader does what the golden file says, step by step
import { readFileSync } from "node:fs";
import { normalize, Reader } from "./reader.mjs";

const [folder, file] = process.argv.slice(2);
const lines = readFileSync(file, "utf8").trimEnd().split("\n").map((line) => JSON.parse(line));
const readers = { values: await Reader.open(folder) };
if ("int8" in lines[0].minicoil) readers.int8 = await Reader.open(folder, { precision: "int8" });
let worst = 0, wrong = 0;

function same(step, found, right, text) {
  if (JSON.stringify(found) === JSON.stringify(right)) return;
  wrong++;
  console.log(`${step} of ${JSON.stringify(text).slice(0, 60)}: ${JSON.stringify(found)?.slice(0, 90)} is not ${JSON.stringify(right).slice(0, 90)}`);
}

function near(found, right) {
  found.forEach((value, i) => { worst = Math.max(worst, Math.abs(value - right[i])); });
}

for (const line of lines) {
  for (const reading of ["fastembed", "minicoil"]) {
    const right = line[reading], ours = reading === "minicoil";
    if (ours) same("normalized", normalize(line.text), right.normalized, line.text);
    for (const [name, reader] of Object.entries(readers)) {
      const found = await reader.embed(line.text, { ours });
      const words = [...found.words].map(([id, { count }]) => [reader.words[id - 1], count]);
      same("tokens", found.tokens, right.tokens, line.text);
      same("words", Object.fromEntries(words), right.words, line.text);
      same("stems", Object.fromEntries(found.stems), right.stems, line.text);
      same("indices", found.indices, right.indices, line.text);
      near(found.values, right[name]);
      if (name === "values") near(found.query, right.query);
    }
  }
}
console.log(JSON.stringify({ texts: lines.length, wrong, worst }));
process.exit(wrong || worst > 1e-4 ? 1 : 0);
