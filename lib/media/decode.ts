/**
 * Decoding of media files (MP4, MKV, WebM, AVI, MOV, MP3, FLAC …) in a child process per file, because a decoder that
 * reads what strangers made may crash, hang or swell. The child has limits on its memory and on what it may send, and
 * is ended when it falls silent; whatever happens to it, this process goes on with ERR_AFFUSE_DECODE.
 *
 * A file that is shorter than its container says (an interrupted download) is an error, even if its beginning decodes:
 * half a clip would otherwise pass for a whole one. `partial: true` takes what is there.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { stat } from "node:fs/promises";
import path from "node:path";
import { requireFromRoot } from "#root";
import { AffuseError } from "../errors.ts";
import { nodeCommand } from "../workers/entry.ts";
import type { MediaEnd, MediaInfo, MediaRequest } from "./child.ts";
import type { FrameBlock } from "./image.ts";
import { type Audio, MAX_SECONDS } from "./wav.ts";

export interface DecodeOptions {
  /** Longest file in seconds. Default {@link MAX_SECONDS}. */
  maxSeconds?: number;
  /** The child is ended after this many seconds without a sign of life. Default 60. */
  timeoutSeconds?: number;
  /** Accept a file that ends before its stated length. Default false. */
  partial?: boolean;
}

export interface PictureRequest {
  fps: number;
  height: number;
  width: number;
  channels: 1 | 3;
  fit: "crop" | "stretch";
  /** Frames in a block. */
  perBlock: number;
}

/** Largest picture, e.g. 8192×4320. */
const MAX_PIXELS = 40_000_000;
const RESIDENT_BYTES = 1.5 * 2 ** 30;
const ADDRESS_BYTES = 4 * 2 ** 30;
const MAX_MESSAGE = 2 ** 27;

/** The command under a limit on its address space, where there is a shell that can set one. */
function limited(command: readonly string[]): [string, string[]] {
  const [program, ...rest] = command as [string, ...string[]];
  // Running from sources, the TypeScript loader's WebAssembly reserves more addresses than any useful limit.
  if (process.platform !== "linux" || rest.at(-1)?.endsWith(".ts")) return [program, rest];
  // "$0" and "$@" carry the command: none of it passes through the shell's parser.
  return [
    "/bin/sh",
    ["-c", `ulimit -v ${ADDRESS_BYTES / 1024} 2>/dev/null; exec "$0" "$@"`, program, ...rest],
  ];
}

function failure(file: string, code: string, message: string): AffuseError {
  if (code === "ERR_AFFUSE_NO_DECODER") return noDecoder(message);
  const hint = code === "ERR_AFFUSE_DECODE" ? "Check that it plays, or convert it again." : "";
  return new AffuseError(code, `${file} could not be decoded: ${message}.`, hint);
}

function noDecoder(why: string): AffuseError {
  return new AffuseError(
    "ERR_AFFUSE_NO_DECODER",
    `media files other than WAV and .npy need the package node-av, which is not usable here (${why}).`,
    "Run: npm install node-av",
  );
}

/** One running child. Messages come in order; `close` ends it. */
class Decoding {
  readonly #file: string;
  readonly #child: ChildProcess;
  readonly #chunks: AsyncIterator<Buffer>;
  readonly #timeout: number;
  #buffer: Buffer = Buffer.alloc(0);
  #exit: string | undefined;

  constructor(file: string, request: MediaRequest, timeoutSeconds: number) {
    this.#file = file;
    this.#timeout = timeoutSeconds * 1000;
    const [program, args] = limited(nodeCommand("media/child", ["--max-old-space-size=256"]));
    args.push(JSON.stringify(request));
    const { PATH, HOME, TMPDIR, NODE_PATH } = process.env;
    this.#child = spawn(program, args, {
      stdio: ["ignore", "pipe", "ignore"],
      env: { PATH, HOME, TMPDIR, NODE_PATH },
      windowsHide: true,
    });
    this.#child.on("error", (error) => {
      this.#exit = error.message;
    });
    this.#child.on("exit", (code, signal) => {
      this.#exit ??= signal ? `signal ${signal}` : `exit code ${code}`;
    });
    this.#chunks = (this.#child.stdout as NonNullable<ChildProcess["stdout"]>)[Symbol.asyncIterator]();
  }

  async #more(): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(
          failure(this.#file, "ERR_AFFUSE_DECODE", `the decoder was silent for ${this.#timeout / 1000} s`),
        );
      }, this.#timeout);
    });
    try {
      const { value, done } = await Promise.race([this.#chunks.next(), late]);
      if (done) return false;
      this.#buffer = this.#buffer.length === 0 ? value : Buffer.concat([this.#buffer, value]);
      return true;
    } finally {
      clearTimeout(timer);
    }
  }

  /** The next message. @throws ERR_AFFUSE_DECODE and what the child reports */
  async next(): Promise<{ type: string; payload: Buffer }> {
    let need = 5;
    for (;;) {
      if (this.#buffer.length >= 5) {
        need = 5 + this.#buffer.readUInt32LE(1);
        if (need > MAX_MESSAGE) throw failure(this.#file, "ERR_AFFUSE_DECODE", "the decoder sent nonsense");
      }
      if (this.#buffer.length >= need && need > 5) break;
      if (this.#buffer.length >= 5 && need === 5) break;
      if (!(await this.#more())) {
        await new Promise((resolve) => setTimeout(resolve, 20)); // lets the exit event come in
        throw failure(
          this.#file,
          "ERR_AFFUSE_DECODE",
          `the decoder ended early (${this.#exit ?? "no reason known"})`,
        );
      }
    }
    const type = String.fromCharCode(this.#buffer[0] as number);
    const payload = this.#buffer.subarray(5, need);
    this.#buffer = this.#buffer.subarray(need);
    if (type === "e") {
      const { code, message } = JSON.parse(payload.toString()) as { code: string; message: string };
      throw failure(this.#file, code, message);
    }
    return { type, payload };
  }

  close(): void {
    this.#child.stdout?.destroy();
    if (this.#child.exitCode === null) this.#child.kill("SIGKILL");
  }
}

/** Starts a child and reads what the file holds. The caller closes it. */
async function start(
  file: string,
  wanted: Pick<MediaRequest, "audio" | "video">,
  options: DecodeOptions,
): Promise<{ decoding: Decoding; info: MediaInfo }> {
  const found = await stat(file).catch(() => null);
  if (!found?.isFile())
    throw new AffuseError("ERR_AFFUSE_NOT_FOUND", `${file} does not exist or is not a file.`);
  if (found.size === 0) throw failure(file, "ERR_AFFUSE_DECODE", "it is empty");
  try {
    requireFromRoot.resolve("node-av");
  } catch {
    throw noDecoder("it is not installed");
  }
  const seconds = options.maxSeconds ?? MAX_SECONDS;
  const limits = { seconds, pixels: MAX_PIXELS, residentBytes: RESIDENT_BYTES };
  // An absolute path cannot be mistaken for an option or a URL.
  const decoding = new Decoding(
    file,
    { file: path.resolve(file), ...wanted, limits },
    options.timeoutSeconds ?? 60,
  );
  try {
    const { type, payload } = await decoding.next();
    if (type !== "i") throw failure(file, "ERR_AFFUSE_DECODE", "the decoder sent nonsense");
    return { decoding, info: JSON.parse(payload.toString()) as MediaInfo };
  } catch (error) {
    decoding.close();
    throw error;
  }
}

/** A container's end that lies well before its stated end means that the file was cut off. */
function checkWhole(file: string, info: MediaInfo, payload: Buffer, options: DecodeOptions): MediaEnd {
  const end = JSON.parse(payload.toString()) as MediaEnd;
  if (info.seconds !== null && !options.partial && end.seconds < 0.95 * info.seconds - 0.5) {
    const [has, states] = [end.seconds.toFixed(1), info.seconds.toFixed(1)];
    throw failure(
      file,
      "ERR_AFFUSE_DECODE",
      `it is cut off: it should last ${states} s, but only ${has} s are there`,
    );
  }
  return end;
}

/** Looks at a file without decoding it. @throws ERR_AFFUSE_DECODE, ERR_AFFUSE_NOT_FOUND, ERR_AFFUSE_NO_DECODER, ERR_AFFUSE_TOO_LARGE */
export async function probeMedia(file: string, options: DecodeOptions = {}): Promise<MediaInfo> {
  const { decoding, info } = await start(file, {}, options);
  decoding.close();
  return info;
}

/**
 * The sound of a media file, mono at the wanted rate; null when it has no audio stream.
 * @throws ERR_AFFUSE_DECODE damaged, cut off or crashing; ERR_AFFUSE_NOT_FOUND, ERR_AFFUSE_NO_DECODER, ERR_AFFUSE_TOO_LARGE
 */
export async function decodeAudio(
  file: string,
  sampleRate: number,
  options: DecodeOptions = {},
): Promise<Audio | null> {
  const { decoding, info } = await start(file, { audio: { sampleRate } }, options);
  try {
    if (!info.audio) return null;
    const parts: Buffer[] = [];
    for (;;) {
      const { type, payload } = await decoding.next();
      if (type === "z") {
        checkWhole(file, info, payload, options);
        break;
      }
      parts.push(Buffer.from(payload));
    }
    const bytes = parts.reduce((sum, p) => sum + p.length, 0);
    const samples = new Float32Array(Math.floor(bytes / 4));
    const view = new Uint8Array(samples.buffer);
    let at = 0;
    for (const part of parts) {
      view.set(part, at);
      at += part.length;
    }
    return { samples, sampleRate };
  } finally {
    decoding.close();
  }
}

/**
 * The pictures of a media file in blocks, decoded only as fast as they are taken; null when it has no video stream.
 * The caller must iterate `blocks` to its end or leave its loop, or the child lives on.
 * @throws as decodeAudio, also while iterating
 */
export async function decodeFrames(
  file: string,
  request: PictureRequest,
  options: DecodeOptions = {},
): Promise<{ blocks: AsyncGenerator<FrameBlock> } | null> {
  const { perBlock, ...video } = request;
  const { decoding, info } = await start(file, { video }, options);
  if (!info.video) {
    decoding.close();
    return null;
  }
  const { height, width, channels } = request;
  const size = height * width * channels;
  async function* blocks(): AsyncGenerator<FrameBlock> {
    try {
      let data = new Uint8Array(perBlock * size);
      let frames = 0;
      for (;;) {
        const { type, payload } = await decoding.next();
        if (type === "z") {
          checkWhole(file, info, payload, options);
          break;
        }
        if (payload.length !== size)
          throw failure(file, "ERR_AFFUSE_DECODE", "the decoder sent a frame of another size");
        data.set(payload, frames++ * size);
        if (frames === perBlock) {
          yield { data, frames, height, width, channels };
          data = new Uint8Array(perBlock * size);
          frames = 0;
        }
      }
      if (frames > 0) yield { data: data.slice(0, frames * size), frames, height, width, channels };
    } finally {
      decoding.close();
    }
  }
  return { blocks: blocks() };
}
