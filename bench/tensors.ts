/** Inputs of a case: deterministic, the same for everybody. */
import type { HostTensor, TensorDesc } from "../lib/native/addon.ts";
import type { OperatorCase, TensorSpec } from "./types.ts";

/**
 * Fills with mulberry32's numbers (public domain, Tommy Ettinger): two hundred megabytes in a second, unlike
 * Philox here.
 */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function seedOf(text: string): number {
  let hash = 2166136261;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 16777619);
  return hash >>> 0;
}

export const elements = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/**
 * Lengths are the same in every set (`label` leaves the set out for ranges), so that every call does as much
 * work.
 */
export function makeTensor(
  spec: TensorSpec,
  label: string,
  set: number,
  allocate: (length: number) => Float32Array = (length) => new Float32Array(length),
): HostTensor {
  const count = elements(spec.shape);
  if (spec.range) {
    const random = generator(seedOf(label));
    const [low, high] = spec.range;
    const data = Int32Array.from({ length: count }, () => low + Math.floor(random() * (high - low + 1)));
    return { dtype: "i32", shape: spec.shape, data };
  }
  const random = generator(seedOf(`${label} ${set}`));
  const data = allocate(count);
  const scale = spec.scale ?? 1;
  if (spec.positive) for (let i = 0; i < count; i++) data[i] = scale * random();
  else for (let i = 0; i < count; i++) data[i] = scale * (2 * random() - 1);
  return { dtype: "f32", shape: spec.shape, data };
}

/** Shapes and types only. */
export const describeTensors = (test: OperatorCase): Record<string, TensorDesc> =>
  Object.fromEntries(
    Object.entries(test.tensors).map(([name, { shape, range }]) => [
      name,
      { dtype: range ? "i32" : "f32", shape },
    ]),
  );

/** Tensors of every set: weights are one object shared by all sets unless they rotate too. */
export type Sets = Record<string, HostTensor>[];

export function makeSets(test: OperatorCase, count: number): Sets {
  const shared = new Map<string, HostTensor>();
  return Array.from({ length: count }, (_, set) =>
    Object.fromEntries(
      Object.entries(test.tensors).map(([name, spec]) => {
        const rotates = spec.role !== "weight" || test.residency === "rotating weights";
        if (rotates) return [name, makeTensor(spec, `${test.name} ${name}`, set)];
        let tensor = shared.get(name);
        if (!tensor) {
          tensor = makeTensor(spec, `${test.name} ${name}`, 0);
          shared.set(name, tensor);
        }
        return [name, tensor];
      }),
    ),
  );
}
