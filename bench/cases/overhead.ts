/** What a call costs whose mathematics is nothing: one element times a factor. */
import type { OverheadCase } from "../types.ts";

export const OVERHEAD_CASES: OverheadCase[] = [
  { kind: "overhead", name: "overhead/addon.call", through: "addon", tags: ["targets", "quick"] },
  { kind: "overhead", name: "overhead/op() with names", through: "library", tags: ["quick"] },
];
