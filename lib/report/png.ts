/** Grey and RGB pictures as PNG (RFC 2083), inlined into the report. */
import { deflateSync } from "node:zlib";

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0xedb88320 : c >>> 1;
  return c;
});

function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (CRC_TABLE[(crc ^ byte) & 255] as number) ^ (crc >>> 8);
  return ~crc >>> 0;
}

function chunk(type: string, data: Uint8Array): Buffer {
  const out = Buffer.alloc(12 + data.length);
  out.writeUInt32BE(data.length, 0);
  out.write(type, 4, "latin1");
  out.set(data, 8);
  out.writeUInt32BE(crc32(out.subarray(4, 8 + data.length)), 8 + data.length);
  return out;
}

/**
 * A PNG file. @param channels 1 grey, 3 RGB @param pixels height × width × channels, 8 bit
 */
export function encodePng(width: number, height: number, channels: 1 | 3, pixels: Uint8Array): Buffer {
  const row = width * channels;
  const filtered = Buffer.alloc(height * (row + 1));
  for (let y = 0; y < height; y++) {
    // Filter 2 (difference to the row above) packs faces well; the first row has none above and is left as it is.
    const at = y * (row + 1);
    filtered[at] = y === 0 ? 0 : 2;
    for (let x = 0; x < row; x++) {
      const above = y === 0 ? 0 : (pixels[(y - 1) * row + x] as number);
      filtered[at + 1 + x] = ((pixels[y * row + x] as number) - above) & 255;
    }
  }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header[8] = 8;
  header[9] = channels === 1 ? 0 : 2;
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([signature, chunk("IHDR", header), chunk("IDAT", deflateSync(filtered, { level: 9 })), chunk("IEND", Buffer.alloc(0))]);
}

/**
 * Evenly spaced frames side by side, as a data URL; null when the shape does not fit the data.
 * @param shape [frames, height, width] or [frames, height, width, 3]
 * @param count at most this many
 */
export function faceStrip(
  { shape, data }: { shape: readonly number[]; data: Uint8Array },
  count: number,
): { url: string; count: number; width: number; height: number } | null {
  const [frames = 0, height = 0, width = 0] = shape;
  const channels = shape.length === 4 ? shape[3] : 1;
  if ((shape.length !== 3 && shape.length !== 4) || (channels !== 1 && channels !== 3)) return null;
  if (frames < 1 || height < 1 || width < 1 || data.length < frames * height * width * channels) return null;
  const shown = Math.min(count, frames);
  const strip = new Uint8Array(shown * height * width * channels);
  for (let i = 0; i < shown; i++) {
    const frame = Math.floor(((i + 0.5) * frames) / shown);
    for (let y = 0; y < height; y++) {
      const from = (frame * height + y) * width * channels;
      strip.set(data.subarray(from, from + width * channels), (y * shown + i) * width * channels);
    }
  }
  const png = encodePng(width * shown, height, channels, strip);
  return { url: `data:image/png;base64,${png.toString("base64")}`, count: shown, width: width * shown, height };
}
