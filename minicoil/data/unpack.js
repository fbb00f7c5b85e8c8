// What Python packed, compressed JSON in letters of base64, as data.
async function unpacked(letters) {
  const raw = atob(letters), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}
// An element with attributes and what stands in it; all that is shown is set as text, never parsed.
function made(name, attributes = {}, ...inside) {
  const drawn = ["svg", "use", "path"].includes(name);
  const element = drawn ? document.createElementNS("http://www.w3.org/2000/svg", name)
    : document.createElement(name);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  element.append(...inside);
  return element;
}
function numbered(n) { return n.toLocaleString("en"); }
function counted(n, thing) { return `${numbered(n)} ${thing}${n === 1 ? "" : "s"}`; }
function sensesText(names, sizes) { return names.map((name, c) => `${name} (${numbered(sizes[c])})`).join("; "); }
