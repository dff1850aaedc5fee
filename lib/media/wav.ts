/**
 * RIFF WAVE: PCM of 8, 16, 24 and 32 bits and IEEE float of 32 and 64, plain or WAVE_FORMAT_EXTENSIBLE. Channels are
 * averaged to mono. The header is bounded: sizes are checked against the file before anything is allocated, and samples
 * are read block by block.
 */
import { type FileHandle, open } from "node:fs/promises";
import { AffuseError } from "../errors.ts";

export interface Audio {
  /** Mono, full scale ±1. NaN and infinite samples of float files become 0. */
  samples: Float32Array;
  /** Hz. */
  sampleRate: number;
}

/** Longest sound that is read, in seconds; about 460 MB of samples at 16 kHz. */
export const MAX_SECONDS = 2 * 3600;
const MAX_CHUNKS = 4096;
const BLOCK = 1 << 20;

interface Format {
  float: boolean;
  bits: number;
  channels: number;
  sampleRate: number;
}

function bad(file: string, what: string): AffuseError {
  return new AffuseError(
    "ERR_AFFUSE_FORMAT",
    `${file}: ${what}.`,
    "The file is damaged or is not a WAV file.",
  );
}

function parseFormat(chunk: Buffer, file: string): Format {
  if (chunk.length < 16) throw bad(file, "its fmt chunk is cut off");
  let tag = chunk.readUInt16LE(0);
  if (tag === 0xfffe && chunk.length >= 26) tag = chunk.readUInt16LE(24);
  const channels = chunk.readUInt16LE(2);
  const sampleRate = chunk.readUInt32LE(4);
  const align = chunk.readUInt16LE(12);
  const bits = chunk.readUInt16LE(14);
  const known = tag === 1 ? [8, 16, 24, 32].includes(bits) : tag === 3 && [32, 64].includes(bits);
  if (!known) {
    throw new AffuseError(
      "ERR_AFFUSE_CODEC",
      `${file}: expected PCM or float samples, got WAV format ${tag} with ${bits} bits.`,
    );
  }
  if (channels < 1 || channels > 64) throw bad(file, `expected 1 to 64 channels, got ${channels}`);
  if (sampleRate < 1000 || sampleRate > 384000)
    throw bad(file, `expected a sample rate of 1 to 384 kHz, got ${sampleRate} Hz`);
  if (align !== (channels * bits) / 8)
    throw bad(file, `its block size ${align} does not fit ${channels} channels of ${bits} bits`);
  return { float: tag === 3, bits, channels, sampleRate };
}

type ReadSample = (bytes: Buffer, at: number) => number;

function sampleReader({ float, bits }: Format): ReadSample {
  if (float) {
    const finite = (v: number): number => (Number.isFinite(v) ? v : 0);
    return bits === 32 ? (b, at) => finite(b.readFloatLE(at)) : (b, at) => finite(b.readDoubleLE(at));
  }
  if (bits === 8) return (b, at) => (b.readUInt8(at) - 128) / 128;
  if (bits === 16) return (b, at) => b.readInt16LE(at) / 32768;
  if (bits === 24) return (b, at) => b.readIntLE(at, 3) / 8388608;
  return (b, at) => b.readInt32LE(at) / 2147483648;
}

async function readExactly(handle: FileHandle, position: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await handle.read(buffer, done, length - done, position + done);
    if (bytesRead === 0) return buffer.subarray(0, done);
    done += bytesRead;
  }
  return buffer;
}

/** Finds the format and the samples. Chunks of unknown kind are skipped. */
async function findChunks(
  handle: FileHandle,
  size: number,
  file: string,
): Promise<{ format: Format; start: number; bytes: number }> {
  let format: Format | undefined;
  let position = 12;
  for (let n = 0; n < MAX_CHUNKS && position + 8 <= size; n++) {
    const head = await readExactly(handle, position, 8);
    const id = head.toString("latin1", 0, 4);
    const length = head.readUInt32LE(4);
    position += 8;
    if (id === "fmt ") format = parseFormat(await readExactly(handle, position, Math.min(length, 40)), file);
    if (id === "data") {
      if (!format) throw bad(file, "its data chunk comes before its fmt chunk");
      // Programs that write to a pipe leave 0 or 2³²−1 here: the samples then go on to the end of the file.
      const open = length === 0xffffffff || (length === 0 && position < size);
      if (!open && position + length > size) {
        throw bad(
          file,
          `it should hold ${length} bytes of samples, but ${size - position} are there: it is cut off`,
        );
      }
      return { format, start: position, bytes: open ? size - position : length };
    }
    position += length + (length % 2);
  }
  throw bad(file, format ? "it has no data chunk" : "it has no fmt chunk");
}

/** Reads the samples in blocks, giving way to other work between them. */
async function readSamples(
  handle: FileHandle,
  format: Format,
  start: number,
  bytes: number,
  file: string,
): Promise<Float32Array> {
  const { channels } = format;
  const frame = (channels * format.bits) / 8;
  const count = Math.floor(bytes / frame);
  if (count / format.sampleRate > MAX_SECONDS) {
    const seconds = Math.round(count / format.sampleRate);
    throw new AffuseError(
      "ERR_AFFUSE_TOO_LARGE",
      `${file} lasts ${seconds} s, expected at most ${MAX_SECONDS} s.`,
      "Cut it.",
    );
  }
  const read = sampleReader(format);
  const samples = new Float32Array(count);
  const perBlock = Math.max(1, Math.floor(BLOCK / frame));
  for (let done = 0; done < count; done += perBlock) {
    const now = Math.min(perBlock, count - done);
    const block = await readExactly(handle, start + done * frame, now * frame);
    if (block.length < now * frame) throw bad(file, "it ended while it was being read");
    for (let i = 0; i < now; i++) {
      let sum = 0;
      for (let c = 0; c < channels; c++) sum += read(block, i * frame + (c * format.bits) / 8);
      samples[done + i] = sum / channels;
    }
  }
  return samples;
}

/**
 * Reads a WAV file as mono.
 * @throws ERR_AFFUSE_NOT_FOUND, ERR_AFFUSE_FORMAT damaged or cut off, ERR_AFFUSE_CODEC compressed samples (ADPCM, MP3…),
 * ERR_AFFUSE_TOO_LARGE longer than {@link MAX_SECONDS}
 */
export async function readWav(file: string): Promise<Audio> {
  const handle = await open(file, "r").catch((error: Error) => {
    throw new AffuseError("ERR_AFFUSE_NOT_FOUND", `Could not open ${file}: ${error.message}.`, "", {
      cause: error,
    });
  });
  try {
    const { size } = await handle.stat();
    const head = await readExactly(handle, 0, 12);
    if (
      head.length < 12 ||
      head.toString("latin1", 0, 4) !== "RIFF" ||
      head.toString("latin1", 8, 12) !== "WAVE"
    ) {
      throw bad(file, "expected RIFF … WAVE at the start");
    }
    const { format, start, bytes } = await findChunks(handle, size, file);
    return { samples: await readSamples(handle, format, start, bytes, file), sampleRate: format.sampleRate };
  } finally {
    await handle.close();
  }
}
