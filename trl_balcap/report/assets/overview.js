// Overview: headline numbers, curves, what the run was made with.

const SYNC = uPlot.sync("steps");
let drawn = [];

function overview(section) {
  const logged = DATA.runs.filter((run) => run.charts.length);
  const scored = DATA.runs.filter((run) => !run.charts.length);
  replace(section,
    logged.map((run) => h("article", { class: "run" },
      DATA.runs.length > 1 ? h("h2", {}, text(run.name)) : null,
      headline(run), evaluations(run), h("div", { class: "charts", "data-run": DATA.runs.indexOf(run) }), runFacts(run))),
    scored.length ? h("article", { class: "run" }, h("h2", {}, "Scores"), scoreTable(scored), scored.length === 1 ? runFacts(scored[0]) : null) : null);
  drawCharts();
}

// Before and after on the evaluation set, and what was measured in between.
function evaluations(run) {
  if (!run.evaluations.length) return null;
  const labels = Object.keys(run.evaluations[0].means);
  return h("div", { class: "scroller scores", tabindex: "0", role: "region", "aria-label": "Evaluations" }, h("table", { class: "means" },
    h("thead", {}, h("tr", {}, ["Evaluation set", ...labels, "captions"].map((label) => h("th", { scope: "col" }, label)))),
    h("tbody", {}, run.evaluations.map((one) => h("tr", {}, h("th", { scope: "row" }, `step ${one.step}`),
      labels.map((label) => h("td", {}, number(one.means[label]))), h("td", {}, one.n.toLocaleString("en")))))));
}

// Runs without a log, folders of scores mostly: their means, one line each.
function scoreTable(runs) {
  const labels = [...new Set(runs.flatMap((run) => run.headline.map((one) => one.label)))];
  const cells = (run) => labels.map((label) => h("td", {}, number(run.headline.find((one) => one.label === label)?.last)));
  return h("div", { class: "scroller scores", tabindex: "0", role: "region", "aria-label": "Scores" }, h("table", { class: "means" },
    h("thead", {}, h("tr", {}, ["", ...labels, "captions"].map((label) => h("th", { scope: "col" }, label)))),
    h("tbody", {}, runs.map((run) => h("tr", {}, h("th", { scope: "row" }, text(run.name)), cells(run), h("td", {}, run.rows.toLocaleString("en")))))));
}

function headline(run) {
  if (!run.headline.length) return null;
  return h("dl", { class: "tiles" }, run.headline.map(({ label, first, last, digits, good }) => {
    const gain = first === null || last === first ? 0 : Math.sign(last - first) * (good || 0);
    const change = first === null ? null : h("span", { class: "from" }, first.toFixed(digits), h("span", { class: "arrow", role: "img", "aria-label": "to" }, "→"));
    return h("div", { class: `tile ${gain > 0 ? "better" : gain < 0 ? "worse" : ""}` }, h("dt", {}, label), h("dd", {}, change, h("span", { class: "now" }, last.toFixed(digits))));
  }));
}

function runFacts(run) {
  const shown = DATA.rows.filter((row) => DATA.runs[row.shared.run] === run).length;
  const pairs = (values) => h("dl", { class: "settings" }, Object.entries(values).map(([name, value]) =>
    h("div", {}, h("dt", {}, text(name)), h("dd", {}, text(typeof value === "string" ? value : JSON.stringify(value))))));
  const folded = (title, values) => values && Object.keys(values).length
    ? h("details", {}, h("summary", {}, title, h("small", {}, ` ${Object.keys(values).length}`)), pairs(values)) : null;
  return h("footer", { class: "run-facts" },
    h("p", {}, run.rows > shown ? `${shown.toLocaleString("en")} of ${plural(run.rows, "kept rollout")} are on this page, spread over the run.` : `${plural(shown, "rollout")} kept.`),
    run.warnings?.length ? h("details", { open: true }, h("summary", {}, "Warnings", h("small", {}, ` ${run.warnings.length}`)),
      h("ul", { class: "warnings" }, run.warnings.map((one) => h("li", {}, text(one))))) : null,
    folded("Run", run.about), folded("Settings", run.settings), folded("Versions", run.versions));
}

// uPlot draws on a canvas, so it is told the style sheet's colours, and again when they change.
function drawCharts() {
  drawn.forEach((plot) => plot.destroy());
  drawn = [];
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(`--${name}`).trim();
  for (const holder of document.querySelectorAll(".charts")) {
    const run = DATA.runs[+holder.dataset.run];
    replace(holder, run.charts.map((chart) => {
      const place = h("div", { class: "plot" });
      const values = { list: h("p", { class: "chart-legend" }), step: h("span", { class: "chart-step" }) };
      const figure = h("figure", { class: "chart", "aria-label": spoken(chart) },
        h("figcaption", { title: chart.note }, h("strong", {}, chart.title), chart.note ? h("span", {}, chart.note) : null, values.step), values.list, place);
      figure.draw = () => drawn.push(draw(chart, place, values, of));
      return figure;
    }));
    holder.querySelectorAll(".chart").forEach((figure) => figure.draw());
  }
}

function spoken(chart) {
  const parts = chart.series.map((one) => {
    const known = one.y.filter((value) => value !== null);
    return `${one.label} from ${number(known[0])} to ${number(known.at(-1))}, between ${number(Math.min(...known))} and ${number(Math.max(...known))}`;
  });
  return `${chart.title}: ${parts.join("; ")}; steps ${chart.steps[0]} to ${chart.steps.at(-1)}.`;
}

// The mean over a window around each step; raw values stay as a faint line.
function smooth(values) {
  const half = Math.floor(values.filter((value) => value !== null).length / 24);
  if (half < 1) return values;
  return values.map((value, place) => {
    if (value === null) return null;
    const near = values.slice(Math.max(0, place - half), place + half + 1).filter((one) => one !== null);
    return near.reduce((sum, one) => sum + one, 0) / near.length;
  });
}

// Distances between the marks of an axis of steps.
const WHOLE = [1, 2, 5].flatMap((n) => [...Array(8).keys()].map((k) => n * 10 ** k)).sort((a, b) => a - b);

function draw(chart, holder, values, of) {
  const columns = [chart.steps];
  const series = [{}];
  const bands = [];
  const shown = [];
  for (const one of chart.series) {
    const hue = of(colour(one.colour));
    const smoothed = smooth(one.y);
    if (one.low) {
      columns.push(one.high, one.low);
      series.push({ stroke: "transparent", points: { show: false } }, { stroke: "transparent", points: { show: false } });
      bands.push({ series: [series.length - 2, series.length - 1], fill: `color-mix(in srgb, ${hue} 14%, transparent)` });
    }
    if (smoothed !== one.y) {
      columns.push(one.y);
      series.push({ stroke: `color-mix(in srgb, ${hue} 35%, transparent)`, width: 1, points: { show: false }, spanGaps: true });
    }
    columns.push(smoothed);
    const few = smoothed.filter((value) => value !== null).length < 12;
    series.push({ stroke: hue, width: 2, points: { show: few, size: 5, fill: hue }, spanGaps: true });
    shown.push({ ...one, at: series.length - 1, hue });
  }
  const tell = (place) => {
    values.step.textContent = `step ${chart.steps[place ?? chart.steps.length - 1]}`;
    replace(values.list, shown.map((one) => {
      const known = place === null ? columns[one.at].findLast((value) => value !== null) : columns[one.at][place];
      return h("span", { class: "chart-value" }, h("i", { css: { "--hue": one.hue } }), shown.length > 1 ? `${one.label} ` : "", h("b", {}, number(known)));
    }));
  };
  const axis = { stroke: of("ink-3"), font: "11px system-ui, sans-serif", grid: { stroke: of("line"), width: 1 }, ticks: { show: false }, gap: 4 };
  const all = chart.series.flatMap((one) => one.y).filter((value) => value !== null);
  const region = chart.region || [];
  const range = chart.unit ? [0, Math.max(...all) <= 0.5 && !chart.group ? Math.max(0.05, Math.max(...all) * 1.15) : 1] : undefined;
  const plot = new uPlot({
    width: Math.max(200, holder.clientWidth), height: 150, series, bands,
    padding: [8, 14, 0, 0], legend: { show: false },
    cursor: { sync: { key: SYNC.key }, y: false, points: { show: false }, drag: { x: true, y: false } },
    scales: { x: { time: false }, y: range ? { range: () => range } : { range: (_, low, high) => spanOf(low, high, region) } },
    axes: [{ ...axis, size: 26, space: 60, incrs: WHOLE }, { ...axis, size: 40, space: 32, values: (_, ticks) => ticks.map((tick) => +tick.toPrecision(3)) }],
    hooks: {
      setCursor: [(self) => tell(self.cursor.idx ?? null)],
      drawClear: [(self) => region.length && shade(self, region, of)],
    },
  }, columns, holder);
  tell(null);
  return plot;
}

function spanOf(low, high, region) {
  const roof = Math.max(high, region[1] ?? high);
  // Never so close that the marks of the axis round to one number.
  const floor = Math.min(low, region[0] ?? low, 0 <= low && low < high / 2 ? 0 : low, roof - Math.abs(roof) / 20);
  const room = (roof - floor || Math.abs(roof) || 1) * 0.08;
  return [floor === 0 ? 0 : floor - room, roof + room];
}

function shade(plot, [low, high], of) {
  const { ctx, bbox } = plot;
  const [top, bottom] = [plot.valToPos(high, "y", true), plot.valToPos(low, "y", true)];
  ctx.save();
  ctx.fillStyle = `color-mix(in srgb, ${of("right")} 10%, transparent)`;
  ctx.fillRect(bbox.left, top, bbox.width, bottom - top);
  ctx.restore();
}
