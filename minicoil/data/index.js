// The index: sort by a column, find by word or telling words. Rows are made where they are looked at, fifty at
// a time, and taken away where nobody looks any more, so twenty thousand cost what a few hundred cost.
(async () => {
const SIZE = 50, HEIGHT = matchMedia("(max-width: 600px)").matches ? 120 : 80;   // rows of a part; pixels of a row
const table = document.querySelector(".index"), search = document.getElementById("search");
const count = document.getElementById("count");
const rows = (await unpacked(document.getElementById("rows").textContent)).map(
  ([index, word, sentences, kept, share, chance, names, sizes, points, plain]) => {
    const several = names.length > 1, senses = counted(names.length, "sense");
    const counts = several ? sensesText(names, sizes) : "", begins = word.toLowerCase();
    const text = `${word} ${senses} ${counts}`.toLowerCase();
    const values = [word, sentences, several ? kept : -1, names.length];
    return {index, word, sentences, share, chance, several, senses, counts, points, plain, begins, text, values};
  });
let order = rows, shown = rows;

function address(row) {   // as `word_address` has it
  const number = String(row.index);
  return row.plain ? `words/word.html?${number}` : `words/word-${number.padStart(5, "0")}.html`;
}
function thumbnail(row) {   // two letters a point, from "0" on
  const place = (text, i) => `M${text.charCodeAt(i) - 48} ${text.charCodeAt(i + 1) - 48}h0`;
  const paths = row.points.map(([c, text]) => {
    const d = Array.from({length: text.length / 2}, (_, i) => place(text, 2 * i)).join("");
    return made("path", {class: `t${c}`, d});
  });
  const label = `${row.word}: ${row.senses} by the trained numbers`;
  return made("svg", {class: "thumb", viewBox: "0 0 58 45", role: "img", "aria-label": label}, ...paths);
}
function rowOf(row, at) {
  const small = (text, attributes = {}) => made("small", attributes, text);
  const cell = (k, name, ...inside) =>
    made("td", {role: "cell", class: name, "data-value": row.values[k]}, ...inside);
  const plain = row.plain ? [made("br"), small("plain page")] : [];
  const kept = row.several ? [`${row.share}%`, small(" kept", {class: "unit"}), made("br"),
    small(`${row.chance}% by chance`)] : ["–"];
  return made("tr", {role: "row", "aria-rowindex": at + 2},
    made("th", {role: "rowheader", scope: "row", "data-value": row.word},
      made("a", {href: address(row)}, row.word), ...plain),
    cell(1, "number", numbered(row.sentences), small(" sentences", {class: "unit"})),
    cell(2, "number", ...kept),
    cell(3, "wide", row.senses, made("br"), small(row.counts)),
    made("td", {role: "cell"}, thumbnail(row)));
}
function fill(part) {
  if (part.rows.length) return;
  const first = +part.dataset.first;
  part.append(...shown.slice(first, first + SIZE).map((row, i) => rowOf(row, first + i)));
  part.style.height = "";
}
function leave(part, height) {   // what was made can be made again; it keeps its place
  if (!part.rows.length || part.contains(document.activeElement)) return;
  part.style.height = height + "px";
  part.replaceChildren();
}
const watcher = new IntersectionObserver(seen => {
  for (const one of seen) {
    if (one.isIntersecting) fill(one.target); else leave(one.target, one.boundingClientRect.height);
  }
}, {rootMargin: "2000px"});
function lay() {   // empty parts, as high as their rows will be; the first two are filled at once
  watcher.disconnect();
  const parts = Array.from({length: Math.ceil(shown.length / SIZE)}, (_, k) => {
    const part = made("tbody", {role: "rowgroup", "data-first": k * SIZE});
    part.style.height = Math.min(SIZE, shown.length - k * SIZE) * HEIGHT + "px";
    return part;
  });
  [...table.tBodies].forEach(part => part.remove());
  table.append(...parts);
  table.setAttribute("aria-rowcount", shown.length + 1);
  parts.slice(0, 2).forEach(fill);
  parts.forEach(part => watcher.observe(part));
}
function sort(heading) {
  const column = heading.cellIndex, sign = heading.ariaSort === "ascending" ? -1 : 1;
  for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  const compare = column ? (a, b) => a - b : new Intl.Collator().compare;
  order = [...rows].sort((a, b) => sign * compare(a.values[column], b.values[column]));
  find();
}
function find() {   // a word that starts so comes first in the eye: without one, telling words count too
  const wanted = search.value.trim().toLowerCase(), starts = rows.some(row => row.begins.startsWith(wanted));
  const hit = row => starts ? row.begins.startsWith(wanted) || row.text.includes(" " + wanted)
    : row.text.includes(wanted);
  shown = wanted ? order.filter(hit) : order;
  count.textContent = wanted ? `${shown.length} of ${rows.length} words` : "";
  lay();
}
for (const heading of table.tHead.rows[0].cells) {
  if (heading.dataset.fixed !== undefined) continue;
  const button = document.createElement("button");
  button.append(...heading.childNodes);
  button.addEventListener("click", () => sort(heading));
  heading.append(button);
}
document.getElementById("find").hidden = false;
search.addEventListener("input", find);
addEventListener("beforeprint", () => [...table.tBodies].forEach(fill));
find();
})();
