/**
 * Noise in bulk: xoshiro128++ (Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2021) seeded
 * from a Philox stream. Integer arithmetic only, so the same on every machine; used where hundreds of millions of
 * values are wanted (pixels, samples) and the counter-based generator would take most of the time.
 */
import type { Random } from "../data/random.ts";

export class Noise {
  #a: number;
  #b: number;
  #c: number;
  #d: number;

  constructor(random: Random) {
    this.#a = random.word() | 0;
    this.#b = random.word() | 0;
    this.#c = random.word() | 0;
    this.#d = random.word() | 1; // never all zero
  }

  /** Next word, as a signed 32-bit number. */
  word(): number {
    const sum = (this.#a + this.#d) | 0;
    const out = (((sum << 7) | (sum >>> 25)) + this.#a) | 0;
    const t = this.#b << 9;
    this.#c ^= this.#a;
    this.#d ^= this.#b;
    this.#b ^= this.#c;
    this.#a ^= this.#d;
    this.#c ^= t;
    this.#d = (this.#d << 11) | (this.#d >>> 21);
    return out;
  }

  /** Close to normal, mean 0, standard deviation 1, within ±3.5: the four bytes of a word added up. */
  normal(): number {
    const w = this.word();
    return ((w & 255) + ((w >>> 8) & 255) + ((w >>> 16) & 255) + (w >>> 24) - 510) * (1 / 147.8005412709981);
  }
}
