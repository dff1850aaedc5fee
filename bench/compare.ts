/**
 * Compares a run with a stored one. Times are taken in units of the roof that was measured beside them, so that a machine that
 * is slower today does not count; where multiply-adds are the roof, also in units of the loop that notices a neighbour on the same
 * core (bench/calm.ts), and the smallest change counts, that in seconds too: a roof that was low then, because another took a
 * core while it was measured, is no slowdown now. Neither loop has anything of a kernel in it, so a slower kernel cannot hide
 * there. So it does for what became quicker. A case is slower when its median is beyond the threshold AND its spread lies wholly
 * above the stored one's; whoever fails is measured again before it counts (lib/cli/bench.ts).
 */
import { readFileSync } from "node:fs";
import { z } from "zod";
import { AffuseError } from "../lib/errors.ts";
import { printable } from "./table.ts";
import type { Entry } from "./types.ts";

const positive = z.number().positive();
const schema = z.object({
  context: z.object({
    cpu: z.string(),
    level: z.string(),
    commit: z.string().nullable(),
    quick: z.boolean(),
  }),
  benchmarks: z.array(
    z.object({
      name: z.string(),
      case: z.string(),
      tags: z.array(z.string()).default([]),
      peer: z.string(),
      threads: positive,
      median: positive,
      p20: positive,
      p80: positive,
      roof_kind: z.string().nullable(),
      roof: positive.nullable(),
      issue_percent: positive.optional(),
    }),
  ),
});

export type Stored = z.infer<typeof schema>;
type Timing = Stored["benchmarks"][number];

/** @throws AffuseError ERR_AFFUSE_BENCH_COMPARE for a file that cannot be read or holds something else */
export function readStored(file: string): Stored {
  const advice = "Store one with `affuse bench --json FILE`.";
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(file, "utf8"));
  } catch (error) {
    throw new AffuseError(
      "ERR_AFFUSE_BENCH_COMPARE",
      `expected results of affuse bench in ${file}, got: ${printable((error as Error).message)}.`,
      advice,
    );
  }
  const parsed = schema.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new AffuseError(
      "ERR_AFFUSE_BENCH_COMPARE",
      `expected results of affuse bench in ${file}, got another shape at ${issue?.path.join(".") || "the top"}: ${issue?.message}.`,
      advice,
    );
  }
  const { benchmarks } = parsed.data;
  if (!benchmarks.some(({ peer }) => peer === "affuse")) {
    throw new AffuseError(
      "ERR_AFFUSE_BENCH_COMPARE",
      `expected timings of affuse in ${file}, got none.`,
      advice,
    );
  }
  return parsed.data;
}

export interface Change {
  name: string;
  case: string;
  /** Time now / then, minus 1, of the ways to count it the least: above 0 slower; 0 where they disagree on that. */
  change: number;
  /** The spreads of now and then do not meet. */
  clear: boolean;
  /** Clear, and beyond the threshold. */
  slower: boolean;
  faster: boolean;
}

/** What a second is worth now over then: itself, in units of the roof, and of its issue slots where those count. */
function worths(now: Timing, then: Timing): number[] {
  if (!now.roof || !then.roof || now.roof_kind !== then.roof_kind) return [1];
  const roof = now.roof / then.roof;
  if (now.roof_kind !== "fma.f32" || !now.issue_percent || !then.issue_percent) return [1, roof];
  return [1, roof, (roof * now.issue_percent) / then.issue_percent];
}

/** Changes of every case that both have, slowest first. @param threshold fraction, 0.1 for 10 % */
export function compareRuns(stored: readonly Timing[], now: readonly Entry[], threshold: number): Change[] {
  const known = new Map(stored.filter(({ peer }) => peer === "affuse").map((timing) => [timing.name, timing]));
  const changes: Change[] = [];
  for (const entry of now) {
    const before = known.get(entry.name);
    if (!before) continue;
    const factors = worths(entry, before);
    const [least, most] = [Math.min(...factors), Math.max(...factors)];
    const up = (least * entry.median) / before.median - 1;
    const down = (most * entry.median) / before.median - 1;
    const change = up > 0 ? up : down < 0 ? down : 0;
    const clear = change > 0 ? least * entry.p20 > before.p80 : change < 0 && most * entry.p80 < before.p20;
    const [slower, faster] = [clear && change > threshold, clear && change < -threshold];
    changes.push({ name: entry.name, case: entry.case, change, clear, slower, faster });
  }
  return slowestFirst(changes);
}

const slowestFirst = (changes: Change[]) => changes.sort((a, b) => b.change - a.change);

/** Of repeated measurements the least change counts: noise comes and goes, a slower kernel stays slower. */
export function leastChange(first: readonly Change[], again: readonly Change[]): Change[] {
  const second = new Map(again.map((change) => [change.name, change]));
  return slowestFirst(
    first.map((change) => {
      const other = second.get(change.name);
      if (!other) return change;
      if (change.slower !== other.slower) return change.slower ? other : change;
      return Math.abs(other.change) < Math.abs(change.change) ? other : change;
    }),
  );
}

/** Stored timings of ours that a run with these thread counts should have, by what is known of their cases, and has not. */
export function missing(
  { benchmarks }: Stored,
  { context, benchmarks: now }: { context: { threads: readonly number[] }; benchmarks: readonly Entry[] },
  chosen: (test: Pick<Timing, "name" | "tags">) => boolean,
): string[] {
  const there = new Set(now.map(({ name }) => name));
  return benchmarks
    .filter(({ peer, threads }) => peer === "affuse" && context.threads.includes(threads))
    .filter((timing) => chosen({ name: timing.case, tags: timing.tags }) && !there.has(timing.name))
    .map(({ name }) => name);
}
