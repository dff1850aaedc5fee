/** A report's data as an experiment on the synthetic corpus gives it, with made-up predictions. */
import { Random } from "../../lib/data/random.ts";
import { evaluate } from "../../lib/metrics/index.ts";
import type { ClipReport, LearningCurve, ReportData, SystemReport } from "../../lib/report/types.ts";
import { CLASSES, ceilings, FPS, planCorpus, renderClip } from "../../lib/synth/index.ts";
import { expressiveness } from "../../lib/synth/plan.ts";

const recipe = { clips: 0, testClips: 120, seed: 5, noise: 1 };

/** How often each system takes a clip for its true class. */
const SYSTEMS: readonly [string, SystemReport["kind"], number][] = [
  ["audio", "audio", 0.63],
  ["visual", "visual", 0.65],
  ["concat", "fusion", 0.88],
  ["weighted", "fusion", 0.9],
  ["hierarchical", "fusion", 0.91],
  ["gfbp", "fusion", 0.86],
  ["ensemble", "ensemble", 0.94],
];

export function sampleReport(): ReportData {
  const random = new Random(1, "sample report");
  const plans = planCorpus(recipe);
  const classes = [...CLASSES];
  const truth = plans.map((plan) => classes.indexOf(plan.discrete));
  const valenceTruth = plans.map((plan) => plan.valence);
  const systems = SYSTEMS.map(([name, kind, accuracy]): SystemReport => {
    const predicted = truth.map((t) => (random.bernoulli(accuracy) ? t : random.integer(6)));
    const valencePredicted = valenceTruth.map((v) => v + random.normal(0, 1.4 - accuracy));
    return { name, kind, evaluation: evaluate({ classes, truth, predicted, valenceTruth, valencePredicted }, { resamples: 200 }) };
  });
  const curves = SYSTEMS.slice(0, 6).flatMap(([system, , accuracy]) =>
    [1, 2, 3].map((fold): LearningCurve => {
      const epochs = Array.from({ length: 30 }, (_, i) => ({
        epoch: i + 1,
        loss: 1.9 / (1 + 0.2 * i) + random.normal(0, 0.03),
        metric: accuracy - 1.1 / (1 + 0.4 * i) + random.normal(0, 0.02),
      }));
      return { system, run: `fold ${fold}`, epochs, metricName: "MER metric", best: 24 + fold };
    }),
  );
  const clips = plans.slice(0, 4).map((plan, i): ClipReport => {
    const steps = plan.frames;
    const attend = (range: typeof plan.visual, sharp: number): Float32Array => {
      const raw = Array.from({ length: steps }, (_, t) => 1 + sharp * expressiveness(range, (t + 0.5) / FPS, 0.2) + random.uniform(0, 0.6));
      const sum = raw.reduce((a, b) => a + b, 0);
      return Float32Array.from(raw, (v) => v / sum);
    };
    const guess = i === 3 ? (truth[i] as number) + 1 : (truth[i] as number);
    const raw = classes.map((_, c) => (c === guess % 6 ? 4 : 0.2) + random.uniform(0, 0.6));
    const sum = raw.reduce((a, b) => a + b, 0);
    return {
      name: plan.name,
      system: "weighted, fold 1",
      duration: plan.frames / FPS,
      truth: { emotion: plan.discrete, valence: plan.valence },
      prediction: { emotion: classes[guess % 6] as string, posteriors: raw.map((v) => v / sum), valence: plan.valence + 0.3 },
      attention: [
        { stream: "log-mel (audio)", modality: "audio", weights: attend(plan.audio, 6) },
        { stream: "face (visual)", modality: "visual", weights: attend(plan.visual, 14) },
      ],
      expressive: { audio: plan.audio, visual: plan.visual },
      faces: { shape: [plan.frames, 48, 48], data: renderClip(recipe.seed, plan, recipe.noise).faces },
    };
  });
  return {
    title: "Emotion from face and voice: synthetic corpus",
    subtitle: "Three fusion structures, bilinear pooling and their ensemble against one modality alone.",
    provenance: { seed: 5, "training clips": 600, "test clips": 120, folds: 3, affuse: "0.1.0" },
    classes,
    testSet: { name: "test1", clips: plans.length },
    systems,
    ceilings: ceilings(plans),
    curves,
    attentionRatio: { audio: 4.6, visual: 12.3 },
    clips,
    notes: ["Only 20–30 % of each clip is expressive; neutral and surprise differ in the combination of face and voice only."],
  };
}
