import { AffuseError } from "../errors.ts";
import type { Attributes, AttributeValue, TensorDesc, TypedArray } from "../native/addon.ts";
import { attributeRule, operatorInfo, type OperatorSource } from "./registry.ts";
import {
  describe,
  elementCount,
  root,
  type Node,
  type Place,
  type Source,
  type Storage,
  type Value,
} from "./value.ts";

/** An attribute whose value is given to every run by name. */
export interface ScalarReference {
  readonly scalar: string;
}

/** Makes an attribute a scalar of the program: `graph.op("dropout", { x }, { step: scalar("step") })`. */
export function scalar(name: string): ScalarReference {
  return { scalar: name };
}

export type GraphAttributes = Readonly<Record<string, AttributeValue | ScalarReference | undefined>>;

/**
 * A symbolic program: records operator calls, shapes included, and runs nothing. Shapes and types come from the native
 * registry's own inference, so a graph that can be built can be run.
 */
export class Graph {
  readonly source: OperatorSource;
  readonly values: Value[] = [];
  readonly nodes: Node[] = [];
  /** Operator outputs that live in persistent memory instead of the arena, by value id. */
  readonly writes = new Map<number, { storage: Storage; place: Place }>();
  #inputs = new Map<string, Value>();

  constructor(source: OperatorSource) {
    this.source = source;
  }

  /** A tensor that every run is fed with. @throws AffuseError ERR_AFFUSE_GRAPH if the name is taken */
  input(name: string, desc: TensorDesc): Value {
    if (this.#inputs.has(name)) {
      throw new AffuseError("ERR_AFFUSE_GRAPH", `expected distinct input names, got "${name}" twice.`);
    }
    const value = this.#value(desc, { kind: "input", name });
    this.#inputs.set(name, value);
    return value;
  }

  /** A tensor fixed at compile time. @throws AffuseError ERR_AFFUSE_SHAPE if the data's length does not fit */
  constant(desc: TensorDesc, data: TypedArray): Value {
    if (data.length !== elementCount(desc)) {
      throw new AffuseError(
        "ERR_AFFUSE_SHAPE",
        `expected data for ${describe(desc)}, got ${data.length} elements.`,
      );
    }
    return this.#value(desc, { kind: "constant", data });
  }

  /** A range of persistent memory. */
  stored(storage: Storage, place: Place, desc: TensorDesc): Value {
    return this.#value(desc, { kind: "stored", storage, place });
  }

  /**
   * Records one operator call.
   * @param inputs by the operator's input names; absent optional ones undefined or null
   * @param attributes by name; undefined means the operator's default; `scalar(name)` is bound at run
   * @returns every output by name, optional ones too; those that nobody uses are never made
   * @throws AffuseError the operator's own coded error, or ERR_AFFUSE_UNKNOWN_OPERATOR, _MISSING, _ATTRIBUTE, _GRAPH
   */
  op(
    name: string,
    inputs: Readonly<Record<string, Value | null | undefined>>,
    attributes: GraphAttributes = {},
  ): Record<string, Value> {
    const info = operatorInfo(this.source, name);
    for (const given of Object.keys(inputs)) {
      if (!info.inputs.some((rule) => rule.name === given)) {
        const known = info.inputs.map((rule) => rule.name).join(", ");
        throw new AffuseError("ERR_AFFUSE_GRAPH", `expected inputs of ${name} (${known}), got "${given}".`);
      }
    }
    const ordered = info.inputs.map((rule) => inputs[rule.name] ?? null);
    for (const value of ordered) {
      if (value && this.values[value.id] !== value) {
        throw new AffuseError(
          "ERR_AFFUSE_GRAPH",
          `expected values of one graph, got a foreign one in ${name}.`,
        );
      }
    }
    const fixed: Record<string, AttributeValue> = {};
    const scalars: Record<string, string> = {};
    const forInference: Record<string, AttributeValue> = {};
    for (const [key, value] of Object.entries(attributes)) {
      if (value === undefined) continue;
      const rule = attributeRule(info, key);
      if (typeof value === "object") {
        scalars[key] = value.scalar;
        forInference[key] = rule.default;
      } else {
        fixed[key] = value;
        forInference[key] = value;
      }
    }
    return this.#record(info.name, ordered, fixed, scalars, forInference);
  }

  #record(
    name: string,
    inputs: (Value | null)[],
    attributes: Attributes,
    scalars: Record<string, string>,
    forInference: Attributes,
  ): Record<string, Value> {
    const info = operatorInfo(this.source, name);
    const descs = this.source.infer(
      name,
      inputs.map((value) => value && { dtype: value.dtype, shape: value.shape }),
      forInference,
    );
    const outputs: (Value | null)[] = [];
    const node: Node = { info, inputs, attributes, scalars, outputs };
    this.nodes.push(node);
    const named: Record<string, Value> = {};
    info.outputs.forEach((rule, index) => {
      const desc = descs[index];
      const value = desc ? this.#value(desc, { kind: "output", node, index }) : null;
      outputs.push(value);
      if (value) named[rule.name] = value;
    });
    return named;
  }

  /** The same bytes under another shape of equal size; no copy. @throws AffuseError ERR_AFFUSE_SHAPE */
  reshape(value: Value, shape: readonly number[]): Value {
    if (shape.length === value.shape.length && shape.every((dim, i) => dim === value.shape[i])) return value;
    const desc = { dtype: value.dtype, shape };
    if (elementCount(desc) !== elementCount(value)) {
      throw new AffuseError(
        "ERR_AFFUSE_SHAPE",
        `expected as many elements as ${describe(value)}, got [${shape.join(",")}].`,
      );
    }
    return this.#value(desc, { kind: "alias", of: value });
  }

  /**
   * Makes an operator's output land in persistent memory; the node then always runs. The range must not be read, under
   * another value, by nodes recorded earlier that still have to run: programs execute in the order of recording.
   */
  write(value: Value, storage: Storage, place: Place): void {
    let target = root(value);
    if (target.source.kind !== "output" || this.writes.has(target.id)) {
      // Not an operator's own output, or already bound elsewhere: copy.
      target = this.op("scale", { x: value }, { factor: 1 }).y as Value;
    }
    this.writes.set(target.id, { storage, place });
  }

  #value(desc: TensorDesc, source: Source): Value {
    const value: Value = { id: this.values.length, dtype: desc.dtype, shape: [...desc.shape], source };
    this.values.push(value);
    return value;
  }
}
