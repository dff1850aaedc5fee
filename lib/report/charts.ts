/**
 * The report's drawings. Bars, curves and time lines are SVG that stretches with the page; all words stand in HTML
 * beside them, so that they keep their size on a phone. (A charting library was weighed: vega-lite draws text inside the
 * SVG, which shrinks with it, cannot follow the reader's light or dark scheme, and adds some forty packages.)
 */
import { coordinate as c, html, type Markup } from "./html.ts";

/** Position of a value on a scale, 0 … 100. */
function along(value: number, low: number, high: number): number {
  return (100 * (Math.min(high, Math.max(low, value)) - low)) / (high - low);
}

export interface Bar {
  value: number;
  interval?: { low: number; high: number } | undefined;
  ceiling?: number | undefined;
  /** CSS class that colours it. */
  tone: string;
}

/** A horizontal bar on a scale low … high with its interval and a ceiling mark. Decorative: the figures stand beside it. */
export function bar({ value, interval, ceiling, tone }: Bar, low = 0, high = 1): Markup {
  const x = (v: number): string => c(along(v, low, high));
  const known = interval !== undefined && Number.isFinite(interval.low) && Number.isFinite(interval.high);
  return html`<svg class="bar" viewBox="0 0 100 24" preserveAspectRatio="none" aria-hidden="true">
<rect class="track" x="0" y="4" width="100" height="16"/>
${Number.isFinite(value) && html`<rect class="${tone}" x="0" y="4" width="${x(value)}" height="16"/>`}
${known && html`<path class="whisker" d="M${x(interval.low)} 12H${x(interval.high)}M${x(interval.low)} 8v8M${x(interval.high)} 8v8"/>`}
${ceiling !== undefined && Number.isFinite(ceiling) && html`<path class="ceiling" d="M${x(ceiling)} 0v24"/>`}
</svg>`;
}

/** Round values, 1, 2 or 5 times a power of ten apart, that lie within low … high: about `count` of them. */
export function ticks(low: number, high: number, count: number): number[] {
  const span = high - low;
  if (!(span > 0) || !Number.isFinite(span)) return [low];
  const power = 10 ** Math.floor(Math.log10(span / count));
  const misfit = (step: number): number => Math.abs(span / step - count);
  const step = [1, 2, 5, 10].map((factor) => factor * power).reduce((a, b) => (misfit(b) < misfit(a) ? b : a));
  const out: number[] = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * span; i++) out.push(Math.round(i * step * 1e9) / 1e9);
  return out;
}

export interface Line {
  points: readonly (readonly [number, number])[];
  tone: string;
  /** Stroke pattern, 0 solid. */
  dash: number;
  /** x of a point to mark. */
  mark?: number | undefined;
}

/** Lines over a common scale; `label` is read out in their place. */
export function linePlot(lines: readonly Line[], label: string): Markup {
  const points = lines.flatMap((line) => line.points);
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  let [y0, y1] = [Math.min(...ys), Math.max(...ys)];
  const room = (y1 - y0) * 0.06 || Math.abs(y0) * 0.1 || 1;
  y0 -= room;
  y1 += room;
  const [width, height, left, right, top, bottom] = [340, 190, 40, 8, 8, 24];
  const px = (x: number): string => c(left + ((x - x0) / (x1 - x0 || 1)) * (width - left - right));
  const py = (y: number): string => c(height - bottom - ((y - y0) / (y1 - y0)) * (height - top - bottom));
  const rows = ticks(y0, y1, 4);
  // As many decimals as tell neighbouring ticks apart.
  const digits = rows.length > 1 ? Math.max(0, Math.ceil(-Math.log10((rows[1] as number) - (rows[0] as number)) - 1e-9)) : 2;
  return html`<svg class="plot" viewBox="0 0 ${width} ${height}" role="img" aria-label="${label}">
${rows.map((y) => html`<path class="gridline" d="M${left} ${py(y)}H${width - right}"/><text class="tick" x="${left - 5}" y="${py(y)}" dy="3.5" text-anchor="end">${y.toFixed(Math.min(digits, 6)).replace("-", "−")}</text>`)}
${ticks(x0, x1, 5).filter(Number.isInteger).map((x) => html`<text class="tick" x="${px(x)}" y="${height - 8}" text-anchor="middle">${x}</text>`)}
${lines.map((line) => html`<path class="line ${line.tone} dash${line.dash}" d="${line.points.map(([x, y], i) => `${i ? "L" : "M"}${px(x)} ${py(y)}`).join("")}"/>`)}
${lines.map((line) => {
  const at = line.points.find(([x]) => x === line.mark);
  return at && html`<circle class="mark ${line.tone}" cx="${px(at[0])}" cy="${py(at[1])}" r="3.5"/>`;
})}
</svg>`;
}

export interface Weights {
  weights: ArrayLike<number>;
  tone: string;
  dash: number;
}

/**
 * Attention over time: each stream's weights as multiples of even attention (1/T), in steps, above shaded intervals.
 * @param top multiple at the upper edge
 */
export function attentionPlot(
  streams: readonly Weights[],
  intervals: readonly { range: readonly [number, number]; tone: string }[],
  duration: number,
  top: number,
  label: string,
): Markup {
  const x = (seconds: number): string => c((100 * seconds) / duration);
  const y = (multiple: number): string => c(58 - (56 * Math.min(top, Math.max(0, multiple))) / top);
  const stair = ({ weights }: Weights): string => {
    const n = weights.length;
    let path = "";
    for (let t = 0; t < n; t++) {
      path += `${t ? "L" : "M"}${c((100 * t) / n)} ${y((weights[t] as number) * n)}H${c((100 * (t + 1)) / n)}`;
    }
    return path;
  };
  return html`<svg class="attention" viewBox="0 0 100 60" preserveAspectRatio="none" role="img" aria-label="${label}">
${intervals.map(({ range: [a, b], tone }) => html`<rect class="span ${tone}" x="${x(a)}" y="0" width="${x(b - a)}" height="60"/>`)}
<path class="even" d="M0 ${y(1)}H100"/>
${streams.map((s) => s.weights.length > 0 && html`<path class="area ${s.tone}" d="${stair(s)}V58H0Z"/><path class="line ${s.tone} dash${s.dash}" d="${stair(s)}"/>`)}
</svg>`;
}

/** A valence scale −3 … 3 with the predicted and the true value. */
export function valenceScale(predicted: number | null, truth: number | null): Markup {
  const x = (v: number): string => c(along(v, -3, 3));
  return html`<svg class="valence" viewBox="0 0 100 20" preserveAspectRatio="none" aria-hidden="true">
<path class="axis" d="M0 10H100M0 6v8M50 6v8M100 6v8"/>
${truth !== null && html`<path class="true" d="M${x(truth)} 1v18"/>`}
${predicted !== null && html`<path class="predicted" d="M${x(predicted)} 3v14"/>`}
</svg>`;
}
