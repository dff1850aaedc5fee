/** Whole training steps and inference at the sizes of the papers. */
import type { FcnCase, ModelCase } from "../types.ts";

const streams: ModelCase["streams"] = [
  { name: "audio1", modality: "audio", dim: 1024 },
  { name: "audio2", modality: "audio", dim: 1024 },
  { name: "visual1", modality: "visual", dim: 1024 },
  { name: "visual2", modality: "visual", dim: 1024 },
];

const p1 = (
  kind: ModelCase["kind"],
  structure: ModelCase["structure"],
  batch: number,
  extra: Partial<ModelCase> = {},
): ModelCase => ({
  kind,
  structure,
  batch,
  T: 200,
  shortest: 67,
  streams,
  attention: 256,
  name: `${kind}/P1 ${structure},B=${batch},T=67-200,D=4x1024,A=256`,
  tags: kind === "step" ? ["targets"] : [],
  ...extra,
});

export const MODEL_CASES: (ModelCase | FcnCase)[] = [
  p1("step", "concat", 32),
  p1("step", "weighted", 32),
  p1("step", "hierarchical", 32),
  ...(["concat", "weighted", "hierarchical"] as const).map((structure) =>
    p1("step", structure, 32, {
      precision: "bf16",
      name: `step/P1 ${structure},B=32,T=67-200,D=4x1024,A=256,precision=bf16`,
      note: "bf16 operands, float32 master weights; the peer computes in float32",
    }),
  ),
  p1("step", "concat", 4, {
    T: 50,
    shortest: 17,
    streams: streams.slice(0, 3).map((stream) => ({ ...stream, dim: 256 })),
    name: "step/P1 concat,B=4,T=17-50,D=3x256,A=256",
    tags: ["quick"],
  }),
  p1("inference", "concat", 1),
  p1("inference", "hierarchical", 32),
  {
    kind: "fcn",
    batch: 8,
    frames: 500,
    bins: 200,
    name: "fcn+backward/B=8,frames=500,bins=200",
    tags: ["targets"],
    note: "the gradient of the spectrogram is not needed and not counted",
  },
];
