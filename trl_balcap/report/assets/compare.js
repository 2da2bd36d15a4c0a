// Compare: two runs or checkpoints on the same images, the greatest difference first.

const PAIRS = 40;

function snapshots() {
  const found = new Map();
  for (const group of DATA.groups) {
    const key = group.split === "train" ? `${group.run}~train` : `${group.run}~${group.split}~${group.step}`;
    const run = DATA.runs[group.run].name;
    const part = { train: "training", eval: `evaluation at step ${group.step}` }[group.split];
    const label = [DATA.runs.length > 1 || !part ? run : null, part].filter(Boolean).join(", ");
    if (!found.has(key)) found.set(key, { key, label, split: group.split, images: new Set(), rewards: "" });
    found.get(key).images.add(group.image || "");
  }
  for (const row of DATA.rows) found.get(keyOf(row)).rewards ||= Object.keys(row.rewards).sort().join();
  return [...found.values()];
}

function keyOf(row) {
  const { run, split, step } = row.shared;
  return split === "train" ? `${run}~train` : `${run}~${split}~${step}`;
}

function compare(section) {
  const all = snapshots();
  if (all.length < 2) {
    replace(section, h("p", { class: "empty" }, "Comparing takes two runs, two folders of scores, or a run that was evaluated at two steps. Give them together: trl-balcap report RUN OTHER"));
    return;
  }
  const known = new Set(all.map((one) => one.key));
  const still = all.filter((one) => one.split !== "train");
  const offered = still.length > 1 ? still : all;
  if (!known.has(state.a)) state.a = offered[0].key;
  const { rewards } = all.find((one) => one.key === state.a);
  const alike = offered.filter((one) => one.rewards === rewards && one.key !== state.a);
  if (!known.has(state.b)) state.b = (alike.length ? alike : offered).at(-1).key;
  const measures = [["score", SCORE], ...DATA.rewards.map((name) => [name, short(name)])];
  if (!measures.some(([name]) => name === state.sort)) state.sort = "score";
  const options = all.map((one) => [one.key, one.label]);
  const pick = (name) => (value) => { go({ [name]: value }); compare(section); byId(`pick-${name}`).focus(); };
  const value = (row) => (state.sort === "score" ? row.score : row.rewards[state.sort]);
  const pairs = pairUp(value);
  const list = h("ol", { class: "pairs" });
  const labels = [state.a, state.b].map((key) => all.find((one) => one.key === key).label);
  const head = h("div", { class: "compare-head" },
    h("form", { class: "controls compare-controls", onsubmit: (event) => event.preventDefault() },
      picker("First", "a", options, pick("a")), picker("Second", "b", options, pick("b")), picker("By", "sort", measures, pick("sort"))),
    pairs.length ? summary(pairs) : null);
  replace(section, head, pairs.length ? [h("div", { class: "legend-line" }, legend()), list]
    : h("p", { class: "empty" }, "These two have no image in common. Choose others, or score both on the same images."));
  let shown = 0;
  const rest = h("button", { class: "plain more", onclick: () => add() });
  const add = () => {
    for (const end = Math.min(pairs.length, shown + PAIRS); shown < end; shown += 1) list.append(pairItem(pairs[shown], shown, labels));
    rest.hidden = shown >= pairs.length;
    rest.textContent = `${plural(pairs.length - shown, "more pair")}`;
  };
  if (pairs.length) { add(); section.append(rest); }
  say(`${plural(pairs.length, "pair")}.`);
}

const mean = (values) => {
  const known = values.filter((value) => value !== null && value !== undefined);
  return known.length ? known.reduce((sum, one) => sum + one, 0) / known.length : null;
};

function pairUp(value) {
  const of = (key) => {
    const found = new Map();
    for (const row of DATA.rows) if (keyOf(row) === key) {
      const image = row.shared.image || row.id;
      if (!found.has(image)) found.set(image, []);
      found.get(image).push(row);
    }
    return found;
  };
  const [first, second] = [of(state.a), of(state.b)];
  const pairs = [];
  for (const [image, rows] of first) {
    const others = second.get(image);
    if (!others) continue;
    const [one, other] = [mean(rows.map(value)), mean(others.map(value))];
    pairs.push({ rows, others, one, other, change: one === null || other === null ? null : other - one });
  }
  return pairs.sort((x, y) => (x.change === null) - (y.change === null) || Math.abs(y.change) - Math.abs(x.change));
}

function summary(pairs) {
  const measures = [["score", SCORE, (row) => row.score], ...DATA.rewards.map((name) => [name, short(name), (row) => row.rewards[name]])];
  const rows = measures.map(([name, label, of]) => {
    const both = pairs.map((pair) => [mean(pair.rows.map(of)), mean(pair.others.map(of))]).filter(([x, y]) => x !== null && y !== null);
    const [x, y] = [mean(both.map((pair) => pair[0])), mean(both.map((pair) => pair[1]))];
    const up = both.filter((pair) => pair[1] > pair[0] + 1e-9).length;
    const down = both.filter((pair) => pair[1] < pair[0] - 1e-9).length;
    if (!both.length && name !== "score") return null; // one of the two does not measure it
    const change = both.length ? y - x : null;
    return h("tr", {}, h("th", { scope: "row" }, label), h("td", {}, number(x)), h("td", {}, number(y)),
      h("td", { class: "bar-cell" }, tilt(change, 1, name)), h("td", { class: "change" }, signed(change)), h("td", {}, up), h("td", {}, down), h("td", {}, both.length));
  });
  return h("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": "Means" }, h("table", { class: "means" },
    h("thead", {}, h("tr", {}, ["", "first", "second"].map((name) => h("th", { scope: "col" }, name)), h("th", { scope: "col", colspan: 2 }, "difference"),
      ["rose", "fell", "images"].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, rows)));
}

function pairItem({ rows, others, one, other, change }, place, labels) {
  const alt = rows[0].shared.reference ? `Reference: ${rows[0].shared.reference}` : "The image of both captions";
  return h("li", { class: "pair" },
    h("div", { class: "pair-side" }, picture(rows[0].shared.image, plain(alt), { class: "pair-image", loading: place > 8 ? "lazy" : "eager" }),
      h("p", { class: "pair-change" }, h("b", {}, signed(change)), h("small", {}, `${number(one)} → ${number(other)}`))),
    half(rows, labels[0]), half(others, labels[1]));
}

function half(rows, label) {
  const row = rows[0];
  const node = h("article", { class: "half", "aria-label": plain(label) },
    h("header", { class: "card-head" }, h("h3", {}, text(label)), rows.length > 1 ? h("small", {}, `1 of ${rows.length}`) : null,
      h("span", { class: "headline-score" }, h("small", {}, scoreName(row)), h("b", {}, number(row.score))), tags(row),
      h("a", { class: "link", href: address({ ...DEFAULTS, view: "captions", c: row.key }) }, "open")),
    captionText(row),
    h("div", { class: "mini wide", "aria-hidden": "true" }, DATA.rewards.filter((name) => name in row.rewards).map((name) => bar(row.rewards[name], name))),
    h("details", {}, h("summary", {}, "Assertions", h("small", {}, row.assertions?.length ? ` ${tally(row)}` : "")), assertionList(row)));
  lightUp(node);
  return node;
}
