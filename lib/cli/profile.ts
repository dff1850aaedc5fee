/** `affuse profile`: where the time of a training step, an inference or an operator goes. */
import { InvalidArgumentError, Option } from "commander";
import { AffuseError } from "../errors.ts";
import { PRECISIONS, type Precision } from "../graph/precision.ts";
import type { AttributeValue, OperatorInfo } from "../kernels/index.ts";
import { note, print, printJson } from "./io.ts";
import type { Register } from "./main.ts";

interface Flags {
  structure?: string;
  infer?: boolean;
  batch?: number;
  frames: number;
  streams: number;
  dim: number;
  attention: number;
  full?: boolean;
  precision?: Precision;
  set?: [string, string][];
  size?: string[];
  attr?: string[];
  with?: string[];
  threads?: number;
  steps: number;
  warmup: number;
  detail?: boolean;
  trace?: string;
  json?: boolean;
}

const STRUCTURES = ["concat", "weighted", "hierarchical", "gfbp", "audio", "visual"];
const CLASSES = 6;

export const register: Register = (program) => {
  program
    .command("profile")
    .summary("where the time of a training step goes, per operator")
    .description(
      "Times every operator of training steps (or of inference) and compares each with what this machine\n" +
        "can do, measured in the same process: calls, time, share, GFLOP/s, GB/s, FLOPs per byte, percent\n" +
        "of the roof and what limits it. Work counts the frames that there are, not the padding.\n" +
        "`affuse profile op NAME` profiles one operator.",
    )
    .argument(
      "[source]",
      "configuration (.yaml), run, or folder with labels and features; or the word op; none: made-up data",
    )
    .argument("[name]", "after op: the operator, such as fbp or afg.backward")
    .option("--structure <name>", `${STRUCTURES.join(", ")} (concat)`, structure)
    .option("--infer", "inference instead of training steps")
    .option("--batch <n>", "clips per batch (32)", whole)
    .option("--frames <n>", "made-up data: frames of the longest clip", whole, 200)
    .option("--streams <n>", "made-up data: streams", whole, 4)
    .option("--dim <n>", "made-up data: width of a stream", whole, 1024)
    .option("--attention <n>", "made-up data: width of the attention space", whole, 256)
    .option("--full", "made-up data: no padding; else lengths from a third of --frames")
    .addOption(new Option("--precision <p>", "of the operands of matrix products (f32)").choices(PRECISIONS))
    .option("--set <key=value>", "any key of the configuration, e.g. model.mlp.dropout=0", pairs)
    .option("--size <X=n...>", "op: sizes by the letters of its shapes, such as B=256 (64 for the others)")
    .option("--attr <k=v...>", "op: attributes, such as k=4")
    .option("--with <names...>", "op: optional inputs and outputs by name")
    .option("--threads <n>", "threads (default: all that this process may use)", whole)
    .option("--steps <n>", "steps that are timed", whole, 10)
    .option("--warmup <n>", "steps before them", wholeOrNone, 3)
    .option("--detail", "a row per shape rather than per operator")
    .option("--trace <file>", "write a trace for ui.perfetto.dev, with the tasks of every worker")
    .option("--json", "print one JSON document")
    .addHelpText(
      "after",
      `
Examples:
  affuse profile                                        a training step on made-up clips
  affuse profile --structure gfbp --batch 64 --threads 1 --detail
  affuse profile corpus --structure weighted --infer    inference on a data set
  affuse profile run --trace trace.json                 a training step as in this run
  affuse profile op afg --size B=32 T=200 D=1024 A=256 --with lengths u
  affuse profile op fbp --size B=256 A=256 m=1024 n=2048 P=5000 --attr k=5 --json`,
    )
    .action(async (source: string | undefined, name: string | undefined, flags: Flags) => {
      if (name !== undefined && source !== "op") {
        throw new AffuseError(
          "ERR_AFFUSE_USAGE",
          `expected one source, or op and an operator, got "${source}" and "${name}".`,
        );
      }
      const { requireWritable, writeFileAtomic } = await import("../data/files.ts");
      if (flags.trace !== undefined) requireWritable(flags.trace, "the trace");
      const { loadAddon } = await import("../native/index.ts");
      const { formatSummary, measureRoofs, profile, summarize, toTrace, traceFile } = await import(
        "../profile/index.ts"
      );
      const addon = loadAddon();
      if (flags.threads !== undefined) addon.setThreads(flags.threads);
      const { threads } = addon.cpu();
      const subject = await subjectOf(source, name, flags);
      let recorded: Awaited<ReturnType<typeof profile>>;
      try {
        const { steps, warmup } = flags;
        recorded = await profile(addon, subject, { steps, warmup, tasks: flags.trace !== undefined });
      } finally {
        subject.dispose();
      }
      const roofs = measureRoofs(addon, threads, undefined, subject.precision);
      const summary = summarize(recorded, roofs, flags.detail);
      // The summary first: it is not lost with a trace that cannot be written.
      if (flags.json) {
        printJson({ subject: subject.title, threads, cpu: addon.cpu(), roofs, ...summary });
      } else {
        print(`${subject.title}, ${threads} thread${threads === 1 ? "" : "s"}, ${addon.cpu().isa}`);
        print(formatSummary(summary, roofs));
      }
      if (flags.trace !== undefined) {
        const trace = toTrace(recorded, {
          subject: subject.title,
          threads,
          version: addon.version,
          cpu: addon.cpu().isa,
        });
        writeFileAtomic(flags.trace, traceFile(trace), "the trace");
        note(`Trace in ${flags.trace}: open it at https://ui.perfetto.dev`);
      }
    });
};

async function subjectOf(source: string | undefined, name: string | undefined, flags: Flags) {
  const { dataSubject, operatorSubject, syntheticSubject } = await import("../profile/index.ts");
  if (source === "op") {
    const modelOnly = (["infer", "structure", "batch", "full", "set"] as const).find(
      (key) => flags[key] !== undefined,
    );
    if (modelOnly)
      throw new AffuseError(
        "ERR_AFFUSE_USAGE",
        `expected --${modelOnly} with a model, got an operator.`,
        "affuse profile op fbp.backward names a backward, --size B=256 a batch.",
      );
    if (flags.precision !== undefined)
      throw new AffuseError(
        "ERR_AFFUSE_USAGE",
        "expected --precision with a model, got an operator.",
        "affuse profile op linear --attr precision=bf16",
      );
    if (!name)
      throw new AffuseError(
        "ERR_AFFUSE_USAGE",
        "expected the name of an operator after op.",
        "affuse op --list names them.",
      );
    const kernels = await import("../kernels/index.ts");
    const { loadAddon } = await import("../native/index.ts");
    const info = kernels.operator(name);
    return operatorSubject(
      loadAddon(),
      info,
      sizes(flags.size ?? []),
      attributes(info, flags.attr ?? []),
      flags.with ?? [],
    );
  }
  const operatorOnly = (["size", "attr", "with"] as const).find((key) => flags[key] !== undefined);
  if (operatorOnly) {
    throw new AffuseError(
      "ERR_AFFUSE_USAGE",
      `expected --${operatorOnly} with op NAME only.`,
      "affuse profile op fbp --size B=256",
    );
  }
  const { structure: wanted, batch, set, infer, precision } = flags;
  const train = infer !== true;
  if (source !== undefined) {
    const overrides = {
      ...(wanted && { structure: [wanted] }),
      ...(batch && { batch }),
      ...(precision && { precision }),
      ...(set && { set }),
    };
    return dataSubject(source, overrides, train, flags.steps);
  }
  const { parseModelConfig } = await import("../models/config.ts");
  const { assignKeys } = await import("../train/cli-config.ts");
  const tree: Record<string, unknown> = { model: { attention: { dim: flags.attention } } };
  assignKeys(tree, set ?? []);
  const stray = Object.keys(tree).find((key) => key !== "model");
  if (stray)
    throw new AffuseError("ERR_AFFUSE_CONFIG", `expected --set model.… with made-up data, got ${stray}.`);
  const config = parseModelConfig({ ...(tree.model as object), structure: wanted ?? "concat" });
  const { frames, streams, dim } = flags;
  const lengths = flags.full ? "full" : "mixed";
  return syntheticSubject(
    config,
    { batch: batch ?? 32, frames, streams, dim, lengths, classes: CLASSES },
    train,
    precision,
  );
}

function whole(text: string): number {
  if (!/^\d{1,7}$/.test(text) || Number(text) < 1)
    throw new InvalidArgumentError("expected a whole number from 1.");
  return Number(text);
}

function wholeOrNone(text: string): number {
  if (!/^\d{1,7}$/.test(text)) throw new InvalidArgumentError("expected a whole number from 0.");
  return Number(text);
}

function structure(text: string): string {
  if (!STRUCTURES.includes(text)) throw new InvalidArgumentError(`expected one of ${STRUCTURES.join(", ")}.`);
  return text;
}

function pairs(text: string, before: [string, string][] = []): [string, string][] {
  const at = text.indexOf("=");
  if (at < 1) throw new InvalidArgumentError("expected KEY=VALUE.");
  return [...before, [text.slice(0, at), text.slice(at + 1)]];
}

function sizes(texts: readonly string[]): Record<string, number> {
  const result: Record<string, number> = Object.create(null);
  for (const text of texts) {
    const match = /^([A-Za-z]\w*)=(\d{1,10})$/.exec(text);
    if (!match) throw new AffuseError("ERR_AFFUSE_USAGE", `expected --size LETTER=NUMBER, got "${text}".`);
    result[match[1] as string] = Number(match[2]);
  }
  return result;
}

function attributes(info: OperatorInfo, texts: readonly string[]): Record<string, AttributeValue> {
  const result: Record<string, AttributeValue> = Object.create(null);
  for (const text of texts) {
    const at = text.indexOf("=");
    const rule = info.attributes.find((candidate) => candidate.name === text.slice(0, at));
    if (at < 1 || !rule) {
      const known = info.attributes.map((candidate) => candidate.name).join(", ") || "none";
      throw new AffuseError(
        "ERR_AFFUSE_ATTRIBUTE",
        `expected --attr NAME=VALUE of ${info.name} (${known}), got "${text}".`,
      );
    }
    const value = text.slice(at + 1);
    if (rule.kind === "choice") result[rule.name] = value;
    else if (rule.kind === "boolean") result[rule.name] = value === "true" || value === "1";
    else if (value.trim() === "" || Number.isNaN(Number(value))) {
      throw new AffuseError(
        "ERR_AFFUSE_ATTRIBUTE",
        `expected attribute ${rule.name} of ${info.name} as a number, got "${value}".`,
      );
    } else result[rule.name] = Number(value);
  }
  return result;
}
