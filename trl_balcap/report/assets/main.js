// Views, keys, and the address.

const VIEWS = { overview, captions, compare };
const made = new Set();

function show(view, { focus = false } = {}) {
  for (const name of Object.keys(VIEWS)) {
    byId(`view-${name}`).hidden = name !== view;
    const tab = byId(`tab-${name}`);
    tab.setAttribute("aria-selected", String(name === view));
    tab.tabIndex = name === view ? 0 : -1;
    if (focus && name === view) tab.focus();
  }
  document.body.dataset.view = view;
  if (!made.has(view)) {
    made.add(view);
    VIEWS[view](byId(`view-${view}`));
  }
}

function visit() {
  readAddress();
  find.linked = !!state.c;
  made.delete("captions");
  made.delete("compare");
  show(state.view);
}

for (const name of Object.keys(VIEWS)) {
  byId(`tab-${name}`).addEventListener("click", () => { go({ view: name }, { back: true }); show(name); });
}
document.querySelector(".tabs").addEventListener("keydown", (event) => {
  const names = Object.keys(VIEWS);
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!by) return;
  event.preventDefault();
  event.stopPropagation();
  const next = names[(names.indexOf(state.view) + by + names.length) % names.length];
  go({ view: next }, { back: true });
  show(next, { focus: true });
});
byId("help-open").addEventListener("click", () => byId("help").showModal());

document.addEventListener("keydown", (event) => {
  if (event.metaKey || event.ctrlKey || event.altKey || byId("help").open) return;
  const at = event.target;
  const writing = at.matches("input, select, textarea");
  if (event.key === "Escape" && writing) { at.blur(); byId("list")?.focus(); return; }
  if (event.key === "Escape") { document.querySelector('.assertion[aria-pressed="true"]')?.click(); return; }
  if (writing) return;
  const views = { 1: "overview", 2: "captions", 3: "compare" };
  if (event.key in views) { go({ view: views[event.key] }, { back: true }); show(views[event.key]); return; }
  if (event.key === "?") { byId("help").showModal(); return; }
  if (state.view !== "captions" || !DATA.rows.length) return;
  const inList = at.id === "list";
  const keys = {
    j: () => move(1), k: () => move(-1), ArrowRight: () => moveRollout(1), ArrowLeft: () => moveRollout(-1),
    "[": () => moveStep(-1), "]": () => moveStep(1), "/": () => { document.querySelector(".browser").classList.remove("opened"); byId("search").focus(); },
    ...(inList ? { ArrowDown: () => move(1), ArrowUp: () => move(-1), Home: () => move(-1e9), End: () => move(1e9), Enter: () => document.querySelector(".browser").classList.add("opened") } : {}),
  };
  const act = keys[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

addEventListener("hashchange", visit);
addEventListener("popstate", visit);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  clearTimeout(drawCharts.later);
  drawCharts.later = setTimeout(() => (byId("view-overview").hidden ? made.delete("overview") : drawCharts()), 120);
});
visit();

// A served page looks for newer rows, and offers them rather than taking away what is read.
if (DATA.live) {
  const seen = DATA.live;
  const look = setInterval(async () => {
    const answer = await fetch("version").catch(() => null); // the server may be gone; the page stays
    const now = answer?.ok ? await answer.text() : String(seen);
    if (now === String(seen)) return;
    clearInterval(look);
    document.querySelector(".top").after(h("p", { class: "newer", role: "status" }, "There are newer rows. ", h("button", { class: "plain", onclick: () => location.reload() }, "Show them")));
  }, 3000);
}
