// Texts to sparse vectors, on Node and in browsers alike: who uses it brings the files and ONNX Runtime.
// The rules, with their numbers, are those of docs/format.md.
import { Tokenizer } from "@huggingface/tokenizers";
import stemmers from "snowball-stemmers";

// 1. Normalising, in our reading only
const isSymbol = (c) => c > "\x7f" && /[\p{S}\p{No}\p{Me}\p{Co}\p{Cn}ªº]/u.test(c);
const isInvisible = (c) => /[\p{Cf}\p{Variation_Selector}]/u.test(c);
const continues = (c) => /^[\p{M}\u1160-\u11ff]/u.test(c.normalize("NFKD")) && !isSymbol(c);
const inWord = (c) => /[\p{L}\p{N}\p{M}]/u.test(c);
const isSpace = (c) => /[\s\x1c-\x1f\x85]/.test(c) && c !== "\ufeff";
const isAmount = (a, b) => (/\p{Sc}/u.test(a) && /\p{Nd}/u.test(b)) || (/\p{Sc}/u.test(b) && /\p{Nd}/u.test(a));

function needsSpace(a, b) {
  if (!(a.apart || b.apart) || isSpace(a.c) || isSpace(b.c)) return false;
  if (a.unit === b.unit) return isSymbol(a.c) !== isSymbol(b.c);
  return (inWord(a.c) || inWord(b.c)) && !isAmount(a.c, b.c);
}

export function normalize(text) {
  text = text.replace(/[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]/g, " ");
  const strange = [...text].some((c) => c > "\x7f" && (isSymbol(c) || isInvisible(c)));
  if (!strange && text.normalize("NFKC") === text) return text;
  const units = [];
  for (const c of text) {
    if (isInvisible(c)) continue;
    if (units.length && continues(c)) units[units.length - 1].push(c);
    else units.push([c]);
  }
  let normal = "", before = null;
  units.forEach((unit, number) => {
    for (const c of unit.join("").normalize("NFKC")) {
      const glyph = { c, unit: number, apart: isSymbol(unit[0]) || isSymbol(c) };
      normal += (before && needsSpace(before, glyph) ? " " : "") + c;
      before = glyph;
    }
  });
  return normal;
}

// 5. The hash that an unknown word's index is made of: murmur3, 32 bits, seed 0, of its UTF-8
export function murmur3(text) {
  const data = new TextEncoder().encode(text), view = new DataView(data.buffer, data.byteOffset);
  const rotate = (x, n) => (x << n) | (x >>> (32 - n));
  const mix = (k) => Math.imul(rotate(Math.imul(k, 0xcc9e2d51), 15), 0x1b873593);
  const whole = data.length & ~3;
  let h = 0, tail = 0;
  for (let i = 0; i < whole; i += 4) h = (Math.imul(rotate(h ^ mix(view.getInt32(i, true)), 13), 5) + 0xe6546b64) | 0;
  for (let i = data.length - 1; i >= whole; i--) tail = (tail << 8) | data[i];
  h ^= mix(tail) ^ data.length;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) | 0;
}

export class Reader {
  // `file(name)`: the text of a file of the model directory, or undefined where there is none; `encoders`:
  // `dim`, and `row(id)`, the hidden × dim numbers of a word; `ort`: ONNX Runtime, `session`: the transformer in it
  constructor({ file, encoders, ort, session, k = 1.2, b = 0.75, avgLen = 150 }) {
    const json = (name) => JSON.parse(file(name));
    Object.assign(this, { ...encoders, ort, session, k, b, avgLen });
    const config = json("tokenizer_config.json"), state = json("tokenizer.json");
    const limits = [config.model_max_length, config.max_length].filter((n) => Number.isInteger(n) && n > 0 && n < 2 ** 31);
    this.tokenizer = new Tokenizer(state, config);
    [this.before, this.after] = [this.tokenizer.token_to_id("[CLS]"), this.tokenizer.token_to_id("[SEP]")];
    this.room = Math.min(...limits) - 2;
    const pieces = Object.entries(state.model.vocab);
    this.pieces = new Map([...pieces.map(([p, i]) => [i, p]), ...state.added_tokens.map((t) => [t.id, t.content])]);
    const { vocab, stem_mapping } = json("minicoil.triplet.model.vocab");
    this.words = vocab;
    this.ids = new Map(vocab.map((word, i) => [word, i + 1]));
    this.mapping = new Map(Object.entries(stem_mapping));
    this.stops = new Set(file("stopwords.txt").split("\n"));
    this.stemmer = stemmers.newStemmer(JSON.parse(file("minicoil.json") ?? "{}").language ?? "english");
    this.shift = (Math.floor(((vocab.length + 1) * this.dim) / 32000) + 2) * 32000;
  }

  // 2. Tokens, without special ones; a final sigma is an ordinary one, as lower case is made letter by letter
  tokens(text) {
    return this.tokenizer.encode(text.replaceAll("Σ", "σ"), { add_special_tokens: false }).ids.map(Number);
  }

  continuesWord(id) {
    return this.pieces.get(id).startsWith("##");
  }

  // 3. Windows, cut between words
  windows(ids) {
    const found = [];
    let start = 0;
    do {
      const left = Math.max(1, Math.ceil((ids.length - start) / this.room));
      let end = start + Math.ceil((ids.length - start) / left);
      if (end < ids.length) {
        let cut = end;
        while (cut > start && this.continuesWord(ids[cut])) cut--;
        if (cut > start) end = cut;
      }
      found.push(ids.slice(start, end));
      start = end;
    } while (start < ids.length);
    return found;
  }

  // 4. Words
  known(form) {
    if (this.stops.has(form)) return 0;
    const word = this.ids.has(form) ? form : this.mapping.get(form) ?? this.mapping.get(this.stemmer.stem(form));
    return this.ids.get(word) ?? 0;
  }

  unknown(form) {
    const skipped = (s) => this.stops.has(s) || /^\p{P}$/u.test(s);
    if (/^\[(CLS|SEP|PAD|UNK|MASK)\]$/.test(form) || skipped(form)) return [];
    const parts = form.replace(/[^\p{L}\p{N}_\s]/gu, " ").split(/\s+/).filter(Boolean);
    return parts.map((part) => this.stemmer.stem(part)).filter((s) => !skipped(s) && [...s].length <= 40);
  }

  read(row) {
    const words = new Map(), stems = new Map();
    for (let start = 0, end; start < row.length; start = end) {
      for (end = start + 1; end < row.length && this.continuesWord(row[end]); ) end++;
      const form = row.slice(start, end).map((id) => this.pieces.get(id).replace(/^##/, "")).join("");
      const id = this.known(form);
      if (id) {
        const word = words.get(id) ?? { count: 0, positions: [] };
        for (let i = start; i < end; i++) word.positions.push(i);
        words.set(id, { ...word, count: word.count + 1 });
      } else for (const stem of this.unknown(form)) stems.set(stem, (stems.get(stem) ?? 0) + 1);
    }
    return { words, stems };
  }

  async forward(row) {
    const tensor = (numbers) => new this.ort.Tensor("int64", numbers, [1, row.length]);
    const all = { input_ids: tensor(BigInt64Array.from(row, BigInt)), attention_mask: tensor(new BigInt64Array(row.length).fill(1n)) };
    all.token_type_ids = tensor(new BigInt64Array(row.length));
    const feeds = Object.fromEntries(this.session.inputNames.map((name) => [name, all[name]]));
    return (await this.session.run(feeds))[this.session.outputNames[0]];
  }

  // All steps for one text: {tokens, words, stems, indices, values, query}
  async embed(text, { ours = true } = {}) {
    const ids = this.tokens(ours ? normalize(text) : text);
    const rows = (ours ? this.windows(ids) : [ids.slice(0, this.room)]).map((w) => [this.before, ...w, this.after]);
    const words = new Map(), stems = new Map();
    for (const row of rows) {
      const read = this.read(row), { data, dims } = read.words.size ? await this.forward(row) : {};
      for (const [id, { count, positions }] of read.words) {
        const word = words.get(id) ?? { count: 0, size: 0, sum: new Float64Array(dims[2]) };
        for (const p of positions) for (let j = 0; j < dims[2]; j++) word.sum[j] += data[p * dims[2] + j];
        words.set(id, { ...word, count: word.count + count, size: word.size + positions.length });
      }
      for (const [stem, n] of read.stems) stems.set(stem, (stems.get(stem) ?? 0) + n);
    }
    for (const [stem, n] of stems) {
      if (words.has(this.ids.get(stem))) {
        words.get(this.ids.get(stem)).count += n;
        stems.delete(stem);
      }
    }
    return { tokens: rows, words, stems, ...this.vector(words, stems) };
  }

  unknownIndex(stem) {
    return this.shift + (Math.abs(murmur3(stem)) % (2 ** 31 - 1 - this.shift));
  }

  // 5. Numbers, weights and indices
  vector(words, stems) {
    const length = [...words.values()].reduce((n, w) => n + w.count, 0) + [...stems.values()].reduce((n, c) => n + c, 0);
    const weight = (c) => (c * (this.k + 1)) / (c + this.k * (1 - this.b + (this.b * length) / this.avgLen));
    const values = new Map(), query = new Map(), { dim } = this;
    const add = (index, value, asked) => {
      values.set(index, (values.get(index) ?? 0) + value);
      query.set(index, (query.get(index) ?? 0) + asked);
    };
    for (const [id, { count, size, sum }] of words) {
      const row = this.row(id), y = new Float64Array(dim);
      sum.forEach((x, j) => { for (let d = 0; d < dim; d++) y[d] += (x / size) * row[j * dim + d]; });
      const turned = y.map(Math.tanh), norm = Math.hypot(...turned);
      turned.forEach((x, d) => add(id * dim + d, (norm < 1e-8 ? x : x / norm) * weight(count), norm < 1e-8 ? x : x / norm));
    }
    for (const [stem, count] of stems) add(this.unknownIndex(stem), weight(count), 1);
    return { indices: [...values.keys()], values: [...values.values()], query: [...query.values()] };
  }
}
