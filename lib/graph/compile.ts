import type {
  Attributes,
  Device,
  Instruction,
  NativeAddon,
  NativeBuffer,
  ProgramValue,
  TypedArray,
} from "../native/addon.ts";
import { aligned, type ArenaItem, planArena } from "./arena.ts";
import type { Graph } from "./graph.ts";
import type { Precision } from "./precision.ts";
import { Program } from "./program.ts";
import { byteSize, elementCount, type Node, root, type Storage, type Value } from "./value.ts";

export type { Precision } from "./precision.ts";

export interface CompileOptions {
  /** "cpu" by default. */
  device?: Device;
  /**
   * Of operands of matrix products, for every operator that has the attribute `precision` and was recorded without
   * it (graph/precision.ts). "f32" by default.
   */
  precision?: Precision;
  /** What run() returns, by name. */
  fetches: Readonly<Record<string, Value>>;
}

/** What compile() decides, before anything native is made: for inspection and tests. */
export interface ProgramPlan {
  nodes: Node[];
  /** Used values in the order of ProgramDesc.values. */
  values: Value[];
  /** Arena blocks: the value that owns the bytes, its lifetime and its place. */
  blocks: (ArenaItem & { value: Value; offset: number })[];
  arenaBytes: number;
  feeds: Value[];
  fetches: [string, Value][];
  scalars: string[];
}

/**
 * Decides what runs and where everything lives: nodes that neither a fetch nor persistent memory depends on are dropped,
 * and so are the outputs that nobody reads; the rest share one arena by lifetime.
 */
export function plan(graph: Graph, fetches: Readonly<Record<string, Value>>): ProgramPlan {
  const nodes = liveNodes(graph, Object.values(fetches));
  const used = new Map<number, Value>(); // every value that an instruction or a fetch names
  const spans = new Map<number, { start: number; end: number }>(); // by root id
  const touch = (value: Value, at: number) => {
    used.set(value.id, value);
    const owner = root(value);
    used.set(owner.id, owner);
    const span = spans.get(owner.id);
    if (span) span.end = Math.max(span.end, at);
    else spans.set(owner.id, { start: owner.source.kind === "input" ? -1 : at, end: at });
  };
  const read = new Set<number>();
  for (const node of nodes) for (const input of node.inputs) if (input) read.add(root(input).id);
  for (const value of Object.values(fetches)) read.add(root(value).id);
  nodes.forEach((node, at) => {
    for (const input of node.inputs) if (input) touch(input, at);
    for (const output of node.outputs) {
      if (output && (read.has(output.id) || graph.writes.has(output.id))) touch(output, at);
    }
  });
  for (const value of Object.values(fetches)) touch(value, nodes.length);

  const values = [...used.values()].sort((a, b) => a.id - b.id);
  const owners = values.filter((value) => inArena(graph, value));
  const items = owners.map((value) => {
    const span = spans.get(value.id) as { start: number; end: number };
    return { value, bytes: byteSize(value), start: span.start, end: span.end };
  });
  const placed = planArena(items);
  const scalars = new Set<string>();
  for (const node of nodes) for (const name of Object.values(node.scalars)) scalars.add(name);
  return {
    nodes,
    values,
    blocks: items.map((item, i) => ({ ...item, offset: placed.offsets[i] as number })),
    arenaBytes: placed.bytes,
    feeds: values.filter((value) => value.source.kind === "input"),
    fetches: Object.entries(fetches),
    scalars: [...scalars],
  };
}

/** Plans a graph and hands it to the runtime as one list of native calls. */
export function compile(addon: NativeAddon, graph: Graph, options: CompileOptions): Program {
  const decided = plan(graph, options.fetches);
  const buffers: NativeBuffer[] = [];
  const bufferIndex = new Map<NativeBuffer, number>();
  const use = (storage: Storage) => {
    const buffer = storage.buffer();
    let index = bufferIndex.get(buffer);
    if (index === undefined) {
      index = buffers.push(buffer) - 1;
      bufferIndex.set(buffer, index);
    }
    return index;
  };
  const constants = placeConstants(addon, decided.values);
  const arenaOffsets = new Map(decided.blocks.map((block) => [block.value.id, block.offset]));
  const indexOf = new Map<number, number>();
  const values = decided.values.map((value, index): ProgramValue => {
    indexOf.set(value.id, index);
    const owner = root(value);
    const { source } = owner;
    const place = { dtype: value.dtype, shape: value.shape };
    const written = graph.writes.get(owner.id);
    // The storage is used before the offset is read: that settles its layout.
    if (written) return { ...place, buffer: use(written.storage), offset: written.place.offset };
    if (source.kind === "stored")
      return { ...place, buffer: use(source.storage), offset: source.place.offset };
    if (source.kind === "constant" && constants) {
      const offset = constants.offsets.get(owner.id) as number;
      return { ...place, buffer: use(constants), offset };
    }
    const offset = arenaOffsets.get(owner.id) as number;
    if (source.kind !== "input") return { ...place, buffer: -1, offset };
    return { ...place, buffer: -1, offset, feed: indexOf.get(owner.id) as number }; // a view's id is above its root's
  });
  const index = (value: Value | null) => (value ? (indexOf.get(value.id) ?? -1) : -1);
  const scalarIndex = new Map(decided.scalars.map((name, i) => [name, i]));
  const instructions = decided.nodes.map((node): Instruction => {
    const instruction: Instruction = {
      op: node.info.name,
      inputs: node.inputs.map(index),
      outputs: node.outputs.map(index),
      attributes: withPrecision(node, options.precision),
    };
    const bound = Object.entries(node.scalars);
    if (bound.length === 0) return instruction;
    const scalars = Object.fromEntries(bound.map(([name, from]) => [name, scalarIndex.get(from) as number]));
    return { ...instruction, scalars };
  });
  const native = addon.createProgram({
    device: options.device ?? "cpu",
    arenaBytes: decided.arenaBytes,
    buffers,
    values,
    instructions,
    feeds: decided.feeds.map(index),
    fetches: decided.fetches.map(([, value]) => index(value)),
    scalars: decided.scalars.length,
  });
  return new Program(native, decided, constants?.buffer() ?? null);
}

function withPrecision(node: Node, precision: Precision | undefined): Attributes {
  const asked = precision !== undefined && node.attributes.precision === undefined;
  if (!asked || !node.info.attributes.some((rule) => rule.name === "precision")) return node.attributes;
  return { ...node.attributes, precision };
}

function inArena(graph: Graph, value: Value): boolean {
  const { kind } = value.source;
  return kind === "input" || (kind === "output" && !graph.writes.has(value.id));
}

/** Nodes that a fetch or persistent memory depends on, in the order of recording. */
function liveNodes(graph: Graph, fetches: readonly Value[]): Node[] {
  const live = new Set<Node>();
  const stack: Node[] = [];
  const reach = (value: Value) => {
    const { source } = root(value);
    if (source.kind === "output" && !live.has(source.node)) {
      live.add(source.node);
      stack.push(source.node);
    }
  };
  for (const id of graph.writes.keys()) reach(graph.values[id] as Value);
  for (const value of fetches) reach(value);
  for (let node = stack.pop(); node; node = stack.pop()) {
    for (const input of node.inputs) if (input) reach(input);
  }
  return graph.nodes.filter((node) => live.has(node));
}

function placeConstants(
  addon: NativeAddon,
  values: readonly Value[],
): (Storage & { offsets: Map<number, number> }) | null {
  const offsets = new Map<number, number>();
  const writes: [number, TypedArray][] = [];
  let bytes = 0;
  for (const value of values) {
    if (value.source.kind !== "constant") continue;
    offsets.set(value.id, bytes);
    if (elementCount(value) > 0) writes.push([bytes, value.source.data]);
    bytes += aligned(byteSize(value));
  }
  if (bytes === 0 && offsets.size === 0) return null;
  const buffer = addon.createBuffer(Math.max(bytes, 64));
  for (const [offset, data] of writes) buffer.write(offset, data);
  return { name: "constants", buffer: () => buffer, offsets };
}
