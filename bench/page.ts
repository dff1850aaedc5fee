/**
 * The results as a page: where cases lie under the roofs, how speed follows size, how peers compare, and
 * every figure.
 */
import { coordinate as c, html, Markup } from "../lib/report/html.ts";
import { STYLE } from "../lib/report/style.ts";
import type { BenchReport } from "./index.ts";
import { describeWhere, duration } from "./table.ts";
import { evaluateTargets, type TargetResult, verdict } from "./targets.ts";
import type { Entry } from "./types.ts";

const MORE = `
.plot text{fill:var(--soft);font-size:11px}.plot .name{fill:var(--ink);paint-order:stroke;stroke:var(--card);stroke-width:4px}
.roofline{max-width:860px;margin:0 auto}.roofline text{font-size:9.5px}
.roof{fill:none;stroke:var(--ink);stroke-width:1.5}.roof.memory{stroke:var(--soft);stroke-dasharray:5 3}
.dot{stroke:var(--card);stroke-width:1}.dot.fbp{fill:var(--audio)}.dot.afg{fill:var(--visual)}.dot.linear{fill:var(--fusion)}.dot.other{fill:var(--ensemble)}
.dot.shared{fill:var(--card);stroke-width:1.6}.dot.fbp.shared{stroke:var(--audio)}.dot.afg.shared{stroke:var(--visual)}.dot.linear.shared{stroke:var(--fusion)}.dot.other.shared{stroke:var(--ensemble)}
.mark.shared{fill:var(--card)}.mark.fusion.shared{stroke:var(--fusion)}.mark.visual.shared{stroke:var(--visual)}.mark.audio.shared{stroke:var(--audio)}
.legend i.hollow{width:11px;height:11px;border:1.6px solid var(--soft);border-radius:50%}
.all th,.all td{padding:4px 9px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap;font-size:13px}
.all th:first-child,.all td:first-child{text-align:left;white-space:normal;min-width:150px}.all thead th{color:var(--soft)}
.all tr.next>*{border-top:2px solid var(--line);padding-top:9px}.all tbody th{font-weight:600}.all tbody small{font-weight:400;white-space:normal}
.all td.why{white-space:normal;min-width:78px}
@media(max-width:640px){.all th,.all td{padding:4px 5px;font-size:12px}.all th:first-child,.all td:first-child{min-width:104px}}
.bars.peers{grid-template-columns:1fr auto}.peers>.name{grid-column:1/-1}
.even{stroke:var(--ink);stroke-width:1;stroke-dasharray:3 3;fill:none}
.ort{fill:var(--visual)}.torch{fill:var(--audio)}
`;

/** Timings beside other work on the same cores (bench/calm.ts). */
const SHARED = "hollow, or with a *: something else used the cores during the timing, its speed is too low";
const star = ({ shared }: Pick<Entry, "shared">): string => (shared ? " *" : "");

const family = (entry: Entry): string => /^(?:sweep \d+ )?(fbp|afg|linear)/.exec(entry.case)?.[1] ?? "other";

/** A logarithmic scale from a to b onto p … q. */
const logScale = (a: number, b: number, p: number, q: number) => (value: number) =>
  p + ((Math.log(value) - Math.log(a)) / (Math.log(b) - Math.log(a))) * (q - p);

const powers = (low: number, high: number): number[] => {
  const list: number[] = [];
  for (let e = Math.ceil(Math.log10(low) - 1e-9); 10 ** e <= high * (1 + 1e-9); e++) list.push(10 ** e);
  return list;
};

const WIDTH = 620;
const HEIGHT = 330;
const BOX = { left: 52, right: 14, top: 14, bottom: 38 };

/** Log-log: arithmetic intensity across, GFLOP/s up; the ceilings as lines, one thread. */
function roofline(report: BenchReport, entries: readonly Entry[]): Markup {
  const roofs =
    report.context.roofs.find(({ threads }) => threads === 1)?.roofs ?? report.context.roofs[0]?.roofs ?? {};
  const points = entries.filter((entry) => entry.flops && entry.bytes && entry.flops_per_second);
  const fma = (roofs["fma.f32"] ?? 1e11) / 1e9;
  const [x0, x1, y0, y1] = [0.05, 1000, 0.1, 10 ** Math.ceil(Math.log10(fma) + 0.05)];
  const x = logScale(x0, x1, BOX.left, WIDTH - BOX.right);
  const y = logScale(y0, y1, HEIGHT - BOX.bottom, BOX.top);
  const clamp = (value: number, low: number, high: number) => Math.min(high, Math.max(low, value));
  const memory = (["read.l2", "read.l3", "read.dram"] as const).flatMap((kind) => {
    const value = roofs[kind];
    return value ? [{ kind, rate: value / 1e9 }] : [];
  });
  return html`<svg class="plot roofline" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="Roofline of one thread">
${powers(y0, y1).map((v) => html`<path class="gridline" d="M${BOX.left} ${c(y(v))}H${WIDTH - BOX.right}"/><text x="${BOX.left - 6}" y="${c(y(v))}" dy="4" text-anchor="end">${v}</text>`)}
${powers(x0, x1).map((v) => html`<path class="gridline" d="M${c(x(v))} ${BOX.top}V${HEIGHT - BOX.bottom}"/><text x="${c(x(v))}" y="${HEIGHT - BOX.bottom + 15}" text-anchor="middle">${v}</text>`)}
<text x="${WIDTH / 2}" y="${HEIGHT - 5}" text-anchor="middle">FLOP per byte that must move</text><text x="4" y="28">GFLOP/s</text>
${memory.map(({ kind, rate }, i) => {
  const from = Math.max(x0, y0 / rate);
  const to = fma / rate;
  // However close the lines are: the first label ends above its line, the others begin below theirs, one high and one low.
  const at = from * (to / from) ** ([0.45, 0.75, 0.25][i] as number);
  return html`<path class="roof memory" d="M${c(x(from))} ${c(y(from * rate))}L${c(x(to))} ${c(y(fma))}"/><text class="name" x="${c(x(at) + (i === 0 ? -4 : 8))}" y="${c(y(at * rate) + (i === 0 ? -4 : 12))}" text-anchor="${i === 0 ? "end" : "start"}">${kind.replace("read.", "").toUpperCase()} ${rate.toFixed(0)} GB/s</text>`;
})}
<path class="roof" d="M${c(x(fma / Math.max(...memory.map(({ rate }) => rate), 1)))} ${c(y(fma))}H${WIDTH - BOX.right}"/>
<text class="name" x="${WIDTH - BOX.right}" y="${c(y(fma) - 6)}" text-anchor="end">multiply-add ${fma.toFixed(0)} GFLOP/s</text>
${points.map((entry) => {
  const intensity = (entry.flops as number) / (entry.bytes as number);
  const rate = (entry.flops_per_second as number) / 1e9;
  return html`<circle class="dot ${family(entry)}${entry.shared ? " shared" : ""}" cx="${c(x(clamp(intensity, x0, x1)))}" cy="${c(y(clamp(rate, y0, y1)))}" r="4.5"><title>${entry.case}: ${rate.toFixed(1)} GFLOP/s, ${intensity.toFixed(1)} FLOP per byte, ${entry.roof_percent?.toFixed(0) ?? "–"} % of ${entry.roof_kind ?? "–"}${entry.shared ? ", beside other work on the core" : ""}</title></circle>`;
})}
</svg>`;
}

interface Series {
  tone: string;
  dash: number;
  points: (readonly [number, number, shared: boolean])[];
}

/** Percent of the multiply-add roof over a size on a logarithmic axis. */
function sizePlot(series: readonly Series[], axis: string): Markup {
  const xs = series.flatMap(({ points }) => points.map(([v]) => v));
  const [low, high] = [Math.min(...xs), Math.max(...xs)];
  const x = logScale(low / 1.15, high * 1.15, BOX.left, WIDTH - BOX.right);
  const y = (v: number) => HEIGHT - BOX.bottom - (v / 100) * (HEIGHT - BOX.top - BOX.bottom);
  return html`<svg class="plot" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="Percent of the multiply-add roof over ${axis}">
${[0, 25, 50, 75, 100].map((v) => html`<path class="gridline" d="M${BOX.left} ${c(y(v))}H${WIDTH - BOX.right}"/><text x="${BOX.left - 6}" y="${c(y(v))}" dy="4" text-anchor="end">${v} %</text>`)}
${[...new Set(xs)].map((v) => html`<text x="${c(x(v))}" y="${HEIGHT - BOX.bottom + 15}" text-anchor="middle">${v}</text>`)}
<text x="${WIDTH / 2}" y="${HEIGHT - 5}" text-anchor="middle">${axis}</text>
${series.map(({ tone, dash, points }) => html`<path class="line ${tone} dash${dash}" d="${points.map(([a, b], i) => `${i ? "L" : "M"}${c(x(a))} ${c(y(b))}`).join("")}"/>${points.map(([a, b, shared]) => html`<circle class="mark ${tone}${shared ? " shared" : ""}" cx="${c(x(a))}" cy="${c(y(b))}" r="3.5"/>`)}`)}
</svg>`;
}

const TONES: Record<Entry["peer"], string> = { affuse: "fusion", onnxruntime: "visual", torch: "audio" };

/** The best setting of each peer at one thread, over the cases of one operator that differ in one size. */
function overSize(entries: readonly Entry[], pattern: RegExp): Series[] {
  return (["affuse", "onnxruntime", "torch"] as const).flatMap((peer, dash) => {
    const points = entries
      .filter((entry) => entry.peer === peer && entry.threads === 1 && pattern.test(entry.case))
      .map((entry) => [Number(pattern.exec(entry.case)?.[1]), entry.fma_percent ?? 0, entry.shared] as const)
      .sort((a, b) => a[0] - b[0]);
    return points.length > 1 ? [{ tone: TONES[peer], dash, points }] : [];
  });
}

/** Per case the peers' best time over ours with as many threads. */
function peerBars(entries: readonly Entry[], threads: number): Markup {
  const cases = [...new Set(entries.filter(({ ratio }) => ratio !== null).map((entry) => entry.case))];
  const rows = cases.flatMap((name) => {
    const mine = entries.find(
      (entry) => entry.case === name && entry.peer === "affuse" && entry.threads === threads,
    );
    if (!mine) return [];
    const best = (peer: Entry["peer"], any: boolean) => {
      const times = entries.filter(
        (entry) => entry.case === name && entry.peer === peer && (any || entry.threads === threads),
      );
      const [first] = times.sort((a, b) => a.median - b.median);
      return first ? { ratio: first.median / mine.median, shared: first.shared || mine.shared } : null;
    };
    return [{ name, ort: best("onnxruntime", false), torch: best("torch", true) }];
  });
  const ratios = rows.flatMap(({ ort, torch }) => [ort?.ratio ?? 0, torch?.ratio ?? 0]);
  const most = Math.max(2, ...ratios.filter((v) => v < 8));
  // What the scale cannot hold ends in an arrow.
  const shape = (value: number, tone: string) =>
    value > most
      ? html`<path class="${tone}" d="M0 4H97V1L100 12L97 23V20H0z"/>`
      : html`<rect class="${tone}" x="0" y="4" width="${c((100 * value) / most)}" height="16"/>`;
  const bar = (value: { ratio: number; shared: boolean } | null, tone: string) =>
    value === null
      ? null
      : html`<svg class="bar" viewBox="0 0 100 24" preserveAspectRatio="none" aria-hidden="true"><rect class="track" x="0" y="4" width="100" height="16"/>${shape(value.ratio, tone)}<path class="even" d="M${c(100 / most)} 0v24"/></svg><div class="value">${value.ratio > most ? "→ " : ""}${value.ratio.toFixed(2)} ×${star(value)}</div>`;
  return html`<div class="bars peers">${rows.map(({ name, ort, torch }) => html`<div class="name">${name}</div>${bar(ort, "ort")}${bar(torch, "torch")}`)}</div>`;
}

function targetTable(targets: readonly TargetResult[]): Markup {
  const unit = (value: number, { unit: of }: TargetResult) =>
    of === "%" ? `${value.toFixed(1)} %` : `${value.toFixed(2)} ${of}`;
  return html`<div class="scroll"><table class="all"><thead><tr><th>row</th><th>reached</th><th>target</th><th></th></tr></thead><tbody>
${targets.map((target) => html`<tr><td>${target.row}</td><td>${target.value === null ? "–" : unit(target.value, target)}</td><td>${target.sense === "at least" ? "≥" : "≤"} ${unit(target.bound, target)}</td><td class="why ${target.pass ? "ok" : target.pass === false ? "no" : ""}">${verdict(target)}</td></tr>`)}
</tbody></table></div>`;
}

const mark = (value: number | null, text: (value: number) => string): string =>
  value === null ? "–" : text(value);

/** One row of a contender's figures. */
function figures(entry: Entry): Markup {
  const cells = [
    String(entry.threads),
    duration(entry.median) + star(entry),
    duration(entry.p20),
    duration(entry.p80),
    mark(entry.flops_per_second, (value) => (value / 1e9).toFixed(1)),
    mark(entry.bytes_per_second, (value) => (value / 1e9).toFixed(1)),
    mark(entry.roof_percent, (value) => `${value.toFixed(0)} % ${entry.roof_kind}`),
    mark(entry.ratio, (value) => `${value.toFixed(2)} ×`),
    mark(entry.peak_memory, (value) => `${(value / 2 ** 20).toFixed(0)} MiB`),
  ];
  const who = `${entry.peer}${entry.setting ? ` (${entry.setting})` : ""}`;
  return html`<tr><td>${who}</td>${cells.map((cell) => html`<td>${cell}</td>`)}</tr>`;
}

const COLUMNS = [
  "threads",
  "median",
  "p20",
  "p80",
  "GFLOP/s",
  "GB/s",
  "of its roof",
  "over affuse",
  "peak memory",
];

function allTable(entries: readonly Entry[]): Markup {
  const names = [...new Set(entries.map((entry) => entry.case))];
  const body = names.map((name) => {
    const rows = entries.filter((entry) => entry.case === name);
    const { via, residency, check, note } = rows[0] as Entry;
    const { roof_percent, median, where } = rows[0] as Entry;
    const least = roof_percent === null ? [] : [`${duration((roof_percent / 100) * median)} at the roof`];
    const about = [
      via,
      residency,
      ...least,
      `checked against ${check?.against ?? "nothing"}`,
      ...(where ? [`one thread: ${describeWhere(where)}`] : []),
      ...(note ? [note] : []),
    ].join("; ");
    return html`<tr class="next"><th colspan="${COLUMNS.length + 1}">${name}<br><small class="hint">${about}</small></th></tr>${rows.map(figures)}`;
  });
  return html`<div class="scroll"><table class="all"><thead><tr><th></th>${COLUMNS.map((column) => html`<th>${column}</th>`)}</tr></thead><tbody>
${body}
</tbody></table></div>`;
}

const legend = (items: readonly (readonly [string, string])[]): Markup =>
  html`<ul class="legend">${items.map(([tone, text]) => html`<li><i class="${tone === "shared" ? "hollow" : `box b-${tone}`}"></i>${text}</li>`)}</ul>`;

const FAMILIES = [
  ["audio", "FBP"],
  ["visual", "AFG"],
  ["fusion", "matrix product"],
  ["ensemble", "others"],
] as const;

/** Several runs on one machine as one: the context of the most complete one, everybody's results. */
export function mergeReports(reports: readonly BenchReport[]): BenchReport {
  // Of those with as many threads and peers, the one with most cases: its roofs are shown.
  const extent = ({ context, benchmarks }: BenchReport) =>
    context.threads.length + Object.keys(context.versions).length + 1e-6 * benchmarks.length;
  const first = reports.reduce((a, b) => (extent(b) > extent(a) ? b : a));
  // A case that was measured again counts, with its peers, as it was last; but shared cores do not replace cores of one's own.
  const last = new Map<string, { report: BenchReport; shared: number }>();
  for (const report of [...reports].sort((a, b) => (a.context.date < b.context.date ? -1 : 1))) {
    const shared = new Map<string, number>();
    for (const entry of report.benchmarks)
      shared.set(entry.case, (shared.get(entry.case) ?? 0) + Number(entry.shared === true));
    for (const [name, count] of shared)
      if (count <= (last.get(name)?.shared ?? count)) last.set(name, { report, shared: count });
  }
  const benchmarks = reports.flatMap((report) =>
    report.benchmarks.filter((entry) => last.get(entry.case)?.report === report),
  );
  const executable = reports.map(({ context }) => context.executable).join("; ");
  const commit = reports.map((report) => report.context.commit).join("; ");
  const skipped = reports.flatMap((report) => report.skipped);
  return {
    context: { ...first.context, executable, commit },
    benchmarks,
    targets: evaluateTargets(benchmarks, (entry) => last.get(entry.case)?.report.context.roofs ?? [], true),
    skipped,
  };
}

/** Roofs in FLOP/s; the others are bytes per second. */
const COUNTS_FLOPS = /^(?:fma|tile|multiply16|issue)/;

/** One self-contained page out of results. */
export function benchPage(report: BenchReport): string {
  const { context, benchmarks } = report;
  const single = benchmarks.filter(
    (entry) => entry.peer === "affuse" && entry.threads === Math.min(...context.threads),
  );
  // Said only where there are such.
  const shared = benchmarks.some((entry) => entry.shared) ? ([["shared", SHARED]] as const) : [];
  const fixed = single.filter(({ tags }) => !tags.includes("sweep"));
  const sweep = single.filter(({ tags, roof_percent }) => tags.includes("sweep") && roof_percent !== null);
  const most = Math.max(...context.threads);
  const sizes = [
    {
      title: "FBP forward over the batch",
      axis: "B (m = 1024, n = 2048, o = 1000, k = 5)",
      series: overSize(benchmarks, /^fbp\/B=(\d+),m=1024,n=2048,o=1000,k=5$/),
    },
    {
      title: "Matrix product over its rows",
      axis: "M (N = K = 1024)",
      series: overSize(benchmarks, /^linear\/M=(\d+),N=1024,K=1024$/),
    },
  ].filter(({ series }) => series.length > 0);
  const roofRows = context.roofs.flatMap(({ threads, roofs }) =>
    Object.entries(roofs).map(([kind, value]) => ({ threads, kind, value })),
  );
  const page = html`<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><title>affuse bench</title><style>${new Markup(
    STYLE + MORE,
  )}</style></head><body>
<header><h1>affuse bench</h1><p class="lead">${context.cpu}, ${context.num_cpus} cores, ${context.level}; ${Object.entries(
    context.versions,
  )
    .map(([name, version]) => `${name} ${version}`)
    .join(", ")}${context.commit ? `; commit ${context.commit}` : ""}; ${context.date.slice(0, 10)}</p>
<p class="hint">Medians of turns taken with the peers in one process (PyTorch in its own); roofs measured between the turns. ${context.torch ? `PyTorch multiplies with ${context.torch.blas ?? context.torch.libraries.join(", ")}.` : ""}</p></header>
<main>
${report.targets.length > 0 && html`<h2>Targets</h2><div class="card">${targetTable(report.targets)}</div>`}
<h2>Under the roofs</h2><p class="hint">One thread. A dot's height is its speed; the lines are what the processor can do at most, given how many operations a byte is worth. Hover for names.</p>
<div class="card">${roofline(report, fixed)}${legend([...FAMILIES, ...shared])}</div>
${
  sizes.length > 0 &&
  html`<h2>Speed against size</h2><p class="hint">One thread, percent of the multiply-add roof.</p><div class="clips">${sizes.map(({ title, axis, series }) => html`<div class="card"><h3>${title}</h3>${sizePlot(series, axis)}</div>`)}</div>${legend(
    [
      ["fusion", "affuse"],
      ["visual", "onnxruntime"],
      ["audio", "PyTorch"],
      ...shared,
    ],
  )}`
}
<h2>Against peers, ${most} thread${most > 1 ? "s" : ""}</h2><p class="hint">Their median over ours: right of the dashed line affuse is faster. onnxruntime with as many threads, its better spinning setting; PyTorch at its best thread setting. A bar with an arrow is longer than there is room.</p>
<div class="card">${peerBars(benchmarks, most)}${legend([["visual", "onnxruntime"], ["audio", "PyTorch"], ...shared])}</div>
${sweep.length > 0 && html`<h2>Random sweep</h2><p class="hint">${sweep.length} seeded shapes, one thread: percent of the roof that bounds each.</p><div class="card">${roofline(report, sweep)}${legend([...FAMILIES, ...shared])}${allTable([...sweep].sort((a, b) => (a.roof_percent ?? 0) - (b.roof_percent ?? 0)).slice(0, 20))}<p class="hint under">The twenty lowest.</p></div>`}
<h2>Every figure</h2><div class="card">${allTable(benchmarks.filter(({ tags }) => !tags.includes("sweep")))}</div>
<h2>Roofs</h2><div class="card scroll"><table class="all"><thead><tr><th>roof</th><th>threads</th><th>value</th></tr></thead><tbody>${roofRows.map(({ kind, threads, value }) => html`<tr><td>${kind}</td><td>${threads}</td><td>${(value / 1e9).toFixed(1)} ${COUNTS_FLOPS.test(kind) ? "GFLOP/s" : "GB/s"}</td></tr>`)}</tbody></table></div>
${report.skipped.length > 0 && html`<h2>Not measured</h2><div class="card"><ul>${report.skipped.map(({ case: name, peer, reason }) => html`<li>${name}, ${peer}: ${reason}</li>`)}</ul></div>`}
</main><footer>${context.executable}</footer></body></html>`;
  return page.text;
}
