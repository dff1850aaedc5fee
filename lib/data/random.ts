/**
 * Seeded random numbers that are the same on every machine and in every JavaScript engine.
 *
 * The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011),
 * counter based: word i of a stream is word i mod 4 of philox(counter = (⌊i/4⌋ low, ⌊i/4⌋ high, 0, stream),
 * key = seed), so a position is a plain number that a checkpoint can store and return to. Only + − × ÷ and √
 * of IEEE doubles are used on top (portable.ts), never Math.log or Math.sin, whose last bit engines are free
 * to choose.
 */
import { ln } from "./portable.ts";

const M0 = 0xd2511f53;
const M1 = 0xcd9e8d57;
const W0 = 0x9e3779b9;
const W1 = 0xbb67ae85;

/** High 32 bits of the 64-bit product of two unsigned 32-bit numbers. */
function mulHigh(a: number, b: number): number {
  const al = a & 0xffff;
  const ah = a >>> 16;
  const bl = b & 0xffff;
  const bh = b >>> 16;
  const low = al * bl;
  const middle = ah * bl + (low >>> 16); // < 2^32 + 2^16: exact in a double
  const cross = al * bh + (middle % 0x10000);
  return (ah * bh + Math.floor(middle / 0x10000) + Math.floor(cross / 0x10000)) >>> 0;
}

/**
 * One Philox4x32-10 block: writes four 32-bit words into `out`.
 * @param c0 @param c1 @param c2 @param c3 counter words (unsigned 32-bit)
 * @param k0 @param k1 key words (unsigned 32-bit; for the project's dropout: the seed, low word first)
 */
export function philox4x32(
  c0: number,
  c1: number,
  c2: number,
  c3: number,
  k0: number,
  k1: number,
  out: Uint32Array,
): void {
  for (let round = 0; round < 10; round++) {
    const h0 = mulHigh(M0, c0);
    const l0 = Math.imul(M0, c0) >>> 0;
    const h1 = mulHigh(M1, c2);
    const l1 = Math.imul(M1, c2) >>> 0;
    c0 = (h1 ^ c1 ^ k0) >>> 0;
    c1 = l1;
    c2 = (h0 ^ c3 ^ k1) >>> 0;
    c3 = l0;
    k0 = (k0 + W0) >>> 0;
    k1 = (k1 + W1) >>> 0;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/** 32-bit FNV-1a of a label's UTF-16 code units: gives every named stream its own counter word. */
export function hash32(label: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < label.length; i++) hash = Math.imul(hash ^ label.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

/** Where a stream stands: enough to continue it to the same numbers. */
export interface RandomState {
  /** 64-bit seed, decimal. */
  seed: string;
  /** Stream word. */
  stream: number;
  /** 32-bit words used so far; a whole number below 2^53. */
  position: number;
}

/** A stream of random numbers; streams with different labels of one seed are independent. */
export class Random {
  readonly seed: bigint;
  readonly stream: number;
  #position = 0;
  readonly #k0: number;
  readonly #k1: number;
  readonly #block = new Uint32Array(4);
  #blockIndex = -1;

  /**
   * @param seed whole number; taken modulo 2^64
   * @param label names the stream ("folds", "clip 17", …); the same seed and label always give the same
   * numbers
   */
  constructor(seed: number | bigint, label: string | number = 0) {
    this.seed = BigInt.asUintN(64, BigInt(seed));
    this.#k0 = Number(this.seed & 0xffffffffn);
    this.#k1 = Number(this.seed >> 32n);
    this.stream = typeof label === "number" ? label >>> 0 : hash32(label);
  }

  /** Continues a stream where `state()` was taken. */
  static fromState(state: RandomState): Random {
    const random = new Random(BigInt(state.seed), state.stream);
    random.#position = state.position;
    return random;
  }

  state(): RandomState {
    return { seed: this.seed.toString(), stream: this.stream, position: this.#position };
  }

  /**
   * Independent stream that depends on this one's seed and stream and on the label only, not on the position.
   */
  fork(label: string | number): Random {
    return new Random(this.seed, hash32(`${this.stream}/${label}`));
  }

  /** Next word, uniform on 0 … 2^32 − 1. */
  word(): number {
    const index = Math.floor(this.#position / 4);
    if (index !== this.#blockIndex) {
      philox4x32(
        index >>> 0,
        Math.floor(index / 2 ** 32) >>> 0,
        0,
        this.stream,
        this.#k0,
        this.#k1,
        this.#block,
      );
      this.#blockIndex = index;
    }
    return this.#block[this.#position++ % 4] as number;
  }

  /** Uniform on [low, high), 53 random bits; two words. */
  uniform(low = 0, high = 1): number {
    const unit = ((this.word() >>> 5) * 0x4000000 + (this.word() >>> 6)) / 2 ** 53;
    return low + (high - low) * unit;
  }

  /** Uniform whole number 0 … n−1, without modulo bias. @param n 1 … 2^32 */
  integer(n: number): number {
    const limit = 2 ** 32 - (2 ** 32 % n);
    for (;;) {
      const word = this.word();
      if (word < limit) return word % n;
    }
  }

  /**
   * Normal deviate (Marsaglia's polar method). The second deviate of a pair is thrown away so that the
   * position alone is the state.
   */
  normal(mean = 0, sd = 1): number {
    for (;;) {
      const u = this.uniform(-1, 1);
      const v = this.uniform(-1, 1);
      const s = u * u + v * v;
      if (s > 0 && s < 1) return mean + sd * u * Math.sqrt((-2 * ln(s)) / s);
    }
  }

  /** True with probability p. */
  bernoulli(p: number): boolean {
    return this.uniform() < p;
  }

  /** Fisher–Yates, in place; returns the same array. */
  shuffle<T>(items: T[]): T[] {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.integer(i + 1);
      const held = items[i] as T;
      items[i] = items[j] as T;
      items[j] = held;
    }
    return items;
  }

  /** The numbers 0 … n−1 in random order. */
  permutation(n: number): number[] {
    return this.shuffle(Array.from({ length: n }, (_, i) => i));
  }

  /** One of the items, each equally likely, or in proportion to `weights` (non-negative). */
  choice<T>(items: readonly T[], weights?: readonly number[]): T {
    if (!weights) return items[this.integer(items.length)] as T;
    let total = 0;
    for (const weight of weights) total += weight;
    let left = this.uniform() * total;
    for (let i = 0; i < items.length; i++) {
      left -= weights[i] ?? 0;
      if (left < 0) return items[i] as T;
    }
    return items[items.length - 1] as T;
  }
}
