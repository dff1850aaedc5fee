/**
 * A very small grey-level rasteriser with anti-aliased edges: ellipses, thick strokes and a mouth. Shapes are given in
 * face coordinates (origin at the face's centre, y down, one unit = one pixel at scale 1); the canvas knows where the
 * face is. Only + − × ÷ and √, so frames are the same to the bit on every machine.
 *
 * Every shape has a loop of its own, instead of one loop that calls back per pixel, because that is six times as fast.
 */
import { cos, sin } from "../data/portable.ts";

export interface Mouth {
  /** Height of its middle. */
  y: number;
  /** Half-width; half-height of the opening; rise of the corners above the middle. */
  width: number;
  open: number;
  curve: number;
  /** Share of the opening that shows teeth, from the top, 0 … 1. */
  teeth: number;
  /** Grey levels. */
  lip: number;
  inside: number;
  tooth: number;
}

export class Canvas {
  readonly size: number;
  /** Grey levels 0 … 255, row by row, before light and noise. */
  readonly grey: Float64Array;
  #x = 0;
  #y = 0;
  #scale = 1;
  #cos = 1;
  #sin = 0;
  // Pixels that the current shape may touch, both ends included.
  #left = 0;
  #right = 0;
  #top = 0;
  #bottom = 0;

  constructor(size: number) {
    this.size = size;
    this.grey = new Float64Array(size * size);
  }

  /** Puts the origin of the coming shapes at pixel (x, y), scaled and turned by `roll` radians. */
  place(x: number, y: number, scale: number, roll: number): void {
    this.#x = x;
    this.#y = y;
    this.#scale = scale;
    this.#cos = cos(roll);
    this.#sin = sin(roll);
  }

  /** Fills everything: `tone`, changing by `slope` from top to bottom. */
  fill(tone: number, slope: number): void {
    const { size, grey } = this;
    for (let row = 0; row < size; row++) {
      const value = tone + slope * (row / size - 0.5);
      grey.fill(value < 0 ? 0 : Math.min(value , 255), row * size, (row + 1) * size);
    }
  }

  /** Limits the pixels to the box around a turned rectangle of half-sides (reachX, reachY) about (cx, cy). */
  #box(cx: number, cy: number, reachX: number, reachY: number): void {
    const c = this.#cos;
    const s = this.#sin;
    const x = this.#x + this.#scale * (c * cx - s * cy);
    const y = this.#y + this.#scale * (s * cx + c * cy);
    const sine = Math.abs(s);
    const halfX = this.#scale * (c * reachX + sine * reachY) + 1;
    const halfY = this.#scale * (c * reachY + sine * reachX) + 1;
    this.#left = Math.max(0, Math.floor(x - halfX));
    this.#right = Math.min(this.size - 1, Math.ceil(x + halfX));
    this.#top = Math.max(0, Math.floor(y - halfY));
    this.#bottom = Math.min(this.size - 1, Math.ceil(y + halfY));
  }

  /**
   * A filled ellipse with radii a and b.
   * @param shade how much darker its rim is than its centre, 0 … 1
   * @param below only the part above this height is drawn, along a curve that falls to the sides (a hairline)
   */
  ellipse(cx: number, cy: number, a: number, b: number, tone: number, shade = 0, below = Number.POSITIVE_INFINITY): void {
    this.#box(cx, cy, a, b);
    const { size, grey } = this;
    const edge = Math.min(a , b);
    const inner = edge > 0.5 ? 1 - 0.5 / edge : 0;
    const outer = 1 + 0.5 / edge;
    const full = inner * inner; // squared radius below which a pixel is covered whole
    const none = outer * outer; // and from which not at all
    const inverse = 1 / this.#scale;
    const du = this.#cos * inverse;
    const dv = -this.#sin * inverse;
    for (let row = this.#top; row <= this.#bottom; row++) {
      const dy = (row + 0.5 - this.#y) * inverse;
      for (let column = this.#left; column <= this.#right; column++) {
        const dx = column + 0.5 - this.#x;
        const u = dx * du + this.#sin * dy;
        const v = dx * dv + this.#cos * dy;
        const p = (u - cx) / a;
        const q = (v - cy) / b;
        const radius = p * p + q * q;
        if (radius >= none) continue;
        let share = radius <= full ? 1 : (1 - Math.sqrt(radius)) * edge + 0.5;
        const room = below + 0.03 * u * u - v + 0.5;
        if (room < share) share = room;
        if (share <= 0) continue;
        const i = row * size + column;
        const under = grey[i] as number;
        grey[i] = under + share * (tone * (1 - shade * radius) - under);
      }
    }
  }

  /** A line from (x0, y0) to (x1, y1) with round ends and half-width `weight`. */
  stroke(x0: number, y0: number, x1: number, y1: number, weight: number, tone: number): void {
    const ex = x1 - x0;
    const ey = y1 - y0;
    this.#box((x0 + x1) / 2, (y0 + y1) / 2, Math.abs(ex) / 2 + weight, Math.abs(ey) / 2 + weight);
    const { size, grey } = this;
    const perLength = 1 / (ex * ex + ey * ey + 1e-9);
    const inverse = 1 / this.#scale;
    for (let row = this.#top; row <= this.#bottom; row++) {
      const dy = (row + 0.5 - this.#y) * inverse;
      for (let column = this.#left; column <= this.#right; column++) {
        const dx = (column + 0.5 - this.#x) * inverse;
        const u = this.#cos * dx + this.#sin * dy - x0;
        const v = this.#cos * dy - this.#sin * dx - y0;
        let along = (u * ex + v * ey) * perLength;
        along = along < 0 ? 0 : Math.min(along , 1);
        const p = u - along * ex;
        const q = v - along * ey;
        const share = weight + 0.5 - Math.sqrt(p * p + q * q);
        if (share <= 0) continue;
        const i = row * size + column;
        const under = grey[i] as number;
        grey[i] = under + (Math.min(share , 1)) * (tone - under);
      }
    }
  }

  /**
   * Lips around an opening, symmetric about x = 0. A parabola carries the opening, which narrows to the corners; closed
   * lips show as a line of half a pixel.
   */
  mouth(m: Mouth): void {
    this.#box(0, m.y, m.width + 1, m.open + Math.abs(m.curve) + 2);
    const { size, grey } = this;
    const inverse = 1 / this.#scale;
    for (let row = this.#top; row <= this.#bottom; row++) {
      const dy = (row + 0.5 - this.#y) * inverse;
      for (let column = this.#left; column <= this.#right; column++) {
        const dx = (column + 0.5 - this.#x) * inverse;
        const u = this.#cos * dx + this.#sin * dy;
        const v = this.#cos * dy - this.#sin * dx;
        const across = u / m.width;
        const p = across * across;
        const taper = p < 1 ? 1 - p : 0;
        const fromMiddle = v - m.y - m.curve * (0.5 - p);
        const away = Math.abs(fromMiddle);
        const end = m.width - Math.abs(u) + 0.5;
        const lips = (m.open + 1.1) * (0.35 + 0.65 * taper) - away + 0.5;
        const share = Math.min(lips , end);
        if (share <= 0) continue;
        const i = row * size + column;
        let value = grey[i] as number;
        value += (Math.min(share , 1)) * (m.lip - value);
        const height = m.open * taper;
        const inner = height + 0.5 - away;
        const hole = Math.min(inner , end);
        if (hole > 0) {
          const teeth = m.open > 0.5 ? 2 * m.teeth * height - (fromMiddle + height) + 0.5 : 0;
          const tone = m.inside + (teeth <= 0 ? 0 : Math.min(teeth , 1)) * (m.tooth - m.inside);
          value += (Math.min(hole , 1)) * (tone - value);
        }
        grey[i] = value;
      }
    }
  }
}
