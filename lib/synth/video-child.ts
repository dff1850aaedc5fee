/** Child process of `encodeVideos`: turns a `.npy` of faces and a `.wav` into an MP4, one job per message. */
import { existsSync, renameSync, rmSync } from "node:fs";
import { readBytes } from "../data/files.ts";
import { readNpy } from "../data/npy.ts";
import { AffuseError, isAffuseError } from "../errors.ts";
import { FPS, SAMPLE_RATE } from "./plan.ts";
import type { VideoAnswer, VideoJob } from "./video.ts";
import { WAV_HEADER_BYTES } from "./wav.ts";

const ZOOM = 4; // 48 × 48 faces become 192 × 192 pictures
const AUDIO_FRAME = 1024; // samples in an AAC frame

// node-av needs Promise.withResolvers, which Node has from version 22 on.
const promises = Promise as unknown as { withResolvers?: () => unknown };
promises.withResolvers ??= () => {
  let resolve: unknown;
  let reject: unknown;
  const promise = new Promise((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
};

/**
 * A planar YUV 4:2:0 picture: the face enlarged with bilinear interpolation, in video range (16 … 235), without colour.
 */
function picture(face: Uint8Array, size: number): Buffer {
  const wide = size * ZOOM;
  const out = Buffer.alloc((wide * wide * 3) / 2, 128);
  const at = (x: number, y: number): number =>
    face[Math.min(size - 1, Math.max(0, y)) * size + Math.min(size - 1, Math.max(0, x))] as number;
  for (let row = 0; row < wide; row++) {
    const y = (row + 0.5) / ZOOM - 0.5;
    const y0 = Math.floor(y);
    for (let column = 0; column < wide; column++) {
      const x = (column + 0.5) / ZOOM - 0.5;
      const x0 = Math.floor(x);
      const upper = at(x0, y0) + (x - x0) * (at(x0 + 1, y0) - at(x0, y0));
      const lower = at(x0, y0 + 1) + (x - x0) * (at(x0 + 1, y0 + 1) - at(x0, y0 + 1));
      out[row * wide + column] = Math.round(16 + ((upper + (y - y0) * (lower - upper)) * 219) / 255);
    }
  }
  return out;
}

async function encode(job: VideoJob): Promise<void> {
  const av = await import("node-av");
  av.Log.setLevel(av.AV_LOG_ERROR);
  const faces = readNpy(job.faces);
  const [frames, size] = faces.shape as [number, number];
  const wav = readBytes(job.wav);
  const pcm = new Int16Array(wav.slice(WAV_HEADER_BYTES).buffer);

  const temporary = `${job.mp4}.tmp`;
  const videoCodec = ["libx264", "mpeg4"].find((name) => av.Codec.findEncoderByName(name as never));
  const audioCodec = av.Codec.findEncoderByName("aac" as never);
  if (!videoCodec || !audioCodec) {
    throw new AffuseError("ERR_AFFUSE_NO_ENCODER", "This FFmpeg has no encoder for H.264 or MPEG-4 video, or none for AAC.");
  }
  const timeBase = { num: 2, den: 25 }; // 1 / FPS
  const video = await av.Encoder.create(av.Codec.findEncoderByName(videoCodec as never) as never, {
    context: { bitRate: 400_000, gopSize: 25, timeBase, framerate: { num: 25, den: 2 } },
  } as never);
  const audio = await av.Encoder.create(audioCodec as never, {
    context: { bitRate: 64_000, timeBase: { num: 1, den: SAMPLE_RATE } },
  } as never);
  const muxer = await av.Muxer.open(temporary, { format: "mp4" });
  try {
    const videoStream = muxer.addStream(video);
    const audioStream = muxer.addStream(audio);
    const send = async (encoder: typeof video, frame: InstanceType<typeof av.Frame> | null, stream: number): Promise<void> => {
      for (const packet of await encoder.encodeAll(frame)) {
        await muxer.writePacket(packet, stream);
        packet.free();
      }
      frame?.free();
    };
    let sample = 0;
    const sendAudioUntil = async (end: number): Promise<void> => {
      for (; sample < Math.min(end, pcm.length); sample += AUDIO_FRAME) {
        const block = new Float32Array(AUDIO_FRAME);
        for (let i = 0; i < AUDIO_FRAME && sample + i < pcm.length; i++) block[i] = (pcm[sample + i] as number) / 32768;
        const frame = av.Frame.fromAudioBuffer(Buffer.from(block.buffer), {
          nbSamples: AUDIO_FRAME,
          format: av.AV_SAMPLE_FMT_FLTP,
          sampleRate: SAMPLE_RATE,
          channelLayout: av.AV_CHANNEL_LAYOUT_MONO,
          timeBase: { num: 1, den: SAMPLE_RATE },
          pts: BigInt(sample),
        });
        await send(audio, frame, audioStream);
      }
    };
    for (let t = 0; t < frames; t++) {
      const face = faces.data.subarray(t * size * size, (t + 1) * size * size) as Uint8Array;
      const frame = av.Frame.fromVideoBuffer(picture(face, size), {
        width: size * ZOOM,
        height: size * ZOOM,
        format: av.AV_PIX_FMT_YUV420P,
        timeBase,
        pts: BigInt(t),
      });
      await send(video, frame, videoStream);
      await sendAudioUntil(((t + 1) * SAMPLE_RATE) / FPS);
    }
    await send(video, null, videoStream);
    await send(audio, null, audioStream);
  } catch (error) {
    await muxer.close().catch(() => {});
    rmSync(temporary, { force: true });
    throw error;
  }
  await muxer.close();
  video.close();
  audio.close();
  renameSync(temporary, job.mp4);
}

process.on("message", (job: VideoJob) => {
  const answer = (value: VideoAnswer): unknown => process.send?.(value);
  (existsSync(job.mp4) ? Promise.resolve() : encode(job)).then(
    () => answer({ done: job.mp4 }),
    (error: unknown) => {
      const message = error instanceof Error ? error.message : String(error);
      answer({ error: { code: isAffuseError(error) ? error.code : "ERR_AFFUSE_ENCODE", message } });
    },
  );
});
process.on("disconnect", () => process.exit(0));
