/** The report's section about single clips: faces over time, attention below them, and what was predicted. */
import { attentionPlot, bar, valenceScale, type Weights } from "./charts.ts";
import { coordinate, fixed, html, type Markup, percent } from "./html.ts";
import { faceStrip } from "./png.ts";
import type { ClipReport, ReportData, TimeRange } from "./types.ts";

/** Face frames in a strip. */
const FACES = 12;

function toneOf(modality: string): string {
  return modality === "audio" || modality === "visual" ? modality : "plain";
}

/** Ranges within the clip, in order. */
function inside(ranges: readonly TimeRange[] | undefined, duration: number): [number, number][] {
  return (ranges ?? [])
    .map(([a, b]): [number, number] => [Math.max(0, a), Math.min(duration, b)])
    .filter(([a, b]) => b > a)
    .sort(([a], [b]) => a - b);
}

function spoken(ranges: readonly TimeRange[]): string {
  return ranges.map(([a, b]) => `${a.toFixed(1)} to ${b.toFixed(1)} s`).join(", ");
}

function timeLine(clip: ClipReport): Markup {
  const { duration, attention = [] } = clip;
  if (!(duration > 0)) return html``;
  const visual = inside(clip.expressive?.visual, duration);
  const audio = inside(clip.expressive?.audio, duration);
  const marked = visual.length > 0 ? visual : audio;
  const strip = clip.faces ? faceStrip(clip.faces, FACES) : null;
  const streams = attention.filter((a) => a.weights.length > 0);
  const perTone = new Map<string, number>();
  const drawn = streams.map(({ modality, weights }): Weights => {
    const tone = toneOf(modality);
    const dash = perTone.get(tone) ?? 0;
    perTone.set(tone, dash + 1);
    return { weights, tone, dash: dash % 5 };
  });
  // The scale is the clip's own: the highest multiple of even attention, at least 2.
  const top = Math.max(2, ...streams.map(({ weights }) => weights.length * Math.max(...Array.from(weights))));
  const label = `Attention over ${duration.toFixed(1)} s of ${streams.map((s) => s.stream).join(" and ") || "no stream"}${
    marked.length > 0 ? `; truly expressive from ${spoken(marked)}` : ""
  }`;
  const intervals = marked.map((range) => ({ range, tone: "" }));
  return html`<div class="faces">${strip && html`<img src="${strip.url}" width="${strip.width}" height="${strip.height}" alt="${strip.count} face frames, evenly spaced over the clip">`}</div>
${marked.length > 0 && html`<div class="ribbon">${marked.map(([a, b]) => html`<i style="left:${coordinate((100 * a) / duration)}%;width:${coordinate((100 * (b - a)) / duration)}%"></i>`)}</div>`}
${streams.length > 0 && html`${attentionPlot(drawn, intervals, duration, top, label)}
<div class="times"><span>0 s</span><span>scale: 0 to ${top.toFixed(0)} × even</span><span>${duration.toFixed(1)} s</span></div>
<ul class="legend" style="margin-top:2px">${streams.map(({ stream }, i) => html`<li><svg viewBox="0 0 26 8" style="display:inline;width:26px;height:8px;margin-right:5px" aria-hidden="true"><path class="line ${drawn[i]?.tone} dash${drawn[i]?.dash}" d="M0 4H26"/></svg>${stream}</li>`)}
${marked.length > 0 && html`<li><i class="box b-span"></i>truly expressive</li>`}</ul>`}`;
}

function card(clip: ClipReport, classes: readonly string[]): Markup {
  const { truth, prediction, missing = [] } = clip;
  const right = truth?.emotion === undefined ? null : truth.emotion === prediction.emotion;
  const number = (value: number | null | undefined): number | null =>
    typeof value === "number" && Number.isFinite(value) ? value : null;
  const said = number(prediction.valence);
  const meant = number(truth?.valence);
  const { posteriors } = prediction;
  return html`<article class="card clip"><h3>${clip.name}<span>${clip.system}</span></h3>
<p class="verdict"><span>predicted <b>${prediction.emotion}</b></span>${right !== null && html`<span>truth <b>${truth?.emotion}</b></span>
<span class="${right ? "ok" : "no"}">${right ? "✓ right" : "✗ wrong"}</span>`}
${said !== null && html`<span>valence <b>${fixed(said, 2)}</b>${meant !== null && html` (truth ${fixed(meant, 2)})`}</span>`}</p>
${missing.length > 0 && html`<p class="hint">Missing: ${missing.join("; ")}.</p>`}
${timeLine(clip)}
<div class="pair">${posteriors && posteriors.length > 0 && html`<div><div class="bars">${classes.map((name, i) => html`<div class="name">${name}</div>${bar({ value: posteriors[i] ?? Number.NaN, tone: name === prediction.emotion ? "ensemble" : "plain" })}<div class="value">${percent(posteriors[i], 0)}</div>`)}</div></div>`}
${said !== null && html`<div>${valenceScale(said, meant)}<div class="times"><span>−3</span><span>valence</span><span>3</span></div>
<ul class="legend"><li><i class="i-ensemble" style="border-top-width:4px"></i>predicted</li>${meant !== null && html`<li><i class="i-ink dashed"></i>truth</li>`}</ul></div>`}</div></article>`;
}

export function clipCards(data: ReportData): Markup {
  if (!data.clips?.length) return html``;
  return html`<section id="clips" aria-labelledby="clips-title"><h2 id="clips-title">Where attention went</h2>
<p class="hint">Attention of each frame as a multiple of even attention (dotted line). Marked in yellow: when the clip truly is expressive.</p>
<div class="clips">${data.clips.map((clip) => card(clip, data.classes))}</div></section>`;
}
