// A word's page: pointing at a sentence in one view shows it and rings it in the other. Everything shown is cloned from the page, never parsed.
const view = JSON.parse(document.getElementById("view").textContent);
const plots = [...document.querySelectorAll("svg.plot")], said = document.getElementById("said"), tip = document.getElementById("tip");
const points = plots.map(plot => [...plot.querySelectorAll("use")].map(use => ({use, x: +use.getAttribute("x"), y: +use.getAttribute("y")})));
let lit = null;

function element(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  return made;
}
function sentence(i) { return document.getElementById("s" + i); }
function excerpt(item, around = 140) {   // what stands around the word, for the label beside the pointer
  const range = document.createRange(), mark = item.querySelector("mark");
  range.selectNodeContents(item);
  const whole = item.textContent.length;
  if (whole <= 3 * around || !mark) { const all = range.cloneContents(); if (whole > 3 * around) all.textContent = item.textContent.slice(0, 3 * around) + "…"; return [all]; }
  const before = mark.previousSibling, after = mark.nextSibling;
  const left = before && before.nodeType === 3 ? before.data : "", right = after && after.nodeType === 3 ? after.data : "";
  return ["…" + left.slice(-around), mark.cloneNode(true), right.slice(0, around) + "…"];
}
function light(i, at) {
  if (lit !== null) sentence(lit).classList.remove("lit");
  lit = i;
  plots.forEach((plot, v) => {
    plot.querySelector(".ring")?.remove();
    if (i !== null) plot.append(element("circle", {class: "ring", cx: points[v][i].x, cy: points[v][i].y, r: 10}));
  });
  tip.hidden = i === null || !at;
  if (i === null) return;
  const sense = document.createElement("small");
  sense.textContent = " (" + view.notes[i] + ")";
  said.dataset.i = i;
  said.replaceChildren(...sentence(i).cloneNode(true).childNodes, sense);
  sentence(i).classList.add("lit");
  if (at) {
    tip.replaceChildren(...excerpt(sentence(i)));
    beside(at);
  }
}
function beside(at) {   // the label beside the pointer, where it hides no ring if there is such a place
  const {width, height} = tip.getBoundingClientRect(), rings = [...document.querySelectorAll(".ring")].map(ring => ring.getBoundingClientRect());
  const places = [[14, 18], [14, -height - 14], [-width - 14, 18], [-width - 14, -height - 14]].map(([x, y]) =>
    [Math.max(4, Math.min(at.clientX + x, innerWidth - width - 8)), Math.max(4, Math.min(at.clientY + y, innerHeight - height - 4))]);
  const hides = ([x, y]) => rings.some(r => r.right > x && r.left < x + width && r.bottom > y && r.top < y + height);
  const [left, top] = places.find(place => !hides(place)) ?? places[0];
  tip.style.left = left + "px";
  tip.style.top = top + "px";
}
function nearest(v, x, y, allowed = () => true) {
  let best = null, least = Infinity;
  points[v].forEach((p, i) => { const d = (p.x - x) ** 2 + (p.y - y) ** 2; if (d < least && allowed(p)) { least = d; best = i; } });
  return [best, Math.sqrt(least)];
}
function pointed(v, event) {
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(plots[v].getScreenCTM().inverse());
  const [i, distance] = nearest(v, at.x, at.y);
  if (i !== null && distance < 24) light(i, event); else tip.hidden = true;
}
const ways = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
function key(v, event) {
  if (event.key === "Escape") { light(null); return; }
  if (event.key === "Enter" && lit !== null) { sentence(lit).closest("details").open = true; sentence(lit).scrollIntoView({block: "center"}); return; }
  if (!(event.key in ways)) return;
  event.preventDefault();
  const [dx, dy] = ways[event.key];
  if (lit === null) { light(0); return; }
  const from = points[v][lit];
  let best = null, least = Infinity;
  points[v].forEach((p, i) => {
    const along = (p.x - from.x) * dx + (p.y - from.y) * dy, across = Math.abs((p.x - from.x) * dy) + Math.abs((p.y - from.y) * dx);
    if (i !== lit && along > 0 && across <= 2 * along && along + 2 * across < least) { least = along + 2 * across; best = i; }
  });
  if (best !== null) light(best);
}
plots.forEach((plot, v) => {
  plot.addEventListener("pointermove", event => pointed(v, event));
  plot.addEventListener("click", event => pointed(v, event));
  plot.addEventListener("pointerleave", () => { tip.hidden = true; });
  plot.addEventListener("keydown", event => key(v, event));
});
for (const item of document.querySelectorAll("li[id]")) item.addEventListener("click", () => light(+item.id.slice(1)));
for (const row of document.querySelectorAll("tr[data-c]")) {
  const only = c => points.flat().forEach(p => p.use.classList.toggle("dim", c !== null && !p.use.classList.contains("c" + c)));
  row.addEventListener("pointerenter", () => only(Math.min(6, +row.dataset.c)));
  row.addEventListener("pointerleave", () => only(null));
}
function place() {   // word-00000.html#at=0.1,0.2,0.3,0.4 shows where such numbers land: a star, and the sentences nearest to it
  const given = location.hash.match(/^#at=([-\d.e,]+)$/)?.[1].split(",").map(Number);
  plots[plots.length - 1].querySelector(".star")?.remove();
  if (!given || given.length !== view.mean.length || given.some(isNaN)) return;
  const [x, y] = view.axes.map((axis, k) => view.offset[k] + view.scale * (k ? -1 : 1) * axis.reduce((sum, a, d) => sum + a * (given[d] - view.mean[d]), 0));
  const star = Array.from({length: 10}, (_, k) => { const r = k % 2 ? 5 : 12, a = Math.PI * (k / 5 - .5); return (x + r * Math.cos(a)).toFixed(1) + "," + (y + r * Math.sin(a)).toFixed(1); });
  plots[plots.length - 1].append(element("polygon", {class: "star", points: star.join(" ")}));
  const order = view.numbers.map((row, i) => [row.reduce((sum, a, d) => sum + a * given[d], 0), i]).sort((a, b) => b[0] - a[0]).slice(0, 3);
  const list = document.createElement("ol"), title = document.createElement("p");
  title.textContent = "★ your sentence. The nearest sentences learned from:";
  for (const [cosine, i] of order) {
    const item = document.createElement("li"), note = document.createElement("small");
    note.textContent = ` (${view.notes[i]}; similarity ${cosine.toFixed(2)})`;
    item.append(...excerpt(sentence(i)), note);
    list.append(item);
  }
  const box = document.getElementById("landed");
  box.replaceChildren(title, list);
  box.hidden = false;
}
addEventListener("hashchange", place);
place();
