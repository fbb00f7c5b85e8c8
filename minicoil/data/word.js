// A word's page: pointing at a sentence in one view shows it and rings it in the other.
// Everything shown is cloned from the page, never parsed.
const view = JSON.parse(document.getElementById("view").textContent);
const plots = [...document.querySelectorAll("svg.plot")];
const said = document.getElementById("said"), tip = document.getElementById("tip");
const points = plots.map(plot => [...plot.querySelectorAll("use")].map(
  use => ({use, x: +use.getAttribute("x"), y: +use.getAttribute("y")})));
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
  if (whole <= 3 * around) return [range.cloneContents()];
  if (!mark) return [item.textContent.slice(0, 3 * around) + "…"];
  const before = mark.previousSibling, after = mark.nextSibling;
  const left = before && before.nodeType === 3 ? before.data : "";
  const right = after && after.nodeType === 3 ? after.data : "";
  return ["…" + left.slice(-around), mark.cloneNode(true), right.slice(0, around) + "…"];
}
function light(i, at) {
  if (lit !== null) sentence(lit).classList.remove("lit");
  lit = i;
  plots.forEach((plot, v) => {
    plot.querySelector(".ring")?.remove();
    if (i === null) return;
    const {x, y} = points[v][i];
    plot.append(element("circle", {class: "ring", cx: x, cy: y, r: 10}));
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
  const {width, height} = tip.getBoundingClientRect();
  const rings = [...document.querySelectorAll(".ring")].map(ring => ring.getBoundingClientRect());
  const within = (value, most) => Math.max(4, Math.min(value, most));
  const beneath = [18, 70], above = [-height - 14, -height - 66], sides = [14, -width - 14, -width / 2];
  const around = [beneath[0], above[0], beneath[1], above[1]].flatMap(y => sides.map(x => [x, y]));
  const places = around.map(([x, y]) =>
    [within(at.clientX + x, innerWidth - width - 8), within(at.clientY + y, innerHeight - height - 4)]);
  const hides = ([x, y]) => rings.some(
    r => r.right > x && r.left < x + width && r.bottom > y && r.top < y + height);
  const [left, top] = places.find(place => !hides(place)) ?? places[0];
  tip.style.left = left + "px";
  tip.style.top = top + "px";
}
// Where points crowd, several lie under a finger or beneath each other. Pointing rings the nearest of them;
// a click or tap offers the others too: each further one at the same place rings the next.
const FINGER = 22, POINTER = 4;   // CSS pixels from the middle of a finger, and of a pointer's tip
let touch = false;   // whether the last pointer was a finger; not every browser says so of a click
let finger = null;   // where it came down: browsers move a tap's click to what they think was meant
let offered = null;  // {view, x, y, order, at}: what the last click offered, and which it rings

function touches(event) { touch = event.pointerType === "touch"; }
function pressed(event) { touches(event); finger = {clientX: event.clientX, clientY: event.clientY}; }
function reach() { return touch ? FINGER : POINTER; }
function placed(v, event) {   // where an event happened on a view's sheet, and its units in a CSS pixel
  const there = plots[v].getScreenCTM().inverse();
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(there);
  return {x: at.x, y: at.y, unit: there.a};
}
function nearby(v, {x, y}, most) {   // [index, distance] of the points at most so far away, the nearest first
  return points[v].map((p, i) => [i, Math.hypot(p.x - x, p.y - y)])
    .filter(([, distance]) => distance <= most).sort((a, b) => a[1] - b[1] || a[0] - b[0]);
}
function chosen(v, event) {   // whether an event happened where the last click did
  return offered?.view === v && Math.hypot(event.clientX - offered.x, event.clientY - offered.y) <= reach();
}
function pointed(v, event) {
  if (chosen(v, event)) return;   // a hand that trembles does not undo a choice
  offered = null;
  const at = placed(v, event), [first] = nearby(v, at, Math.max(24, reach() * at.unit));
  if (first) light(first[0], event); else tip.hidden = true;
}
function offer(v, event) {   // ring the nearest point, and remember what else lies here
  offered = null;
  pointed(v, event);
  const at = placed(v, event), order = nearby(v, at, reach() * at.unit).map(([i]) => i);
  if (order.length) offered = {view: v, x: event.clientX, y: event.clientY, order, at: 0};
}
function clicked(v, event) {
  const again = chosen(v, event) && offered.order.includes(lit);
  if (again) offered.at = (offered.at + 1) % offered.order.length; else offer(v, event);
  if (!offered) return;
  const {order, at} = offered, note = document.createElement("small");
  light(order[at], event);
  note.className = "choice";
  note.textContent = ` ${at + 1} of ${order.length} close together here. `
    + `${touch ? "Tap" : "Click"} again for the next.`;
  if (order.length > 1) said.append(note);
}
const ways = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
function key(v, event) {
  if (event.key === "Escape") { light(null); return; }
  if (event.key === "Enter" && lit !== null) {
    sentence(lit).closest("details").open = true;
    sentence(lit).scrollIntoView({block: "center"});
    return;
  }
  if (!(event.key in ways)) return;
  event.preventDefault();
  const [dx, dy] = ways[event.key];
  if (lit === null) { light(0); return; }
  const from = points[v][lit];
  let best = null, least = Infinity;
  points[v].forEach((p, i) => {
    const along = (p.x - from.x) * dx + (p.y - from.y) * dy;
    const across = Math.abs((p.x - from.x) * dy) + Math.abs((p.y - from.y) * dx), far = along + 2 * across;
    if (i !== lit && along > 0 && across <= 2 * along && far < least) { least = far; best = i; }
  });
  if (best !== null) light(best);
}
plots.forEach((plot, v) => {
  plot.addEventListener("pointerdown", pressed);
  plot.addEventListener("pointermove", event => { touches(event); pointed(v, event); });
  plot.addEventListener("click", event => clicked(v, finger ?? event));
  plot.addEventListener("pointerleave", () => { tip.hidden = true; });
  plot.addEventListener("keydown", event => key(v, event));
});
for (const item of document.querySelectorAll("li[id]")) {
  item.addEventListener("click", () => light(+item.id.slice(1)));
}
for (const row of document.querySelectorAll("tr[data-c]")) {
  const only = c => points.flat().forEach(
    p => p.use.classList.toggle("dim", c !== null && !p.use.classList.contains("c" + c)));
  row.addEventListener("pointerenter", () => only(Math.min(6, +row.dataset.c)));
  row.addEventListener("pointerleave", () => only(null));
}
function star(x, y) {   // the corners of a star around a place
  const corner = (r, a) => (x + r * Math.cos(a)).toFixed(1) + "," + (y + r * Math.sin(a)).toFixed(1);
  return Array.from({length: 10}, (_, k) => corner(k % 2 ? 5 : 12, Math.PI * (k / 5 - .5))).join(" ");
}
function dot(a, b) { return a.reduce((sum, value, d) => sum + value * b[d], 0); }
function place() {   // #at=0.1,0.2,0.3,0.4: a star where such numbers land, and the sentences nearest to it
  const given = location.hash.match(/^#at=([-\d.e,]+)$/)?.[1].split(",").map(Number);
  plots[plots.length - 1].querySelector(".star")?.remove();
  if (!given || given.length + 1 !== view.map[0].length || given.some(isNaN)) return;
  const [x, y] = view.map.map(row => dot(given, row) + row[given.length]);
  plots[plots.length - 1].append(element("polygon", {class: "star", points: star(x, y)}));
  const order = view.numbers.map((row, i) => [dot(row, given), i]).sort((a, b) => b[0] - a[0]).slice(0, 3);
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
