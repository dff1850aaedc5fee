/** Where the time of programs goes: per operator, against this machine's roofs, as a trace for Perfetto. */
export { type Limit, measureRoofs, type Roofs } from "./roofs.ts";
export { dataSubject, type ModelSizes, operatorSubject, type Subject, syntheticSubject } from "./subject.ts";
export { formatSummary, type ProfileRow, type Summary, summarize } from "./table.ts";
export { type Trace, type TraceEvent, toTrace, traceFile } from "./trace.ts";

import type { NativeAddon, NativeProfile } from "../native/addon.ts";
import type { Subject } from "./subject.ts";

export interface ProfileOptions {
  /** Steps that are timed, after `warmup` steps that are not. */
  steps: number;
  warmup: number;
  /** Also time every task of the parallel regions, for traces. */
  tasks?: boolean;
}

/** Runs a subject and times what its programs do. @throws ERR_AFFUSE_BUSY during another profile */
export async function profile(
  addon: NativeAddon,
  subject: Subject,
  options: ProfileOptions,
): Promise<NativeProfile> {
  for (let i = 1; i <= options.warmup; i++) await subject.step(i);
  addon.startProfile(options.tasks ?? false);
  let result: NativeProfile | null = null;
  try {
    for (let i = 1; i <= options.steps; i++) await subject.step(options.warmup + i);
  } finally {
    result = addon.stopProfile();
  }
  return result;
}
