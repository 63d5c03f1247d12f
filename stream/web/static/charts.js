// The charts of a symbol's page, on uPlot (a global, from uPlot.iife.min.js).
/* global uPlot */

const AHEAD = 60; // seconds that the forecast looks ahead
const KEPT = 600; // points, as many as the worker keeps
const WINDOW = 600; // seconds shown

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const COLUMNS = ["second", "price", "volatility", "anomaly", "score", "action", "gated"];

/** The course of one instrument: columns with one entry a second, put together from what the worker sends. */
export class Course {
  constructor() {
    this.clear();
  }

  clear() {
    for (const name of COLUMNS) this[name] = [];
    this.quantiles = [[], [], [], [], []];
  }

  take(news) {
    if (news.whole) this.clear();
    if (!news.second.length) return;
    let keep = this.second.length;
    while (keep > 0 && this.second[keep - 1] >= news.second[0]) keep--;
    const from = Math.max(0, keep + news.second.length - KEPT);
    const join = (old, more) => old.slice(0, keep).concat(more).slice(from);
    for (const name of COLUMNS) this[name] = join(this[name], news[name]);
    this.quantiles = this.quantiles.map((old, level) => join(old, news.quantiles[level]));
  }
}

function axis(size, format) {
  return {
    size,
    stroke: () => css("--muted"),
    font: "11px system-ui, sans-serif",
    grid: { stroke: () => css("--line"), width: 1 },
    ticks: { show: false },
    ...(format && { values: (_u, ticks, _axis, _space, step) => ticks.map((tick) => format(tick, step)) }),
  };
}

/** As many decimals as the step between two lines of the grid needs. */
function stepped(value, step) {
  const digits = Math.max(0, -Math.floor(Math.log10(step)));
  const more = Math.abs(step * 10 ** digits - Math.round(step * 10 ** digits)) > 1e-6 ? 1 : 0;
  return value.toLocaleString("en", { minimumFractionDigits: digits + more, maximumFractionDigits: digits + more });
}

const utc = (seconds) => uPlot.tzDate(new Date(seconds * 1e3), "Etc/UTC");
const clock = (seconds) => new Date(seconds * 1e3).toISOString().slice(11, 19);

function options(element, height, series, format, more = {}) {
  return {
    width: Math.max(element.clientWidth, 200),
    height,
    tzDate: utc,
    legend: { show: false },
    cursor: { sync: { key: "symbol" }, y: false, points: { size: 6 } },
    padding: [10, 8, 0, 0],
    axes: [
      { ...axis(26), values: (_u, ticks) => ticks.map((tick) => clock(tick).slice(0, tick % 60 ? 8 : 5)), space: 70 },
      axis(64, format),
    ],
    series: [{}, ...series],
    ...more,
  };
}

const line = (colour, more = {}) => ({
  stroke: () => css(colour),
  width: 1.5,
  points: { show: false },
  spanGaps: true,
  ...more,
});

/** x and columns of the price chart: the price when it was, each band where it is to come true. */
export function fan(course) {
  const at = new Map();
  const put = (second, index, value) => {
    if (!at.has(second)) at.set(second, [null, null, null, null, null, null]);
    at.get(second)[index] = value;
  };
  course.second.forEach((second, i) => {
    put(second, 0, course.price[i]);
    course.quantiles.forEach((quantile, level) => put(second + AHEAD, level + 1, course.price[i] * Math.exp(quantile[i])));
  });
  const seconds = [...at.keys()].sort((a, b) => a - b);
  return [seconds, ...[0, 1, 2, 3, 4, 5].map((index) => seconds.map((second) => at.get(second)[index]))];
}

/** The five charts. */
export class Charts {
  constructor() {
    this.plots = new Map();
    this.observer = new ResizeObserver(() => this.fit());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
  }

  make() {
    const range = (low, high) => ({ scales: { x: { time: true }, y: { range: [low, high] } } });
    const band = (colour) => ({ stroke: "transparent", width: 0, points: { show: false }, spanGaps: true, fill: undefined, colour });
    this.add("plot-price", 280, [
      line("--price", { width: 1.6 }),
      band(), band(),
      line("--median", { width: 1, dash: [3, 3] }),
      band(), band(),
    ], stepped, {
      bands: [
        { series: [6, 2], fill: () => css("--band-98") },
        { series: [5, 3], fill: () => css("--band-90") },
      ],
    });
    const fixed = (digits) => (value) => value.toFixed(digits);
    const bp = (value) => value.toFixed(value < 10 ? 1 : 0);
    this.add("plot-volatility", 130, [line("--volatility", { fill: () => css("--volatility-fill") })], bp, {
      scales: { x: { time: true }, y: { range: (_u, _low, high) => [0, (high || 1) * 1.15] } },
    });
    this.add("plot-anomaly", 130, [line("--anomaly", { fill: () => css("--anomaly-fill") })], fixed(1), range(0, 1.02));
    this.add("plot-score", 130, [line("--score", { fill: () => css("--score-fill") })], fixed(0), range(0, 102));
    this.add("plot-action", 130, [
      line("--action", { paths: uPlot.paths.stepped({ align: 1 }), width: 2 }),
      line("--gated", { width: 0, points: { show: true, size: 5, fill: () => css("--gated") }, spanGaps: false }),
    ], (value) => ({ "-1": "short", 0: "flat", 1: "long" })[value] ?? "", range(-1.3, 1.3));
  }

  add(id, height, series, format, more) {
    const element = document.getElementById(id);
    this.plots.set(id, new uPlot(options(element, height, series, format, more), null, element));
    this.observer.observe(element);
  }

  draw(course) {
    if (!this.plots.size) this.make();
    const last = course.second.at(-1) ?? 0;
    const first = Math.max(course.second[0] ?? 0, last - WINDOW);
    const shown = { min: first, max: last + AHEAD };
    const bp = course.volatility.map((value) => value * 1e4);
    const gated = course.action.map((action, i) => (course.gated[i] ? action : null));
    this.set("plot-price", fan(course), shown);
    this.set("plot-volatility", [course.second, bp], shown);
    this.set("plot-anomaly", [course.second, course.anomaly], shown);
    this.set("plot-score", [course.second, course.score], shown);
    this.set("plot-action", [course.second, course.action, gated], shown);
  }

  set(id, data, shown) {
    const plot = this.plots.get(id);
    plot.batch(() => {
      plot.setData(data, false);
      plot.setScale("x", shown);
    });
  }

  describe(id, text) {
    document.getElementById(id).setAttribute("aria-label", text);
  }

  fit() {
    for (const plot of this.plots.values()) {
      const width = plot.root.parentElement.clientWidth;
      if (width > 0 && width !== plot.width) plot.setSize({ width, height: plot.height });
    }
  }

  redraw() {
    for (const plot of this.plots.values()) plot.redraw();
  }
}
