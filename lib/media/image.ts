/** Blocks of video frames: fitting to another size and colour, and telling empty pictures from pictures. */
import { AffuseError } from "../errors.ts";

/** Consecutive frames, [frames, height, width, channels], levels 0 … 255; channels 1 (grey) or 3 (red, green, blue). */
export interface FrameBlock {
  data: Uint8Array;
  frames: number;
  height: number;
  width: number;
  channels: 1 | 3;
}

export interface FitOptions {
  height: number;
  width: number;
  channels: number;
  /** crop: the largest middle part of the wanted shape; stretch: the whole picture. */
  fit: "crop" | "stretch";
}

/** Share of each input cell in each output cell along one axis: the exact area when shrinking, linear when enlarging. */
function weights(
  from: number,
  start: number,
  length: number,
  to: number,
): { first: Int32Array; count: number; share: Float64Array } {
  const ratio = length / to;
  const support = Math.max(1, ratio);
  const count = Math.ceil(support) + 2;
  const first = new Int32Array(to);
  const share = new Float64Array(to * count);
  for (let o = 0; o < to; o++) {
    const centre = start + (o + 0.5) * ratio;
    const low = Math.floor(centre - support - 0.5);
    first[o] = Math.max(0, Math.min(from - count, Math.max(0, low)));
    let sum = 0;
    for (let k = 0; k < count; k++) {
      const cell = (first[o] as number) + k;
      let w: number;
      if (cell >= from) w = 0;
      else if (ratio > 1)
        w = Math.max(0, Math.min(cell + 1, centre + ratio / 2) - Math.max(cell, centre - ratio / 2));
      else
        w = Math.max(
          0,
          1 - Math.abs(cell + 0.5 - Math.min(Math.max(centre, start + 0.5), start + length - 0.5)),
        );
      share[o * count + k] = w;
      sum += w;
    }
    for (let k = 0; k < count; k++) share[o * count + k] = (share[o * count + k] as number) / sum;
  }
  return { first, count, share };
}

/**
 * Frames in another size and colour: area averaging when shrinking, bilinear when enlarging; grey by ITU-R BT.601
 * (0.299 R + 0.587 G + 0.114 B).
 * @returns levels [frames, height, width, channels], unrounded only in between; the block's own data if nothing changes
 */
export function fitFrames(block: FrameBlock, { height, width, channels, fit }: FitOptions): Uint8Array {
  const colour = recolour(block, channels);
  if (block.height === height && block.width === width) return colour;
  if (block.height < 1 || block.width < 1) {
    throw new AffuseError(
      "ERR_AFFUSE_SHAPE",
      `expected frames of at least 1×1 pixels, got ${block.height}×${block.width}.`,
    );
  }
  let [y0, x0, h, w] = [0, 0, block.height, block.width];
  if (fit === "crop") {
    if (w * height > h * width) w = (h * width) / height;
    else h = (w * height) / width;
    y0 = (block.height - h) / 2;
    x0 = (block.width - w) / 2;
  }
  const rows = weights(block.height, y0, h, height);
  const columns = weights(block.width, x0, w, width);
  const out = new Uint8Array(block.frames * height * width * channels);
  const line = new Float64Array(block.height * width * channels);
  for (let t = 0; t < block.frames; t++) {
    const frame = t * block.height * block.width * channels;
    line.fill(0);
    for (let y = 0; y < block.height; y++) {
      for (let x = 0; x < width; x++) {
        for (let k = 0; k < columns.count; k++) {
          const share = columns.share[x * columns.count + k] as number;
          if (share === 0) continue;
          const from = frame + (y * block.width + (columns.first[x] as number) + k) * channels;
          for (let c = 0; c < channels; c++) {
            const to = (y * width + x) * channels + c;
            line[to] = (line[to] as number) + share * (colour[from + c] as number);
          }
        }
      }
    }
    for (let y = 0; y < height; y++) {
      for (let i = 0; i < width * channels; i++) {
        let sum = 0;
        for (let k = 0; k < rows.count; k++) {
          const share = rows.share[y * rows.count + k] as number;
          if (share !== 0)
            sum += share * (line[((rows.first[y] as number) + k) * width * channels + i] as number);
        }
        out[(t * height + y) * width * channels + i] = Math.round(sum);
      }
    }
  }
  return out;
}

function recolour(block: FrameBlock, channels: number): Uint8Array {
  if (block.channels === channels) return block.data;
  const pixels = block.frames * block.height * block.width;
  const out = new Uint8Array(pixels * channels);
  if (channels === 3) {
    for (let i = 0; i < pixels; i++) out.fill(block.data[i] as number, 3 * i, 3 * i + 3);
  } else {
    for (let i = 0; i < pixels; i++) {
      const [r, g, b] = [block.data[3 * i], block.data[3 * i + 1], block.data[3 * i + 2]] as [
        number,
        number,
        number,
      ];
      out[i] = Math.round(0.299 * r + 0.587 * g + 0.114 * b);
    }
  }
  return out;
}

/** Standard deviation of levels below which a picture counts as empty: black, white or one flat tone. */
export const BLANK_DEVIATION = 2;

/** How many frames of a block are empty pictures (every channel flat), in which no face can be. */
export function countBlank(block: FrameBlock): number {
  const { channels, data } = block;
  const pixels = block.height * block.width;
  let blank = 0;
  for (let t = 0; t < block.frames; t++) {
    let flat = true;
    for (let c = 0; c < channels && flat; c++) {
      let sum = 0;
      let squares = 0;
      for (let i = t * pixels * channels + c; i < (t + 1) * pixels * channels; i += channels) {
        const v = data[i] as number;
        sum += v;
        squares += v * v;
      }
      flat = squares / pixels - (sum / pixels) ** 2 < BLANK_DEVIATION ** 2;
    }
    if (flat) blank++;
  }
  return blank;
}
