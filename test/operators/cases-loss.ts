/** Cases of the losses. */
import type { Case, Entry } from "./cases.ts";
import { type Inputs, integers, normal, tensor } from "./run.ts";

const crossEntropy: Entry = {
  misfits: [
    ["labels", 0],
    ["classWeights", 0],
  ],
  cases: (random) => {
    const list: Case[] = [];
    for (const [B, C] of [
      [4, 6],
      [1, 1],
      [0, 6],
      [3, 2],
      [5, 17],
      [2, 65],
      [33, 6],
      [900, 6],
      [3, 5000],
    ] as const) {
      for (const labelSmoothing of [0, 0.1, 1]) {
        for (const weights of ["none", "some", "zero"] as const) {
          // Every combination on small shapes, one weighting per smoothing on large ones.
          if (
            B * C > 100 &&
            weights !== (labelSmoothing === 0 ? "none" : labelSmoothing === 1 ? "zero" : "some")
          )
            continue;
          const inputs: Inputs = {
            logits: normal(random, [B, C], 2),
            labels: integers([B], () => (random.bernoulli(0.3) ? -1 : random.integer(C))),
          };
          if (weights !== "none") {
            inputs.classWeights = tensor([C], (c) =>
              weights === "zero" && c < C - 1 ? 0 : random.uniform(0.2, 3),
            );
          }
          list.push({
            label: `[${B},${C}] smoothing ${labelSmoothing} weights ${weights}`,
            inputs,
            attributes: { labelSmoothing },
            terms: Math.max(C, B),
            large: B * C > 300,
          });
        }
      }
    }
    for (const label of [-1, 1]) {
      list.push({
        label: label < 0 ? "no label at all" : "sure of itself",
        inputs: {
          logits: tensor([3, 3], (i) => (i % 3 === 1 ? 40 : 0)),
          labels: integers([3], () => label),
        },
        attributes: {},
        terms: 3,
      });
    }
    return list;
  },
  // p − 1, p Σw − w and dposteriors − Σ are rounded at 1, Σw and |dposteriors|.
  floor: (output, inputs) => {
    const most = (name: string) =>
      Array.from(inputs[name]?.data ?? []).reduce((m, x) => Math.max(m, Math.abs(x)), 0);
    if (output === "dlogits" || output === "dclassWeights") {
      const labels = Array.from(inputs.labels?.data ?? []).filter((y) => y >= 0);
      const w = inputs.classWeights?.data;
      const W = labels.reduce((sum, y) => sum + (w ? (w[y] as number) : 1), 0);
      const C = inputs.logits?.shape[1] ?? 1;
      const all = w ? Array.from(w).reduce((a, b) => a + b, 0) : C;
      const share = W > 0 ? Math.max(w ? most("classWeights") : 1, all / C) / W : 0;
      const reach = output === "dlogits" ? 1 : labels.length * (1 + 2 * most("logits"));
      return most("dloss") * share * reach + most("dposteriors");
    }
    return output === "loss" ? 1 : 0;
  },
};

const maskedMse: Entry = {
  misfits: [["target", 0]],
  cases: (random) =>
    [[1], [0], [5], [17], [3, 33], [40001]].flatMap((shape) =>
      [0, 0.4, 1].map((missing) => ({
        label: `[${shape}] ${missing * 100} % missing`,
        inputs: {
          prediction: normal(random, shape),
          target: tensor(shape, () => (random.bernoulli(missing) ? Number.NaN : random.normal())),
        },
        attributes: {},
        terms: shape.reduce((a, b) => a * b, 1),
        large: shape[0] === 40001,
      })),
    ),
};

const uncertainty: Entry = {
  misfits: ["ce", "mse", "s_e", "s_v"].map((name) => [name, 0] as const),
  cases: (random) =>
    ["kendall", "half", "log1p", "sum"].flatMap((form) =>
      [
        [0.7, 2, -0.3, 0.4],
        [0, 0, 0, 0],
        [1.5, 0.1, 3, -2],
        [0.2, 5, 40, -30],
        [0.2, 5, -60, 70],
      ].flatMap((numbers, i) =>
        [undefined, [3, 4], [0, 4], [3, 0], [0, 0]].map((counts) => {
          const inputs: Inputs = {};
          for (const [k, name] of ["ce", "mse", "s_e", "s_v"].entries())
            inputs[name] = tensor([1], () => (numbers[k] as number) + (i === 2 ? random.uniform(0, 0.1) : 0));
          if (counts) {
            inputs.countE = integers([1], () => counts[0] as number);
            inputs.countV = integers([1], () => counts[1] as number);
          }
          return {
            label: `${form} ${numbers} counts ${counts ?? "absent"}`,
            inputs,
            attributes: { form },
            terms: 4,
          };
        }),
      ),
    ),
  // Terms of opposite sign are added: rounded at the largest.
  floor: (_, inputs, c) => {
    const value = (name: string) => Math.abs(Number(c.inputs[name]?.data[0] ?? 0));
    const d = Math.abs(Number(inputs.dloss?.data[0] ?? 1));
    return d * (value("s_e") + value("s_v") + 1);
  },
};

export const lossEntries: Record<string, Entry> = {
  softmax_cross_entropy: crossEntropy,
  masked_mse: maskedMse,
  uncertainty_loss: uncertainty,
};
