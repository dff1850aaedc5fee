import { test } from "uvu";
import * as assert from "uvu/assert";
import { Random } from "../../lib/data/random.ts";
import {
  argmax,
  emotionScores,
  evaluate,
  merMetric,
  pairedTest,
  valenceScores,
} from "../../lib/metrics/index.ts";

const near = (a: number | null, b: number, tolerance = 1e-10) =>
  assert.ok(a !== null && Math.abs(a - b) <= tolerance, `expected ${b}, got ${a}`);

const truth = [0, 0, 0, 1, 1, 2, 2, 2, 2, 3];
const predicted = [0, 0, 1, 1, 2, 2, 2, 2, 0, 2];
const valenceTruth = [-2, -1, 0, 1.5, 3];
const valencePredicted = [-1.5, -1, 0.5, 1, 2];

test("golden values of the specification", () => {
  const e = emotionScores({ truth, predicted, classes: 4 });
  near(e.wa, 0.6);
  near(e.ua, 0.4791666667);
  near(e.f1Weighted, 0.5666666667);
  near(e.f1Macro, 0.4583333333);
  const v = valenceScores({ truth: valenceTruth, predicted: valencePredicted });
  near(v.mse, 0.35);
  near(v.mae, 0.5);
  near(v.pearson, 0.9780260737);
  near(v.ccc, 0.9275362319);
  near(merMetric(e.f1Weighted, v.mse), 0.4791666667);
});

test("the golden weighted F1 tells truth from prediction", () => {
  const swapped = emotionScores({ truth: predicted, predicted: truth, classes: 4 });
  assert.ok(Math.abs(swapped.f1Weighted - 0.5666666667) > 0.01);
});

test("a class absent from the truth adds nothing to weighted F1 and UA", () => {
  const four = emotionScores({ truth, predicted, classes: 4 });
  const six = emotionScores({ truth, predicted, classes: 6 });
  for (const key of ["wa", "ua", "f1Weighted", "f1Macro"] as const) near(six[key], four[key]);
});

test("missing labels and the sentinel never enter a mean", () => {
  const e = emotionScores({ truth: [...truth, -1, -1], predicted: [...predicted, 0, 3], classes: 4 });
  assert.is(e.count, 10);
  near(e.wa, 0.6);
  const v = valenceScores({
    truth: [...valenceTruth, -10, Number.NaN],
    predicted: [...valencePredicted, 0, 0],
  });
  assert.is(v.count, 5);
  near(v.mse, 0.35);
  assert.is(
    evaluate({ classes: ["a"], truth: [0], predicted: [0], valenceTruth: [-10], valencePredicted: [1] })
      .merMetric,
    null,
  );
});

test("edges: nothing, constants, wrong indices, unequal lengths", () => {
  assert.ok(Number.isNaN(emotionScores({ truth: [], predicted: [], classes: 2 }).wa));
  assert.ok(Number.isNaN(valenceScores({ truth: [1, 1], predicted: [1, 2] }).pearson));
  assert.is(valenceScores({ truth: [1, 1], predicted: [1, 2] }).ccc, 0);
  const code = (f: () => unknown) => {
    try {
      f();
    } catch (error) {
      return (error as { code: string }).code;
    }
    return "none";
  };
  assert.is(
    code(() => emotionScores({ truth: [4], predicted: [0], classes: 4 })),
    "ERR_AFFUSE_LABEL",
  );
  assert.is(
    code(() => emotionScores({ truth: [0], predicted: [4], classes: 4 })),
    "ERR_AFFUSE_LABEL",
  );
  assert.is(
    code(() => emotionScores({ truth: [0], predicted: [], classes: 4 })),
    "ERR_AFFUSE_LENGTH",
  );
  assert.is(argmax([1, 3, 3]), 1);
  assert.is(argmax([Number.NaN, 1]), 1);
  assert.is(argmax([2, Number.NaN, 1]), 0);
});

function coin(accuracy: number, n: number, seed: number): { truth: number[]; predicted: number[] } {
  const random = new Random(seed);
  const t = Array.from({ length: n }, () => random.integer(3));
  return {
    truth: t,
    predicted: t.map((c) => (random.bernoulli(accuracy) ? c : (c + 1 + random.integer(2)) % 3)),
  };
}

test("bootstrap: repeatable, and the accuracy's interval is about the binomial one", () => {
  const data = { classes: ["a", "b", "c"], ...coin(0.8, 400, 1) };
  const a = evaluate(data, { seed: 5 });
  assert.equal(a, evaluate(data, { seed: 5 }));
  assert.not.equal(a.intervals.wa, evaluate(data, { seed: 6 }).intervals.wa);
  const { low, high } = a.intervals.wa ?? { low: 0, high: 0 };
  const expected = 2 * 1.96 * Math.sqrt((a.emotion.wa * (1 - a.emotion.wa)) / 400);
  assert.ok(low < a.emotion.wa && a.emotion.wa < high);
  near((high - low) / expected, 1, 0.15);
  assert.ok(a.intervals["f1:b"]);
});

test("bootstrap intervals cover the true accuracy about 95 times in 100", () => {
  let covered = 0;
  for (let seed = 0; seed < 100; seed++) {
    const { low, high } = evaluate(
      { classes: ["a", "b", "c"], ...coin(0.7, 200, 100 + seed) },
      { resamples: 200, seed },
    ).intervals.wa ?? { low: 0, high: 0 };
    if (low <= 0.7 && 0.7 <= high) covered++;
  }
  assert.ok(covered >= 87 && covered <= 100, `covered ${covered}`);
});

test("paired test: no difference is not significant, a real one is", () => {
  const a = { classes: ["a", "b", "c"], ...coin(0.8, 300, 2) };
  const same = pairedTest(a, a, "wa", { resamples: 200 });
  assert.is(same.difference, 0);
  assert.is(same.p, 1);
  const random = new Random(9);
  const worse = { ...a, predicted: a.predicted.map((p) => (random.bernoulli(0.25) ? (p + 1) % 3 : p)) };
  const test = pairedTest(a, worse, "f1Weighted", { resamples: 400 });
  assert.ok(test.p < 0.01 && test.interval.low > 0, JSON.stringify(test));
});

test.run();
