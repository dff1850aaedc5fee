import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { suite } from "uvu";
import { encodeNpy, readNpy } from "../../lib/data/npy.ts";
import { isAffuseError } from "../../lib/errors.ts";
import { decodeAudio, decodeFrames, type PictureRequest, probeMedia } from "../../lib/media/decode.ts";
import type { FrameBlock } from "../../lib/media/image.ts";
import { openPictures, openSound } from "../../lib/media/source.ts";
import { readWav } from "../../lib/media/wav.ts";
import { facesPath, wavPath, writeClip } from "../../lib/synth/clip.ts";
import { planSplit } from "../../lib/synth/plan.ts";
import { encodeVideos, videoPath } from "../../lib/synth/video.ts";

const dir = mkdtempSync(path.join(os.tmpdir(), "affuse-decode-"));
const test = suite("decoding");
test.after(() => rmSync(dir, { recursive: true, force: true }));

const at = (name: string): string => path.join(dir, name);
const hasFfmpeg = spawnSync("ffmpeg", ["-version"], { stdio: "ignore" }).status === 0;
const ffmpeg = (...args: string[]): void => {
  execFileSync("ffmpeg", ["-v", "error", "-y", ...args], {
    cwd: dir,
    stdio: ["ignore", "ignore", "inherit"],
  });
};
/** Tests that need the ffmpeg program say so when it is absent; those on files of node-av's own run everywhere. */
const withFfmpeg = (name: string, run: () => Promise<void>): void =>
  test(hasFfmpeg ? name : `SKIPPED, no ffmpeg program: ${name}`, hasFfmpeg ? run : () => {});

const request: PictureRequest = { fps: 12.5, height: 48, width: 48, channels: 1, fit: "crop", perBlock: 10 };

async function frames(
  file: string,
  wanted: Partial<PictureRequest> = {},
  options = {},
): Promise<FrameBlock[]> {
  const pictures = await decodeFrames(file, { ...request, ...wanted }, options);
  assert.ok(pictures);
  const all: FrameBlock[] = [];
  for await (const block of pictures.blocks) all.push(block);
  return all;
}

const coded = (code: string, text: RegExp) => (error: unknown) => {
  assert.ok(isAffuseError(error), String(error));
  assert.equal(error.code, code);
  assert.match(error.message, text);
  return true;
};

const [plan] = planSplit(5, "test1", 1) as [ReturnType<typeof planSplit>[number]];
const name = plan.name;
test.before(async () => {
  mkdirSync(at("faces"));
  mkdirSync(at("audio"));
  writeClip(dir, { clips: 0, testClips: 1, seed: 5, noise: 0 }, plan);
  await encodeVideos(dir, [name]);
});

test("an MP4 gives back the faces and the voice that went in", async () => {
  const blocks = await frames(videoPath(dir, name));
  const faces = readNpy(facesPath(dir, name));
  const got = Buffer.concat(blocks.map((b) => b.data));
  assert.equal(got.length, faces.data.length);
  assert.deepEqual(
    blocks.map((b) => b.frames).slice(0, -1),
    blocks.slice(1).map(() => 10),
  );
  const difference = got.reduce((sum, v, i) => sum + Math.abs(v - (faces.data[i] as number)), 0) / got.length;
  assert.ok(difference < 4, `mean difference of levels ${difference}`);

  const voice = await readWav(wavPath(dir, name));
  const audio = await decodeAudio(videoPath(dir, name), 16000);
  assert.ok(
    audio && Math.abs(audio.samples.length - voice.samples.length) <= 2048,
    `${audio?.samples.length} samples of ${voice.samples.length}`,
  );
  // An AAC encoder delays by 1024 samples or so, and not every writer of MP4 notes it down.
  const correlation = (lag: number): number => {
    let [xy, xx, yy] = [0, 0, 0];
    for (let n = 2048; n < voice.samples.length - 2048; n += 3) {
      const [x, y] = [voice.samples[n] as number, (audio as NonNullable<typeof audio>).samples[n + lag] ?? 0];
      [xy, xx, yy] = [xy + x * y, xx + x * x, yy + y * y];
    }
    return xy / Math.sqrt(xx * yy);
  };
  let best = 0;
  for (let lag = -16; lag <= 1200; lag++) best = Math.max(best, correlation(lag));
  assert.ok(best > 0.9, `best correlation ${best} within 1200 samples: the sound is there and in time`);
});

test("half of an MP4, text, nothing and noise as MP4 are coded errors, and this process survives", async () => {
  const whole = readFileSync(videoPath(dir, name));
  const bad: [string, Uint8Array | string, RegExp][] = [
    ["truncated.mp4", whole.subarray(0, whole.length >> 1), /could not be decoded/],
    ["text.mp4", "just some text\n".repeat(100), /could not be decoded/],
    ["empty.mp4", "", /it is empty/],
    [
      "noise.mp4",
      Uint8Array.from({ length: 20000 }, (_, i) => (i * i * 31 + (i >> 3)) & 255),
      /could not be decoded/,
    ],
    // FFmpeg would follow a playlist to other files and hosts.
    [
      "playlist.mp4",
      `#EXTM3U\n#EXTINF:10,\n${videoPath(dir, name)}\n#EXT-X-ENDLIST\n`,
      /could not be decoded/,
    ],
    ["concat.mp4", `ffconcat version 1.0\nfile '${videoPath(dir, name)}'\n`, /could not be decoded/],
  ];
  for (const [file, bytes, text] of bad) {
    writeFileSync(at(file), bytes);
    await assert.rejects(decodeAudio(at(file), 16000), coded("ERR_AFFUSE_DECODE", text), file);
  }
  await assert.rejects(
    decodeFrames(at("truncated.mp4"), request),
    coded("ERR_AFFUSE_DECODE", /could not be decoded/),
  );
  await assert.rejects(decodeAudio(at("none.mp4"), 16000), coded("ERR_AFFUSE_NOT_FOUND", /does not exist/));
  await assert.rejects(probeMedia(dir), coded("ERR_AFFUSE_NOT_FOUND", /is not a file/));
});

test("limits: length, silence of the decoder", async () => {
  await assert.rejects(
    decodeAudio(videoPath(dir, name), 16000, { maxSeconds: 1 }),
    coded("ERR_AFFUSE_TOO_LARGE", /expected at most 1 s/),
  );
  await assert.rejects(
    decodeAudio(videoPath(dir, name), 16000, { timeoutSeconds: 0.01 }),
    coded("ERR_AFFUSE_DECODE", /silent for 0.01 s/),
  );
});

test("leaving the frames early ends the child", async () => {
  const pictures = await decodeFrames(videoPath(dir, name), { ...request, perBlock: 1 });
  for await (const block of (pictures as NonNullable<typeof pictures>).blocks) {
    assert.equal(block.frames, 1);
    break;
  }
  // The suite would not end if the child still held its pipe open.
});

test("a decoder that dies in the middle is a coded error here", async () => {
  const large = { ...request, perBlock: 1, height: 480, width: 480, channels: 3 as const };
  const pictures = await decodeFrames(videoPath(dir, name), large);
  const { stdout } = spawnSync("pgrep", ["-P", String(process.pid), "-f", "media/child"], {
    encoding: "utf8",
  });
  const children = stdout.trim().split("\n").filter(Boolean).map(Number);
  assert.equal(children.length, 1, "the child of this test and no other");
  await assert.rejects(
    async () => {
      for await (const block of (pictures as NonNullable<typeof pictures>).blocks) {
        assert.equal(block.frames, 1);
        process.kill(children[0] as number, "SIGKILL");
      }
    },
    coded("ERR_AFFUSE_DECODE", /ended early \(signal SIGKILL\)/),
  );
});

test("faces of another dtype, rank and order are refused", async () => {
  const clip = (file: string) => openPictures({ name: "x", visual: file }, request);
  writeFileSync(at("float.npy"), encodeNpy([2, 4, 4], new Float32Array(32)));
  await assert.rejects(clip(at("float.npy")), coded("ERR_AFFUSE_DTYPE", /expected uint8/));
  writeFileSync(at("flat.npy"), encodeNpy([16], new Uint8Array(16)));
  await assert.rejects(clip(at("flat.npy")), coded("ERR_AFFUSE_RANK", /\[T,H,W\]/));
  writeFileSync(at("four.npy"), encodeNpy([1, 4, 4, 4], new Uint8Array(64)));
  await assert.rejects(clip(at("four.npy")), coded("ERR_AFFUSE_SHAPE", /1 or 3 channels/));
  writeFileSync(at("wide.npy"), encodeNpy([0, 9000, 4], new Uint8Array(0)));
  await assert.rejects(clip(at("wide.npy")), coded("ERR_AFFUSE_SHAPE", /pixels a side/));
  const whole = encodeNpy([2, 4, 4], new Uint8Array(32));
  writeFileSync(at("cut.npy"), whole.subarray(0, -1));
  await assert.rejects(clip(at("cut.npy")), coded("ERR_AFFUSE_FORMAT", /bytes/));
  writeFileSync(
    at("fortran.npy"),
    Buffer.from(Buffer.from(whole).toString("latin1").replace("False", "True "), "latin1"),
  );
  await assert.rejects(clip(at("fortran.npy")), coded("ERR_AFFUSE_FORMAT", /C order/));
  writeFileSync(at("none.npy"), encodeNpy([0, 4, 4], new Uint8Array(0)));
  assert.deepEqual(await clip(at("none.npy")), { missing: "the file has no frames" });
  assert.deepEqual(await openSound({ name: "x", audio: at("none.npy") }, 16000), {
    missing: "no sound: the file holds face frames",
  });
  assert.deepEqual(await openPictures({ name: "x", visual: wavPath(dir, name) }, request), {
    missing: "no pictures: the file holds sound",
  });
});

withFfmpeg("containers and codecs of others: MP4, MKV, AVI, WebM, MOV, MP3, FLAC, odd rates", async () => {
  const source = [
    "-f",
    "lavfi",
    "-i",
    "testsrc=size=320x240:rate=30:duration=2",
    "-f",
    "lavfi",
    "-i",
    "sine=frequency=440:duration=2:sample_rate=44100",
  ];
  const kinds: [string, string[]][] = [
    ["a.mp4", ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac", "-ac", "2"]],
    ["a.mkv", ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "libvorbis"]],
    ["a.avi", ["-c:v", "mpeg4", "-c:a", "mp3"]],
    ["a.webm", ["-c:v", "libvpx", "-c:a", "libvorbis"]],
    ["a.mov", ["-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-c:a", "pcm_s16be"]],
  ];
  for (const [file, args] of kinds) {
    ffmpeg(...source, ...args, file);
    if (file === "a.mkv" || file === "a.mov") continue; // their sound is looked at below
    const count = (await frames(at(file))).reduce((sum, b) => sum + b.frames, 0);
    assert.ok(Math.abs(count - 25) <= 2, `${file}: ${count} frames`);
  }
  for (const [file, args] of [
    ["a.mp3", []],
    ["a.flac", ["-ar", "22050"]],
    ["adpcm.wav", ["-c:a", "adpcm_ms"]],
  ] as const) {
    ffmpeg("-i", "a.mkv", "-vn", ...args, file);
  }
  for (const file of ["a.mp4", "a.mkv", "a.mov", "a.mp3", "a.flac", "adpcm.wav"]) {
    const audio = await openSound({ name: "x", audio: at(file) }, 16000);
    assert.ok("samples" in audio, file);
    assert.ok(Math.abs(audio.samples.length - 32000) < 3000, `${file}: ${audio.samples.length} samples`);
    let crossings = 0;
    for (let n = 8001; n < 24000; n++)
      if ((audio.samples[n] as number) >= 0 !== (audio.samples[n - 1] as number) >= 0) crossings++;
    assert.ok(Math.abs(crossings / 2 - 440) < 5, `${file}: a tone of ${crossings / 2} Hz`);
  }
});

withFfmpeg("what is not there is said: no audio, no video, a cover picture, no frames", async () => {
  ffmpeg("-i", "a.mp4", "-an", "-c", "copy", "silent.mp4");
  ffmpeg("-i", "a.mp4", "-vn", "-c", "copy", "blind.mp4");
  assert.deepEqual(await openSound({ name: "x", audio: at("silent.mp4") }, 16000), {
    missing: "no audio stream",
  });
  assert.deepEqual(await openPictures({ name: "x", visual: at("blind.mp4") }, request), {
    missing: "no video stream",
  });
  const info = await probeMedia(at("silent.mp4"));
  assert.deepEqual([info.audio, info.video, Math.round(info.seconds ?? 0)], [false, true, 2]);
  ffmpeg(
    "-f",
    "lavfi",
    "-i",
    "color=size=64x64:rate=25:duration=1",
    "-frames:v",
    "0",
    "-c:v",
    "libx264",
    "zero.mp4",
  );
  await assert.rejects(probeMedia(at("zero.mp4")), coded("ERR_AFFUSE_DECODE", /neither sound nor pictures/));
  ffmpeg("-f", "lavfi", "-i", "color=size=64x64:rate=1:duration=1", "-frames:v", "1", "cover.png");
  ffmpeg(
    "-i",
    "a.mp3",
    "-i",
    "cover.png",
    "-map",
    "0:a",
    "-map",
    "1:v",
    "-c:a",
    "copy",
    "-c:v",
    "png",
    "-disposition:v:0",
    "attached_pic",
    "cover.mp3",
  );
  assert.equal(await decodeFrames(at("cover.mp3"), request), null);
});

withFfmpeg(
  "a file whose beginning decodes but whose end is missing is refused, or taken with partial",
  async () => {
    ffmpeg("-i", "a.mp4", "-c", "copy", "-movflags", "+faststart", "fast.mp4");
    for (const file of ["fast.mp4", "a.mkv"]) {
      const whole = readFileSync(at(file));
      const cut = at(`cut-${file}`);
      writeFileSync(cut, whole.subarray(0, whole.length >> 1));
      await assert.rejects(
        decodeAudio(cut, 16000),
        coded("ERR_AFFUSE_DECODE", /cut off: it should last 2\.\d s/),
        file,
      );
      if (file === "a.mkv") continue;
      await assert.rejects(frames(cut), coded("ERR_AFFUSE_DECODE", /cut off/), file);
      const part = await decodeAudio(cut, 16000, { partial: true });
      assert.ok(
        part && part.samples.length > 4000 && part.samples.length < 28000,
        `${file}: ${part?.samples.length}`,
      );
    }
  },
);

withFfmpeg("size, colour and fit of pictures", async () => {
  // Left half red, right half blue, 96×48: the middle square keeps both, a stretch too; green is nowhere.
  ffmpeg(
    "-f",
    "lavfi",
    "-i",
    "color=red:size=48x48:rate=10:duration=1",
    "-f",
    "lavfi",
    "-i",
    "color=blue:size=48x48:rate=10:duration=1",
    "-filter_complex",
    "hstack",
    "-c:v",
    "libx264",
    "-qp",
    "0",
    "-pix_fmt",
    "yuv444p",
    "rb.mp4",
  );
  const [crop] = await frames(at("rb.mp4"), { channels: 3, height: 4, width: 4, fps: 10 });
  assert.ok(crop);
  assert.deepEqual([crop.height, crop.width, crop.channels], [4, 4, 3]);
  const near = (i: number, rgb: number[]): void =>
    rgb.forEach((v, c) => {
      assert.ok(
        Math.abs((crop.data[i * 3 + c] as number) - v) < 12,
        `pixel ${i}: ${crop.data.slice(i * 3, i * 3 + 3)}`,
      );
    });
  near(0, [255, 0, 0]);
  near(3, [0, 0, 255]);
  ffmpeg(
    "-f",
    "lavfi",
    "-i",
    "color=white:size=64x64:rate=10:duration=1",
    "-c:v",
    "libx264",
    "-pix_fmt",
    "yuv420p",
    "white.mp4",
  );
  const [white] = await frames(at("white.mp4"), { fps: 10 });
  assert.ok((white?.data[0] as number) > 250, `white is ${white?.data[0]}: video range became full range`);
});

test.run();
