/** Medians and spreads. */

/** Linear between the neighbours of rank q·(n−1). */
export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = q * (sorted.length - 1);
  const low = sorted[Math.floor(at)] as number;
  const high = sorted[Math.ceil(at)] as number;
  return low + (high - low) * (at - Math.floor(at));
}

export function summary(values: readonly number[]): {
  median: number;
  p20: number;
  p80: number;
  samples: number;
} {
  return {
    median: quantile(values, 0.5),
    p20: quantile(values, 0.2),
    p80: quantile(values, 0.8),
    samples: values.length,
  };
}
