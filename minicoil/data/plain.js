// A plain word's page. Its template stands in this page, the words' data in files beside it: the number behind
// the question mark says which word is shown. What is filled in is what `word_page` writes for the same word.
(() => {
const template = document.getElementById("page").content, shell = document.getElementById("shell");
const why = document.getElementById("why"), behaviour = document.getElementById("behaviour").textContent;
const shapes = [...template.querySelectorAll("defs path")].map(path => [path.id, path.getAttribute("d")]);

function marks(text, ends) {   // a sentence's nodes: its word, from ends[0] to ends[1] and so on, is marked
  const parts = [];
  let at = 0;
  for (let k = 0; k < ends.length; k += 2) {
    parts.push(text.slice(at, ends[k]), made("mark", {}, text.slice(ends[k], ends[k + 1])));
    at = ends[k + 1];
  }
  return [...parts, text.slice(at)].filter(part => part !== "");
}
function quotation(word, [i, first, end]) {   // sentence i from `first` to `end`, in quotation marks
  const text = word.texts[i], left = first ? "“…" : "“", right = end < text.length ? "…”" : "”";
  const inside = word.places[i].map(place => Math.min(Math.max(place, first), end) - first + left.length);
  const ends = inside.filter((place, k) => inside[k - k % 2] < inside[k - k % 2 + 1]);
  return marks(left + text.slice(first, end) + right, ends);
}
function glyph(c, shape) {
  const path = made("path", {class: `c${Math.min(c, 6)}`, d: shapes[shape][1]});
  return made("svg", {class: "shape", viewBox: "-6 -6 12 12", "aria-hidden": "true"}, path);
}
function heat(hundredths) {
  const value = hundredths / 100, colour = value > 0 ? "230,97,1" : "94,60,153";
  const style = `background:rgba(${colour},${(Math.min(1, Math.abs(value)) * 0.6).toFixed(2)})`;
  const written = (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);
  return made("td", {class: "number", style}, written);
}
function shapeOf(word, i) {   // the number of a sentence's shape: its label's, else its sense's
  return (word.labels ? word.labels.of[i] : word.clusters[i]) % shapes.length;
}
function fillTop(word, page) {
  const title = `${word.word}: ${counted(word.n, "sentence")}, ${counted(word.names.length, "sense")}`;
  const heading = page.querySelector("h1"), part = page.querySelector(".faint").firstChild;
  const shown = word.clusters.length;
  document.title = `${title} – miniCOIL atlas`;
  heading.textContent = title;
  heading.nextElementSibling.textContent =
    word.said.map(text => text[0].toUpperCase() + text.slice(1)).join(". ") + ".";
  part.data = part.data.replace("{part}", shown < word.n ? `, of the first ${shown} of the draw` : "");
  return title;
}
function fillView(word, page, title) {
  const plot = page.querySelector(".plot"), figure = plot.parentNode, dim = word.means[0].length;
  const said = `${title}, by the ${dim} trained numbers. ${word.said[0]}. `;
  plot.setAttribute("aria-label", `${said}Senses: ${sensesText(word.names, word.sizes)}`);
  figure.querySelector("h2").textContent = `After: the ${dim} trained numbers`;
  const caption = figure.querySelector("figcaption");
  caption.textContent = caption.textContent.replace("{share}", word.share);
  plot.replaceChildren(...word.clusters.map((c, i) => made("use", {
    href: "#" + shapes[shapeOf(word, i)][0], class: `c${Math.min(c, 6)}`,
    x: word.points[2 * i] / 10, y: word.points[2 * i + 1] / 10})));
}
function fillLabels(word, page) {
  if (!word.labels) return;
  const {kinds, of} = word.labels, small = made("small");
  small.append("Colours are the senses found without labels. Shapes are labels that training never saw: ");
  kinds.forEach((label, k) => {
    const n = of.filter(other => other === k).length;
    small.append(glyph(6, k % shapes.length), `${label} (${numbered(n)})${k + 1 < kinds.length ? ", " : "."}`);
  });
  page.querySelector(".views").after(made("p", {}, small));
}
function fillMeans(word, page) {
  const table = page.querySelector(".scroll table"), head = table.tHead.rows[0], dim = word.means[0].length;
  for (let d = 1; d <= dim; d++) {
    const name = `number ${d}${word.constant && d === dim ? " + constant" : ""}`;
    head.append(made("th", {scope: "col", class: "axis"}, name));
  }
  table.tBodies[0].replaceChildren(...word.names.map((name, c) => {
    const said = `${name} (${numbered(word.sizes[c])})`;
    const shape = glyph(c, word.labels ? 0 : c % shapes.length);
    return made("tr", {"data-c": c}, made("th", {scope: "row"}, shape, said), ...word.means[c].map(heat));
  }));
}
function fillSentences(word, page) {
  const lists = word.names.flatMap((name, c) => {
    const mine = [...word.clusters.keys()].filter(i => word.clusters[i] === c), n = word.sizes[c];
    const count = mine.length === n ? counted(n, "sentence")
      : `${numbered(mine.length)} of ${counted(n, "sentence")}`;
    const items = mine.map(i => made("li", {id: `s${i}`, dir: "auto"}, ...marks(word.texts[i], word.places[i])));
    const list = made("details", {}, made("summary", {}, `${name} (${count})`), made("ol", {}, ...items));
    const typical = (word.typical[c] ?? []).map(
      quote => made("p", {class: "typical", dir: "auto"}, ...quotation(word, quote)));
    return [list, ...typical];
  });
  page.append(...lists);
}
function viewData(word) {   // what word.js reads, as `page_data` gives it
  const raw = atob(word.numbers), dim = word.means[0].length;
  const label = i => word.labels ? `; labelled ${word.labels.kinds[word.labels.of[i]]}` : "";
  const number = (_, i) => (raw.charCodeAt(i) << 24 >> 24) / 127;
  const flat = Array.from({length: raw.length}, number);
  const data = {
    word: word.word, notes: word.clusters.map((c, i) => word.names[c] + label(i)), map: word.map,
    numbers: word.clusters.map((_, i) => flat.slice(i * dim, (i + 1) * dim)),
  };
  const text = JSON.stringify(data).replaceAll("<", "\\u003c");
  return made("script", {type: "application/json", id: "view"}, text);
}
function act() { document.body.append(made("script", {}, behaviour)); }
function wholePage() {   // this page in one file, as it is before anybody points at it
  const copy = document.documentElement.cloneNode(true);
  copy.querySelectorAll("script:not(#view), template, #shell").forEach(element => element.remove());
  copy.querySelector("a[href='../index.html']").parentNode.remove();
  copy.querySelector("body").append(made("script", {}, behaviour));
  return copy;
}
function save(copy, word) {
  const file = new Blob(["<!doctype html>\n", copy.outerHTML], {type: "text/html"});
  const name = word.replace(/[^\p{L}\p{N}-]+/gu, "_").slice(0, 60) + ".html";
  const address = URL.createObjectURL(file);
  made("a", {href: address, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
function fill(word) {
  const title = fillTop(word, template);
  fillView(word, template, title);
  fillLabels(word, template);
  fillMeans(word, template);
  fillSentences(word, template);
  template.append(viewData(word));
  why.remove();
  document.body.prepend(template);
  const copy = wholePage(), button = document.getElementById("save");
  button.addEventListener("click", () => save(copy, word.word));
  button.parentNode.hidden = false;
  act();
}
function open() {
  const {firsts, end} = JSON.parse(document.getElementById("blocks").textContent);
  const given = location.search.slice(1), number = /^\d{1,9}$/.test(given) ? +given : -1;
  const first = firsts.filter(each => each <= number).pop();
  if (first === undefined || number >= end) {
    why.textContent = "No word has this number. ";
    why.append(made("a", {href: "../index.html"}, "All words"));
    return;
  }
  const name = `plain-${String(first).padStart(5, "0")}.js`, script = made("script", {src: name});
  const missing = () => { why.textContent = `This page needs the file ${name} beside it, or a newer browser.`; };
  const mine = columns => Object.fromEntries(
    Object.entries(columns).map(([name, values]) => [name, values[number - first]]));
  window.plainWords = letters => unpacked(letters).then(columns => fill(mine(columns))).catch(missing);
  script.addEventListener("error", missing);
  shell.append(script);
}
open();
})();
