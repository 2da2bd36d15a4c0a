// Elements, numbers and texts. Text of captions and judges gets into the page here, as text nodes.

const DATA = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

// An element with attributes, listeners ("onclick") and custom properties ("css"), and children:
// strings become text nodes, whatever they hold.
function h(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "css") for (const [k, v] of Object.entries(value)) node.style.setProperty(k, v);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

function replace(node, ...children) {
  node.replaceChildren(...children.flat().filter(Boolean));
}

function number(value, digits = 2) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && size < 10 ** -digits) return value.toPrecision(2);
  if (size >= 10000) return Math.round(value).toLocaleString("en");
  return value.toFixed(size >= 100 ? 0 : digits);
}

function signed(value) {
  if (value === null || value === undefined) return "–";
  return (value > 0 ? "+" : value < 0 ? "−" : "±") + Math.abs(value).toFixed(2);
}

const short = (name) => name.replace(/_reward$/, "").replaceAll("_", " ");
const plural = (n, one, many) => `${n.toLocaleString("en")} ${n === 1 ? one : many || one + "s"}`;

// Marks that turn the direction of writing, and floods of characters that show nothing, are named
// instead of obeyed: they are how a caption hides what it says.
const TURNING = "\\u061c\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069";
const UNSEEN = "\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u00ad\\u180e\\u200b-\\u200d\\u2060-\\u2064\\ufeff\\ufff9-\\ufffb";
const HIDDEN = new RegExp(`[${TURNING}]+|[${UNSEEN}]{3,}|[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f]+`, "g");
const MANY_MARKS = /(\p{M}{4})\p{M}+/gu;

function text(value) {
  const source = String(value ?? "").replace(MANY_MARKS, "$1");
  const parts = [];
  let end = 0;
  for (const match of source.matchAll(HIDDEN)) {
    if (match.index > end) parts.push(source.slice(end, match.index));
    const code = match[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    const times = match[0].length > 1 ? ` ×${match[0].length}` : "";
    parts.push(h("span", { class: "hidden-mark", title: "characters that do not show" }, `U+${code}${times}`));
    end = match.index + match[0].length;
  }
  if (end < source.length) parts.push(source.slice(end));
  return parts;
}

// The same, for places that take no elements: options, descriptions.
const plain = (value) => text(value).map((part) => part.textContent ?? part).join("");

const OTHERS = ["other-1", "other-2", "other-3", "other-4"];
const NAMED = {
  precision: "precision", recall: "recall", linguistic: "linguistic", score: "score", ink: "ink-2",
  "b-CapScore": "score", "too short": "other-2", "too long": "other-1", median: "other-1", "95%": "other-2",
};

// The style sheet's name of a colour for a reward or a line of a chart.
function colour(name) {
  const key = name.replace(/_reward$/, "");
  if (NAMED[key] || OTHERS.includes(key)) return NAMED[key] || key;
  const rest = DATA.rewards.map((one) => one.replace(/_reward$/, "")).filter((one) => !NAMED[one]);
  return OTHERS[Math.max(0, rest.indexOf(key)) % OTHERS.length];
}

// A bar from 0 to 1.
function bar(value, name) {
  const share = Math.max(0, Math.min(1, value ?? 0));
  return h("span", { class: "bar", "aria-hidden": "true", css: { "--share": share, "--hue": `var(--${colour(name)})` } });
}

// A bar to the left or right of its middle, `most` wide at the edge.
function tilt(value, most, name) {
  const share = Math.max(-1, Math.min(1, (value ?? 0) / (most || 1)));
  return h("span", {
    class: share < 0 ? "tilt down" : "tilt", "aria-hidden": "true",
    css: { "--share": Math.abs(share), "--hue": `var(--${colour(name)})` },
  });
}

function picture(digest, alt, attributes) {
  const found = digest && DATA.images[digest];
  if (!found) return h("span", { ...attributes, class: `${attributes.class} no-picture`, role: "img", "aria-label": "no image" });
  const [url, width, height] = found;
  const small = Math.max(width, height) <= 192 ? " small-picture" : "";
  return h("img", { ...attributes, class: attributes.class + small, src: url, width, height, alt, decoding: "async" });
}

function say(message) {
  byId("said").textContent = message;
}
