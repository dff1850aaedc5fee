import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { suite } from "uvu";
import { isAffuseError } from "../../lib/errors.ts";
import { resample } from "../../lib/media/resample.ts";
import { readWav } from "../../lib/media/wav.ts";

const dir = mkdtempSync(path.join(os.tmpdir(), "affuse-wav-"));
const test = suite("WAV and resampling");
test.after(() => rmSync(dir, { recursive: true, force: true }));

interface Header {
  tag?: number;
  bits?: number;
  channels?: number;
  rate?: number;
  align?: number;
  /** Stated length of the data chunk. */
  stated?: number;
  extensible?: boolean;
  /** Chunks before data, [id, bytes]. */
  extra?: [string, Buffer][];
}

function wav(payload: Buffer, h: Header = {}): Buffer {
  const { tag = 1, bits = 16, channels = 1, rate = 16000, stated = payload.length } = h;
  const fmt = Buffer.alloc(h.extensible ? 40 : 16);
  fmt.writeUInt16LE(h.extensible ? 0xfffe : tag, 0);
  fmt.writeUInt16LE(channels, 2);
  fmt.writeUInt32LE(rate, 4);
  fmt.writeUInt32LE((rate * channels * bits) / 8, 8);
  fmt.writeUInt16LE(h.align ?? (channels * bits) / 8, 12);
  fmt.writeUInt16LE(bits, 14);
  if (h.extensible) {
    fmt.writeUInt16LE(22, 16);
    fmt.writeUInt16LE(bits, 18);
    fmt.writeUInt16LE(tag, 24);
  }
  const chunk = (id: string, body: Buffer, length = body.length): Buffer => {
    const head = Buffer.alloc(8);
    head.write(id, "latin1");
    head.writeUInt32LE(length, 4);
    return Buffer.concat([head, body, Buffer.alloc(body.length % 2)]);
  };
  const body = Buffer.concat([
    chunk("fmt ", fmt),
    ...(h.extra ?? []).map(([id, b]) => chunk(id, b)),
    chunk("data", payload, stated),
  ]);
  return Buffer.concat([
    Buffer.from("RIFF"),
    Buffer.from(Uint32Array.of(body.length + 4).buffer),
    Buffer.from("WAVE"),
    body,
  ]);
}

let counter = 0;
function save(bytes: Buffer): string {
  const file = path.join(dir, `${counter++}.wav`);
  writeFileSync(file, bytes);
  return file;
}

const wanted = [0, 0.5, -0.5, -1];

const encodings: [string, Header, Buffer][] = [
  ["8 bit", { bits: 8 }, Buffer.from([128, 192, 64, 0])],
  ["16 bit", {}, Buffer.from(Int16Array.of(0, 16384, -16384, -32768).buffer)],
  ["24 bit", { bits: 24 }, Buffer.from([0, 0, 0, 0, 0, 0x40, 0, 0, 0xc0, 0, 0, 0x80])],
  ["32 bit", { bits: 32 }, Buffer.from(Int32Array.of(0, 2 ** 30, -(2 ** 30), -(2 ** 31)).buffer)],
  ["float", { tag: 3, bits: 32 }, Buffer.from(Float32Array.from(wanted).buffer)],
  ["double", { tag: 3, bits: 64 }, Buffer.from(Float64Array.from(wanted).buffer)],
  ["extensible", { extensible: true }, Buffer.from(Int16Array.of(0, 16384, -16384, -32768).buffer)],
  ["extensible float", { extensible: true, tag: 3, bits: 32 }, Buffer.from(Float32Array.from(wanted).buffer)],
  [
    "stereo is averaged",
    { channels: 2 },
    Buffer.from(Int16Array.of(0, 0, 32767, 1, 0, -32768, -32768, -32768).buffer),
  ],
  [
    "other chunks, one of odd length",
    {
      extra: [
        ["LIST", Buffer.alloc(7)],
        ["JUNK", Buffer.alloc(3000)],
      ],
    },
    Buffer.from(Int16Array.of(0, 16384, -16384, -32768).buffer),
  ],
  ["written to a pipe", { stated: 0xffffffff }, Buffer.from(Int16Array.of(0, 16384, -16384, -32768).buffer)],
  ["written to a pipe, zero", { stated: 0 }, Buffer.from(Int16Array.of(0, 16384, -16384, -32768).buffer)],
];
for (const [what, header, payload] of encodings) {
  test(what, async () => {
    const { samples, sampleRate } = await readWav(save(wav(payload, header)));
    assert.deepEqual([...samples], wanted);
    assert.equal(sampleRate, 16000);
  });
}

test("NaN and infinity of a float file become silence", async () => {
  const bytes = Buffer.from(Float32Array.of(Number.NaN, 0.25, Number.POSITIVE_INFINITY).buffer);
  assert.deepEqual([...(await readWav(save(wav(bytes, { tag: 3, bits: 32 })))).samples], [0, 0.25, 0]);
});

test("no samples", async () => {
  assert.equal((await readWav(save(wav(Buffer.alloc(0))))).samples.length, 0);
});

const pcm = Buffer.alloc(2000);
const hostile: [string, Buffer, string, RegExp][] = [
  ["empty", Buffer.alloc(0), "ERR_AFFUSE_FORMAT", /expected RIFF/],
  ["text", Buffer.from("hello, this is not a sound file"), "ERR_AFFUSE_FORMAT", /expected RIFF/],
  ["only the start", wav(pcm).subarray(0, 12), "ERR_AFFUSE_FORMAT", /no fmt chunk/],
  ["no data chunk", wav(pcm).subarray(0, 36), "ERR_AFFUSE_FORMAT", /no data chunk/],
  ["cut off", wav(pcm).subarray(0, 500), "ERR_AFFUSE_FORMAT", /2000 bytes of samples, but 456 are there/],
  ["a huge stated length", wav(pcm, { stated: 0xfffffff0 }), "ERR_AFFUSE_FORMAT", /cut off/],
  [
    "a chunk that jumps past the end",
    Buffer.concat([wav(pcm).subarray(0, 36), Buffer.from("JUNK"), Buffer.from([255, 255, 255, 255])]),
    "ERR_AFFUSE_FORMAT",
    /no data chunk/,
  ],
  ["0 channels", wav(pcm, { channels: 0 }), "ERR_AFFUSE_FORMAT", /1 to 64 channels/],
  ["65535 channels", wav(pcm, { channels: 65535, align: 2 }), "ERR_AFFUSE_FORMAT", /1 to 64 channels/],
  ["0 Hz", wav(pcm, { rate: 0 }), "ERR_AFFUSE_FORMAT", /sample rate/],
  ["block size 0", wav(pcm, { align: 0 }), "ERR_AFFUSE_FORMAT", /block size/],
  ["ADPCM", wav(pcm, { tag: 2, bits: 4, align: 256 }), "ERR_AFFUSE_CODEC", /WAV format 2/],
  ["13 bits", wav(pcm, { bits: 13 }), "ERR_AFFUSE_CODEC", /13 bits/],
  [
    "data before fmt",
    Buffer.concat([Buffer.from("RIFF\0\0\0\0WAVEdata"), Buffer.from([4, 0, 0, 0, 1, 2, 3, 4])]),
    "ERR_AFFUSE_FORMAT",
    /before its fmt/,
  ],
];
for (const [what, bytes, code, text] of hostile) {
  test(`refused: ${what}`, async () => {
    await assert.rejects(readWav(save(bytes)), (error) => {
      assert.ok(isAffuseError(error), String(error));
      assert.equal(error.code, code);
      assert.match(error.message, text);
      return true;
    });
  });
}

test("a long file of four thousand small chunks ends", async () => {
  const extra = Array.from({ length: 5000 }, (): [string, Buffer] => ["JUNK", Buffer.alloc(0)]);
  await assert.rejects(readWav(save(wav(pcm, { extra }))), /no data chunk/);
});

/** Largest error against the same tone sampled at the other rate, away from the ends, in dB below the tone. */
function toneError(from: number, to: number, hertz: number): number {
  const x = Float32Array.from({ length: from }, (_, n) => Math.sin((2 * Math.PI * hertz * n) / from));
  const y = resample(x, from, to);
  assert.equal(y.length, to);
  let worst = 0;
  for (let n = 2000; n < to - 2000; n++)
    worst = Math.max(worst, Math.abs((y[n] as number) - Math.sin((2 * Math.PI * hertz * n) / to)));
  return 20 * Math.log10(worst);
}

test("tones in the pass band survive resampling, those beyond it vanish", () => {
  for (const [from, to] of [
    [44100, 16000],
    [48000, 16000],
    [22050, 16000],
    [8000, 16000],
    [16000, 44100],
    [44099, 16001],
  ] as const) {
    const nyquist = Math.min(from, to) / 2;
    for (const share of [0.01, 0.3, 0.8]) {
      const error = toneError(from, to, share * nyquist);
      assert.ok(error < -75, `${from} → ${to} at ${share} of Nyquist: ${error.toFixed(1)} dB`);
    }
  }
  const x = Float32Array.from({ length: 48000 }, (_, n) => Math.sin((2 * Math.PI * 9500 * n) / 48000));
  const y = resample(x, 48000, 16000).subarray(500, -500);
  const alias = 20 * Math.log10(Math.max(...y.map(Math.abs)));
  assert.ok(alias < -75, `alias at ${alias.toFixed(1)} dB`);
});

test("the same rate is the same array", () => {
  const x = new Float32Array(5);
  assert.equal(resample(x, 16000, 16000), x);
});

test.run();
