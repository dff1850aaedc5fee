/** One block of memory that a program needs for a while. */
export interface ArenaItem {
  bytes: number;
  /** First and last instruction (both inclusive) during which the contents matter. */
  start: number;
  end: number;
}

export interface ArenaPlan {
  /** Byte offset per item, a multiple of 64. */
  offsets: number[];
  /** Size of the arena. */
  bytes: number;
}

/** Cache lines: kernels may use aligned vector loads, and two blocks never share a line. */
export const ARENA_ALIGNMENT = 64;

/** Rounds a byte count up to whole alignment units. */
export function aligned(bytes: number): number {
  return Math.ceil(bytes / ARENA_ALIGNMENT) * ARENA_ALIGNMENT;
}

/**
 * Places blocks so that no two that live at the same time overlap. Greedy by size with best fit (Pisarchyk and Lee,
 * "Efficient memory management for deep neural net inference", 2020): the largest block first, each into the smallest
 * gap that holds it between the already placed blocks of its lifetime, else behind the last of them.
 */
export function planArena(items: readonly ArenaItem[]): ArenaPlan {
  const order = items.map((_, i) => i);
  const item = (i: number) => items[i] as ArenaItem;
  order.sort((a, b) => item(b).bytes - item(a).bytes || item(a).start - item(b).start || a - b);
  const offsets = new Array<number>(items.length).fill(0);
  const placed: number[] = []; // by offset
  let total = 0;
  for (const index of order) {
    const { bytes, start, end } = item(index);
    if (bytes === 0) continue;
    const size = aligned(bytes);
    let best = -1;
    let bestGap = Number.POSITIVE_INFINITY;
    let cursor = 0; // end of the placed blocks passed so far
    for (const other of placed) {
      if (item(other).start > end || item(other).end < start) continue;
      const offset = offsets[other] as number;
      const gap = offset - cursor;
      if (gap >= size && gap < bestGap) {
        best = cursor;
        bestGap = gap;
      }
      cursor = Math.max(cursor, offset + aligned(item(other).bytes));
    }
    const offset = best >= 0 ? best : cursor;
    offsets[index] = offset;
    total = Math.max(total, offset + size);
    const at = placed.findIndex((other) => (offsets[other] as number) > offset);
    placed.splice(at < 0 ? placed.length : at, 0, index);
  }
  return { offsets, bytes: total };
}
