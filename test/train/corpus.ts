// A small data set in memory or on disk: two streams whose mean frame tells the class, a few clips without
// one of them.
import { writeFileSync } from "node:fs";
import path from "node:path";
import { FeatureMemory } from "../../lib/data/features.ts";
import { makeFolder } from "../../lib/data/files.ts";
import type { ClipLabel } from "../../lib/data/labels.ts";
import { writeNpy } from "../../lib/data/npy.ts";
import { Random } from "../../lib/data/random.ts";

export const classes = ["neutral", "angry", "happy"];

export interface Corpus {
  labels: { classes: string[]; clips: ClipLabel[] };
  clips: ClipLabel[];
  features: FeatureMemory;
  data: Map<string, Record<string, Float32Array | null>>;
}

export function makeCorpus(n: number, seed = 1, split = "train"): Corpus {
  const streams = [
    { name: "voice", modality: "audio", dim: 4, manifest: { encoder: "test", layer: 3 } },
    { name: "face", modality: "visual", dim: 3, manifest: null },
  ];
  const data = new Map<string, Record<string, Float32Array | null>>();
  const clips: ClipLabel[] = [];
  for (let i = 0; i < n; i++) {
    const random = new Random(seed, `${split} ${i}`);
    const emotion = random.integer(classes.length);
    const name = `${split}_${String(i).padStart(4, "0")}`;
    const make = (dim: number) =>
      Float32Array.from(
        { length: dim * (3 + random.integer(30)) },
        (_, k) => (k % dim === emotion ? 1.2 : 0) + random.normal(),
      );
    data.set(name, { voice: i % 11 === 5 ? null : make(4), face: i % 13 === 7 ? null : make(3) });
    clips.push({
      name,
      emotion,
      valence: i % 9 === 0 ? Number.NaN : emotion - 1 + random.normal(0, 0.3),
      split,
      groups: {},
    });
  }
  return { labels: { classes, clips }, clips, features: new FeatureMemory(streams, data), data };
}

/** Writes a corpus in the usual layout. */
export function writeCorpus(folder: string, ...corpora: Corpus[]): void {
  makeFolder(folder);
  for (const corpus of corpora) {
    for (const [clip, values] of corpus.data) {
      for (const { name, dim } of corpus.features.streams) {
        const value = values[name];
        if (value)
          writeNpy(path.join(folder, `${name}-FRA`, `${clip}.npy`), [value.length / dim, dim], value);
      }
    }
    const rows = corpus.clips.map(
      (c) => `${c.name},${classes[c.emotion]},${Number.isNaN(c.valence) ? -10 : c.valence}`,
    );
    writeFileSync(
      path.join(folder, `${corpus.clips[0]?.split}-label.csv`),
      `name,discrete,valence\n${rows.join("\n")}\n`,
    );
  }
}
