import type { Graph } from "../graph/graph.ts";
import { scalar } from "../graph/graph.ts";
import type { Initializer, ParameterStore } from "../graph/parameters.ts";
import type { Value } from "../graph/value.ts";

/**
 * What layers need while a model is laid out into a graph: parameters by name, and a number for every dropout. Building
 * the same model again (another shape, or without dropout) finds the same parameters and, in the same order, the same
 * dropout instances.
 */
export class Builder {
  readonly graph: Graph;
  readonly store: ParameterStore;
  /** Dropout is applied; the program then has the scalar `step`. */
  readonly training: boolean;
  /** Every parameter used so far, by name. */
  readonly parameters = new Map<string, Value>();
  #instances = 0;

  constructor(graph: Graph, store: ParameterStore, training: boolean) {
    this.graph = graph;
    this.store = store;
    this.training = training;
  }

  /** A learned tensor. Used twice under one name it is shared. */
  parameter(
    name: string,
    shape: readonly number[],
    init: Initializer,
    options: { decay?: boolean } = {},
  ): Value {
    const parameter = this.store.declare(name, shape, init, options);
    const known = this.parameters.get(name);
    if (known) return known;
    const value = this.store.value(this.graph, parameter);
    this.parameters.set(name, value);
    return value;
  }

  /** Attributes of the next dropout: seed of the training, an instance number of its own, the step of the run. */
  dropoutAttributes(): { seed: bigint; instance: number; step: { scalar: string } } {
    return { seed: BigInt(this.store.seed), instance: this.#instances++, step: scalar("step") };
  }
}
