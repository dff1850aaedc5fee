import type { Program } from "../graph/program.ts";

/** Compiled programs by key, the least recently used ones dropped once the arenas together exceed a limit. */
export class ProgramCache<Entry extends { program: Program }> {
  readonly #limit: number;
  readonly #entries = new Map<string, Entry>(); // in the order of use
  #bytes = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get(key: string, make: () => Entry): Entry {
    let entry = this.#entries.get(key);
    if (entry) {
      this.#entries.delete(key);
    } else {
      entry = make();
      this.#bytes += entry.program.arenaBytes;
    }
    this.#entries.set(key, entry);
    for (const [oldest, { program }] of this.#entries) {
      if (this.#bytes <= this.#limit || oldest === key) break;
      this.#entries.delete(oldest);
      this.#bytes -= program.arenaBytes;
      program.dispose();
    }
    return entry;
  }

  get size(): number {
    return this.#entries.size;
  }

  clear(): void {
    for (const { program } of this.#entries.values()) program.dispose();
    this.#entries.clear();
    this.#bytes = 0;
  }
}
