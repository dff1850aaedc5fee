/** Samples of a profiler summed up: which part of the kernels each belongs to, told by the name of its function. */

/** Parts of the kernels; what is none of them is no kernel's time. */
export type Part = "tiles" | "packing" | "kernels";

/** Kernels are compiled once per level, in a namespace of its own; bf16 instructions have their tiles in affuse::gemm. */
const KERNEL = /^affuse::(?:(?:baseline|avx2|avx512|neon)::|gemm::)/;
/** Functions of the matrix core (kernels/gemm) that multiply, with those that only choose one of them. */
const TILE = /^(?:(?:\w+_)?multiply(?:_\w+)?|few(?:_\w+)?|beside|directly)$/;
/** Copies of operands into the form that tiles read, those of the matrix core … */
const COPY = /^(?:interleave|settle|store_pairs|round_in_place)$/;
/** … and everybody's: pack_rows, fbp_pack_panel, Bf16Rows::pack. */
const PACK = /(?:^|_)pack(?:_|$)/;

/**
 * "affuse::avx2::gemm::multiply" of "void affuse::avx2::gemm::(anonymous namespace)::multiply<6, 2>(long, …)": no arguments,
 * parameters, return type. A lambda is the function that it stands in; so is a parallel loop, whose body often is inlined.
 */
export function pathOf(symbol: string): string {
  const plain = symbol.replaceAll("(anonymous namespace)::", "").replace(/^(?:void )?affuse::parallel</, "");
  let path = "";
  let depth = 0;
  for (const letter of plain) {
    if (letter === "<") depth++;
    else if (letter === ">") depth--;
    else if (depth === 0 && letter === "(") break;
    else if (depth === 0) path += letter;
    if (depth < 0) break;
  }
  // Before the path the return type; a lambda's own name is left out without parameters too ("pack_columns::{lambda").
  return (path.trim().split(" ").at(-1) as string).replace(/::\{.*/, "");
}

/** The part that a function of the addon belongs to; null: none, such as the runtime's. */
export function partOf(symbol: string): Part | null {
  const path = pathOf(symbol);
  if (!KERNEL.test(path)) return null;
  const name = path.slice(path.lastIndexOf("::") + 2);
  const core = path.includes("::gemm::");
  if (core && TILE.test(name)) return "tiles";
  return PACK.test(name) || (core && COPY.test(name)) ? "packing" : "kernels";
}

/** Thread, nanoseconds, address, function, file: a line of `perf script --fields tid,period,ip,sym,dso`. */
const LINE = /^\s*(\d+)\s+(\d+)\s+[0-9a-f]+\s+(.*?) \(([/[].*)\)$/;

interface Thread {
  seconds: Record<Part, number>;
  samples: number;
  /** What the C library took, and how many samples that were. */
  library: number;
  librarySamples: number;
}

/** Sums samples up by part, as they come. */
export class Tally {
  /** Samples of whatever, and the seconds that they stand for. */
  samples = 0;
  seconds = 0;
  /** Those in the addon at functions without a name. */
  nameless = 0;
  readonly #threads = new Map<number, Thread>();
  /** There are far fewer functions than samples, and their names are long. */
  readonly #parts = new Map<string, Part | null>();

  /** @returns false for what is no sample */
  add(line: string): boolean {
    const found = LINE.exec(line);
    if (!found) return false;
    const [, tid, period, symbol, file] = found as unknown as [string, string, string, string, string];
    this.samples++;
    const seconds = Number(period) / 1e9;
    this.seconds += seconds;
    const thread = this.#threadOf(Number(tid));
    if (/\/lib[cm][.-][^/]*$/.test(file)) {
      thread.library += seconds;
      thread.librarySamples++;
    }
    if (!file.includes("affuse.node")) return true;
    if (symbol === "[unknown]") this.nameless++;
    const part = this.#partOf(symbol);
    if (part === null) return true;
    thread.seconds[part] += seconds;
    thread.samples++;
    return true;
  }

  /**
   * Seconds of each part, over all threads: with one thread a run computes on one at a time, but runs change threads. Copies
   * and functions of the C library count where kernels ran.
   */
  sum(): { seconds: Record<Part, number>; samples: number } {
    const seconds = { tiles: 0, packing: 0, kernels: 0 };
    let samples = 0;
    for (const thread of this.#threads.values()) {
      if (thread.samples === 0) continue;
      seconds.tiles += thread.seconds.tiles;
      seconds.packing += thread.seconds.packing;
      seconds.kernels += thread.seconds.kernels + thread.library;
      samples += thread.samples + thread.librarySamples;
    }
    return { seconds, samples };
  }

  #threadOf(tid: number): Thread {
    const known = this.#threads.get(tid);
    if (known) return known;
    const thread = { seconds: { tiles: 0, packing: 0, kernels: 0 }, samples: 0, library: 0, librarySamples: 0 };
    this.#threads.set(tid, thread);
    return thread;
  }

  #partOf(symbol: string): Part | null {
    const known = this.#parts.get(symbol);
    if (known !== undefined) return known;
    const part = partOf(symbol);
    this.#parts.set(symbol, part);
    return part;
  }
}
