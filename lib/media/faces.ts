/** Face frames in `.npy` files: uint8 [T,H,W] grey, or [T,H,W,1 | 3]; 3 channels are red, green, blue. */
import { open } from "node:fs/promises";
import { readNpyHeader } from "../data/npy.ts";
import { AffuseError } from "../errors.ts";
import type { FrameBlock } from "./image.ts";

/** Largest height or width of a frame. */
export const MAX_SIDE = 8192;

export interface FacesHeader {
  frames: number;
  height: number;
  width: number;
  channels: 1 | 3;
  /** Byte of the first level. */
  offset: number;
}

/** Reads and checks the header. @throws ERR_AFFUSE_NOT_FOUND, ERR_AFFUSE_FORMAT, ERR_AFFUSE_DTYPE, ERR_AFFUSE_RANK, ERR_AFFUSE_SHAPE */
export function readFacesHeader(file: string): FacesHeader {
  const header = readNpyHeader(file);
  if (!/^[|<>=]?u1$/.test(header.descr)) {
    throw new AffuseError(
      "ERR_AFFUSE_DTYPE",
      `${file}: expected uint8 levels 0 … 255, got ${header.descr}.`,
      "Save frames as uint8.",
    );
  }
  const { shape } = header;
  if (shape.length !== 3 && shape.length !== 4) {
    throw new AffuseError(
      "ERR_AFFUSE_RANK",
      `${file}: expected frames [T,H,W] or [T,H,W,3], got shape [${shape.join(",")}].`,
    );
  }
  const [frames, height, width, channels = 1] = shape as [number, number, number, number?];
  if (
    (channels !== 1 && channels !== 3) ||
    height < 1 ||
    width < 1 ||
    height > MAX_SIDE ||
    width > MAX_SIDE
  ) {
    throw new AffuseError(
      "ERR_AFFUSE_SHAPE",
      `${file}: expected frames of 1 to ${MAX_SIDE} pixels a side and 1 or 3 channels, got shape [${shape.join(",")}].`,
    );
  }
  if (header.fortranOrder) {
    throw new AffuseError(
      "ERR_AFFUSE_FORMAT",
      `${file}: expected C order, got Fortran order.`,
      "Save np.ascontiguousarray(frames).",
    );
  }
  return { frames, height, width, channels, offset: header.offset };
}

/**
 * The frames of a file in blocks.
 * @param perBlock frames in a block; fewer when they are large, so that a block stays below 64 MB
 */
export async function* readFaces(file: string, perBlock: number): AsyncGenerator<FrameBlock> {
  const { frames, height, width, channels, offset } = readFacesHeader(file);
  const bytes = height * width * channels;
  const step = Math.max(1, Math.min(perBlock, Math.floor(2 ** 26 / bytes)));
  const handle = await open(file, "r");
  try {
    for (let at = 0; at < frames; at += step) {
      const count = Math.min(step, frames - at);
      const data = new Uint8Array(count * bytes);
      for (let done = 0; done < data.length; ) {
        const { bytesRead } = await handle.read(data, done, data.length - done, offset + at * bytes + done);
        if (bytesRead === 0)
          throw new AffuseError("ERR_AFFUSE_FORMAT", `${file}: it ended while it was being read.`);
        done += bytesRead;
      }
      yield { data, frames: count, height, width, channels };
    }
  } finally {
    await handle.close();
  }
}
