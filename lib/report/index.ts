/** One self-contained HTML page about an experiment: no script, no network, no other file (see types.ts for its data). */
import { writeFileAtomic } from "../data/files.ts";
import { clipCards } from "./clips.ts";
import { html, Markup } from "./html.ts";
import { classScores, confusions, keyFigures, learningCurves, provenance, results } from "./sections.ts";
import { STYLE } from "./style.ts";
import type { ReportData } from "./types.ts";

export type { ClipReport, FaceFrames, LearningCurve, ReportData, SystemReport, TimeRange } from "./types.ts";

/** Nothing may be loaded or run, whatever the data say. */
const POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

const SECTIONS = [
  ["results", "Results"],
  ["confusion", "Confusion"],
  ["classes", "Classes"],
  ["training", "Training"],
  ["clips", "Attention"],
  ["provenance", "How this was made"],
] as const;

/** The page as text. The same data give the same text. */
export function renderReport(data: ReportData): string {
  const some = data.systems.length > 0;
  const body = html`${some && results(data)}${some && confusions(data)}${some && classScores(data)}${learningCurves(data)}${clipCards(data)}${provenance(data)}`;
  const page = html`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="${POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer">
<title>${data.title}</title><style>${new Markup(STYLE)}</style></head>
<body><header><h1>${data.title}</h1>${data.subtitle && html`<p class="lead">${data.subtitle}</p>`}
<nav aria-label="Sections">${SECTIONS.map(([id, label]) => body.text.includes(`<section id="${id}"`) && html`<a href="#${id}">${label}</a>`)}</nav>
${some && keyFigures(data)}</header>
<main>${body}</main><footer>Made by affuse. Intervals are percentile bootstraps over clips.</footer></body></html>
`;
  return page.text;
}

/** Writes the page atomically. @throws ERR_AFFUSE_WRITE */
export function writeReport(file: string, data: ReportData): void {
  writeFileAtomic(file, renderReport(data), "the report");
}
