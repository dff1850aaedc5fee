/**
 * Whether something else uses the cores. A neighbour in another virtual machine is on no list of processes; on the other half
 * of a core it halves the instructions that are issued here. Multiply-adds alone hardly notice (their roof stays where it was);
 * multiply-adds with an empty instruction after each do, as every kernel with its loads does. So that loop of kernels/roof is
 * timed around every sample. It has nothing of a kernel in it, and nothing is judged by a sample's own time.
 */
import { setImmediate as immediate, setTimeout as sleep } from "node:timers/promises";
import type { NativeAddon } from "../lib/native/addon.ts";
import type { RoofTable } from "./roofs.ts";

/** Shared: the loop is this much below the best that it reached … */
const DROP = 0.88;
/** … or would be, if it had reached this part of the multiply-add roof: cores that issue three instructions a cycle do. */
const LEAST_BEST = 0.75;
const PAUSE_MS = 200;
const LOOK_SECONDS = 0.001;

export class Calm {
  /** Seconds of patience that are left. */
  left: number;
  readonly #addon: NativeAddon;
  readonly #roofs: readonly RoofTable[];
  readonly #signal: AbortSignal | undefined;
  /** The largest share so far, by threads. */
  readonly #best = new Map<number, number>();

  /**
   * @param patience seconds to spend in all on waiting and on samples in vain; 0: everything counts as it comes
   * @param signal aborted: no more waiting, everything counts
   */
  constructor(addon: NativeAddon, roofs: readonly RoofTable[], patience: number, signal?: AbortSignal) {
    this.left = patience;
    this.#addon = addon;
    this.#roofs = roofs;
    this.#signal = signal;
  }

  /** Whoever interrupts does not wait for calm. */
  get #impatient(): boolean {
    return this.left <= 0 || this.#signal?.aborted === true;
  }

  /** What the loop reaches now, of the multiply-add roof. */
  share(threads: number): number {
    const known = this.#roofs.find((table) => table.threads === threads)?.roofs["fma.f32"];
    const share = this.#addon.roof("issue.f32", threads, LOOK_SECONDS) / (known ?? this.#addon.roof("fma.f32", threads));
    this.#best.set(threads, Math.max(share, this.#best.get(threads) ?? LEAST_BEST));
    return share;
  }

  /** Whether a share means that the cores were this process's own. */
  own(share: number, threads: number): boolean {
    return share >= DROP * (this.#best.get(threads) ?? LEAST_BEST);
  }

  /** Waits while the cores are shared and there is patience. @returns the share then */
  async wait(threads: number): Promise<number> {
    for (;;) {
      const begin = performance.now();
      const share = this.share(threads);
      if (this.#impatient || this.own(share, threads)) return share;
      await sleep(PAUSE_MS);
      this.left -= (performance.now() - begin) / 1000;
    }
  }

  /** A measurement, and the least share around it; again while the cores were shared and there is patience. */
  async around<T>(threads: number, measure: () => T | Promise<T>): Promise<{ value: T; share: number }> {
    for (;;) {
      const before = await this.wait(threads);
      const begin = performance.now();
      const value = await measure();
      const share = Math.min(before, this.share(threads));
      if (this.#impatient || this.own(share, threads)) return { value, share };
      this.left -= (performance.now() - begin) / 1000;
      await immediate(); // measurements may only compute: an interrupt is heard here
    }
  }
}
