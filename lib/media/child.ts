/**
 * The decoding child: one untrusted media file, one process. It opens the file with FFmpeg (node-av), decodes one stream
 * and writes messages to standard output: 5 bytes (type, length as uint32 LE), then the payload.
 *
 *     "i" JSON {@link MediaInfo}, always first      "d" samples (float32) or one frame's levels (uint8)
 *     "e" JSON { code, message }                    "z" JSON {@link MediaEnd}, always last after success
 *
 * Only local files are opened and only container formats that hold the media themselves: a playlist or a concatenation
 * script in disguise could make FFmpeg read other files or the network.
 */
import { writeSync } from "node:fs";

export interface MediaRequest {
  file: string;
  /** What to decode; absent: only look. */
  audio?: { sampleRate: number };
  video?: { fps: number; width: number; height: number; channels: 1 | 3; fit: "crop" | "stretch" };
  limits: { seconds: number; pixels: number; residentBytes: number };
}

export interface MediaInfo {
  audio: boolean;
  video: boolean;
  /** Length as the container states it, seconds; null when it does not or when that is a guess (raw MP3, AAC …). */
  seconds: number | null;
}

export interface MediaEnd {
  /** Samples or frames that were sent. */
  units: number;
  /** Where the last packet of any stream ended, in seconds of the file. */
  seconds: number;
}

const FORMATS =
  "mov,mp4,matroska,webm,avi,mp3,wav,flac,ogg,aac,mpegts,mpeg,mpegvideo,flv,asf,amr,aiff,au,caf,w64,h264,hevc,ac3,eac3,mjpeg,ivf,3gp,3g2,m4a,mxf,opus,dv,nut,gif,apng";

/** A refusal with a code; anything else that is thrown counts as ERR_AFFUSE_DECODE. */
class Refused extends Error {
  readonly code: string;
  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

/** Blocking writes: the parent reads slower than we decode only when it wants us to wait. */
function write(bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; ) {
    try {
      done += writeSync(1, bytes, done);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2);
    }
  }
}

function send(type: "i" | "d" | "e" | "z", payload: Uint8Array): void {
  const head = Buffer.alloc(5);
  head.write(type, 0, "latin1");
  head.writeUInt32LE(payload.length, 1);
  write(head);
  write(payload);
}

const sendJson = (type: "i" | "e" | "z", value: unknown): void =>
  send(type, Buffer.from(JSON.stringify(value)));

async function decode(request: MediaRequest): Promise<void> {
  // Node 20 has no Promise.withResolvers, which node-av uses when it is loaded.
  (Promise as unknown as Record<string, unknown>).withResolvers ??= () => {
    let resolve: unknown;
    let reject: unknown;
    const promise = new Promise((yes, no) => {
      resolve = yes;
      reject = no;
    });
    return { promise, resolve, reject };
  };
  const { Decoder, Demuxer, FilterAPI } = await import("node-av/api");
  const { Log } = await import("node-av/lib");
  Log.setLevel(-8 as never); // AV_LOG_QUIET: messages about hostile files are of no use to anyone

  const input = await Demuxer.open(request.file, {
    options: { protocol_whitelist: "file", format_whitelist: FORMATS } as never,
  });
  const audio = input.audio();
  const cover = (input.video()?.disposition ?? 0) & 0x400; // an attached picture is no video
  const video = cover ? undefined : input.video();
  const exact = /^(mov|matroska|avi)/.test(input.formatName);
  const stated = exact && Number.isFinite(input.duration) && input.duration > 0 ? input.duration : null;
  if (stated !== null && stated > request.limits.seconds) {
    throw new Refused(
      "ERR_AFFUSE_TOO_LARGE",
      `it lasts ${Math.round(stated)} s, expected at most ${request.limits.seconds} s`,
    );
  }
  if (video && video.codecpar.width * video.codecpar.height > request.limits.pixels) {
    const size = `${video.codecpar.width}×${video.codecpar.height}`;
    throw new Refused(
      "ERR_AFFUSE_TOO_LARGE",
      `its pictures have ${size} pixels, expected at most ${request.limits.pixels} in all`,
    );
  }
  if (!audio && !video) throw new Refused("ERR_AFFUSE_DECODE", "it has neither sound nor pictures");
  sendJson("i", {
    audio: audio !== undefined,
    video: video !== undefined,
    seconds: stated,
  } satisfies MediaInfo);

  const stream = request.audio ? audio : request.video ? video : undefined;
  const end: MediaEnd = { units: 0, seconds: 0 };
  /** Packets of the wanted stream; all of them are looked at, to see where the file really ends. */
  async function* packets(index: number) {
    for await (const packet of input.packets()) {
      if (packet) {
        const { num, den } = packet.timeBase;
        if (packet.pts > -(2n ** 62n))
          end.seconds = Math.max(end.seconds, (Number(packet.pts + packet.duration) * num) / den);
        if (packet.streamIndex !== index) {
          packet.free();
          continue;
        }
      }
      yield packet;
    }
  }
  if (stream) {
    const decoder = await Decoder.create(stream, {
      threadCount: 1,
      exitOnError: false,
      options: { max_pixels: request.limits.pixels } as never,
    });
    const filter = FilterAPI.create(
      request.audio ? soundFilter(request.audio, video !== undefined) : pictureFilter(request.video as never),
    );
    const most = request.limits.seconds * (request.audio?.sampleRate ?? request.video?.fps ?? 0);
    for await (const frame of filter.frames(decoder.frames(packets(stream.index)))) {
      if (!frame) continue;
      end.units += request.audio ? frame.nbSamples : 1;
      if (end.units > most)
        throw new Refused("ERR_AFFUSE_TOO_LARGE", `it goes on for more than ${request.limits.seconds} s`);
      send("d", frame.toBuffer());
      frame.free();
    }
  }
  sendJson("z", end);
}

/** In a video both filters start at time 0 of the file, so that rows of sound and pictures mean the same moments. */
function soundFilter({ sampleRate }: { sampleRate: number }, beside: boolean): string {
  return `aresample=${sampleRate}${beside ? ":async=1:first_pts=0" : ""},aformat=sample_fmts=flt:sample_rates=${sampleRate}:channel_layouts=mono`;
}

function pictureFilter({ fps, width, height, channels, fit }: NonNullable<MediaRequest["video"]>): string {
  // The largest middle part of the wanted shape; commas inside an expression must be escaped.
  const crop = `crop=w=min(iw\\,ih*${width}/${height}):h=min(ih\\,iw*${height}/${width}),`;
  return `fps=${fps}:start_time=0,${fit === "crop" ? crop : ""}scale=${width}:${height}:flags=area,format=${channels === 1 ? "gray" : "rgb24"}`;
}

const request = JSON.parse(process.argv.at(-1) ?? "{}") as MediaRequest;
const watch = setInterval(() => {
  if (process.memoryUsage.rss() > request.limits.residentBytes) {
    sendJson("e", { code: "ERR_AFFUSE_TOO_LARGE", message: "decoding it takes too much memory" });
    process.exit(1);
  }
}, 50);
try {
  await decode(request);
} catch (error) {
  const { code, message } = error as Error & { code?: unknown };
  const ours = typeof code === "string" && code.startsWith("ERR_AFFUSE_");
  const absent = code === "ERR_MODULE_NOT_FOUND" || code === "MODULE_NOT_FOUND";
  sendJson("e", { code: ours ? code : absent ? "ERR_AFFUSE_NO_DECODER" : "ERR_AFFUSE_DECODE", message });
  process.exitCode = 1;
}
clearInterval(watch);
process.exit();
