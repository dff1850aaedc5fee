/**
 * Writes every run of every operator, with the reference's results and the bounds around them, to a file that
 * test/native/replay.cc reads: how the kernels are checked where there is no Node. Little-endian words; text is
 * its length and UTF-8; a tensor is dtype (0: absent), rank, dimensions.
 */
import { closeSync, openSync, writeSync } from "node:fs";
import { entryOf } from "./cases.ts";
import type { Bounds } from "./model.ts";
import type { Outputs, Values } from "./run.ts";
import { allRuns, type Model, modelOf, operator, type Run } from "./suite.ts";

const F32 = 1;
const I32 = 3;

class Writer {
  readonly #file: number;
  #parts: Uint8Array[] = [];
  #size = 0;

  constructor(path: string) {
    this.#file = openSync(path, "w");
  }
  bytes(part: Uint8Array): void {
    this.#parts.push(part);
    this.#size += part.length;
    if (this.#size > 2 ** 22) this.flush();
  }
  array(data: Float32Array | Float64Array | Int32Array): void {
    this.bytes(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  }
  words(...words: number[]): void {
    this.bytes(new Uint8Array(Uint32Array.from(words).buffer));
  }
  text(text: string): void {
    const bytes = Buffer.from(text, "utf8");
    this.words(bytes.length);
    this.bytes(bytes);
  }
  flush(): void {
    const all = Buffer.concat(this.#parts);
    for (let at = 0; at < all.length; ) at += writeSync(this.#file, all, at);
    this.#parts = [];
    this.#size = 0;
  }
  close(): void {
    this.flush();
    closeSync(this.#file);
  }
}

function shape(to: Writer, values: Values | null | undefined): values is Values {
  if (!values) to.words(0);
  else to.words(values.data instanceof Int32Array ? I32 : F32, values.shape.length, ...values.shape);
  return Boolean(values);
}

function outputs(to: Writer, run: Run, reference: Outputs, bounds: Bounds): void {
  const transform = entryOf(operator(run.info.name.replace(/\.backward$/, ""))).transform;
  to.words(run.info.outputs.length);
  for (const rule of run.info.outputs) {
    const values = reference[rule.name];
    const made = shape(to, values);
    // The only transformation there is, z|z|; another one would need a flag of its own.
    const probe = transform?.(rule.name, Float64Array.of(-3))[0] ?? -3;
    if (probe !== -3 && probe !== -9) throw new Error(`${run.info.name}: ${rule.name} is compared in a new way`);
    to.words(probe === -9 ? 1 : 0);
    if (!made) continue;
    to.array(values.data);
    if (values.data instanceof Int32Array) continue;
    to.array(bounds[rule.name] ?? new Float64Array(values.data.length));
  }
}

/** Elements of all inputs from which on a run counts as large, and which of the large runs of an operator an emulator makes. */
const LARGE = 2500;
const EVERY = 4;

/** Keeps what an emulator of a processor can run in some minutes: all small runs, and some large ones. With AFFUSE_TEST_ALL=1 all. */
export function someOfTheLarge(): (run: Run) => boolean {
  const seen = new Map<string, number>();
  return ({ info, inputs }) => {
    const size = Object.values(inputs).reduce((sum, { data }) => sum + data.length, 0);
    if (size < LARGE || process.env.AFFUSE_TEST_ALL === "1") return true;
    const at = seen.get(info.name) ?? 0;
    seen.set(info.name, at + 1);
    return at % EVERY === 0;
  };
}

/** Returns how many runs of how many operators it wrote: all, or those that `keep` wants. */
export function record(path: string, keep: (run: Run) => boolean = () => true) {
  const runs = [...allRuns()].filter(keep).map((run): [Run, Model] => [run, modelOf(run)]);
  const to = new Writer(path);
  to.text("affuse recording 1");
  to.words(runs.length);
  for (const [run, { reference, bounds }] of runs) {
    const attributes = Object.entries(run.case.attributes);
    to.text(run.info.name);
    to.text(run.label);
    to.words(attributes.length);
    for (const [name, value] of attributes) {
      to.text(name);
      to.text(String(value));
    }
    to.words(run.info.inputs.length);
    for (const rule of run.info.inputs) {
      const values = run.inputs[rule.name];
      if (!shape(to, values)) continue;
      to.array(values.data instanceof Int32Array ? values.data : Float32Array.from(values.data));
    }
    outputs(to, run, reference, bounds);
  }
  to.close();
  return { runs: runs.length, operators: new Set(runs.map(([run]) => run.info.name)).size };
}
