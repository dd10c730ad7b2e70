// Elements made of text: nothing that came with the data is ever read as markup.

const SVG = document.getElementById("namespace").namespaceURI;
const byId = (id) => document.getElementById(id);

function fill(element, settings, children) {
  for (const [name, value] of Object.entries(settings || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else if (name === "value" || name === "checked" || name === "selected") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(3)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
  return element;
}

/** h("p", {class: "x"}, "text", element): an element of HTML. */
const h = (tag, settings, ...children) => fill(document.createElement(tag), settings, children);
/** s("path", {d: "..."}): an element of SVG. */
const s = (tag, settings, ...children) => fill(document.createElementNS(SVG, tag), settings, children);

/** Put `children` in the place of all that was in `element`. */
function put(element, ...children) {
  element.replaceChildren();
  return fill(element, null, children);
}

/** A name that may be broken behind its signs. */
const breakable = (name) => name.split(/(?<=[@+-])/).flatMap((part, i) => (i ? [h("wbr"), part] : [part]));

/** A link where `text` is an address or names a paper of arXiv, otherwise the text. */
function linked(text) {
  const paper = /arXiv[: ](\d{4}\.\d{4,5})/i.exec(text);
  const address = /^https?:\/\/\S+$/.test(text) ? text : paper ? `https://arxiv.org/abs/${paper[1]}` : null;
  return address ? h("a", { href: address, rel: "noopener noreferrer" }, text) : text;
}
