import { AffuseError } from "../errors.ts";
import type { AttributeValue, Device, HostTensor, NativeAddon, TypedArray } from "../native/addon.ts";
import type { Graph } from "./graph.ts";
import { type Node, root, type Value } from "./value.ts";

export interface InterpretOptions {
  /** By input name. */
  feeds?: Readonly<Record<string, TypedArray | readonly number[]>>;
  /** By scalar name. */
  scalars?: Readonly<Record<string, number>>;
  /** Contents of stored values, e.g. `(value) => …` from a parameter store. */
  stored?: (value: Value) => TypedArray;
  /** "reference": every float tensor is float64. */
  device?: Device;
  threads?: number;
}

/**
 * Evaluates values of a graph operator by operator: the oracle for compiled programs. On the reference device the whole
 * graph, backward pass included, runs in float64. Nodes that write persistent memory are not run for their effect.
 * @returns data of each wanted value, in order
 */
export function interpret(
  addon: Pick<NativeAddon, "call">,
  graph: Graph,
  wanted: readonly Value[],
  options: InterpretOptions = {},
): TypedArray[] {
  const device = options.device ?? "reference";
  const float64 = device === "reference";
  const known = new Map<number, TypedArray>();
  const host = (value: Value, data: TypedArray): HostTensor => ({
    dtype: value.dtype === "i32" ? "i32" : float64 ? "f64" : "f32",
    shape: value.shape,
    data,
  });
  const convert = (value: Value, data: TypedArray | readonly number[]): TypedArray => {
    if (value.dtype === "i32") return Int32Array.from(data);
    return float64 ? Float64Array.from(data) : Float32Array.from(data);
  };
  const evaluate = (value: Value): TypedArray => {
    const owner = root(value);
    const found = known.get(owner.id);
    if (found) return found;
    const { source } = owner;
    if (source.kind === "output") {
      runNode(source.node);
      return known.get(owner.id) as TypedArray;
    }
    let data: TypedArray | readonly number[] | undefined;
    if (source.kind === "input") data = options.feeds?.[source.name];
    else if (source.kind === "constant") data = source.data;
    else if (source.kind === "stored") data = options.stored?.(owner);
    if (!data)
      throw new AffuseError(
        "ERR_AFFUSE_FEED",
        `expected data for value ${owner.id} (${source.kind}), got nothing.`,
      );
    const converted = convert(owner, data);
    known.set(owner.id, converted);
    return converted;
  };
  // Nodes are few and recorded in order, so what a wanted value needs is found by going back, then run going forward.
  const runNode = (last: Node) => {
    const needed = new Set<Node>();
    const stack = [last];
    for (let node = stack.pop(); node; node = stack.pop()) {
      if (needed.has(node)) continue;
      needed.add(node);
      for (const input of node.inputs) {
        const source = input ? root(input).source : null;
        if (source?.kind === "output" && !known.has(root(input as Value).id)) stack.push(source.node);
      }
    }
    for (const node of graph.nodes) {
      if (!needed.has(node)) continue;
      const attributes: Record<string, AttributeValue> = { ...node.attributes };
      for (const [name, from] of Object.entries(node.scalars))
        attributes[name] = options.scalars?.[from] ?? 0;
      const inputs = node.inputs.map((input) => input && host(input, evaluate(input)));
      const outputs = addon.call(
        device,
        node.info.name,
        inputs,
        attributes,
        node.outputs.map((output) => output !== null),
        options.threads,
      );
      node.outputs.forEach((output, i) => {
        const made = outputs[i];
        if (made && output) known.set(output.id, made.data);
      });
    }
  };
  return wanted.map(evaluate);
}
