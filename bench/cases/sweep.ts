/** A hundred seeded shapes that nothing was tuned for. */
import { Random } from "../../lib/data/random.ts";
import type { OperatorCase } from "../types.ts";
import { afg, fbp, linear } from "./operators.ts";

/** Log-uniform whole number in [low, high]. */
function between(random: Random, low: number, high: number): number {
  return Math.min(high, Math.round(low * (high / low) ** random.uniform(0, 1)));
}

/**
 * A third each of FBP, AFG and the matrix core, some with their backward; sizes log-uniform over what batches, clips and features
 * have: 8 … 2048 rows, 16 … 500 frames, widths 32 … 2048.
 */
export function sweepCases(count = 100, seed = 1): OperatorCase[] {
  const random = new Random(seed, "bench sweep");
  const cases: OperatorCase[] = [];
  for (let i = 0; i < count; i++) {
    const backward = random.uniform(0, 1) < 0.3;
    const extra = { tags: ["sweep"], peers: {} };
    const width = () => between(random, 64, 2048);
    let test: OperatorCase;
    let columns: number;
    if (i % 3 === 0) {
      const k = 1 + random.integer(8);
      const size = { B: between(random, 8, 512), m: width(), n: width(), o: between(random, 32, 1000), k };
      test = fbp(size, backward ? { ...extra, gradients: ["da", "dv", "dU", "dV"] } : extra);
      columns = size.o * k;
    } else if (i % 3 === 1) {
      const T = between(random, 16, 500);
      const shortest = Math.max(1, Math.round(T * random.uniform(0.2, 1)));
      const size = {
        B: between(random, 4, 48),
        T,
        D: between(random, 64, 1536),
        A: between(random, 32, 600),
        shortest,
      };
      test = afg(size, backward ? { ...extra, gradients: ["dx", "dW", "db", "du"] } : extra);
      columns = size.A;
    } else {
      const size = { M: between(random, 16, 2048), N: between(random, 32, 2048), K: width() };
      test = linear(size, backward ? { ...extra, gradients: ["dx", "dW", "db"] } : extra);
      columns = size.N;
    }
    cases.push({
      ...test,
      name: `sweep ${String(i + 1).padStart(3, "0")} ${test.name}`,
      columns,
    });
  }
  return cases;
}
