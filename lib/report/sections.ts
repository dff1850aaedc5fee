/** The report's sections about whole systems: key figures, scores, confusion, classes, curves, provenance. */
import type { Evaluation } from "../metrics/evaluate.ts";
import { bar, type Line, linePlot } from "./charts.ts";
import { fixed, html, type Markup, percent } from "./html.ts";
import type { LearningCurve, ReportData, SystemReport } from "./types.ts";

type Maybe = number | null | undefined;

/** Key of a score in `Evaluation.intervals`. */
type Score = "wa" | "ua" | "f1Weighted" | "mse" | "merMetric";

const SCORES: readonly { key: Score; label: string; about: string; share: boolean; lower?: true }[] = [
  { key: "wa", label: "WA", about: "accuracy", share: true },
  { key: "ua", label: "UA", about: "mean recall over classes", share: true },
  { key: "f1Weighted", label: "F1", about: "F1 weighted by class size", share: true },
  { key: "mse", label: "MSE", about: "mean squared error of valence (lower is better)", share: false, lower: true },
  { key: "merMetric", label: "MER", about: "weighted F1 − 0.25·MSE", share: false },
];

function scoreOf(evaluation: Evaluation, key: Score): Maybe {
  if (key === "mse") return evaluation.valence?.mse;
  if (key === "merMetric") return evaluation.merMetric;
  return evaluation.emotion[key];
}

export function labelOf(system: SystemReport): string {
  return system.label ?? system.name;
}

function intervalText(evaluation: Evaluation, key: string, share: boolean): string {
  const interval = evaluation.intervals[key];
  if (!interval || !Number.isFinite(interval.low) || !Number.isFinite(interval.high)) return "";
  const show = share ? (v: number) => (100 * v).toFixed(1) : (v: number) => fixed(v, 2);
  return `${show(interval.low)} … ${show(interval.high)}`;
}

/** The system with the highest accuracy among those that `keep`. */
function best(systems: readonly SystemReport[], keep: (system: SystemReport) => boolean): SystemReport | undefined {
  let top: SystemReport | undefined;
  for (const system of systems) {
    if (keep(system) && (!top || system.evaluation.emotion.wa > top.evaluation.emotion.wa)) top = system;
  }
  return top;
}

function tile(value: string, label: string, detail: string): Markup {
  return html`<div class="card tile"><b>${value}</b><span>${label}</span>${detail && html`<span>${detail}</span>`}</div>`;
}

/** The few figures that a reader wants first. */
export function keyFigures(data: ReportData): Markup {
  const { systems } = data;
  const top = best(systems, (s) => s.kind === "ensemble") ?? best(systems, () => true);
  const alone = best(systems, (s) => s.kind === "audio" || s.kind === "visual");
  const tiles: Markup[] = [];
  if (top) {
    const range = intervalText(top.evaluation, "wa", true);
    tiles.push(tile(percent(top.evaluation.emotion.wa), `accuracy of ${labelOf(top)}`, range && `95 % interval ${range}`));
  }
  if (alone) {
    const ceiling = data.ceilings?.[alone.kind as "audio" | "visual"]?.accuracy;
    const limit = ceiling === undefined ? "" : `ceiling ${percent(ceiling)}`;
    tiles.push(tile(percent(alone.evaluation.emotion.wa), `best single modality, ${labelOf(alone)}`, limit));
  }
  if (top && alone && top !== alone) {
    const gain = 100 * (top.evaluation.emotion.wa - alone.evaluation.emotion.wa);
    tiles.push(tile(`${gain < 0 ? "−" : "+"}${Math.abs(gain).toFixed(1)}`, "points gained by looking and listening", ""));
  }
  if (top?.evaluation.valence) tiles.push(tile(fixed(top.evaluation.valence.mse, 3), "mean squared error of valence", ""));
  for (const [stream, ratio] of Object.entries(data.attentionRatio ?? {})) {
    tiles.push(tile(`${fixed(ratio, 1)} ×`, `attention on expressive frames, ${stream}`, "against resting frames"));
  }
  return html`<div class="tiles">${tiles}</div>`;
}

function possible(ceilings: NonNullable<ReportData["ceilings"]>): string {
  const views = [["audio", "from the voice alone"], ["visual", "from the face alone"], ["fused", "from both"]] as const;
  return views.filter(([view]) => ceilings[view]).map(([view, words]) => `${percent(ceilings[view]?.accuracy)} ${words}`).join(", ");
}

/** Accuracy of every system with interval and ceiling, then all scores in figures. */
export function results(data: ReportData): Markup {
  const { systems, ceilings } = data;
  const ceilingOf = ({ kind }: SystemReport): number | undefined =>
    ceilings?.[kind === "audio" || kind === "visual" ? kind : "fused"]?.accuracy;
  const rows = systems.map((system) => {
    const { emotion, intervals } = system.evaluation;
    const range = intervalText(system.evaluation, "wa", true);
    return html`<div class="name">${labelOf(system)}</div>
${bar({ value: emotion.wa, interval: intervals.wa, ceiling: ceilingOf(system), tone: system.kind })}
<div class="value">${percent(emotion.wa)}${range && html` <small>${range}</small>`}</div>`;
  });
  const used = SCORES.filter(({ key }) => systems.some((s) => Number.isFinite(scoreOf(s.evaluation, key) ?? Number.NaN)));
  const bestOf = new Map(
    used.map(({ key, lower }) => {
      const values = systems.map((s) => scoreOf(s.evaluation, key)).filter((v): v is number => Number.isFinite(v));
      return [key, lower ? Math.min(...values) : Math.max(...values)];
    }),
  );
  const kinds = [...new Set(systems.map((system) => system.kind))];
  return html`<section id="results" aria-labelledby="results-title"><h2 id="results-title">Results</h2>
<p class="hint">${data.testSet ? html`${data.testSet.name}: ${data.testSet.clips} clips. ` : ""}Accuracy with 95 % bootstrap intervals.</p>
<div class="card"><div class="bars">${rows}</div>
<ul class="legend">${kinds.map((kind) => html`<li><i class="box b-${kind}"></i>${kind === "fusion" ? "audio and visual" : kind}</li>`)}<li><i class="i-ink"></i>95 % interval</li>
${ceilings && html`<li><i class="i-ink dashed"></i>highest accuracy that is possible</li>`}</ul></div>
<div class="card scroll gap" role="region" aria-label="All scores" tabindex="0"><table class="scores"><thead><tr><th scope="col">System</th>
${used.map(({ label, about }) => html`<th scope="col"><abbr title="${about}">${label}</abbr></th>`)}</tr></thead>
<tbody>${systems.map((system) => html`<tr><th scope="row">${labelOf(system)}</th>${used.map(({ key, share }) => {
    const value = scoreOf(system.evaluation, key);
    const mark = value === bestOf.get(key) ? "best" : "";
    return html`<td class="${mark}">${share ? percent(value) : fixed(value)}<small>${intervalText(system.evaluation, key, share)}</small></td>`;
  })}</tr>`)}
</tbody></table></div>
<p class="hint under">${used.map(({ label, about }, i) => `${i ? "; " : ""}${label}: ${about}`)}. ${ceilings && `Highest accuracy that is possible: ${possible(ceilings)}.`}</p></section>`;
}

/** Shortest beginnings of the names, at least three letters, that differ from one another. */
export function shortNames(names: readonly string[]): string[] {
  for (let length = 3; length < 12; length++) {
    const short = names.map((name) => [...name].slice(0, length).join(""));
    if (new Set(short).size === names.length) return short;
  }
  return [...names];
}

function confusion(system: SystemReport, classes: readonly string[]): Markup {
  const matrix = system.evaluation.emotion.confusion;
  const short = shortNames(classes);
  return html`<figure class="card confusion-card" style="margin:0"><h3>${labelOf(system)}</h3>
<table class="confusion"><caption>Rows: truth. Columns: prediction.</caption><thead><tr><td></td>
${classes.map((name, i) => html`<th scope="col"><abbr title="${name}">${short[i]}</abbr></th>`)}</tr></thead>
<tbody>${classes.map((name, i) => {
    const row = matrix[i] ?? [];
    const total = row.reduce((sum, n) => sum + n, 0);
    return html`<tr><th scope="row" title="${name}">${name}</th>${classes.map((other, j) => {
      const count = row[j] ?? 0;
      const share = total > 0 ? count / total : 0;
      // At most three quarters opaque: the figures then stand out from every shade, on light and dark pages.
      const style = `background:rgba(0,114,178,${(0.05 + 0.7 * share).toFixed(3)})`;
      const title = `${count} of ${total} clips of ${name} were taken for ${other}`;
      return html`<td class="${i === j && "right"}" style="${style}" title="${title}">${count}</td>`;
    })}</tr>`;
  })}</tbody></table></figure>`;
}

export function confusions(data: ReportData): Markup {
  return html`<section id="confusion" aria-labelledby="confusion-title"><h2 id="confusion-title">Confusion</h2>
<p class="hint">Numbers of clips; the shade is the share of the true class.</p>
<div class="grid small">${data.systems.map((system) => confusion(system, data.classes))}</div></section>`;
}

/** Per-class F1 of every system with intervals; the last system's as bars. */
export function classScores(data: ReportData): Markup {
  const last = best(data.systems, (s) => s.kind === "ensemble") ?? best(data.systems, () => true);
  if (!last) return html``;
  const { perClass } = last.evaluation.emotion;
  const share = (value: Maybe): string => percent(value, 0);
  return html`<section id="classes" aria-labelledby="classes-title"><h2 id="classes-title">Classes</h2>
<p class="hint">F1 with 95 % bootstrap intervals.</p>
<div class="card"><h3>${labelOf(last)}</h3><div class="bars">${data.classes.map((name, c) => {
    const score = perClass[c];
    const range = intervalText(last.evaluation, `f1:${name}`, true);
    return html`<div class="name">${name}</div>${bar({ value: score?.f1 ?? Number.NaN, interval: last.evaluation.intervals[`f1:${name}`], tone: last.kind })}
<div class="value">${percent(score?.f1)}${range && html` <small>${range}</small>`}</div>`;
  })}</div></div>
<div class="card scroll gap" role="region" aria-label="F1 by class and system" tabindex="0"><table class="scores"><thead><tr><th scope="col">Class</th><th scope="col">Clips</th><th scope="col">Precision</th><th scope="col">Recall</th>
${data.systems.map((system) => html`<th scope="col">F1<br>${labelOf(system)}</th>`)}</tr></thead>
<tbody>${data.classes.map((name, c) => html`<tr><th scope="row">${name}</th><td>${perClass[c]?.support ?? 0}</td><td>${share(perClass[c]?.precision)}</td><td>${share(perClass[c]?.recall)}</td>
${data.systems.map((system) => html`<td>${share(system.evaluation.emotion.perClass[c]?.f1)}<small>${intervalText(system.evaluation, `f1:${name}`, true)}</small></td>`)}</tr>`)}</tbody></table></div>
<p class="hint under">Clips, precision and recall are those of ${labelOf(last)}.</p></section>`;
}

function curvePlot(curves: readonly LearningCurve[], value: "loss" | "metric", tone: string, what: string): Markup | null {
  const lines = curves
    .map((curve, i): Line => {
      const points: [number, number][] = [];
      for (const epoch of curve.epochs) {
        const y = epoch[value];
        if (typeof y === "number" && Number.isFinite(y)) points.push([epoch.epoch, y]);
      }
      return { points, tone, dash: i % 5, mark: value === "metric" ? curve.best : undefined };
    })
    .filter((line) => line.points.length > 0);
  if (lines.length === 0) return null;
  return html`<p class="hint" style="margin:6px 0 0">${what}</p>${linePlot(lines, `${what} by epoch, ${lines.length} runs`)}`;
}

export function learningCurves(data: ReportData): Markup {
  const curves = data.curves ?? [];
  const names = [...new Set(curves.map((curve) => curve.system))];
  if (names.length === 0) return html``;
  return html`<section id="training" aria-labelledby="training-title"><h2 id="training-title">Training</h2>
<p class="hint">One line per run, by epoch. The dot is the epoch that was kept.</p>
<div class="grid">${names.map((name) => {
    const system = data.systems.find((s) => s.name === name);
    const own = curves.filter((curve) => curve.system === name);
    const tone = system?.kind ?? "plain";
    const metric = own.find((curve) => curve.metricName)?.metricName ?? "metric";
    const what = /^validation/i.test(metric) ? metric : `validation ${metric}`;
    return html`<div class="card"><h3>${system ? labelOf(system) : name}</h3>
${curvePlot(own, "metric", tone, what[0]?.toUpperCase() + what.slice(1))}${curvePlot(own, "loss", tone, "Training loss")}
<ul class="legend">${own.map((curve, i) => html`<li><svg viewBox="0 0 26 8" style="display:inline;width:26px;height:8px" aria-hidden="true"><path class="line ${tone} dash${i % 5}" d="M0 4H26"/></svg> ${curve.run}</li>`)}</ul></div>`;
  })}</div></section>`;
}

export function provenance(data: ReportData): Markup {
  const entries = Object.entries(data.provenance ?? {});
  if (entries.length === 0 && !data.notes?.length) return html``;
  return html`<section id="provenance" aria-labelledby="provenance-title"><h2 id="provenance-title">How this was made</h2>
${data.notes?.map((note) => html`<p>${note}</p>`)}
<div class="card"><dl>${entries.map(([label, value]) => html`<dt>${label}</dt><dd>${typeof value === "boolean" ? (value ? "yes" : "no") : value}</dd>`)}</dl></div></section>`;
}
