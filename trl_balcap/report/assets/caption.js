// One caption: its sentences by verdict, its assertions, its rewards.

const MARKS = { right: "✓", wrong: "✕", vague: "◌" };
const SEVERITY = ["wrong", "vague", "right"];

function mark(verdict) {
  return h("span", { class: `mark ${verdict}`, role: "img", "aria-label": VERDICTS[verdict] }, MARKS[verdict]);
}

function legend() {
  const entry = (verdict) => h("span", { class: "legend-entry" }, mark(verdict), h("span", { class: `sentence ${verdict}`, "aria-hidden": "true" }, VERDICTS[verdict]));
  return h("p", { class: "legend", "aria-label": "Verdicts of assertions" }, SEVERITY.toReversed().map(entry));
}

// The caption's text. A sentence bears the worst verdict of its assertions.
function captionText(row) {
  if (!row.text.trim()) return h("p", { class: "caption-text nothing" }, "An empty caption.");
  const verdicts = row.sentences.map(() => []);
  (row.assertions || []).forEach((one, place) => one[3] !== null && verdicts[one[3]].push([row.found[place], place]));
  const spans = row.sentences.map((sentence, place) => {
    const worst = SEVERITY.find((verdict) => verdicts[place].some(([one]) => one === verdict));
    const said = sentence.trimEnd();
    const label = worst ? h("span", { class: "unseen" }, ` (${VERDICTS[worst]})`) : null;
    return [
      h("span", { class: `sentence ${worst || "silent"}`, "data-sentence": place }, text(said), label),
      sentence.slice(said.length),
    ];
  });
  return h("p", { class: "caption-text", dir: "auto" }, spans.flat());
}

function assertionList(row) {
  if (row.assertions === null) return h("p", { class: "nothing" }, "Its assertions were not judged.");
  if (!row.assertions.length) return h("p", { class: "nothing" }, "It asserts nothing.");
  return h("ol", { class: "assertions" }, row.assertions.map((one, place) => {
    const verdict = row.found[place];
    return h("li", {}, h("button", {
      class: `assertion ${verdict}`, "aria-pressed": "false", "data-of": one[3] ?? "none",
    }, mark(verdict), h("span", { class: "assertion-text", dir: "auto" }, text(one[0])),
    one[3] === null ? h("span", { class: "tag" }, "no sentence of its own") : null));
  }));
}

// Pointing at an assertion lights its sentence, and the other way round; a press holds the light.
function lightUp(card) {
  const light = (place, on) => {
    for (const node of card.querySelectorAll(`[data-sentence="${place}"], [data-of="${place}"]`)) node.classList.toggle("lit", on);
    card.classList.toggle("pointing", !!card.querySelector(".lit"));
  };
  const placeOf = (event) => {
    const node = event.target.closest?.("[data-sentence], [data-of]");
    return node && card.contains(node) ? node.dataset.sentence ?? node.dataset.of : null;
  };
  const held = () => card.querySelector('.assertion[aria-pressed="true"]')?.dataset.of;
  for (const [kind, on] of [["mouseover", true], ["mouseout", false], ["focusin", true], ["focusout", false]]) {
    card.addEventListener(kind, (event) => {
      const place = placeOf(event);
      if (place !== null && place !== "none" && (on || place !== held())) light(place, on);
    });
  }
  card.addEventListener("click", (event) => {
    const button = event.target.closest(".assertion");
    if (!button) return;
    const press = button.getAttribute("aria-pressed") !== "true";
    for (const other of card.querySelectorAll(".assertion")) {
      if (other.getAttribute("aria-pressed") === "true") light(other.dataset.of, false);
      other.setAttribute("aria-pressed", "false");
    }
    button.setAttribute("aria-pressed", String(press));
    if (press && button.dataset.of !== "none") {
      light(button.dataset.of, true);
      card.querySelector(`[data-sentence="${button.dataset.of}"]`)?.scrollIntoView({ block: "nearest" });
    }
  });
}

function unitList(row) {
  if (row.units === null) return h("p", { class: "nothing" }, "Coverage was not judged.");
  if (!row.units.length) return h("p", { class: "nothing" }, "The reference states nothing.");
  return h("ul", { class: "units" }, row.units.map(([said, covered]) => h("li", { class: covered ? "covered" : "missed" },
    h("span", { class: "mark", role: "img", "aria-label": covered ? "covered" : "missed" }, covered ? "●" : "○"),
    h("span", { dir: "auto" }, text(said)))));
}

// Raw rewards, what the gate left of them, and each one's share of the advantage.
function rewardTable(row) {
  const names = DATA.rewards.filter((name) => name in row.rewards);
  const shares = Object.values(row.advantage_shares);
  const most = Math.max(1, ...shares.map((value) => Math.abs(value ?? 0)), Math.abs(row.advantage ?? 0));
  const cells = (name) => {
    const raw = row.rewards[name];
    const after = row.gated_rewards[name];
    const taken = raw !== null && after !== undefined && after !== null && after !== raw;
    const value = row.unasked(name)
      ? [h("td", { class: "why" }, "not asked"), h("td", { class: "value" }, "→ ", h("strong", {}, number(after)))]
      : raw === null
      ? h("td", { colspan: 2, class: "why" }, "unscored: ", text(row.reasons[name] || "no reason given"))
      : [h("td", { class: "bar-cell" }, bar(raw, name)),
        h("td", { class: "value" }, taken ? h("s", {}, number(raw)) : number(raw), taken ? [" → ", h("strong", {}, number(after))] : null)];
    return h("tr", {}, h("th", { scope: "row" }, text(short(name))), value,
      shares.length ? [h("td", { class: "bar-cell" }, name in row.advantage_shares ? tilt(row.advantage_shares[name], most, name) : ""),
        h("td", { class: "value" }, name in row.advantage_shares ? signed(row.advantage_shares[name]) : "")] : null);
  };
  const total = row.advantage === null ? null : h("tr", { class: "total" }, h("th", { scope: "row" }, "advantage"),
    h("td", { colspan: 2 }), shares.length ? null : "",
    h("td", { class: "bar-cell" }, tilt(row.advantage, most, "score")), h("td", { class: "value" }, signed(row.advantage)));
  return h("table", { class: "rewards" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "reward"), h("th", { scope: "col", colspan: 2 }, "raw", Object.keys(row.gated_rewards).length ? " → gated" : ""),
      shares.length ? h("th", { scope: "col", colspan: 2 }, "share of the advantage") : null)),
    h("tbody", {}, names.map(cells), total));
}

function factList(row) {
  const gate = DATA.runs[row.shared.run].gate;
  const grades = row.grades && ["clarity", "fluency", "coherency"].map((name, place) => [name, number(row.grades[place], 0), "of 10"]);
  const facts = [
    ...(grades || []),
    row.length_ratio !== null && ["length ratio", number(row.length_ratio), gate ? `of ${gate[0]}–${gate[1]}` : ""],
    row.tokens !== null && ["tokens", number(row.tokens, 0), ""],
    row.latency !== null && ["judged in", `${number(row.latency, 1)} s`, ""],
    row.usd > 0 && ["cost", `$${number(row.usd, 4)}`, ""], // an exact or cached verdict is free
    ...Object.entries(row.extra).map(([name, value]) => [short(name), typeof value === "number" ? number(value) : typeof value === "string" ? value : JSON.stringify(value), ""]),
  ].filter(Boolean);
  if (!facts.length) return null;
  return h("dl", { class: "facts" }, facts.map(([name, value, note]) => h("div", {}, h("dt", {}, text(name)), h("dd", {}, text(value), note ? h("small", {}, ` ${note}`) : null))));
}

function tags(row) {
  return [
    row.gated === true ? h("span", { class: "tag gate" }, "outside the gate") : null,
    row.missing.length ? h("span", { class: "tag" }, `unscored: ${row.missing.map(short).map(plain).join(", ")}`) : null,
  ];
}
