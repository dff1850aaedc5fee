// Labels, feature folders, matching, standardisation, batches, folds and file writing.
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { parseCsv } from "../../lib/data/csv.ts";
import { assembleBatch, describeMatch, matchClips, standardization } from "../../lib/data/dataset.ts";
import { FeatureFolders, FeatureMemory, findStreams, modalityOf } from "../../lib/data/features.ts";
import { requireWritable, writeFileAtomic, writeJson } from "../../lib/data/files.ts";
import { type FoldOptions, makeFolds, readFolds } from "../../lib/data/folds.ts";
import { type ClipLabel, readLabels, writeSubmission } from "../../lib/data/labels.ts";
import { writeNpy } from "../../lib/data/npy.ts";
import { Random } from "../../lib/data/random.ts";

const folder = mkdtempSync(path.join(tmpdir(), "affuse-data-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
let next = 0;
const fresh = () => {
  const made = path.join(folder, String(next++));
  mkdirSync(made);
  return made;
};
async function codeOf(f: () => unknown): Promise<string> {
  try {
    await f();
  } catch (error) {
    const { code } = error as { code?: string };
    if (!code?.startsWith("ERR_AFFUSE_")) throw error;
    return `${code} ${(error as Error).message}`;
  }
  return "none";
}
const labelFile = (text: string, name = "train-label.csv") => {
  const file = path.join(fresh(), name);
  writeFileSync(file, text);
  return file;
};

test("labels: byte order mark, CRLF, quotes, sentinel, missing cells, extra columns", () => {
  const file = labelFile(
    '\ufeffName,discrete,valence,session\r\n"a,1",happy,1.5,S1\r\nb,Neutral,-10,S1\r\n\r\nc,,2,S2\r\nd,surprise,,S2\r\n',
  );
  const { classes, clips } = readLabels(file);
  assert.is(classes.join(), "neutral,angry,happy,sad,worried,surprise");
  assert.equal(
    clips.map((c) => [c.name, c.emotion, c.valence, c.groups.session]),
    [
      ["a,1", 2, 1.5, "S1"],
      ["b", 0, Number.NaN, "S1"],
      ["c", -1, 2, "S2"],
      ["d", 5, Number.NaN, "S2"],
    ],
  );
  assert.is(clips[0]?.split, "train");
});

test("labels: a folder in MER's layout; test3 without valence", () => {
  const dir = fresh();
  writeFileSync(path.join(dir, "train-label.csv"), "name,discrete,valence\na,happy,1\n");
  writeFileSync(path.join(dir, "test3-label.csv"), "name,discrete\nz,sad\n");
  const { clips } = readLabels(dir);
  assert.equal(
    clips.map((c) => [c.name, c.split]),
    [
      ["z", "test3"],
      ["a", "train"],
    ],
  );
  assert.ok(Number.isNaN(clips[0]?.valence));
});

test("labels: names are enough", () => {
  for (const text of ["name\na\nb\n", "name,transcript\na,hello\nb,good bye\n"]) {
    const { clips } = readLabels(labelFile(text, "test1-label.csv"));
    assert.equal(
      clips.map(({ name, emotion, valence, split }) => [name, emotion, valence, split]),
      [
        ["a", -1, Number.NaN, "test1"],
        ["b", -1, Number.NaN, "test1"],
      ],
    );
  }
});

test("labels: what is wrong with a split that is not needed is told, and stops nobody", async () => {
  const good = "name,discrete\na,sad\n";
  for (const [bad, says] of [
    ["name,discrete\nz,sadd\n", /test2-label\.csv, line 2: unknown class "sadd"/],
    ["clip,discrete\nz,sad\n", /test2-label\.csv: expected the column "name"/],
    ["", /test2-label\.csv is empty/],
    ["name,discrete\nz,sad\nz,sad\n", /line 3: the clip z is labelled twice/],
    ["name,valence\nz,lots\n", /expected a number as valence/],
  ] as const) {
    const dir = fresh();
    writeFileSync(path.join(dir, "test1-label.csv"), "name\nb\n");
    writeFileSync(path.join(dir, "test2-label.csv"), bad);
    writeFileSync(path.join(dir, "train-label.csv"), good);
    const notes: string[] = [];
    const onNote = (text: string) => notes.push(text);
    const { clips } = readLabels(dir, { needed: ["train"], onNote });
    assert.is(clips.map(({ name }) => name).join(), "b,a");
    assert.is(notes.length, 1);
    assert.match(notes[0] as string, /^the labels of test2 are left out: /);
    assert.match(notes[0] as string, says);
    for (const options of [{ needed: ["test2"] }, {}, { needed: ["train"], classes: "auto" as const }]) {
      const told = await codeOf(() => readLabels(dir, options));
      // With automatic classes the word is a class like any other.
      if (options.classes === "auto" && bad.includes("sadd")) assert.is(told, "none");
      else assert.match(told, says);
    }
  }
  // What is wanted must not lie in another split as well.
  const dir = fresh();
  writeFileSync(path.join(dir, "test2-label.csv"), good);
  writeFileSync(path.join(dir, "train-label.csv"), good);
  assert.match(await codeOf(() => readLabels(dir, { needed: ["train"] })), /LABEL .*a is labelled twice/);
});

const labelTable: [string, string, RegExp][] = [
  [
    "unknown class",
    "name,discrete,valence\na,hapy,1\n",
    /LABEL .*line 2: unknown class "hapy", expected one of neutral/,
  ],
  [
    "duplicate name",
    "name,discrete,valence\na,sad,1\nb,sad,1\na,happy,1\n",
    /LABEL .*line 4: the clip a is labelled twice \(first at .*line 2/,
  ],
  ["valence not a number", "name,discrete,valence\na,sad,lots\n", /LABEL .*line 2: expected a number/],
  ["infinite valence", "name,discrete,valence\na,sad,Infinity\n", /LABEL/],
  ["no name column", "clip,discrete\na,sad\n", /FORMAT .*column "name"/],
  ["empty file", "", /FORMAT .*empty/],
  ["empty name", "name,discrete\n,sad\n", /LABEL .*empty/],
  ["too few fields", "name,discrete,valence\na,sad\n", /FORMAT .*line 2: expected 3 fields, got 2/],
  ["open quote", 'name,discrete\n"a,sad\n', /FORMAT/],
  ["column twice", "name,name,discrete\na,b,sad\n", /FORMAT .*twice/],
];
for (const [name, text, pattern] of labelTable) {
  test(`labels: ${name}`, async () => {
    assert.match(await codeOf(() => readLabels(labelFile(text))), pattern);
  });
}

test("labels: other class lists, given or automatic", async () => {
  const file = labelFile("name,discrete\na,Disgust\nb,Fear\n");
  assert.equal(readLabels(file, { classes: "auto" }).classes, ["Disgust", "Fear"]);
  assert.is(readLabels(file, { classes: ["Fear", "Disgust"] }).clips[0]?.emotion, 1);
  assert.match(await codeOf(() => readLabels(path.join(folder, "nowhere"))), /NOT_FOUND/);
  assert.match(await codeOf(() => readLabels(fresh())), /NOT_FOUND/);
  assert.match(await codeOf(() => readLabels(labelFile("name,discrete\nb\xff,sad\n")).clips), /none/);
  const latin = path.join(fresh(), "train-label.csv");
  writeFileSync(latin, Buffer.from("name,discrete\nb\xff,sad\n", "latin1"));
  assert.match(await codeOf(() => readLabels(latin)), /FORMAT .*UTF-8/);
});

test("submission file", () => {
  const file = path.join(fresh(), "out.csv");
  writeSubmission(file, [
    { name: "a,b", emotion: "sad", valence: -1.23456789 },
    { name: "c", emotion: "happy", valence: Number.NaN },
  ]);
  assert.is(readFileSync(file, "utf8"), 'name,discrete,valence\n"a,b",sad,-1.234568\nc,happy,\n');
  assert.is(parseCsv(readFileSync(file, "utf8"), "x").rows[0]?.values.name, "a,b");
});

/** A feature folder with sequences, an utterance stream, per-frame files and look-alike names. */
function features(): string {
  const dir = fresh();
  const random = new Random(1);
  const array = (n: number) => Float32Array.from({ length: n }, () => random.normal());
  for (const [i, clip] of ["clip1", "clip10", "clip2"].entries()) {
    writeNpy(path.join(dir, "hubert-FRA", `${clip}.npy`), [i + 2, 4], array((i + 2) * 4));
  }
  writeNpy(path.join(dir, "hubert-UTT", "clip1.npy"), [4], array(4));
  writeNpy(path.join(dir, "CLIP_utt", "clip1.npy"), [3], array(3));
  for (const frame of [10, 2, 1])
    writeNpy(path.join(dir, "manet_fra", "clip2", `frame_${frame}.npy`), [2], Float32Array.of(frame, 0));
  writeNpy(path.join(dir, "manet_fra", "clip1.npy"), [0, 2], new Float32Array(0));
  writeJson(path.join(dir, "manet_fra", "manifest.json"), { modality: "visual", layer: -1 });
  return dir;
}

test("features: suffix spellings, per-frame folders in numeric order, exact stems, modality, provenance", async () => {
  const dir = features();
  const streams = findStreams(dir);
  assert.equal(
    streams.map((s) => [s.name, s.modality, path.basename(s.folder)]),
    [
      ["CLIP", "visual", "CLIP_utt"],
      ["hubert", "audio", "hubert-FRA"],
      ["manet", "visual", "manet_fra"],
    ],
  );
  const source = new FeatureFolders(streams);
  assert.equal(source.clips, ["clip1", "clip10", "clip2"]);
  assert.equal(
    source.streams.map((s) => s.dim),
    [3, 4, 2],
  );
  assert.equal(
    [0, 1, 2].map((s) => source.length("clip1", s)),
    [1, 2, 0],
  );
  assert.is(source.length("clip", 1), 0);
  assert.equal([...((await source.load("clip2", 2)) ?? [])], [1, 0, 2, 0, 10, 0]);
  assert.is(await source.load("clip10", 2), null);
  assert.equal(source.streams[2]?.manifest, { modality: "visual", layer: -1 });
  assert.equal(["wav2vec2-large", "CLIP-vit", "bert-base", "abc"].map(modalityOf), [
    "audio",
    "visual",
    "text",
    null,
  ]);
  assert.equal(findStreams(dir, { hubert: "text" })[1]?.modality, "text");
});

test("features: what is wrong is named with its file", async () => {
  const open = (dir: string) => codeOf(() => new FeatureFolders(findStreams(dir)));
  const dir = (name: string, shape: number[], value = 0) => {
    const made = fresh();
    writeNpy(path.join(made, "audio-FRA", "good.npy"), [2, 3], new Float32Array(6));
    writeNpy(
      path.join(made, "audio-FRA", `${name}.npy`),
      shape,
      new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(value),
    );
    return made;
  };
  assert.match(await open(dir("wrong", [2, 4])), /DIMENSION .*wrong\.npy has dimension 4, expected 3/);
  assert.match(await open(dir("deep", [1, 2, 3])), /RANK .*deep\.npy/);
  const nan = dir("nan", [2, 3], Number.NaN);
  assert.is(await open(nan), "none");
  assert.match(
    await codeOf(() => new FeatureFolders(findStreams(nan)).load("nan", 0)),
    /NONFINITE .*nan\.npy.*frame 0/,
  );
  const inf = dir("inf", [2, 3], Number.POSITIVE_INFINITY);
  assert.match(await codeOf(() => new FeatureFolders(findStreams(inf)).load("inf", 0)), /NONFINITE/);
  const cut = dir("cut", [2, 3]);
  const file = path.join(cut, "audio-FRA", "cut.npy");
  writeFileSync(file, readFileSync(file).subarray(0, -3));
  assert.match(await open(cut), /FORMAT .*cut\.npy/);
  assert.match(await open(fresh()), /NOT_FOUND/);
  const unknown = fresh();
  writeNpy(path.join(unknown, "abc-UTT", "x.npy"), [2], new Float32Array(2));
  assert.match(await open(unknown), /CONFIG .*modality/);
  writeNpy(path.join(cut, "audio-FRA", "good", "1.npy"), [3], new Float32Array(3));
  assert.match(await open(cut), /FORMAT .*both a file and a folder|FORMAT .*cut/);
});

test("features: memory stays within the cache's bound and data stays right", async () => {
  const dir = fresh();
  for (let i = 0; i < 20; i++)
    writeNpy(path.join(dir, "audio-FRA", `c${i}.npy`), [100, 10], new Float32Array(1000).fill(i));
  const source = new FeatureFolders(findStreams(dir), { cacheBytes: 4000 * 3 });
  const random = new Random(2);
  for (let i = 0; i < 200; i++) {
    const k = random.integer(20);
    assert.is((await source.load(`c${k}`, 0))?.[999], k);
  }
});

const label = (name: string, emotion = 0, groups = {}): ClipLabel => ({
  name,
  emotion,
  valence: 0,
  split: "train",
  groups,
});

test("matching: labels for unknown clips and clips without labels are reported and left out", async () => {
  const source = new FeatureFolders(findStreams(features()));
  const match = matchClips([label("clip2"), label("clip1"), label("clip"), label("ghost")], source);
  assert.equal(
    match.clips.map((c) => c.name),
    ["clip1", "clip2"],
  );
  assert.equal(match.withoutFeatures, ["clip", "ghost"]);
  assert.equal(match.withoutLabel, ["clip10"]);
  assert.equal(match.lacking, { CLIP: ["clip2"], hubert: [], manet: ["clip1"] });
  assert.is(describeMatch(match).length, 4);
  assert.match(await codeOf(() => matchClips([label("ghost")], source)), /NOT_FOUND/);
});

test("standardisation uses the given clips only; batches are padded, standardised and carry presence", async () => {
  const random = new Random(3);
  const make = (T: number, mean: number) =>
    Float32Array.from({ length: T * 3 }, (_, i) => (i % 3 === 2 ? 1e4 : random.normal(mean, 2 + (i % 3))));
  const streams = [
    { name: "a", modality: "audio", dim: 3, manifest: null },
    { name: "v", modality: "visual", dim: 3, manifest: null },
  ];
  const data = new Map([
    ["p", { a: make(500, 5), v: null }],
    ["q", { a: make(300, 5), v: make(4, 0) }],
    ["test", { a: make(10, 1000), v: null }],
  ]);
  const source = new FeatureMemory(streams, data);
  const stats = await standardization(source, ["p", "q"]);
  const all = [...(data.get("p")?.a ?? []), ...(data.get("q")?.a ?? [])].filter((_, i) => i % 3 === 0);
  const mean = all.reduce((s, x) => s + x, 0) / all.length;
  const sd = Math.sqrt(all.reduce((s, x) => s + (x - mean) ** 2, 0) / all.length);
  assert.ok(Math.abs((stats[0]?.mean[0] ?? 0) - mean) < 1e-5);
  assert.ok(Math.abs((stats[0]?.scale[0] ?? 0) - 1 / sd) < 1e-5);
  assert.is(stats[0]?.scale[2], 1); // constant dimension
  const batch = await assembleBatch(source, ["q", "p"], {
    standardization: stats,
    labels: [label("q", 2), label("p", -1)],
  });
  assert.equal([...(batch.streams.a?.lengths ?? [])], [300, 500]);
  assert.is(batch.streams.a?.T, 512);
  assert.equal([...(batch.streams.v?.presence ?? [])], [1, 0]);
  assert.equal([...(batch.streams.v?.lengths ?? [])], [4, 0]);
  assert.is(batch.streams.v?.T, 8);
  assert.equal([...(batch.labels ?? [])], [2, -1]);
  const x = batch.streams.a?.data as Float32Array;
  assert.ok(Math.abs((x[0] as number) - ((data.get("q")?.a?.[0] as number) - mean) / sd) < 1e-4);
  assert.is(x[2], 0);
  assert.is(x[300 * 3], 0); // padding
});

const many = (n: number, groups = (_: number) => ({})) =>
  Array.from({ length: n }, (_, i) => label(`c${String(i).padStart(3, "0")}`, i % 3, groups(i)));

test("folds: floor(n/k), remainder to the last; disjoint; validation keeps class shares; order of clips does not matter", () => {
  const clips = many(53);
  const { folds } = makeFolds(clips, { count: 5, seed: 1 });
  assert.equal(
    folds.map((f) => f.test.length),
    [10, 10, 10, 10, 13],
  );
  assert.equal(
    folds.flatMap((f) => f.test).sort(),
    clips.map((c) => c.name),
  );
  for (const { train, validation, test } of folds) {
    assert.is(new Set([...train, ...validation, ...test]).size, 53);
    assert.is(train.length + validation.length + test.length, 53);
    for (let c = 0; c < 3; c++) {
      const n = validation.filter((name) => Number(name.slice(1)) % 3 === c).length;
      assert.ok(n >= 1 && n <= 3, `${n}`);
    }
  }
  assert.equal(makeFolds(new Random(9).shuffle([...clips]), { count: 5, seed: 1 }).folds, folds);
  assert.not.equal(makeFolds(clips, { count: 5, seed: 2 }).folds, folds);
  assert.equal(makeFolds(clips, { count: 1, seed: 2 }).folds[0]?.test, []);
});

test("folds: by speaker, and by session with one held-out speaker validating", () => {
  const clips = many(60, (i) => ({ session: `S${i % 5}`, speaker: `S${i % 5}${i % 2 ? "F" : "M"}` }));
  const session = makeFolds(clips, { count: 5, seed: 1, by: "session" }).folds;
  assert.is(session.length, 10);
  const of = (names: string[], key: string) => [
    ...new Set(names.map((n) => clips.find((c) => c.name === n)?.groups[key])),
  ];
  for (const { train, validation, test } of session) {
    assert.is(of([...validation, ...test], "session").length, 1);
    assert.is(of(train, "session").length, 4);
    assert.is(of(validation, "speaker").length, 1);
    assert.is(of(test, "speaker").length, 1);
    assert.not.equal(of(validation, "speaker"), of(test, "speaker"));
  }
  const speaker = makeFolds(clips, { count: 5, seed: 1, by: "speaker" }).folds;
  assert.is(speaker.length, 10);
  for (const { train, validation, test } of speaker) {
    const sets = [train, validation, test].flatMap((part) => of(part, "speaker"));
    assert.is(new Set(sets).size, sets.length);
  }
});

test("folds: saved and read back; wrong settings and files give codes", async () => {
  const folds = makeFolds(many(20), { count: 4, seed: 3 });
  const file = path.join(fresh(), "folds.json");
  writeJson(file, folds);
  assert.equal(readFolds(file), folds);
  writeJson(file, { ...folds, folds: [{ train: ["a", "a"], validation: [], test: [] }] });
  assert.match(await codeOf(() => readFolds(file)), /FORMAT .*twice/);
  writeFileSync(file, "{");
  assert.match(await codeOf(() => readFolds(file)), /FORMAT/);
  const wrong = (n: number, options: Partial<FoldOptions>) =>
    codeOf(() => makeFolds(many(n), { count: 2, seed: 1, ...options }));
  assert.match(await wrong(3, { count: 5 }), /FOLDS/);
  assert.match(await wrong(10, { count: 0 }), /FOLDS/);
  assert.match(await wrong(10, { by: "session" }), /FOLDS .*column "session"/);
});

test("files: what is behind a link is replaced, not the link; a device or a pipe is written to", () => {
  const dir = fresh();
  const at = (name: string) => path.join(dir, name);
  writeFileSync(at("real"), "old");
  symlinkSync("real", at("link"));
  symlinkSync("nowhere", at("loose"));
  for (const name of ["link", "loose"]) writeFileAtomic(at(name), "new");
  assert.ok(lstatSync(at("link")).isSymbolicLink());
  assert.equal([readFileSync(at("real"), "utf8"), readFileSync(at("loose"), "utf8")], ["new", "new"]);
  execFileSync("mkfifo", [at("pipe")]);
  const reader = openSync(at("pipe"), constants.O_RDWR | constants.O_NONBLOCK);
  try {
    requireWritable(at("pipe"));
    writeFileAtomic(at("pipe"), "through");
    assert.ok(lstatSync(at("pipe")).isFIFO());
    const bytes = Buffer.alloc(100);
    assert.is(bytes.toString("utf8", 0, readSync(reader, bytes)), "through");
  } finally {
    closeSync(reader);
  }
});

test("files: atomic; unwritable, full and impossible places give ERR_AFFUSE_WRITE and leave nothing behind", async () => {
  const dir = fresh();
  const file = path.join(dir, "deep", "er", "x.txt");
  writeFileAtomic(file, "one");
  writeFileAtomic(file, [Buffer.from("t"), Buffer.from("wo")]);
  assert.is(readFileSync(file, "utf8"), "two");
  assert.equal(readdirSync(path.dirname(file)), ["x.txt"]);
  assert.match(await codeOf(() => writeFileAtomic(path.join(file, "y"), "z")), /WRITE .*Could not write/);
  assert.match(await codeOf(() => writeFileAtomic(path.join(dir, "n".repeat(300), "y"), "z")), /WRITE/);
  if (existsSync("/proc/self")) assert.match(await codeOf(() => writeFileAtomic("/proc/x/y", "z")), /WRITE/);
  for (const wrong of ["", dir, path.join(file, "y"), path.join(dir, "n".repeat(300))])
    assert.match(await codeOf(() => requireWritable(wrong, "the results")), /WRITE .*the results/, wrong);
  requireWritable(file);
  requireWritable(path.join(dir, "other", "new.txt"));
  assert.equal([readFileSync(file, "utf8"), readdirSync(path.join(dir, "other"))], ["two", []]);
  const locked = path.join(dir, "locked");
  mkdirSync(locked);
  chmodSync(locked, 0o500);
  if (process.getuid?.() !== 0)
    assert.match(await codeOf(() => writeFileAtomic(path.join(locked, "y"), "z")), /WRITE .*permission/);
  // A full disk: a tmpfs of 64 KiB where we may mount one, and /dev/full's ENOSPC through a link elsewhere.
  const small = path.join(dir, "small");
  mkdirSync(small);
  let mounted = false;
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", small], { stdio: "pipe" });
    mounted = true;
  } catch {
    // no right to mount: the write error is then only tested by the other cases
  }
  if (mounted) {
    try {
      writeFileAtomic(path.join(small, "a"), "kept");
      assert.match(
        await codeOf(() => writeFileAtomic(path.join(small, "a"), new Uint8Array(200_000))),
        /WRITE .*disk is full/,
      );
      assert.is(readFileSync(path.join(small, "a"), "utf8"), "kept");
      assert.equal(readdirSync(small), ["a"]);
    } finally {
      execFileSync("umount", [small]);
    }
  }
  symlinkSync("/nowhere/at/all", path.join(dir, "dangling"));
  assert.match(await codeOf(() => writeFileAtomic(path.join(dir, "dangling", "x"), "z")), /WRITE/);
});

test.run();
