/** The demonstration's page: everything that `ReportData` can show. */
import { existsSync, readdirSync } from "node:fs";
import path from "node:path";
import { readNpy } from "../data/npy.ts";
import { readText } from "../data/files.ts";
import type { ClipReport, LearningCurve, ReportData } from "../report/index.ts";
import { writeReport } from "../report/index.ts";
import { facesPath } from "../synth/index.ts";
import type { EpochRecord } from "../train/index.ts";
import type { DemoResult, EvaluatedClips } from "./run.ts";
import { SYSTEMS, TEST_SPLIT } from "./settings.ts";

/** One clip per class is enough to see what attention does. */
function chooseClips({ predictions, truth }: EvaluatedClips, classes: readonly string[]) {
  return classes.flatMap((name) => {
    const found = predictions.find((p) => truth.get(p.name)?.discrete === name);
    return found ? [found] : [];
  });
}

function clipReports(clips: EvaluatedClips, classes: readonly string[], corpusDir: string): ClipReport[] {
  return chooseClips(clips, classes).map((prediction) => {
    const truth = clips.truth.get(prediction.name);
    if (!truth) throw new Error(`no truth for ${prediction.name}`);
    const faces = readNpy(facesPath(corpusDir, prediction.name));
    return {
      name: prediction.name,
      system: "ensemble",
      duration: truth.duration,
      truth: { emotion: truth.discrete, valence: truth.valence },
      prediction: { emotion: prediction.emotion, posteriors: prediction.posteriors, valence: prediction.valence },
      attention: clips.streams.map(({ name, modality }) => ({ stream: name, modality, weights: prediction.attention[name] ?? [] })),
      expressive: { audio: truth.audio, visual: truth.visual },
      faces: { shape: faces.shape, data: faces.data as Uint8Array },
    };
  });
}

/** Learning curves from RUN/<structure>/fold<k>/history.jsonl. */
function learningCurves(runDir: string): LearningCurve[] {
  return SYSTEMS.flatMap((system) => {
    const folder = path.join(runDir, system);
    const folds = existsSync(folder) ? readdirSync(folder).filter((name) => /^fold\d+$/.test(name)) : [];
    return folds.map((fold) => {
      const lines = readText(path.join(folder, fold, "history.jsonl")).trim().split("\n");
      const records = lines.map((line) => JSON.parse(line) as EpochRecord);
      const values = records.map(({ validation }) => validation.metric ?? Number.NEGATIVE_INFINITY);
      const best = records[values.indexOf(Math.max(...values))]?.epoch;
      return {
        system,
        run: fold.replace(/(\d+)$/, " $1"),
        metricName: "MER metric",
        epochs: records.map(({ epoch, loss, validation }) => ({ epoch, loss, metric: validation.metric })),
        ...(best !== undefined && { best }),
      };
    });
  });
}

/** @param result without its path @param folders where corpus and run lie */
export function writeDemoReport(
  file: string,
  result: Omit<DemoResult, "report">,
  clips: EvaluatedClips,
  folders: { corpusDir: string; runDir: string },
): void {
  const { settings, systems, ceilings } = result;
  const { classes } = systems.ensemble;
  const data: ReportData = {
    title: "Emotion from faces and voices: the affuse demonstration",
    subtitle: `${settings.clips} synthetic clips to learn from, ${result.testClips} that no training saw. Only the combination of face and voice tells every emotion.`,
    classes,
    testSet: { name: TEST_SPLIT, clips: result.testClips },
    systems: SYSTEMS.map((name) => ({
      name,
      kind: name === "audio" || name === "visual" ? name : name === "ensemble" ? "ensemble" : "fusion",
      evaluation: systems[name],
    })),
    ceilings,
    curves: learningCurves(folders.runDir),
    attentionRatio: Object.fromEntries(Object.entries(result.attention).map(([name, { ratio }]) => [name, ratio])),
    clips: clipReports(clips, classes, folders.corpusDir),
    provenance: { command: "affuse demo", ...settings },
  };
  writeReport(file, data);
}
