// The board: what the worker tells, drawn. No framework; each number is drawn once and changed in place.

import { Charts, Course } from "./charts.js";
import { Link } from "./link.js";
import { Switch } from "./switch.js";

const STALE = 3; // seconds, or so many ticks of the worker's clock, without news
const OTHERS = 8; // symbols that are named where the one that was asked for is unknown
const SVG = "http://www.w3.org/2000/svg";
const SPARK = { width: 96, height: 22 };

const $ = (id) => document.getElementById(id);
const nothing = "–";

let snapshot = null;
let alerts = [];
let known = null; // ids of alerts that were there before; null until the first list
let followed = null; // {symbol, venue} of the page that is open
let newest = null; // the row of the followed
const course = new Course();

// ---- numbers ----------------------------------------------------------------------------------------------------

const decimalsOf = (price) => (price > 0 ? Math.min(8, Math.max(2, 5 - Math.floor(Math.log10(price)))) : 2);
const grouped = (value, digits = 0) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const price = (value) => grouped(value, decimalsOf(value));
const bp = (value) => grouped(value * 1e4, 1);
const signed = (value, digits) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;
const percent = (logReturn) => signed(Math.expm1(logReturn) * 100, 2);
const utc = (ms) => new Date(ms).toISOString().slice(11, 19);
const figure = (value) => (Math.abs(value) >= 1e4 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(1) : String(Number(value.toPrecision(3)))).replaceAll("-", "−");

function seconds(value) {
  if (value < 100) return `${Math.round(value)} s`;
  return value < 6000 ? `${Math.round(value / 60)} min` : `${Math.round(value / 3600)} h`;
}

// ---- elements ---------------------------------------------------------------------------------------------------

function make(tag, classes = "", text = "") {
  const element = document.createElement(tag);
  if (classes) element.className = classes;
  if (text) element.textContent = text;
  return element;
}

function drawn(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** Set a text only where it differs: what does not change is not laid out again. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function dress(element, classes) {
  if (element.className !== classes) element.className = classes;
}

const nameOf = (it) => (it.venue ? `${it.symbol} @ ${it.venue}` : it.symbol);
const pathOf = (it) => `#/symbol/${encodeURIComponent(it.symbol)}/${encodeURIComponent(it.venue)}`;

// ---- the table --------------------------------------------------------------------------------------------------

const lines = new Map(); // by path, what was made for each row

function newLine(row) {
  const tr = make("tr");
  const cell = (classes) => tr.appendChild(make("td", classes));
  const head = tr.appendChild(make("th"));
  head.scope = "row";
  const link = head.appendChild(make("a", "", row.symbol));
  link.href = pathOf(row);
  const count = head.appendChild(make("span", "count"));
  const number = count.appendChild(make("span"));
  count.append(make("span", "sr", " open alerts"));
  if (row.venue) head.append(" ", make("small", "venue", row.venue));
  const made = { tr, count, alerts: number, level: cell("").appendChild(make("span", "tag")), score: cell("score") };
  Object.assign(made, { price: cell("n price"), spark: cell("m spark"), change: cell("n m"), volatility: cell("n l") });
  Object.assign(made, { usual: cell("n x"), var: cell("n m"), es: cell("n l"), anomaly: cell("n m") });
  Object.assign(made, { flow: cell("n x"), liquidity: cell("n x"), action: cell("m").appendChild(make("span", "action")) });
  const svg = drawn("svg", { viewBox: `0 0 ${SPARK.width} ${SPARK.height}`, "aria-hidden": "true" });
  made.spark.append(svg);
  made.path = svg.appendChild(drawn("polyline", {}));
  const bar = drawn("svg", { viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" });
  bar.append(drawn("rect", { width: 100, height: 6, rx: 3, class: "rail" }));
  made.bar = bar.appendChild(drawn("rect", { height: 6, rx: 3, class: "full" }));
  made.number = make("span", "n");
  made.score.append(bar, made.number);
  return made;
}

function silenceOf(row) {
  return Math.max(0, snapshot.at_ms - row.heard_ms) / 1000;
}

function levelOf(row) {
  if (row.stale) return ["silent", `silent ${seconds(silenceOf(row))}`];
  return row.warming ? ["warming", "warming up"] : [row.level, row.level];
}

function actionOf(row) {
  return row.gated_by ? `${row.action}, gated: ${row.gated_by.replace("_", " ")}` : row.action;
}

function fillLine(made, row) {
  const [level, words] = levelOf(row);
  dress(made.tr, `level-${level}`);
  say(made.alerts, String(row.alerts));
  made.count.hidden = !row.alerts;
  say(made.price, price(row.price));
  const step = SPARK.width / Math.max(1, row.spark.length - 1);
  const points = row.spark.map((y, i) => `${(i * step).toFixed(1)},${(2 + (99 - y) * (SPARK.height - 4) / 99).toFixed(1)}`);
  made.path.setAttribute("points", points.join(" "));
  say(made.change, row.change === null ? nothing : percent(row.change));
  say(made.volatility, bp(row.volatility_60s));
  say(made.usual, row.volatility_ratio.toFixed(2));
  say(made.var, bp(row.var_99));
  say(made.es, bp(row.es_975));
  say(made.anomaly, row.anomaly.toFixed(3));
  say(made.flow, row.flow.toFixed(2));
  say(made.liquidity, row.liquidity.toFixed(2));
  say(made.number, row.score.toFixed(0));
  made.bar.setAttribute("width", row.score.toFixed(1));
  say(made.level, words);
  dress(made.level, `tag ${level}`);
  say(made.action, row.stale || row.warming ? nothing : row.action + (row.gated_by ? " (gated)" : ""));
  dress(made.action, `action ${row.gated_by ? "gated" : row.action}`);
  made.action.title = row.gated_by ? `gated by ${row.gated_by}` : "";
}

/** The order is held while somebody points at a row or has the keyboard in the table. */
function held() {
  return $("rows").matches(":hover") || $("rows").contains(document.activeElement);
}

function drawTable() {
  const body = $("rows");
  const there = new Set();
  for (const row of snapshot.rows) {
    const path = pathOf(row);
    there.add(path);
    if (!lines.has(path)) {
      lines.set(path, newLine(row));
      body.append(lines.get(path).tr);
    }
    fillLine(lines.get(path), row);
  }
  for (const [path, made] of lines) {
    if (!there.has(path)) {
      made.tr.remove();
      lines.delete(path);
    }
  }
  if (!held()) {
    snapshot.rows.forEach((row, place) => {
      const tr = lines.get(pathOf(row)).tr;
      if (body.children[place] !== tr) body.insertBefore(tr, body.children[place] ?? null);
    });
  }
  const shown = snapshot.rows.length;
  const left = snapshot.symbols - shown;
  say($("table-note"), [left > 0 ? `the ${shown} highest of ${grouped(snapshot.symbols)}` : "", ...elsewhere()].filter(Boolean).join("; "));
  $("table-scroll").hidden = !shown;
  $("empty").hidden = shown > 0;
  if (!shown) say($("empty"), emptyText());
}

function elsewhere() {
  const mine = snapshot.partitions.length;
  const all = snapshot.partitions_in_all;
  return all !== null && mine > 0 && mine < all ? [`this worker has ${mine} of ${all} partitions, other workers of the group show the rest`] : [];
}

function emptyText() {
  if (snapshot.status === "starting") return "No data yet: the worker is starting and has no partitions so far.";
  if (!snapshot.partitions.length) return "No data yet: other workers of the group have all the partitions. This one takes over when one of them stops.";
  return "No data yet: the worker is ready and waits for ticks.";
}

// ---- a symbol's page --------------------------------------------------------------------------------------------

const charts = new Charts();

function figuresOf(row) {
  const [low, high] = [row.quantiles_60s[0], row.quantiles_60s[4]].map((quantile) => grouped(row.price * Math.exp(quantile), decimalsOf(row.price)));
  const span = course.second.length ? course.second.at(-1) - course.second[0] : 0;
  return [
    ["Price", price(row.price), row.change === null ? "" : `${percent(row.change)} % in ${seconds(span)}`],
    ["In 60 s, 98 %", `${low} to ${high}`, "quote currency"],
    ["Volatility 60 s", bp(row.volatility_60s), `bp, ${row.volatility_ratio.toFixed(2)} × usual`],
    ["Up in 60 s", `${(row.probability_up_60s * 100).toFixed(0)} %`, "probability"],
    ["VaR 99 %", bp(row.var_99), "bp over 60 s"],
    ["ES 97.5 %", bp(row.es_975), "bp over 60 s"],
    ["Anomaly", row.anomaly.toFixed(3), "0 to 1"],
    ["Flow", row.flow.toFixed(2), "0 to 1"],
    ["Liquidity", row.liquidity.toFixed(2), "0 to 1"],
    ["Score", row.score.toFixed(0), "of 100"],
    ["Action", actionOf(row), `position ${row.target_position ? signed(row.target_position, 0) : 0} of the limit`],
  ];
}

function drawFigures(figures) {
  const list = $("figures");
  while (list.children.length < figures.length) {
    const group = list.appendChild(make("div"));
    group.append(make("dt"), make("dd", "value"), make("dd", "unit"));
  }
  figures.forEach(([name, value, unit], i) => {
    const [dt, dd, small] = list.children[i].children;
    say(dt, name);
    say(dd, value);
    say(small, unit);
  });
}

function drawSymbol() {
  say($("symbol-title"), nameOf(followed));
  title();
  $("symbol-body").hidden = !newest;
  $("symbol-empty").hidden = newest !== null;
  $("symbol-level").hidden = !newest;
  drawOthers();
  if (!newest) {
    say($("symbol-empty"), unknownText());
    say($("symbol-note"), "");
    return;
  }
  const [level, words] = levelOf(newest);
  say($("symbol-level"), words);
  dress($("symbol-level"), `tag ${level}`);
  const more = course.kept === false ? "; its last minutes are not kept: the worker has more symbols than web.courses" : "";
  say($("symbol-note"), `partition ${newest.partition}, last trade ${utc(newest.exchange_ms)} UTC, heard ${seconds(silenceOf(newest))} ago${more}`);
  drawFigures(figuresOf(newest));
  const drawn = course.second.length > 0;
  for (const figure of document.querySelectorAll("#symbol-body figure")) figure.hidden = !drawn;
  if (!drawn) return;
  charts.draw(course);
  describeCharts();
}

function unknownText() {
  if (!snapshot) return "Waiting for the worker.";
  const where = elsewhere();
  return `No data yet: this worker has had no tick of ${nameOf(followed)}${where.length ? `; ${where[0]}` : ""}.`;
}

/** How alike two names are, from 0 to 1: by the pairs of letters that both have (Dice). */
function alike(one, other) {
  const [mine, theirs] = [one, other].map((name) => new Set([...` ${name.toLowerCase()}`].map((letter, i, all) => letter + (all[i + 1] ?? " "))));
  return (2 * [...mine].filter((pair) => theirs.has(pair)).length) / (mine.size + theirs.size);
}

/** Who comes here with a name that the worker does not know is shown those that it does, the nearest first. */
function drawOthers() {
  const others = $("symbol-others");
  const rows = newest || !snapshot ? [] : [...snapshot.rows].sort((a, b) => alike(b.symbol, followed.symbol) - alike(a.symbol, followed.symbol)).slice(0, OTHERS);
  others.hidden = !rows.length;
  const names = rows.map(nameOf);
  if ([...others.querySelectorAll("a")].map((link) => link.textContent).join() === names.join()) return;
  others.replaceChildren("It has ticks of ");
  rows.forEach((row, i) => {
    const link = make("a", "", names[i]);
    link.href = pathOf(row);
    others.append(i ? ", " : "", link);
  });
}

function describeCharts() {
  const row = newest;
  const from = course.second.length ? `since ${utc(course.second[0] * 1000)} UTC` : "";
  charts.describe("plot-price", `Price ${from}: now ${price(row.price)}, lowest ${price(Math.min(...course.price))}, highest ${price(Math.max(...course.price))}; forecast for 60 s from now with 98 %: ${figuresOf(row)[1][1]}`);
  charts.describe("plot-volatility", `Forecast volatility over 60 s ${from}: now ${bp(row.volatility_60s)} basis points`);
  charts.describe("plot-anomaly", `Anomaly ${from}: now ${row.anomaly.toFixed(3)}, highest ${Math.max(...course.anomaly).toFixed(3)}`);
  charts.describe("plot-score", `Score ${from}: now ${row.score.toFixed(0)}, highest ${Math.max(...course.score).toFixed(0)}`);
  charts.describe("plot-action", `Action ${from}: now ${actionOf(row)}`);
}

// ---- alerts -----------------------------------------------------------------------------------------------------

const items = new Map(); // by id

function newItem(alert) {
  const li = make("li");
  const details = li.appendChild(make("details"));
  const summary = details.appendChild(make("summary"));
  const made = { li, details, severity: make("span"), kind: make("b"), symbol: make("span", "who", nameOf(alert)), when: make("span", "when") };
  summary.append(made.severity, made.kind, made.symbol, made.when);
  const body = details.appendChild(make("div", "why"));
  made.value = body.appendChild(make("p"));
  made.reasons = body.appendChild(make("table"));
  const link = body.appendChild(make("p")).appendChild(make("a", "", `Open ${nameOf(alert)}`));
  link.href = pathOf(alert);
  return made;
}

function fillItem(made, alert) {
  dress(made.li, alert.open ? `open ${alert.severity}` : "over");
  say(made.severity, alert.open ? alert.severity : "closed");
  dress(made.severity, `severity ${alert.open ? alert.severity : "over"}`);
  say(made.kind, (alert.detail ? `${alert.kind}, ${alert.detail}` : alert.kind).replaceAll("_", " "));
  say(made.when, utc(alert.opened_ms));
  const span = alert.open ? `open since ${utc(alert.opened_ms)} UTC` : `open from ${utc(alert.opened_ms)} to ${utc(alert.changed_ms)} UTC`;
  say(made.value, `${alert.open ? "Value" : "At its end"} ${figure(alert.value)}, threshold ${figure(alert.threshold)}; ${span}.`);
  if (made.reasons.childElementCount !== alert.reasons.length + 1) fillReasons(made.reasons, alert.reasons);
}

function fillReasons(table, reasons) {
  const all = reasons.reduce((sum, reason) => sum + Math.abs(reason.contribution), 0) || 1;
  table.replaceChildren();
  if (!reasons.length) return;
  const head = table.appendChild(make("tr"));
  for (const [name, classes] of [["Driven by", ""], ["Value", "n"], ["Share", "n"]]) {
    const th = head.appendChild(make("th", classes, name));
    th.scope = "col";
  }
  for (const reason of reasons) {
    const tr = table.appendChild(make("tr"));
    tr.append(make("td", "", reason.feature.replaceAll("_", " ")), make("td", "n", figure(reason.value)));
    tr.append(make("td", "n", `${((reason.contribution / all) * 100).toFixed(0)} %`));
  }
}

function drawAlerts() {
  const list = $("alerts");
  const shown = followed ? alerts.filter((alert) => alert.symbol === followed.symbol && alert.venue === followed.venue) : alerts;
  const there = new Set(shown.map((alert) => alert.alert_id));
  for (const [id, made] of items) {
    if (!there.has(id)) {
      made.li.remove();
      items.delete(id);
    }
  }
  shown.forEach((alert, place) => {
    if (!items.has(alert.alert_id)) items.set(alert.alert_id, newItem(alert));
    const made = items.get(alert.alert_id);
    fillItem(made, alert);
    if (list.children[place] !== made.li) list.insertBefore(made.li, list.children[place] ?? null);
  });
  $("alerts-empty").hidden = shown.length > 0;
  say($("alerts-empty"), followed ? "None of this symbol since the worker started." : "None since the worker started.");
  const open = shown.filter((alert) => alert.open).length;
  say($("alerts-note"), shown.length ? `${open} open, ${shown.length - open} over` : "");
  say($("fact-alerts"), String(alerts.filter((alert) => alert.open).length));
  title();
}

/** The open alerts stand in the tab too, for the board is not always in front. */
function title() {
  const open = alerts.filter((alert) => alert.open).length;
  const what = followed ? `${newest ? `${price(newest.price)} ` : ""}${followed.symbol} · ` : "";
  const text = `${open ? `(${open}) ` : ""}${what}Tapewatch`;
  if (document.title !== text) document.title = text;
}

/** Tell a screen reader of those that have just opened, not of those that there are when the page is. */
function announce() {
  const opened = alerts.filter((alert) => alert.open && known && !known.has(alert.alert_id));
  known = new Set(alerts.map((alert) => alert.alert_id));
  const grave = opened.filter((alert) => alert.severity !== "info").slice(0, 3);
  if (grave.length) say($("announce"), grave.map((alert) => `${alert.severity} alert: ${alert.kind.replace("_", " ")}, ${nameOf(alert)}`).join("; "));
}

// ---- the rest ---------------------------------------------------------------------------------------------------

function drawState() {
  const { partitions, partitions_in_all: all, models, rejected } = snapshot;
  const lag = partitions.every((each) => each.lag !== null) ? partitions.reduce((sum, each) => sum + each.lag, 0) : null;
  const events = snapshot.rows.length ? Math.max(...snapshot.rows.map((row) => row.exchange_ms)) : null;
  say($("fact-rate"), grouped(snapshot.ticks_per_second));
  say($("fact-lag"), lag === null ? nothing : grouped(lag));
  say($("fact-symbols"), grouped(snapshot.symbols));
  say($("fact-clock"), events === null ? nothing : `${utc(events)} UTC`);
  const age = Math.max(0, ...partitions.map((each) => each.commit_age_seconds ?? 0));
  const refused = Object.entries(rejected).map(([reason, count]) => `${reason.replaceAll("_", " ")} ${grouped(count)}`);
  const facts = [
    ["Status", snapshot.status],
    ["Group", snapshot.group],
    ["Partitions", partitions.length ? `${partitions.map((each) => each.partition).join(", ")}${all === null ? "" : ` of ${all}`}` : "none"],
    ["Oldest uncommitted", `${age.toFixed(1)} s`],
    ["Refused", refused.length ? refused.join(", ") : "none"],
    ...Object.entries(models).map(([head, name]) => [head[0].toUpperCase() + head.slice(1), name]),
    ["Running since", `${new Date(snapshot.started_ms).toISOString().slice(0, 19).replace("T", " ")} UTC`],
  ];
  const list = $("state");
  list.replaceChildren(...facts.flatMap(([name, value]) => [make("dt", "", name), make("dd", "", value)]));
}

function drawLink() {
  const limit = Math.max(STALE, STALE * (snapshot?.refresh_seconds ?? 0));
  const stale = link.silence > limit;
  const stalled = !stale && snapshot?.status === "stalled";
  document.body.classList.toggle("stale", stale && snapshot !== null);
  let text = stalled ? "stalled" : "live";
  if (stale) text = snapshot ? `stale, ${seconds(link.silence)}` : "connecting";
  dress($("link"), `link ${stale ? "off" : stalled ? "bad" : "on"}`);
  // A screen reader is told of the change, not of each second.
  say($("link-state"), text.split(",")[0]);
  say($("link-text"), text);
  say($("banner"), bannerText(stale, stalled));
  $("banner").hidden = !$("banner").textContent;
}

function bannerText(stale, stalled) {
  if (stale && snapshot) return `Not live: nothing from the worker since ${utc(snapshot.at_ms)} UTC (${link.problem || "it is silent"}). The numbers below are old; trying again.`;
  if (stale && link.problem) return `${link.problem[0].toUpperCase()}${link.problem.slice(1)}; trying again.`;
  return stalled ? "The worker stands still: it has ticks to do and has committed nothing for a while. The numbers below are old." : "";
}

// ---- news and pages ---------------------------------------------------------------------------------------------

function hear(event, content) {
  if (event === "snapshot") {
    snapshot = content;
    drawState();
    killSwitch.show(snapshot, followed?.symbol ?? null);
    if (!followed) drawTable();
  } else if (event === "alerts") {
    alerts = content;
    drawAlerts();
    announce();
  } else if (followed && content.symbol === followed.symbol && content.venue === followed.venue) {
    newest = content.row;
    course.kept = content.kept;
    course.take(content);
    drawSymbol();
  }
  drawLink();
}

function openPage() {
  const [, kind, symbol, venue] = location.hash.split("/");
  let wanted = null;
  try {
    if (kind === "symbol" && symbol) wanted = { symbol: decodeURIComponent(symbol), venue: decodeURIComponent(venue ?? "") };
  } catch {
    // Not an address of ours: the table.
  }
  const first = link.source === undefined;
  followed = wanted;
  newest = null;
  course.clear();
  $("table-page").hidden = followed !== null;
  $("symbol-page").hidden = followed === null;
  if (followed) drawSymbol();
  else if (snapshot) drawTable();
  drawAlerts();
  if (!first) (followed ? $("symbol-title") : $("main")).focus();
  link.open(followed ? `/live?${new URLSearchParams(followed)}` : "/live");
}

const killSwitch = new Switch(say, (text) => say($("announce"), text));
const link = new Link(hear, drawLink);
addEventListener("hashchange", () => location.hash === "#main" || openPage()); // the skip link stays on its page
openPage();
drawLink();
setInterval(drawLink, 500);
