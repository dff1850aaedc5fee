/** What the native suites share. */
import type { HostTensor, NativeAddon, ProgramDesc, ProgramValue } from "../../lib/native/addon.ts";
import { loadAddon } from "../../lib/native/load.ts";

export const addon: NativeAddon = loadAddon();

export function f32(shape: number[], values: ArrayLike<number> | ((i: number) => number)): HostTensor {
  const count = shape.reduce((product, dim) => product * dim, 1);
  const data = new Float32Array(count);
  for (let i = 0; i < count; i++) data[i] = typeof values === "function" ? values(i) : (values[i] as number);
  return { dtype: "f32", shape, data };
}

/** Deterministic values around zero. */
export const wave = (i: number) => Math.sin(i * 0.7) + 0.3 * Math.cos(i * 0.13);

export async function codeOf(action: () => unknown): Promise<string> {
  try {
    await action();
  } catch (error) {
    return (error as { code?: string }).code ?? `uncoded: ${error}`;
  }
  return "none";
}

/** A value in the arena. */
export function arenaValue(shape: number[], offset: number): ProgramValue {
  return { dtype: "f32", shape, buffer: -1, offset };
}

/** y = relu?(x Wᵀ) with W [n,n] in a buffer, `repeat` times over: a program whose length is easy to choose. */
export function chain(n: number, rows: number, repeat: number, options: Partial<ProgramDesc> = {}) {
  const weight = addon.createBuffer(n * n * 4);
  const identity = new Float32Array(n * n);
  for (let i = 0; i < n; i++) identity[i * n + i] = 1;
  weight.write(0, identity);
  const bytes = Math.ceil((rows * n * 4) / 64) * 64;
  const desc: ProgramDesc = {
    device: "cpu",
    arenaBytes: 2 * bytes,
    buffers: [weight],
    values: [arenaValue([rows, n], 0), arenaValue([rows, n], bytes), { dtype: "f32", shape: [n, n], buffer: 0, offset: 0 }],
    instructions: Array.from({ length: repeat }, (_, i) => ({
      op: "linear",
      inputs: [i % 2, 2],
      outputs: [1 - (i % 2)],
      attributes: {},
    })),
    feeds: [0],
    fetches: [repeat % 2],
    scalars: 0,
    ...options,
  };
  return { weight, desc, program: addon.createProgram(desc) };
}
