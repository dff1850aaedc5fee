import { AffuseError } from "../errors.ts";
import type { Graph, GraphAttributes } from "./graph.ts";
import { operatorInfo } from "./registry.ts";
import { describe, elementCount, type Node, type Value } from "./value.ts";

/**
 * Extends a graph by the gradients of a scalar: graph → graph.
 *
 * Generic by the registry's naming rule: the backward operator takes the forward's inputs, those of the forward's
 * outputs that it saved, and `d<output>`; it gives `d<input>`. Only the gradients that lead to `wrt` are asked for; the
 * others stay unused outputs, which a compiled program never makes. Several uses of one value are summed in a fixed order.
 *
 * @param loss float32, one element
 * @param wrt values of the same graph
 * @returns per entry of `wrt` its gradient (same shape), or null where the loss does not depend on it
 * @throws AffuseError ERR_AFFUSE_SHAPE if the loss is no scalar; ERR_AFFUSE_GRADIENT at an operator without a backward
 */
export function gradients(graph: Graph, loss: Value, wrt: readonly Value[]): (Value | null)[] {
  if (elementCount(loss) !== 1 || loss.dtype !== "f32") {
    throw new AffuseError("ERR_AFFUSE_SHAPE", `expected a loss of one f32 element, got ${describe(loss)}.`);
  }
  const wanted = new Set(wrt.map((value) => value.id));
  const leads = dependents(graph, wanted);
  const pending = new Map<number, Value[]>();
  const push = (value: Value, gradient: Value) => {
    const list = pending.get(value.id);
    if (list) list.push(gradient);
    else pending.set(value.id, [gradient]);
  };
  const collected = new Map<number, Value>();
  const collect = (value: Value): Value | null => {
    const list = pending.get(value.id);
    if (!list) return null;
    const known = collected.get(value.id);
    if (known) return known;
    const sum = list.reduce((a, b) => graph.op("add", { a, b }).y as Value);
    collected.set(value.id, sum);
    return sum;
  };

  if (leads.has(loss.id)) push(loss, graph.constant(loss, new Float32Array([1])));
  // Consumers have larger ids, so when a value's turn comes its gradient is complete.
  for (let id = loss.id; id >= 0; id--) {
    const value = graph.values[id] as Value;
    if (!leads.has(id)) continue;
    if (value.source.kind === "alias") {
      const gradient = collect(value);
      if (gradient) push(value.source.of, graph.reshape(gradient, value.source.of.shape));
    } else if (value.source.kind === "output" && value.source.node.outputs.find(Boolean) === value) {
      // Its first output: by now the gradients of all of them are complete.
      differentiate(graph, value.source.node, collect, push, leads);
    }
  }
  return wrt.map(collect);
}

/** Ids of the values that depend on a wanted one. An operator's outputs all count or none does. */
function dependents(graph: Graph, wanted: ReadonlySet<number>): Set<number> {
  const found = new Set<number>();
  for (const value of graph.values) {
    if (value.dtype === "i32") continue;
    const { source } = value;
    const depends =
      wanted.has(value.id) ||
      (source.kind === "alias" && found.has(source.of.id)) ||
      (source.kind === "output" && source.node.inputs.some((input) => input && found.has(input.id)));
    if (depends) found.add(value.id);
  }
  return found;
}

function differentiate(
  graph: Graph,
  node: Node,
  collect: (value: Value) => Value | null,
  push: (value: Value, gradient: Value) => void,
  leads: ReadonlySet<number>,
): void {
  const given = new Map<string, Value>();
  node.info.outputs.forEach((rule, index) => {
    const output = node.outputs[index];
    const gradient = output && collect(output);
    if (gradient) given.set(`d${rule.name}`, gradient);
  });
  if (given.size === 0) return;
  if (!node.info.backward) {
    throw new AffuseError(
      "ERR_AFFUSE_GRADIENT",
      `expected differentiable operators between the loss and what it is differentiated by, got ${node.info.name}.`,
    );
  }
  const backward = operatorInfo(graph.source, node.info.backward);
  const forwardInputs = new Map(node.info.inputs.map((rule, i) => [rule.name, node.inputs[i] ?? null]));
  const forwardOutputs = new Map(node.info.outputs.map((rule, i) => [rule.name, node.outputs[i] ?? null]));
  const inputs: Record<string, Value | null> = {};
  for (const rule of backward.inputs) {
    inputs[rule.name] =
      (forwardInputs.has(rule.name) ? forwardInputs.get(rule.name) : undefined) ??
      forwardOutputs.get(rule.name) ??
      given.get(rule.name) ??
      null;
  }
  const attributes: Record<string, GraphAttributes[string]> = { ...node.attributes };
  for (const [attribute, name] of Object.entries(node.scalars)) attributes[attribute] = { scalar: name };
  const outputs = graph.op(backward.name, inputs, attributes);
  node.info.inputs.forEach((rule, index) => {
    const input = node.inputs[index];
    const gradient = outputs[`d${rule.name}`];
    if (input && gradient && leads.has(input.id)) push(input, gradient);
  });
}
