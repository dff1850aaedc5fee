// A small model in plain TypeScript behind the same interface as the native ones: softmax regression and a
// linear valence on the mean frame of every stream, Adam, and a mask that depends on seed and step as dropout
// does. It makes tests of the trainer fast and independent of the compiled addon.
import { Random } from "../../lib/data/random.ts";
import { parseModelConfig } from "../../lib/models/config.ts";
import { usedStreams } from "../../lib/models/structures.ts";
import type { Batch, Inference, Model, ModelState, StepOptions, StepResult } from "../../lib/models/types.ts";
import type { ModelFactory } from "../../lib/train/fold-job.ts";

export interface FakeOptions {
  /** Milliseconds that a step takes. */
  delay?: number;
  /** The loss is NaN from this step on. */
  nanAt?: number;
  /** Called before each step. */
  onStep?: (step: number) => void;
}

export function fakeModels(options: FakeOptions = {}): ModelFactory {
  return (input, streams, classes) => {
    const config = parseModelConfig(input);
    const used = usedStreams(config, streams);
    const C = classes.length;
    const D = used.reduce((sum, stream) => sum + stream.dim, 0) + 1;
    const random = new Random(config.seed, "init");
    const size = D * (C + 1);
    let p = Float32Array.from({ length: size }, () => random.normal(0, 0.1));
    let m = new Float32Array(size);
    let v = new Float32Array(size);
    let done = 0;
    const tensor = (data: Float32Array) => ({ w: { shape: [D, C + 1], data: data.slice() } });

    /** Mean frame of every used stream of clip b, then 1. */
    const pooled = (batch: Batch, b: number): Float32Array => {
      const out = new Float32Array(D);
      let at = 0;
      for (const { name, dim } of used) {
        const { data, lengths, T } = batch.streams[name] as Batch["streams"][string];
        const n = lengths[b] as number;
        for (let t = 0; t < n; t++) {
          for (let d = 0; d < dim; d++)
            out[at + d] = (out[at + d] as number) + (data[(b * T + t) * dim + d] as number) / n;
        }
        at += dim;
      }
      out[D - 1] = 1;
      return out;
    };
    const outputs = (x: Float32Array): { logits: number[]; posteriors: number[]; valence: number } => {
      const y = Array.from({ length: C + 1 }, (_, c) =>
        x.reduce((sum, value, d) => sum + value * (p[d * (C + 1) + c] as number), 0),
      );
      const top = Math.max(...y.slice(0, C));
      const e = y.slice(0, C).map((value) => Math.exp(value - top));
      const total = e.reduce((sum, value) => sum + value, 0);
      return { logits: y.slice(0, C), posteriors: e.map((value) => value / total), valence: y[C] as number };
    };

    const model: Model = {
      config,
      streams: used,
      classes: [...classes],
      embeddingWidth: D,
      parameterCount: size,
      async trainStep(batch: Batch, { lr, step }: StepOptions): Promise<StepResult> {
        options.onStep?.(step);
        if (options.delay) await new Promise((resolve) => setTimeout(resolve, options.delay));
        const g = new Float64Array(size);
        let ce = 0;
        let mse = 0;
        const mask = new Random(config.seed, `step ${step}`);
        for (let b = 0; b < batch.size; b++) {
          const x = pooled(batch, b).map((value) => (mask.bernoulli(0.9) ? value / 0.9 : 0));
          const { posteriors, valence } = outputs(x);
          const label = batch.labels?.[b] ?? -1;
          const target = batch.valence?.[b] ?? Number.NaN;
          if (label >= 0) ce -= Math.log(posteriors[label] as number) / batch.size;
          const dv = Number.isNaN(target) ? 0 : valence - target;
          mse += (dv * dv) / batch.size;
          for (let d = 0; d < D; d++) {
            for (let c = 0; c <= C; c++) {
              const dy =
                c === C ? 2 * dv : label >= 0 ? (posteriors[c] as number) - (c === label ? 1 : 0) : 0;
              const i = d * (C + 1) + c;
              g[i] = (g[i] as number) + ((x[d] as number) * dy) / batch.size;
            }
          }
        }
        let norm = 0;
        for (let i = 0; i < size; i++) {
          const gi = g[i] as number;
          norm += gi * gi;
          m[i] = 0.9 * (m[i] as number) + 0.1 * gi;
          v[i] = 0.999 * (v[i] as number) + 0.001 * gi * gi;
          p[i] = (p[i] as number) - (lr * 10 * (m[i] as number)) / (Math.sqrt(v[i] as number) + 1e-6);
        }
        done = step;
        if (options.nanAt !== undefined && step >= options.nanAt) ce = Number.NaN;
        return { loss: ce + mse, ce, mse, sE: -step / 1000, sV: step / 1000, gradNorm: Math.sqrt(norm) };
      },
      async infer(batch: Batch): Promise<Inference> {
        const all = Array.from({ length: batch.size }, (_, b) => pooled(batch, b));
        const answers = all.map(outputs);
        const attention: Record<string, Float32Array> = {};
        for (const { name } of used) {
          const { lengths, T } = batch.streams[name] as Batch["streams"][string];
          attention[name] = Float32Array.from({ length: batch.size * T }, (_, i) => {
            const n = lengths[Math.floor(i / T)] as number;
            return i % T < n ? 1 / n : 0;
          });
        }
        return {
          logits: Float32Array.from(answers.flatMap((a) => a.logits)),
          posteriors: Float32Array.from(answers.flatMap((a) => a.posteriors)),
          valence: Float32Array.from(answers, (a) => a.valence),
          embedding: Float32Array.from(all.flatMap((x) => [...x])),
          attention,
        };
      },
      state: (): ModelState => ({ step: done, parameters: tensor(p), m: tensor(m), v: tensor(v) }),
      load(state: ModelState) {
        p = Float32Array.from(state.parameters.w?.data ?? []);
        m = Float32Array.from(state.m?.w?.data ?? new Float32Array(size));
        v = Float32Array.from(state.v?.w?.data ?? new Float32Array(size));
        done = state.step;
      },
      dispose() {},
    };
    return model;
  };
}
