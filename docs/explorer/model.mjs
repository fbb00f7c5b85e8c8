// A model in the browser: its files are downloaded, unpacked and checked; two texts become the rows of a score
import * as ort from "onnxruntime-web/wasm";
import { Reader } from "./format.mjs";

const MEGABYTE = 1e6;

// The bytes of a file as it was packed, checked by their number. A server that unpacked it by itself is fine.
async function fetched(address, { bytes, unpacked }, options, received) {
  const response = await fetch(address, options).catch(() => { throw new Error("the server cannot be reached"); });
  if (!response.ok) throw new Error(`the server answers ${response.status} for ${address.pathname}`);
  const parts = [], source = response.body.getReader();
  for (let step = await source.read(); !step.done; step = await source.read()) {
    parts.push(step.value);
    received(step.value.length);
  }
  const blob = new Blob(parts);
  if (blob.size !== bytes && blob.size !== unpacked) throw new Error(`${address.pathname} arrived cut`);
  return blob;
}

async function unpacked(blob, size, name) {
  const head = new Uint8Array(await blob.slice(0, 2).arrayBuffer()), packed = head[0] === 0x1f && head[1] === 0x8b;
  const stream = packed ? blob.stream().pipeThrough(new DecompressionStream("gzip")) : blob.stream();
  const data = await new Response(stream).arrayBuffer().catch(() => { throw new Error(`${name} is damaged`); });
  if (data.byteLength !== size) throw new Error(`${name} is damaged`);
  return data;
}

// Encoders from one file: the projection (hidden, rank) and scales (words, dim) in float32, and factors
// (rank, words, dim) in int8. Without a projection a factor is the encoder itself.
function encodersOf(data, { words, hidden, rank, dim, projected }) {
  const floats = projected ? hidden * rank : 0;
  const projection = new Float32Array(data, 0, floats), scales = new Float32Array(data, 4 * floats, words * dim);
  const factors = new Int8Array(data, 4 * (floats + words * dim));
  const factor = (id) => {
    const mine = new Float32Array(rank * dim);
    for (let r = 0; r < rank; r++) {
      for (let j = 0; j < dim; j++) mine[r * dim + j] = factors[(r * words + id) * dim + j] * scales[id * dim + j];
    }
    return mine;
  };
  const row = (id) => {
    const mine = factor(id), found = new Float32Array(hidden * dim);
    for (let i = 0; i < hidden; i++) {
      for (let r = 0; r < rank; r++) {
        const share = projection[i * rank + r];
        for (let j = 0; j < dim; j++) found[i * dim + j] += share * mine[r * dim + j];
      }
    }
    return found;
  };
  return { dim, row: projected ? row : factor };
}

// The model in the folder `base`: {reader, senses, about}; `progress(received, total)` in megabytes. `cache`
// is fetch's: "reload" where what came before was damaged
export async function load(base, progress = () => {}, cache = "default") {
  const list = await fetch(new URL("model.json", base), { cache: "no-cache" }).catch(() => { throw new Error("the server cannot be reached"); });
  if (!list.ok) throw new Error(`the server answers ${list.status} for model.json`);
  const about = await list.json(), names = Object.keys(about.files), data = {};
  const total = names.reduce((sum, name) => sum + about.files[name].bytes, 0) / MEGABYTE;
  const stop = new AbortController();
  let received = 0;
  const count = (n) => {
    received += n / MEGABYTE;
    if (!stop.signal.aborted) progress(Math.min(total, received), total);
  };
  count(0);
  await Promise.all(names.map(async (name) => {
    const address = new URL(`${name}?${about.files[name].sha256.slice(0, 12)}`, base);
    const blob = await fetched(address, about.files[name], { cache, signal: stop.signal }, count);
    data[name] = await unpacked(blob, about.files[name].unpacked, name);
  })).catch((fault) => {
    stop.abort();   // the other downloads end with the first that fails
    throw fault;
  });
  const texts = JSON.parse(new TextDecoder().decode(data["texts.bin"]));
  ort.env.wasm.wasmBinary = data["runtime.bin"];
  ort.env.wasm.numThreads = 1;   // more need headers that a plain server of files does not send
  const session = await ort.InferenceSession.create(new Uint8Array(data["transformer.bin"]), { executionProviders: ["wasm"] });
  const encoders = encodersOf(data["encoders.bin"], about.encoders);
  const reader = new Reader({ file: (name) => texts.files[name], encoders, ort, session });
  return { reader, senses: new Map(Object.entries(texts.senses)), about };
}

const product = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);

// The sense of a word that numbers of length 1 are nearest to, of those whose names are known
function senseOf(senses, word, numbers) {
  const all = (senses.get(word) ?? []).map(({ name, numbers: centre }) => ({ name, cosine: product(numbers, centre) }));
  return all.sort((a, b) => b.cosine - a.cosine)[0];
}

// What a shared word adds to the score of a text: as MiniCOIL.explain, without IDF
function matched({ reader, senses }, query, found) {
  const rows = [], { dim } = reader, asked = new Map(query.indices.map((index, i) => [index, query.query[i]]));
  for (const id of query.words.keys()) {
    if (!found.has(id * dim)) continue;
    const places = Array.from({ length: dim }, (_, j) => id * dim + j), word = reader.words[id - 1];
    const mine = places.map((i) => asked.get(i) ?? 0), theirs = places.map((i) => found.get(i) ?? 0);
    const bm25 = Math.hypot(...theirs), unit = theirs.map((x) => x / Math.max(bm25, 1e-9));
    const meant = [senseOf(senses, word, mine), senseOf(senses, word, unit)];
    rows.push({ word, known: true, bm25, similarity: product(mine, unit), contribution: product(mine, theirs), senses: meant });
  }
  for (const word of query.stems.keys()) {
    const bm25 = found.get(reader.unknownIndex(word));
    if (bm25 !== undefined) rows.push({ word, known: false, bm25, similarity: 1, contribution: bm25, senses: [] });
  }
  return rows.sort((a, b) => b.contribution - a.contribution);
}

// Two texts compared: {rows, score, alone: [words of the first alone, words of the second alone]}
export async function compare(model, first, second) {
  const { reader } = model, query = await reader.embed(first), text = await reader.embed(second);
  const found = new Map(text.indices.map((index, i) => [index, text.values[i]]));
  const rows = matched(model, query, found), asked = new Map(query.indices.map((index, i) => [index, query.query[i]]));
  const score = [...found].reduce((sum, [index, value]) => sum + value * (asked.get(index) ?? 0), 0);
  const shared = new Set(rows.map(({ word }) => word));
  const wordsOf = ({ words, stems }) => [...[...words.keys()].map((id) => reader.words[id - 1]), ...stems.keys()];
  return { rows, score, alone: [query, text].map((read) => wordsOf(read).filter((word) => !shared.has(word))) };
}
