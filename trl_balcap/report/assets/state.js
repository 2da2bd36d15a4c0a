// What is shown, kept in the address so that it can be linked to; and which captions that are.

const VERDICTS = { right: "right", wrong: "wrong", vague: "not pointable" };
const verdictOf = ([, correct, pointable]) => (!correct ? "wrong" : pointable ? "right" : "vague");

for (const [place, row] of DATA.rows.entries()) {
  row.place = place;
  row.shared = DATA.groups[row.group];
  row.text = row.sentences.join("");
  row.key = [row.shared.run, row.shared.split, row.shared.step, row.id].join("~");
  row.found = row.assertions ? row.assertions.map(verdictOf) : [];
  const known = Object.values(row.rewards).filter((value) => value !== null);
  row.spread = known.length > 1 ? Math.max(...known) - Math.min(...known) : null;
  // Where the length gate was closed the judge was not asked: that is a score, not a missing one.
  row.unasked = (name) => row.rewards[name] === null && (row.gated_rewards[name] ?? null) !== null;
  row.missing = DATA.rewards.filter((name) => name in row.rewards && row.rewards[name] === null && !row.unasked(name));
}
const ROW_OF = new Map(DATA.rows.map((row) => [row.key, row]));
const ROLLOUTS = DATA.groups.map(() => []);
for (const row of DATA.rows) ROLLOUTS[row.group].push(row);

const three = ["precision_reward", "recall_reward", "linguistic_reward"];
// What a row's score is: of the three rewards b-CapScore, of others their mean.
const scoreName = (row) => {
  const names = Object.keys(row.rewards).map((name) => name.replace(/_reward$/, ""));
  if (three.every((name) => names.includes(name.replace(/_reward$/, "")))) return "b-CapScore";
  return names.length > 1 ? "mean reward" : "score";
};
const SCORES = new Set(DATA.rows.map(scoreName));
const SCORE = SCORES.size === 1 ? [...SCORES][0] : "score";

// How captions are ordered; `up` is whether the small values are the bad ones.
const SORTS = {
  score: { label: SCORE, up: true, of: (row) => row.score },
  ...Object.fromEntries(DATA.rewards.map((name) => [name, { label: short(name), up: true, of: (row) => row.rewards[name] }])),
  spread: { label: "disagreement of the rewards", up: false, of: (row) => row.spread },
  advantage: { label: "advantage", up: true, of: (row) => row.advantage },
  ratio: { label: "length ratio", up: false, of: (row) => row.length_ratio },
  wrong: { label: "wrong assertions", up: false, of: (row) => (row.assertions ? row.found.filter((v) => v === "wrong").length : null) },
  step: { label: "step", up: false, of: (row) => row.shared.step },
};
const SHOWS = {
  all: { label: "all captions", of: () => true },
  wrong: { label: "with a wrong assertion", of: (row) => row.found.includes("wrong") },
  vague: { label: "with a not pointable one", of: (row) => row.found.includes("vague") },
  homeless: { label: "assertion without a sentence", of: (row) => !!row.assertions?.some((one) => one[3] === null) },
  missed: { label: "a unit missed", of: (row) => !!row.units?.some((unit) => !unit[1]) },
  gated: { label: "outside the length gate", of: (row) => row.gated === true },
  unscored: { label: "unscored", of: (row) => row.missing.length > 0 },
};

const DEFAULTS = { view: "", run: "", split: "", step: "", sort: "score", turn: "", show: "all", reason: "", by: "", low: "", high: "", q: "", c: "", a: "", b: "" };
const state = { ...DEFAULTS };

function readAddress() {
  const [view, query] = location.hash.slice(1).split("?");
  Object.assign(state, DEFAULTS, { view: ["overview", "captions", "compare"].includes(view) ? view : "" });
  for (const [name, value] of new URLSearchParams(query || "")) if (name in DEFAULTS && name !== "view") state[name] = value;
  if (!Object.hasOwn(SORTS, state.sort)) state.sort = "score";
  if (!Object.hasOwn(SHOWS, state.show)) state.show = "all";
  if (!Object.hasOwn(SORTS, state.by)) state.by = "";
  if (!state.view) state.view = DATA.runs.some((run) => run.charts.length) ? "overview" : DATA.runs.length > 1 ? "compare" : "captions";
}

function address(changes) {
  const wanted = { ...state, ...changes };
  const query = new URLSearchParams();
  for (const name of Object.keys(DEFAULTS)) if (name !== "view" && wanted[name] !== DEFAULTS[name]) query.set(name, wanted[name]);
  const tail = query.toString();
  return `#${wanted.view}${tail ? `?${tail}` : ""}`;
}

// Changes of what is selected replace the address; changes of the view can be gone back from.
function go(changes, { back = false } = {}) {
  const target = address(changes);
  Object.assign(state, changes);
  if (back) history.pushState(null, "", target);
  else history.replaceState(null, "", target);
}

const STEPS = () => {
  const shown = DATA.groups.filter((group) => (state.run === "" || group.run === +state.run) && (!state.split || group.split === state.split));
  return [...new Set(shown.map((group) => group.step))].sort((a, b) => a - b);
};

// Whether a row's value lies within the bounds that are set; what has none lies nowhere.
function within(row) {
  const value = SORTS[state.by].of(row);
  if (value === null || value === undefined) return false;
  return !(state.low !== "" && value < +state.low) && !(state.high !== "" && value > +state.high);
}

function chosen() {
  const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = DATA.rows.filter((row) => {
    const { run, split, step } = row.shared;
    if (state.run !== "" && run !== +state.run) return false;
    if (state.split && split !== state.split) return false;
    if (state.step !== "" && step !== +state.step) return false;
    if (!SHOWS[state.show].of(row)) return false;
    if (state.by && !within(row)) return false;
    if (state.reason && !Object.values(row.reasons).includes(state.reason)) return false;
    if (!words.length) return true;
    row.searched ??= [row.text, row.id, row.shared.reference, ...(row.assertions || []).map((one) => one[0])].join("\n").toLowerCase();
    return words.every((word) => row.searched.includes(word));
  });
  return inOrder(rows);
}

// In the order that is asked for; what has no verdict comes last.
function inOrder(rows) {
  const { of, up } = SORTS[state.sort];
  const ascending = up !== (state.turn === "1");
  const missing = (value) => value === null || value === undefined;
  return rows.toSorted((one, other) => {
    const [a, b] = [of(one), of(other)];
    if (missing(a) || missing(b)) return missing(a) - missing(b) || one.place - other.place;
    return (ascending ? a - b : b - a) || one.place - other.place;
  });
}
