import type { Random } from "../data/random.ts";
import type { TypedArray } from "../native/addon.ts";
import type { Batch, StreamSpec } from "./types.ts";

/**
 * Missing streams (spec 2.3), decided on the host: everything that a graph needs to know of presence is a small feed
 * computed here, so that the graphs stay free of divisions that could be 0/0.
 *
 * With p_s = 1 where clip b has stream s (presence > 0 and length > 0), S streams, M modalities:
 *
 *     share:s    [B,1]   p_s · S / Σ p               factor on the stream's vector: concat, weighted, audio, visual
 *     within:s   [B,1]   p_s · S_m / Σ_{s' in m} p   the same among the streams of its own modality: gfbp, and hierarchical
 *                                                  where a modality has one stream (then simply p_s)
 *     mask:m     int32 [B,S_m]  p_s                  mask of the AFG over a modality's streams: hierarchical
 *     part:m     [B,1]   p_m · M / Σ p_m, p_m = max p_s of the modality; factor on the modality's vector: hierarchical
 *
 * With everything present all factors are 1. Where nothing is present every factor is 0 and the prediction is what the
 * biases say: finite.
 */
export class Presence {
  readonly #streams: readonly StreamSpec[];
  readonly #modalities: string[];
  /** p[s·B + b], 0 or 1. */
  readonly #present: Uint8Array;
  readonly #size: number;

  constructor(streams: readonly StreamSpec[], batch: Batch) {
    this.#streams = streams;
    this.#modalities = modalitiesOf(streams);
    this.#size = batch.size;
    this.#present = new Uint8Array(streams.length * batch.size);
    streams.forEach((stream, s) => {
      const given = batch.streams[stream.name];
      for (let b = 0; b < batch.size; b++) {
        const present = (given?.presence[b] ?? 0) > 0 && (given?.lengths[b] ?? 0) > 0;
        this.#present[s * batch.size + b] = present ? 1 : 0;
      }
    });
  }

  /** Modality dropout: a clip with at least two modalities loses one of them, each equally likely, with probability p. */
  drop(probability: number, random: Random): void {
    for (let b = 0; b < this.#size; b++) {
      const chance = random.uniform();
      const pick = random.uniform();
      if (chance >= probability) continue;
      const here = this.#modalities.filter((modality) => this.#modality(modality, b) > 0);
      if (here.length < 2) continue;
      const lost = here[Math.floor(pick * here.length)];
      this.#streams.forEach((stream, s) => {
        if (stream.modality === lost) this.#present[s * this.#size + b] = 0;
      });
    }
  }

  /** Lengths of a stream with absent clips at 0, so that their rows are never read. */
  lengths(name: string, lengths: Int32Array): Int32Array {
    const s = this.#streams.findIndex((stream) => stream.name === name);
    return lengths.map((length, b) => (this.#at(s, b) ? length : 0));
  }

  /** The feed of one of the names above. */
  feed(name: string): TypedArray {
    const [kind, of] = [name.slice(0, name.indexOf(":")), name.slice(name.indexOf(":") + 1)];
    const clips = Array.from({ length: this.#size }, (_, b) => b);
    if (kind === "mask") {
      const members = this.#streams.map((_, s) => s).filter((s) => this.#streams[s]?.modality === of);
      return Int32Array.from(clips.flatMap((b) => members.map((s) => this.#at(s, b))));
    }
    if (kind === "part") {
      return Float32Array.from(clips, (b) => {
        const parts = this.#modalities.map((modality) => (this.#modality(modality, b) > 0 ? 1 : 0) as number);
        return share(parts, this.#modalities.indexOf(of));
      });
    }
    const target = this.#streams.findIndex((stream) => stream.name === of);
    const modality = this.#streams[target]?.modality;
    const group = this.#streams
      .map((_, s) => s)
      .filter((s) => kind === "share" || this.#streams[s]?.modality === modality);
    return Float32Array.from(clips, (b) =>
      share(
        group.map((s) => this.#at(s, b)),
        group.indexOf(target),
      ),
    );
  }

  #at(s: number, b: number): number {
    return this.#present[s * this.#size + b] as number;
  }

  #modality(modality: string, b: number): number {
    return this.#streams.reduce(
      (sum, stream, s) => sum + (stream.modality === modality ? this.#at(s, b) : 0),
      0,
    );
  }
}

/** Distinct modalities in the order of the streams. */
export function modalitiesOf(streams: readonly StreamSpec[]): string[] {
  return [...new Set(streams.map((stream) => stream.modality))];
}

function share(present: readonly number[], index: number): number {
  const total = present.reduce((sum, p) => sum + p, 0);
  return total === 0 ? 0 : ((present[index] as number) * present.length) / total;
}
