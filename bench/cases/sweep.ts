/** A hundred seeded shapes that nothing was tuned for. */
import { Random } from "../../lib/data/random.ts";
import type { OperatorCase } from "../types.ts";
import { afg, fbp, linear } from "./operators.ts";

/** Log-uniform whole number in [low, high]. */
function between(random: Random, low: number, high: number): number {
  return Math.min(high, Math.round(low * (high / low) ** random.uniform(0, 1)));
}

/** A third each of FBP, AFG and the matrix core, forward, some with their backward. */
export function sweepCases(count = 100, seed = 1): OperatorCase[] {
  const random = new Random(seed, "bench sweep");
  const cases: OperatorCase[] = [];
  for (let i = 0; i < count; i++) {
    const backward = random.uniform(0, 1) < 0.3;
    const extra = { tags: ["sweep"], peers: {} };
    let test: OperatorCase;
    if (i % 3 === 0) {
      const size = {
        B: between(random, 8, 512),
        m: between(random, 32, 2048),
        n: between(random, 32, 2048),
        o: between(random, 16, 1000),
        k: 1 + random.integer(8),
      };
      test = fbp(size, backward ? { ...extra, gradients: ["da", "dv", "dU", "dV"] } : extra);
    } else if (i % 3 === 1) {
      const T = between(random, 4, 500);
      const size = {
        B: between(random, 2, 48),
        T,
        D: between(random, 32, 1500),
        A: between(random, 16, 600),
        shortest: Math.max(1, Math.round(T * random.uniform(0.2, 1))),
      };
      test = afg(size, backward ? { ...extra, gradients: ["dx", "dW", "db", "du"] } : extra);
    } else {
      const size = {
        M: between(random, 8, 2048),
        N: between(random, 16, 2048),
        K: between(random, 16, 2048),
      };
      test = linear(size, backward ? { ...extra, gradients: ["dx", "dW", "db"] } : extra);
    }
    cases.push({ ...test, name: `sweep ${String(i + 1).padStart(3, "0")} ${test.name}` });
  }
  return cases;
}
