// Captions: a list to search, filter and sort; beside it the image with all rollouts of it.

const CHUNK = 60;
let listed = [];
let rendered = 0;
let looked = null; // the row that is looked at; the address has it once it was chosen

function captions(section) {
  if (!DATA.rows.length) {
    replace(section, h("p", { class: "empty" }, "No rollouts were kept here: the run was made with log_verdicts=0, or has made no step yet."));
    return;
  }
  replace(section,
    h("div", { class: "browser" },
      h("aside", { class: "finder", "aria-label": "Find captions" }, controls(),
        h("p", { id: "count", class: "count" }),
        h("ul", { id: "list", class: "list", role: "listbox", tabindex: "0", "aria-label": "Captions" })),
      h("div", { id: "detail", class: "detail" })));
  byId("list").addEventListener("click", (event) => {
    const item = event.target.closest("[data-key]");
    if (item) select(ROW_OF.get(item.dataset.key), { open: true });
  });
  new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && more(), { rootMargin: "600px" })
    .observe(byId("list").appendChild(h("li", { class: "end", role: "presentation" })));
  find();
}

function picker(label, name, options, onchange) {
  return h("label", { class: "field" }, h("span", {}, label), h("select", { id: `pick-${name}`, onchange: (event) => onchange(event.target.value) },
    options.map(([value, said]) => h("option", { value, selected: String(state[name]) === String(value) }, plain(said)))));
}

function bound(label, name, onchange) {
  return h("label", { class: "field" }, h("span", {}, label), h("input", { id: `bound-${name}`, type: "number", step: "any", value: state[name], oninput: (event) => onchange(event.target.value) }));
}

function controls() {
  const change = (name) => (value) => { go({ [name]: value }); if (name === "run" || name === "split") stepField(); find(); };
  const splits = [...new Set(DATA.groups.map((group) => group.split))];
  const reasons = [...new Set(DATA.rows.flatMap((row) => row.missing.map((name) => row.reasons[name]).filter(Boolean)))].sort();
  const form = h("form", { class: "controls", role: "search", onsubmit: (event) => event.preventDefault() },
    h("label", { class: "search" }, h("span", { class: "unseen" }, "Search captions, assertions, references"),
      h("input", { id: "search", type: "search", placeholder: "Search", value: state.q, autocomplete: "off", spellcheck: "false", oninput: (event) => change("q")(event.target.value) }),
      h("kbd", { "aria-hidden": "true" }, "/")),
    h("div", { class: "pickers" },
      h("div", { class: "sorting" }, picker("Sort by", "sort", Object.entries(SORTS).map(([value, { label }]) => [value, label]), change("sort")),
        h("button", { id: "turn", type: "button", class: "plain turn", onclick: () => { go({ turn: state.turn ? "" : "1" }); find(); } })),
      h("div", { class: "within" }, picker("Only where", "by", [["", "any value"], ...Object.entries(SORTS).filter(([value]) => value !== "step").map(([value, { label }]) => [value, label])], change("by")),
        bound("from", "low", change("low")), bound("to", "high", change("high"))),
      picker("Show", "show", Object.entries(SHOWS).map(([value, { label }]) => [value, label]), change("show")),
      DATA.runs.length > 1 ? picker("Run", "run", [["", "all runs"], ...DATA.runs.map((run, place) => [place, run.name])], change("run")) : null,
      splits.length > 1 ? picker("Split", "split", [["", "all"], ...splits.map((one) => [one, one])], change("split")) : null,
      reasons.length ? picker("Reason", "reason", [["", "any"], ...reasons.map((one) => [one, one])], change("reason")) : null),
    h("div", { id: "steps" }));
  queueMicrotask(stepField);
  return form;
}

// A slider over the steps that have captions; at its left end it shows all of them.
function stepField() {
  const steps = STEPS();
  if (state.step !== "" && !steps.includes(+state.step)) go({ step: "" });
  const at = state.step === "" ? 0 : steps.indexOf(+state.step) + 1;
  const said = (place) => (place ? `step ${steps[place - 1]}` : "all steps");
  const output = h("output", { for: "step" }, said(at));
  const slider = h("input", {
    id: "step", type: "range", min: 0, max: steps.length, value: at, "aria-valuetext": said(at),
    oninput: (event) => {
      const place = +event.target.value;
      output.textContent = said(place);
      event.target.setAttribute("aria-valuetext", said(place));
      go({ step: place ? String(steps[place - 1]) : "" });
      find();
    },
  });
  replace(byId("steps"), steps.length > 1 ? h("label", { class: "step-field" }, h("span", {}, "Step"), slider, output) : null);
}

function find() {
  listed = chosen();
  rendered = 0;
  const list = byId("list");
  const end = list.querySelector(".end");
  replace(list, end);
  more();
  list.scrollTop = 0;
  const turn = byId("turn");
  const ascending = SORTS[state.sort].up !== (state.turn === "1");
  turn.textContent = ascending ? "↑" : "↓";
  turn.setAttribute("aria-label", ascending ? "lowest first; turn around" : "highest first; turn around");
  turn.title = ascending ? "lowest first" : "highest first";
  byId("count").textContent = plural(listed.length, "caption");
  say(`${plural(listed.length, "caption")}.`);
  // A caption that was linked to stays, whatever the list shows; otherwise the first one is looked at.
  const linked = find.linked && ROW_OF.get(state.c);
  if (linked) select(linked, { open: true });
  else select(listed[0] || null, { silent: true });
  find.linked = false;
}

function more() {
  const list = byId("list");
  const end = list.querySelector(".end");
  const upTo = Math.min(listed.length, rendered + CHUNK);
  for (; rendered < upTo; rendered += 1) end.before(listItem(listed[rendered]));
}

function listItem(row) {
  const { step, split, run } = row.shared;
  const where = [DATA.runs.length > 1 ? DATA.runs[run].name : null, split === "score" ? row.id : `step ${step}`, split === "eval" ? "eval" : null].filter(Boolean).join(" · ");
  const bars = DATA.rewards.filter((name) => name in row.rewards).map((name) => bar(row.rewards[name], name));
  return h("li", { id: `item-${row.place}`, role: "option", "aria-selected": String(row === looked), "data-key": row.key, class: "item" },
    picture(row.shared.image, "", { class: "thumb", loading: "lazy" }),
    h("span", { class: "item-head" }, h("span", { class: "where" }, text(where)), h("span", { class: "item-score" }, number(row.score))),
    h("span", { class: "snippet", dir: "auto" }, row.text.trim() ? text(row.text.slice(0, 160)) : "An empty caption."),
    h("span", { class: "mini", "aria-hidden": "true" }, bars));
}

// `open` shows the caption on a narrow screen too; `silent` leaves the address as it is.
function select(row, { open = false, silent = false } = {}) {
  const list = byId("list");
  list.querySelector('[aria-selected="true"]')?.setAttribute("aria-selected", "false");
  if (open) document.querySelector(".browser").classList.add("opened");
  looked = row;
  if (!row) {
    go({ c: "" });
    list.removeAttribute("aria-activedescendant");
    replace(byId("detail"), h("p", { class: "empty" }, "No caption is like that. Loosen the search or the filter."));
    return;
  }
  const place = listed.indexOf(row);
  while (place >= rendered && rendered < listed.length) more();
  const item = byId(`item-${row.place}`);
  if (item) {
    item.setAttribute("aria-selected", "true");
    list.setAttribute("aria-activedescendant", item.id);
    // Of the list alone: scrollIntoView would move the page as well.
    const [top, bottom] = [item.offsetTop, item.offsetTop + item.offsetHeight];
    if (top < list.scrollTop) list.scrollTop = top;
    else if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
  }
  if (!silent) go({ c: row.key });
  else if (state.c) go({ c: "" });
  detail(row);
  const card = byId(`card-${row.place}`);
  const pane = byId("detail");
  const [top, bottom] = [card.offsetTop, card.offsetTop + card.offsetHeight];
  if (top < pane.scrollTop || bottom > pane.scrollTop + pane.clientHeight) pane.scrollTop = top - 56;
}

function detail(row) {
  const group = row.shared;
  const rollouts = ROLLOUTS[row.group];
  const alt = `The image of this caption${group.reference ? `. Reference: ${group.reference}` : ""}`;
  const covered = row.units?.filter((unit) => unit[1]).length;
  const where = [DATA.runs.length > 1 ? DATA.runs[group.run].name : null, group.split === "score" ? row.id : `${group.split === "eval" ? "Evaluation at step" : "Step"} ${group.step}`].filter(Boolean).join(" · ");
  replace(byId("detail"),
    h("div", { class: "seen" },
      h("button", { class: "plain back", onclick: () => { document.querySelector(".browser").classList.remove("opened"); byId("list").focus(); } }, "← All captions"),
      picture(group.image, plain(alt), { class: "image" }),
      h("section", { class: "reference" },
        h("h3", {}, "Reference", row.units?.length ? h("small", {}, `${covered} of ${row.units.length} units covered`) : null),
        group.reference ? h("p", { class: "reference-text", dir: "auto" }, text(group.reference)) : h("p", { class: "nothing" }, "There is none."),
        group.reference || row.units ? unitList(row) : null),
      group.prompt ? h("details", { class: "prompt" }, h("summary", {}, "Prompt"), h("p", { dir: "auto" }, text(group.prompt))) : null),
    h("div", { class: "rollouts" },
      h("header", { class: "rollouts-head" }, h("h2", {}, text(where), h("small", {}, rollouts.length > 1 ? plural(rollouts.length, "rollout") : "")), legend()),
      inOrder(rollouts).map((one) => card(one, one === row, rollouts.indexOf(one), rollouts.length))));
}

function card(row, isOpen, place, of) {
  const title = of > 1 ? `Rollout ${place + 1}` : "Caption";
  const node = h("article", { class: isOpen ? "card open" : "card", "aria-label": title, id: `card-${row.place}`, "data-key": row.key },
    h("header", { class: "card-head" },
      h("h3", {}, isOpen ? title : h("button", { class: "opener", "aria-label": `${title}, open` }, title)),
      isOpen ? h("a", { class: "link", href: address({ view: "captions", c: row.key }), title: "A link to this caption", "aria-label": "A link to this caption" }, "#") : null,
      h("span", { class: "headline-score" }, h("small", {}, scoreName(row)), h("b", {}, number(row.score))),
      row.advantage !== null ? h("span", { class: "headline-score" }, h("small", {}, "advantage"), h("b", {}, signed(row.advantage))) : null,
      tags(row),
      isOpen ? null : h("span", { class: "mini", "aria-hidden": "true" }, DATA.rewards.filter((name) => name in row.rewards).map((name) => bar(row.rewards[name], name)))),
    captionText(row),
    isOpen ? h("div", { class: "card-body" },
      h("section", {}, h("h4", {}, "Assertions", row.assertions?.length ? h("small", {}, tally(row)) : null), assertionList(row)),
      h("section", {}, h("h4", {}, "Rewards"), rewardTable(row), factList(row))) : null);
  if (isOpen) lightUp(node);
  else node.addEventListener("click", () => !String(getSelection()) && select(row));
  return node;
}

function tally(row) {
  return ["right", "wrong", "vague"].map((verdict) => [row.found.filter((one) => one === verdict).length, VERDICTS[verdict]])
    .filter(([count]) => count).map(([count, said]) => `${count} ${said}`).join(", ");
}

function move(by) {
  const place = listed.indexOf(looked);
  const next = listed[Math.max(0, Math.min(listed.length - 1, place + by))];
  if (next) select(next);
}

function moveRollout(by) {
  if (!looked) return;
  const rollouts = inOrder(ROLLOUTS[looked.group]);
  const next = rollouts[rollouts.indexOf(looked) + by];
  if (next) select(next);
}

function moveStep(by) {
  const slider = byId("step");
  if (!slider) return;
  slider.value = +slider.value + by;
  slider.dispatchEvent(new Event("input"));
}
