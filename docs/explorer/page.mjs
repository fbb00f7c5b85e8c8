// The page: a button that loads the model, a form with two texts, and a table of what they share
import { compare, load } from "./model.mjs";

export { compare, load };

const place = (name) => document.getElementById(`explorer-${name}`);

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

const signed = (x) => (x < 0 && x <= -0.005 ? "−" : "+") + Math.abs(x).toFixed(2);
const megabytes = (x) => x.toFixed(1);

// In the cell of a word: the senses it has in the two texts, where their names are known
function senseLines(senses) {
  const sides = ["query", "text"], lines = senses.map((sense, i) => sense && `in the ${sides[i]}: ${sense.name} (${signed(sense.cosine)})`);
  return lines.filter(Boolean).map((line) => element("div", line, { class: "explorer-sense" }));
}

function tableOf(rows, score) {
  const table = element("table", ""), head = table.createTHead().insertRow(), body = table.createTBody();
  for (const title of ["word", "meaning", "BM25", "adds"]) head.append(element("th", title, { scope: "col" }));
  for (const { word, known, bm25, similarity, contribution, senses } of rows) {
    const row = body.insertRow(), name = element("th", word, { scope: "row" });
    name.append(...senseLines(senses));
    const meaning = known ? element("td", signed(similarity), { class: "explorer-number" }) : element("td", "unknown word", { class: "explorer-faint" });
    row.append(name, meaning, element("td", bm25.toFixed(2), { class: "explorer-number" }), element("td", signed(contribution), { class: "explorer-number" }));
  }
  const last = body.insertRow(), bm25 = rows.reduce((sum, row) => sum + row.bm25, 0);
  last.append(element("th", "score", { scope: "row" }), element("td", ""));
  last.append(element("td", bm25.toFixed(2), { class: "explorer-number" }), element("td", signed(score), { class: "explorer-number" }));
  return table;
}

function shown({ rows, score, alone }, milliseconds) {
  const parts = [];
  if (rows.length) parts.push(tableOf(rows, score));
  else parts.push(element("p", "The two share no word, so the score is 0."));
  alone.forEach((words, i) => {
    if (words.length) parts.push(element("p", `Only in the ${["query", "text"][i]}: ${words.join(", ")}`, { class: "explorer-faint" }));
  });
  parts.push(element("p", `Read in ${Math.round(milliseconds)} ms, in this browser.`, { class: "explorer-faint" }));
  return parts;
}

// Whatever is typed while a comparison runs is compared when it ends
function comparing(model) {
  let busy = false, again = false;
  return async function now() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const begin = performance.now(), found = await compare(model, place("query").value, place("text").value);
      place("answer").replaceChildren(...shown(found, performance.now() - begin));
      if (document.activeElement.closest("#explorer-form")) place("answer").scrollIntoView({ block: "nearest" });
    } catch (fault) {
      place("answer").replaceChildren(element("p", `The texts could not be read: ${fault.message}`, { role: "alert" }));
    } finally {
      busy = false;
      if (again) { again = false; now(); }
    }
  };
}

let cache = "default";

export async function start(base) {
  const status = place("status"), button = place("load");
  button.disabled = true;
  try {
    const model = await load(base, (received, total) => {
      status.textContent = received < total ? `Loading: ${megabytes(received)} of ${megabytes(total)} MB` : "Opening the model";
    }, cache);
    button.remove();
    status.textContent = `${model.about.name}, ${model.reader.words.length.toLocaleString("en")} words, is loaded. What you type stays here.`;
    const now = comparing(model), form = place("form");
    form.addEventListener("submit", (event) => { event.preventDefault(); now(); });
    for (const example of form.querySelectorAll("[data-query]")) {
      example.addEventListener("click", () => {
        place("query").value = example.dataset.query;
        place("text").value = example.dataset.text;
        now();
      });
    }
    form.hidden = false;
    await now();
  } catch (fault) {
    status.textContent = `The model could not be loaded: ${fault.message}`;
    cache = "reload";
    button.disabled = false;
  }
}
