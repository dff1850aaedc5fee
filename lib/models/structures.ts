import { AffuseError } from "../errors.ts";
import type { Value } from "../graph/value.ts";
import type { Builder } from "../nn/builder.ts";
import {
  afgGather,
  concat,
  dropout,
  fbp,
  linear,
  mlp,
  ratioGather,
  scaleRows,
  stack,
  weightedSum,
} from "../nn/layers.ts";
import type { ModelConfig } from "./config.ts";
import { modalitiesOf } from "./presence.ts";
import type { StreamSpec } from "./types.ts";

/** Names the graph's inputs; each is made when first asked for, and only those that the structure uses are fed. */
export interface Inputs {
  /** [B,T,D] */
  x(stream: StreamSpec): Value;
  /** int32 [B] */
  lengths(stream: StreamSpec): Value;
  /** The factors and masks of presence.ts: "share:<stream>", "within:<stream>", "mask:<modality>", "part:<modality>". */
  presence(kind: "share" | "within" | "mask" | "part", of: string): Value;
}

/** Per stream the weights over its frames [B,T]; `gates`: ratio attention's, not yet normalised. */
export type Attention = Map<string, { alpha: Value; gates: boolean }>;

export interface Fused {
  /** [B,H] */
  h: Value;
  attention: Attention;
}

/** A structure wires streams into one embedding. */
export type Structure = (
  b: Builder,
  config: ModelConfig,
  streams: readonly StreamSpec[],
  inputs: Inputs,
) => Fused;

/**
 * AFG with a learned u on every stream, then its MLP, times the stream's share: an absent stream adds exactly 0 and the
 * present ones are scaled by S/Σp, so that the joined vector keeps its magnitude (spec 2.3, *chosen*).
 */
function gatherEach(
  b: Builder,
  config: ModelConfig,
  streams: readonly StreamSpec[],
  inputs: Inputs,
): { vectors: Value[]; attention: Attention } {
  const attention: Attention = new Map();
  const vectors = streams.map((stream) => {
    const gathered = afgGather(
      b,
      `streams.${stream.name}.afg`,
      { x: inputs.x(stream), lengths: inputs.lengths(stream) },
      config.attention,
    );
    attention.set(stream.name, { alpha: gathered.alpha, gates: false });
    const mapped = mlp(b, `streams.${stream.name}.mlp`, gathered.c, config.mlp);
    return scaleRows(b, mapped, inputs.presence("share", stream.name));
  });
  return { vectors, attention };
}

/**
 * `concat` (spec 2.1): AFG on every stream → MLP each → concatenate → MLP → h. Missing streams: zeros in the joined
 * vector, the others scaled by S/Σp. `audio` and `visual` are this over one modality.
 */
export const concatStructure: Structure = (b, config, streams, inputs) => {
  const { vectors, attention } = gatherEach(b, config, streams, inputs);
  return { h: mlp(b, "fusion.mlp", concat(b, vectors), config.mlp), attention };
};

/**
 * `weighted` (spec 2.1): h_m as in `concat`, w = Linear(MLP([h_1;…])) without a softmax, h = Σ w_m h_m. Missing streams:
 * h_m carries its share p_m S/Σp, so the weights are masked and renormalised with it.
 */
export const weightedStructure: Structure = (b, config, streams, inputs) => {
  const { vectors, attention } = gatherEach(b, config, streams, inputs);
  const w = linear(b, "fusion.w", mlp(b, "fusion.mlp", concat(b, vectors), config.mlp), vectors.length);
  return { h: weightedSum(b, stack(b, vectors), w), attention };
};

/**
 * `hierarchical` (spec 2.1): AFG over the frames of each stream → MLP to a common width → AFG over the streams of a
 * modality → one vector g_m per modality → the other modalities' vectors (joined, if several) guide a second AFG over each
 * stream's frames → MLP → AFG over streams → h_m → w = Linear(MLP([h_1;…])), h = Σ w_m h_m.
 *
 * Missing streams are masked out of the AFG over streams. A missing modality has g_m = h_m = 0: as a guide it gives q = 0,
 * hence a plain mean over the frames, and h_m's share p_m M/Σp renormalises the last sum. A modality alone guides itself.
 * The attention reported is the second, guided one: h is gathered with it.
 */
export const hierarchicalStructure: Structure = (b, config, streams, inputs) => {
  const modalities = modalitiesOf(streams);
  const attention: Attention = new Map();
  const gatherModality = (stage: string, modality: string, guide: Value | null): Value => {
    const members = streams.filter((stream) => stream.modality === modality);
    const vectors = members.map((stream) => {
      const name = `streams.${stream.name}.${stage}`;
      const input = { x: inputs.x(stream), lengths: inputs.lengths(stream), guide };
      const gathered = afgGather(b, `${name}.afg`, input, config.attention);
      attention.set(stream.name, { alpha: gathered.alpha, gates: false });
      return mlp(b, `${name}.mlp`, gathered.c, config.mlp);
    });
    if (vectors.length === 1) {
      return scaleRows(b, vectors[0] as Value, inputs.presence("within", (members[0] as StreamSpec).name));
    }
    // Few streams are gathered here, so zero padding must not take part whatever the frames' compatibility switch says.
    const over = { ...config.attention, masked: true };
    const input = { x: stack(b, vectors), mask: inputs.presence("mask", modality) };
    return afgGather(b, `modalities.${modality}.${stage}.afg`, input, over).c;
  };

  const guides = modalities.map((modality) => gatherModality("first", modality, null));
  const vectors = modalities.map((modality, i) => {
    const others = guides.filter((_, j) => j !== i);
    const guide = others.length > 0 ? concat(b, others) : (guides[i] as Value);
    return scaleRows(b, gatherModality("second", modality, guide), inputs.presence("part", modality));
  });
  const w = linear(b, "fusion.w", mlp(b, "fusion.mlp", concat(b, vectors), config.mlp), vectors.length);
  return { h: weightedSum(b, stack(b, vectors), w), attention };
};

/**
 * `gfbp` (spec 1.2, 2.2): recording-level vectors, audio gathered by AFG and visual by ratio attention (or AFG), several
 * streams of a modality joined → optionally mapped to a common width → z = FBP(a, v), biased → dropout → h = z.
 * Missing streams: zeros in the joined vector, the modality's others scaled by S_m/Σp; a missing modality is the zero
 * vector, which the biases of its projection turn into a learned constant.
 */
export const gfbpStructure: Structure = (b, config, streams, inputs) => {
  const attention: Attention = new Map();
  const side = (modality: "audio" | "visual"): Value => {
    const members = streams.filter((stream) => stream.modality === modality);
    const vectors = members.map((stream) => {
      const name = `streams.${stream.name}.gather`;
      const input = { x: inputs.x(stream), lengths: inputs.lengths(stream) };
      const ratio = modality === "visual" && config.fbp.visualGather === "ratio";
      const gathered = ratio
        ? ratioGather(b, name, { ...input, x: dropout(b, input.x, config.fbp.frameDropout) })
        : afgGather(b, name, input, config.attention);
      attention.set(stream.name, { alpha: gathered.alpha, gates: ratio });
      return scaleRows(b, gathered.c, inputs.presence("within", stream.name));
    });
    const joined = concat(b, vectors);
    const { commonWidth } = config.fbp;
    return commonWidth === null ? joined : linear(b, `modalities.${modality}.map`, joined, commonWidth);
  };
  const z = fbp(b, "fusion.fbp", side("audio"), side("visual"), config.fbp);
  return { h: dropout(b, z, config.fbp.outputDropout), attention };
};

const structures: Record<ModelConfig["structure"], Structure> = {
  concat: concatStructure,
  weighted: weightedStructure,
  hierarchical: hierarchicalStructure,
  gfbp: gfbpStructure,
  audio: concatStructure,
  visual: concatStructure,
};

export function structureOf(config: ModelConfig): Structure {
  return structures[config.structure];
}

/**
 * The streams that a structure uses.
 * @throws AffuseError ERR_AFFUSE_STREAMS on duplicates, missing modalities, or modalities it cannot use
 */
export function usedStreams(config: ModelConfig, streams: readonly StreamSpec[]): StreamSpec[] {
  const fail = (expected: string, got: string) => {
    throw new AffuseError("ERR_AFFUSE_STREAMS", `expected ${expected}, got ${got}.`);
  };
  const listed = streams.map((stream) => `${stream.name} (${stream.modality})`).join(", ") || "none";
  if (new Set(streams.map((stream) => stream.name)).size !== streams.length)
    fail("distinct stream names", listed);
  for (const { name, dim } of streams) {
    if (!Number.isInteger(dim) || dim < 1) fail(`a positive width for stream ${name}`, String(dim));
  }
  const single = config.structure === "audio" || config.structure === "visual";
  const used = single ? streams.filter((stream) => stream.modality === config.structure) : [...streams];
  if (used.length === 0) fail(`at least one ${single ? `${config.structure} ` : ""}stream`, listed);
  if (config.structure === "gfbp") {
    const modalities = modalitiesOf(used);
    const exact = modalities.length === 2 && modalities.includes("audio") && modalities.includes("visual");
    if (!exact) fail("audio and visual streams, and no others, for gfbp", listed);
  }
  return used;
}
