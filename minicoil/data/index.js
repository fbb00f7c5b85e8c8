// The index: sort by a column, find by word or telling words.
// Rows are hidden, never rebuilt, so five thousand stay quick.
const table = document.querySelector(".index"), body = table.tBodies[0], rows = [...body.rows];
const search = document.getElementById("search"), count = document.getElementById("count");
const texts = rows.map(row => (row.cells[0].dataset.value + " " + row.cells[3].textContent).toLowerCase());
const words = rows.map(row => row.cells[0].dataset.value.toLowerCase());
const value = (row, column) => row.cells[column].dataset.value;

function sort(heading) {
  const column = heading.cellIndex, sign = heading.ariaSort === "ascending" ? -1 : 1;
  for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  const keys = new Map(rows.map(row => [row, column ? +value(row, column) : value(row, column)]));
  const compare = column ? (a, b) => keys.get(a) - keys.get(b) : new Intl.Collator().compare;
  const by = column ? (a, b) => sign * compare(a, b) : (a, b) => sign * compare(keys.get(a), keys.get(b));
  const order = [...rows].sort(by);
  body.append(...order);
}
function find() {   // a word that starts so comes first in the eye: without one, telling words count too
  const wanted = search.value.trim().toLowerCase(), starts = words.some(word => word.startsWith(wanted));
  let shown = 0;
  rows.forEach((row, i) => {
    const begins = words[i].startsWith(wanted) || texts[i].includes(" " + wanted);
    const hit = starts ? begins : texts[i].includes(wanted);
    shown += hit;
    if (row.hidden === hit) row.hidden = !hit;
  });
  count.textContent = wanted ? `${shown} of ${rows.length} words` : "";
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
find();
