import { gradients } from "./gradients.ts";
import { type Graph, scalar } from "./graph.ts";
import type { ParameterStore, Role } from "./parameters.ts";
import type { Value } from "./value.ts";

export interface OptimizerConfig {
  /** adam: weight decay is added to the gradient; adamw: decoupled. */
  type: "adam" | "adamw";
  beta1: number;
  beta2: number;
  eps: number;
  weightDecay: number;
  /** Largest global 2-norm of the gradient; null: no clipping. */
  maxNorm: number | null;
}

/**
 * Appends backward pass, clipping and update. Gradients are written straight into the flat gradient buffer by the
 * operators that make them; a parameter that the loss does not depend on keeps its gradient of 0. The update runs over
 * whole segments in place; parameters exempt from weight decay have a segment of their own.
 *
 * @param values every value under which the store's parameters entered the graph, by parameter name
 * @returns norm [1]: the global 2-norm before clipping. Scalars of the program: `lr`, `step` (from 1).
 */
export function appendUpdate(
  graph: Graph,
  loss: Value,
  store: ParameterStore,
  values: ReadonlyMap<string, Value>,
  config: OptimizerConfig,
): { norm: Value } {
  appendGradients(graph, loss, store, values);
  const flat = (role: Role, offset: number, length: number) =>
    graph.stored(store.storage(role), { offset: offset * 4 }, { dtype: "f32", shape: [length] });
  const g = flat("gradients", 0, store.flatLength());
  const norm = graph.op("grad_norm", { g }).norm as Value;
  if (config.maxNorm !== null) {
    const clipped = graph.op("clip_by_norm", { g, norm }, { maxNorm: config.maxNorm }).g as Value;
    graph.write(clipped, store.storage("gradients"), { offset: 0 });
  }
  for (const { offset, length, decay } of store.layout()) {
    const updated = graph.op(
      config.type,
      {
        p: flat("parameters", offset, length),
        g: flat("gradients", offset, length),
        m: flat("m", offset, length),
        v: flat("v", offset, length),
      },
      {
        lr: scalar("lr"),
        step: scalar("step"),
        beta1: config.beta1,
        beta2: config.beta2,
        eps: config.eps,
        weightDecay: decay ? config.weightDecay : 0,
      },
    );
    graph.write(updated.p as Value, store.storage("parameters"), { offset: offset * 4 });
    graph.write(updated.m as Value, store.storage("m"), { offset: offset * 4 });
    graph.write(updated.v as Value, store.storage("v"), { offset: offset * 4 });
  }
  return { norm };
}

/** Appends the backward pass alone: every parameter's gradient lands in the flat gradient buffer. */
export function appendGradients(
  graph: Graph,
  loss: Value,
  store: ParameterStore,
  values: ReadonlyMap<string, Value>,
): void {
  const parameters = store.parameters().filter((parameter) => values.has(parameter.name));
  const found = gradients(
    graph,
    loss,
    parameters.map((parameter) => values.get(parameter.name) as Value),
  );
  parameters.forEach((parameter, i) => {
    const gradient = found[i];
    if (gradient) graph.write(gradient, store.storage("gradients"), parameter);
  });
}
