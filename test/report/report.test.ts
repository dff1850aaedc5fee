import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { inflateSync } from "node:zlib";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { isAffuseError } from "../../lib/errors.ts";
import { evaluate } from "../../lib/metrics/index.ts";
import { ticks } from "../../lib/report/charts.ts";
import { escapeText, html } from "../../lib/report/html.ts";
import { type ReportData, renderReport, writeReport } from "../../lib/report/index.ts";
import { encodePng, faceStrip } from "../../lib/report/png.ts";
import { shortNames } from "../../lib/report/sections.ts";
import { sampleReport } from "./sample.ts";

const HOSTILE = `"><script>alert(1)</script><img src=x onerror='alert(2)'>\u202e&\u0000`;

test("text never becomes markup", () => {
  const { text } = html`<b title="${HOSTILE}">${HOSTILE}</b>`;
  for (const wrong of ["<script", "<img", "\u202e", "\u0000"]) assert.not.ok(text.includes(wrong), JSON.stringify(wrong));
  assert.is(escapeText(`&<>"'`), "&amp;&lt;&gt;&quot;&#39;");
  assert.is(html`${[1, html`<i></i>`, null, false, "<"]}`.text, "1<i></i>&lt;");
});

test("hostile names anywhere in the data stay text", () => {
  const sample = sampleReport();
  const data: ReportData = {
    ...sample,
    title: HOSTILE,
    subtitle: HOSTILE,
    notes: [HOSTILE],
    provenance: { [HOSTILE]: HOSTILE },
    classes: sample.classes.map((name, i) => (i ? name : HOSTILE)),
    testSet: { name: HOSTILE, clips: 1 },
    attentionRatio: { [HOSTILE]: 2 },
    systems: sample.systems.map((system) => ({ ...system, label: HOSTILE })),
    curves: sample.curves?.map((curve) => ({ ...curve, run: HOSTILE, metricName: HOSTILE })),
    clips: sample.clips?.map((clip) => ({
      ...clip,
      name: HOSTILE,
      system: HOSTILE,
      missing: [HOSTILE],
      attention: clip.attention?.map((a) => ({ ...a, stream: HOSTILE, modality: HOSTILE })),
      prediction: { ...clip.prediction, emotion: HOSTILE },
      truth: { emotion: HOSTILE },
    })),
  };
  const page = renderReport(data);
  assert.not.match(page, /<script|onerror='|<img src=x/i);
  assert.is(page.match(/<img /g)?.length, 4); // the face strips
});

test("the same data give the same page, with everything in it", () => {
  const page = renderReport(sampleReport());
  assert.is(page, renderReport(sampleReport()));
  for (const id of ["results", "confusion", "classes", "training", "clips", "provenance"]) {
    assert.ok(page.includes(`<section id="${id}"`), id);
    assert.ok(page.includes(`href="#${id}"`), id);
  }
  const words = page.replaceAll(/data:image\/png;base64,[^"]*/g, "");
  assert.not.match(words, /https?:|<script|<link|NaN|Infinity|undefined|\[object/);
});

test("missing parts are left out, missing figures are dashes", () => {
  const bare: ReportData = { title: "x", classes: [], systems: [] };
  assert.not.match(renderReport(bare), /<section|NaN|undefined/);

  const classes = ["a", "b"];
  const evaluation = evaluate({ classes, truth: [0, 0], predicted: [0, 1] }, { resamples: 0 });
  const page = renderReport({
    title: "x",
    classes,
    // As JSON gives it back: NaN has become null.
    systems: [{ name: "one", kind: "fusion", evaluation: JSON.parse(JSON.stringify(evaluation)) }],
    curves: [{ system: "other", run: "r", epochs: [{ epoch: 1, loss: null }, { epoch: 2, loss: Number.NaN }] }],
    clips: [
      { name: "no truth", duration: 2, prediction: { emotion: "a" } },
      { name: "no length", duration: 0, prediction: { emotion: "a", posteriors: [1], valence: null }, truth: { valence: 1 } },
      {
        name: "odd parts",
        duration: 1,
        prediction: { emotion: "b", posteriors: [0.5, Number.NaN], valence: 9 },
        attention: [
          { stream: "none", modality: "audio", weights: [] },
          { stream: "s", modality: "text", weights: [0.5, 0.5] },
        ],
        expressive: { audio: [[-1, 0.5], [0.9, 0.2], [0.7, 5]] },
        faces: { shape: [3, 4], data: new Uint8Array(12) },
        missing: ["no face"],
      },
    ],
  });
  assert.not.match(page, /NaN|undefined|Infinity/);
  assert.match(page, /–/);
  assert.match(page, /Missing: no face\./);
  assert.match(page, /truly expressive from 0\.0 to 0\.5 s, 0\.7 to 1\.0 s/);
});

test("face strips are PNG files of the frames asked for", () => {
  const png = encodePng(3, 2, 1, Uint8Array.from([1, 2, 3, 4, 5, 250]));
  assert.equal([...png.subarray(0, 8)], [0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10]);
  const length = png.readUInt32BE(33);
  assert.is(png.toString("latin1", 37, 41), "IDAT");
  assert.equal([...inflateSync(png.subarray(41, 41 + length))], [0, 1, 2, 3, 2, 3, 3, 247]);

  const frames = new Uint8Array(10 * 4);
  for (let t = 0; t < 10; t++) frames.fill(t, t * 4, t * 4 + 4);
  const strip = faceStrip({ shape: [10, 2, 2], data: frames }, 5);
  assert.equal([strip?.count, strip?.width, strip?.height], [5, 10, 2]);
  assert.is(faceStrip({ shape: [2, 2, 2, 3], data: new Uint8Array(24) }, 5)?.count, 2);
  assert.is(faceStrip({ shape: [2, 2, 2, 3], data: new Uint8Array(23) }, 5), null);
  assert.is(faceStrip({ shape: [0, 2, 2], data: new Uint8Array(0) }, 5), null);
  assert.is(faceStrip({ shape: [1, 2, 2, 4], data: new Uint8Array(16) }, 5), null);
});

test("scales and short names", () => {
  assert.equal(ticks(0, 1, 4), [0, 0.2, 0.4, 0.6, 0.8, 1]);
  assert.equal(ticks(-0.13, 0.12, 3), [-0.1, 0, 0.1]);
  assert.equal(ticks(1, 1, 3), [1]);
  assert.equal(shortNames(["neutral", "neural"]), ["neut", "neur"]);
  assert.equal(shortNames(["a", "b"]), ["a", "b"]);
});

test("is written whole or not at all", () => {
  const folder = mkdtempSync(path.join(os.tmpdir(), "affuse-report-"));
  try {
    const file = path.join(folder, "deep", "report.html");
    writeReport(file, sampleReport());
    assert.ok(readFileSync(file, "utf8").endsWith("</html>\n"));
    assert.equal(readdirSync(path.join(folder, "deep")), ["report.html"]);
    try {
      writeReport(path.join(file, "below-a-file.html"), sampleReport());
      assert.unreachable();
    } catch (error) {
      assert.ok(isAffuseError(error), String(error));
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test.run();
