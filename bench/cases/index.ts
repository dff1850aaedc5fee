/** All cases, in the order they run. */
import type { Case } from "../types.ts";
import { OPERATOR_CASES } from "./operators.ts";
import { sweepCases } from "./sweep.ts";

export const ALL_CASES: readonly Case[] = [...OPERATOR_CASES, ...sweepCases()];
