import { tryLoadAddon } from "./load.ts";

/**
 * A zeroed array that programs can read in place when it is lent to them (docs/memory.md); an ordinary one, which they copy,
 * where there is no compiled addon.
 */
export function allocateFrames(length: number): Float32Array {
  return tryLoadAddon().addon?.allocate(length) ?? new Float32Array(length);
}
