/** A timing as the bench writes it, for what is done with timings. */
import type { Entry } from "../../bench/types.ts";

export const timing = (name: string, median: number, roof: number | null = 100) =>
  ({
    name,
    case: name,
    peer: "affuse",
    threads: 1,
    median,
    p20: median * 0.97,
    p80: median * 1.03,
    roof_kind: roof ? "fma.f32" : null,
    roof,
  }) as unknown as Entry;
