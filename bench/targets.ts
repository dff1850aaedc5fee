/** What affuse should reach (medians of one run with its peers), as named rows. */
import type { RoofKind } from "../lib/native/addon.ts";
import type { RoofTable } from "./roofs.ts";
import type { Entry } from "./types.ts";

export interface TargetResult {
  row: string;
  /** What was reached; null: not measured in this run. */
  value: number | null;
  bound: number;
  sense: "at least" | "at most";
  unit: "%" | "×" | "µs";
  pass: boolean | null;
  /** Our own case and its threads, where one alone decides. */
  own: readonly [string, number] | null;
  /** Of a missed row: what share of its roof, in percent, the case would have to reach; null: no roof of its own. */
  takes: { percent: number; roof: string } | null;
  /** Of a missed row bounded by arithmetic: what a bare loop (kernels/roof) reaches, in percent of the multiply-add roof. */
  bare: { percent: number; loop: string } | null;
  /** Why it was not measured, or what stands in the way. */
  note: string | null;
}

/** "reached", "missed" with what it would take, or why there is no value. */
export function verdict({ pass, takes, bare, note }: TargetResult): string {
  if (pass === null) return note ?? "";
  if (pass) return "reached";
  const by = bare ? `; bare ${bare.loop} reaches ${bare.percent.toFixed(bare.percent < 80 ? 1 : 0)} % of fma.f32` : "";
  return takes ? `missed: takes ${takes.percent.toFixed(0)} % of ${takes.roof}${by}` : `missed${by}`;
}

/** Shapes of the sweep (cases/sweep.ts): fewer are no sweep. */
const SWEEP = 100;

interface Target {
  row: string;
  value(find: Find): number | null;
  /** Our own case and its threads: what would have to be quicker. */
  own?: readonly [string, number];
  /** The bare loop that bounds it from above, where the register tile does not. */
  bare?: RoofKind;
  bound: number;
  sense?: TargetResult["sense"];
  unit: TargetResult["unit"];
  note?: string;
}

type Find = (name: string, threads: number, peer?: Entry["peer"]) => Entry[];

const median = (entries: readonly Entry[]): number | null =>
  entries.length > 0 ? Math.min(...entries.map((entry) => entry.median)) : null;

/** a / b, null where one is missing. */
const over = (a: number | null, b: number | null): number | null => (a === null || b === null ? null : a / b);

const ofFma = (name: string) => (find: Find) => find(name, 1)[0]?.fma_percent ?? null;
const ofRoof = (name: string) => (find: Find) => find(name, 1)[0]?.roof_percent ?? null;
type Ratio = Required<Pick<Target, "value" | "own">>;
const overOrt = (name: string, threads: number): Ratio => ({
  value: (find) => over(median(find(name, threads, "onnxruntime")), median(find(name, threads))),
  own: [name, threads],
});
/** PyTorch at its best setting over us at so many threads. */
const overTorch = (name: string, threads: number): Ratio => ({
  value: (find) => over(median(find(name, 0, "torch")), median(find(name, threads))),
  own: [name, threads],
});
const scaling = (name: string): Ratio => ({
  value: (find) => over(median(find(name, 1)), median(find(name, 2))),
  own: [name, 2],
});

const FBP = (B: number) => `fbp/B=${B},m=1024,n=2048,o=1000,k=5`;
const FBP_BF16 = `${FBP(256)},precision=bf16`;
const FBP_BOTH = "fbp+backward/B=256,m=1024,n=2048,o=1000,k=5";
const AFG = "afg/B=32,T=67-200,D=1024,A=256";
const AFG_FULL = "afg/B=32,T=200,D=1024,A=256";
const AFG_BOTH = "afg+backward/B=32,T=67-200,D=1024,A=256,gradients=";
const AFG_FULL_BOTH = "afg+backward/B=32,T=200,D=1024,A=256,gradients=all";
const GEMM = (M: number) => `linear/M=${M},N=1024,K=1024`;
const FCN = "fcn+backward/B=8,frames=500,bins=200";
const step = (structure: string) => `step/P1 ${structure},B=32,T=67-200,D=4x1024,A=256`;

const STRUCTURES = ["concat", "weighted", "hierarchical"];

const percent = (row: string, name: string, bound: number): Target => ({
  row,
  value: ofFma(name),
  own: [name, 1],
  bound,
  unit: "%",
});
const stream = (row: string, name: string, bound: number): Target => ({
  row,
  value: ofRoof(name),
  own: [name, 1],
  bound,
  unit: "%",
});
const times = (row: string, ratio: Ratio, bound: number): Target => ({ row, ...ratio, bound, unit: "×" });

const TARGETS: Target[] = [
  percent("FBP forward, B = 256, of the multiply-add roof", FBP(256), 85),
  percent("FBP forward, B = 64", FBP(64), 75),
  { ...percent("FBP forward, B = 16", FBP(16), 60), bare: "multiply16.dram" },
  percent("FBP forward + backward, B = 256", FBP_BOTH, 78),
  stream("FBP forward, B = 1, weights in L3, of its bandwidth", "fbp/B=1,m=1024,n=1024,o=256,k=4", 80),
  stream(
    "FBP forward, B = 1, weights in DRAM, of its bandwidth",
    "fbp/B=1,m=1024,n=1024,o=256,k=4,weights=DRAM",
    80,
  ),
  percent("AFG forward, D = 1024, A = 256, mixed lengths", AFG, 82),
  percent("AFG forward, D = 512, A = 512, mixed lengths", "afg/B=32,T=67-200,D=512,A=512", 82),
  percent("AFG forward + backward, weights and inputs", `${AFG_BOTH}all`, 75),
  percent("AFG forward + backward, weights only", `${AFG_BOTH}weights`, 78),
  percent("GEMM 1024³", GEMM(1024), 88),
  percent("GEMM M = 16", GEMM(16), 65),
  percent("GEMM M = 64", GEMM(64), 78),
  ...[1024, 64, 16].flatMap((M) =>
    [1, 2].map((n) =>
      times(
        `GEMM M = ${M} over onnxruntime, ${n} thread${n > 1 ? "s" : ""}`,
        overOrt(GEMM(M), n),
        1,
      ),
    ),
  ),
  percent("FCN forward + backward, 500 frames, batch 8", FCN, 65),
  times("FCN forward + backward over PyTorch's best, 2 threads", overTorch(FCN, 2), 2),
  {
    row: "bf16 FBP forward, B = 256, of the bf16 roof",
    value: (find) => {
      const [entry] = find(FBP_BF16, 1);
      return entry?.roof_kind === "fma.bf16" ? entry.roof_percent : null;
    },
    bound: 88,
    unit: "%",
    note: "no AVX-512-BF16 here",
  },
  stream("AdamW, of the stream roof", "adamw/N=2097152", 85),
  stream(
    "LRN (channels last, as the FCN runs it), of the stream roof",
    "lrn/B=8,C=96,H=48,W=123,layout=nhwc",
    85,
  ),
  stream("dropout, of the stream roof", "dropout/N=4194304", 85),
  times("two threads over one, FBP forward, B = 256", scaling(FBP(256)), 1.85),
  times("two threads over one, FBP forward + backward, B = 256", scaling(FBP_BOTH), 1.85),
  times("FBP forward over onnxruntime, 1 thread", overOrt(FBP(256), 1), 1.25),
  times("FBP forward over onnxruntime, 2 threads", overOrt(FBP(256), 2), 1.6),
  times("AFG forward over onnxruntime, 1 thread", overOrt(AFG_FULL, 1), 1.5),
  times("AFG forward over onnxruntime, 2 threads", overOrt(AFG_FULL, 2), 1.7),
  times("bf16 FBP forward, B = 256, over onnxruntime float32, 1 thread", overOrt(FBP_BF16, 1), 2.2),
  times("FBP forward + backward over PyTorch's best, we at 1 thread", overTorch(FBP_BOTH, 1), 1.15),
  times("FBP forward + backward over PyTorch's best, we at 2 threads", overTorch(FBP_BOTH, 2), 2.2),
  times("AFG forward + backward over PyTorch's best, we at 1 thread", overTorch(AFG_FULL_BOTH, 1), 1.4),
  times("AFG forward + backward over PyTorch's best, we at 2 threads", overTorch(AFG_FULL_BOTH, 2), 2.5),
  ...STRUCTURES.flatMap((structure): Target[] => [
    times(
      `P1 training step, ${structure}, over PyTorch's best, we at 2 threads`,
      overTorch(step(structure), 2),
      2.8,
    ),
    {
      row: `P1 training step, ${structure}, process memory over PyTorch's`,
      value: (find) =>
        over(
          find(step(structure), 2)[0]?.peak_memory ?? null,
          find(step(structure), 2, "torch")[0]?.peak_memory ?? null,
        ),
      bound: 0.6,
      sense: "at most",
      unit: "×",
    },
  ]),
  ...STRUCTURES.map((structure) =>
    times(
      `P1 training step with bf16 operands, ${structure}, over PyTorch's best, we at 2 threads`,
      overTorch(`${step(structure)},precision=bf16`, 2),
      5,
    ),
  ),
  {
    row: "smallest synchronous operator call from JavaScript",
    value: (find) => {
      const [entry] = find("overhead/addon.call", 1);
      return entry ? entry.median * 1e6 : null;
    },
    bound: 1.5,
    sense: "at most",
    unit: "µs",
  },
  {
    row: "random sweep, the worst case, of its own roof",
    value: (find) => {
      const sweep = find("", 1).filter(({ tags }) => tags.includes("sweep"));
      return sweep.length >= SWEEP ? Math.min(...sweep.map((entry) => entry.roof_percent ?? Number.NaN)) : null;
    },
    bound: 60,
    unit: "%",
  },
];

/**
 * Rows whose cases were run; `all`: the others too, without a value.
 * @param roofsOf the roofs of the run that an entry is from
 */
export function evaluateTargets(
  entries: readonly Entry[],
  roofsOf: (entry: Entry) => readonly RoofTable[] = () => [],
  all = false,
): TargetResult[] {
  const find: Find = (name, threads, peer = "affuse") =>
    entries.filter(
      (entry) =>
        (name === "" || entry.case === name) &&
        entry.peer === peer &&
        (threads === 0 || entry.threads === threads),
    );
  const results = TARGETS.map(
    ({ row, value: measure, own, bare, bound, sense = "at least", unit, note }): TargetResult => {
      const value = measure(find);
      const pass = value === null ? null : sense === "at least" ? value >= bound : value <= bound;
      const [entry] = own ? find(...own) : [];
      const percent = value ? ((entry?.roof_percent ?? 0) * bound) / value : 0;
      // A target that is a share of the same roof says it itself.
      const takes =
        pass === false && percent && entry?.roof_kind && !(unit === "%" && Math.abs(percent - bound) < 0.5)
          ? { percent, roof: entry.roof_kind }
          : null;
      const loop = bare ?? (entry?.roof_kind === "fma.f32" ? "tile.l1" : null);
      const table = entry && roofsOf(entry).find(({ threads }) => threads === entry.threads);
      const most = pass === false && loop ? table?.roofs[loop] : undefined;
      return {
        row,
        value,
        bound,
        sense,
        unit,
        pass,
        own: own ?? null,
        takes,
        bare: most && loop && table ? { percent: (100 * most) / (table.roofs["fma.f32"] as number), loop } : null,
        note: value === null ? (note ?? "not in this run") : null,
      };
    },
  );
  return all ? results : results.filter(({ value }) => value !== null);
}
