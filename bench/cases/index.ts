/** All cases, in the order they run. */
import type { Case } from "../types.ts";
import { MODEL_CASES } from "./models.ts";
import { OPERATOR_CASES } from "./operators.ts";
import { OVERHEAD_CASES } from "./overhead.ts";
import { STREAM_CASES } from "./streams.ts";
import { sweepCases } from "./sweep.ts";

export const ALL_CASES: readonly Case[] = [
  ...OPERATOR_CASES,
  ...STREAM_CASES,
  ...MODEL_CASES,
  ...OVERHEAD_CASES,
  ...sweepCases(),
];
