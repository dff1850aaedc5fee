export { type ArenaItem, type ArenaPlan, planArena } from "./arena.ts";
export { compile, type CompileOptions, plan, type ProgramPlan } from "./compile.ts";
export { gradients } from "./gradients.ts";
export { Graph, type GraphAttributes, scalar, type ScalarReference } from "./graph.ts";
export { interpret, type InterpretOptions } from "./interpret.ts";
export { appendGradients, appendUpdate, type OptimizerConfig } from "./optimizer.ts";
export {
  constantInit,
  type Initializer,
  type Parameter,
  ParameterStore,
  type Role,
  uniformInit,
  xavierNormalInit,
} from "./parameters.ts";
export { Program, type RunOptions } from "./program.ts";
export type { Node, Storage, Value } from "./value.ts";
