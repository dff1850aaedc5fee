/**
 * Labels of clips: the MER 2023 layout (spec section 3), CSV or `label-6way.npz`, and any CSV of the same
 * columns.
 */
import { existsSync, readdirSync, statSync } from "node:fs";
import path from "node:path";
import { AffuseError } from "../errors.ts";
import { readCsv, writeCsv } from "./csv.ts";
import { readPickledNpz } from "./npz.ts";
import type { Pickled } from "./unpickle.ts";

/** MER 2023's classes in the challenge's order; an index means nothing without this list. */
export const MER_CLASSES: readonly string[] = ["neutral", "angry", "happy", "sad", "worried", "surprise"];

/** What MER's files write for "no valence". Never enters a mean: it becomes NaN on reading. */
export const MISSING_VALENCE = -10;

export interface ClipLabel {
  name: string;
  /** Class index, or −1 when the clip has no emotion label. */
  emotion: number;
  /** Raw scale, or NaN when the clip has no valence. */
  valence: number;
  /** "train", "test1", … */
  split: string;
  /** Further columns of the file (session, speaker, …), for grouped folds. */
  groups: Readonly<Record<string, string>>;
}

export interface LabelSet {
  classes: readonly string[];
  clips: ClipLabel[];
}

export interface LabelOptions {
  /** Class names in order. Default: MER_CLASSES. `"auto"`: the names that occur, in alphabetical order. */
  classes?: readonly string[] | "auto";
  /** Split name of a file that does not carry it in its own name. */
  split?: string;
}

interface RawLabel {
  name: string;
  discrete: string;
  valence: number;
  split: string;
  groups: Record<string, string>;
  /** For messages. */
  where: string;
}

function parseValence(text: string, where: string): number {
  if (text === "" || text.toLowerCase() === "nan") return Number.NaN;
  const value = Number(text);
  if (!Number.isFinite(value)) {
    throw new AffuseError(
      "ERR_AFFUSE_LABEL",
      `${where}: expected a number as valence, got ${JSON.stringify(text)}.`,
      "Leave it empty or write -10 when it is unknown.",
    );
  }
  return value === MISSING_VALENCE ? Number.NaN : value;
}

const OWN_COLUMNS = new Set(["name", "discrete", "valence", "split"]);

function readLabelCsv(file: string, split: string): RawLabel[] {
  const table = readCsv(file, ["name"]);
  if (!table.columns.includes("discrete") && !table.columns.includes("valence")) {
    throw new AffuseError(
      "ERR_AFFUSE_FORMAT",
      `${file}: expected a column discrete or valence, got ${table.columns.join(",")}.`,
    );
  }
  return table.rows.map(({ line, values }) => {
    const where = `${file}, line ${line}`;
    const name = values.name ?? "";
    if (name === "")
      throw new AffuseError("ERR_AFFUSE_LABEL", `${where}: expected a clip name, got an empty field.`);
    const groups = Object.fromEntries(Object.entries(values).filter(([column]) => !OWN_COLUMNS.has(column)));
    return {
      name,
      discrete: values.discrete ?? "",
      valence: parseValence(values.valence ?? "", where),
      split: values.split || split,
      groups,
      where,
    };
  });
}

/** `label-6way.npz`: members `<split>_corpus`, each a dictionary clip → { emo, val }. */
function readLabelNpz(file: string): RawLabel[] {
  const out: RawLabel[] = [];
  for (const [member, corpus] of readPickledNpz(file)) {
    const split = member.replace(/_corpus$/, "");
    const where = `${file}:${member}`;
    if (!(corpus instanceof Map))
      throw new AffuseError("ERR_AFFUSE_FORMAT", `${where}: expected a dictionary of clips.`);
    for (const [name, entry] of corpus as Map<Pickled, Pickled>) {
      if (typeof name !== "string" || !(entry instanceof Map)) {
        throw new AffuseError(
          "ERR_AFFUSE_FORMAT",
          `${where}: expected clip names with dictionaries of labels.`,
        );
      }
      const discrete = entry.get("emo") ?? "";
      const value = entry.get("val") ?? "";
      if (typeof discrete !== "string" || (typeof value !== "number" && value !== "")) {
        throw new AffuseError(
          "ERR_AFFUSE_LABEL",
          `${where}: clip ${name}: expected emo to be a name and val a number.`,
        );
      }
      out.push({
        name,
        discrete,
        valence: parseValence(String(value), `${where}: clip ${name}`),
        split,
        groups: {},
        where: `${where}: clip ${name}`,
      });
    }
  }
  if (out.length === 0)
    throw new AffuseError(
      "ERR_AFFUSE_FORMAT",
      `${file}: expected members named <split>_corpus with labels, found none.`,
    );
  return out;
}

/**
 * The label files of a folder: every `<split>-label.csv`, else `label-6way.npz`, else `labels.csv`.
 */
export function findLabelFiles(folder: string): { file: string; split: string }[] {
  const names = readdirSync(folder).sort();
  const csv = names.flatMap((name) => {
    const split = /^(.+?)[-_]labels?\.csv$/i.exec(name)?.[1];
    return split ? [{ file: path.join(folder, name), split }] : [];
  });
  if (csv.length > 0) return csv;
  for (const name of ["label-6way.npz", "labels.csv", "label.csv"]) {
    if (names.includes(name)) return [{ file: path.join(folder, name), split: "train" }];
  }
  return [];
}

/**
 * Reads labels.
 * @param source a label file (CSV or npz) or a folder that holds them
 * @returns every clip once; order as in the files
 * @throws ERR_AFFUSE_NOT_FOUND no label file; ERR_AFFUSE_LABEL unknown class, bad valence, duplicate name;
 * ERR_AFFUSE_FORMAT
 */
export function readLabels(source: string, options: LabelOptions = {}): LabelSet {
  const { split = "train" } = options;
  if (!existsSync(source))
    throw new AffuseError(
      "ERR_AFFUSE_NOT_FOUND",
      `${source} does not exist.`,
      "Check the path of the labels.",
    );
  const isFolder = statSync(source).isDirectory();
  const files = isFolder
    ? findLabelFiles(source)
    : [{ file: source, split: /^(.+?)[-_]labels?\.csv$/i.exec(path.basename(source))?.[1] ?? split }];
  if (files.length === 0) {
    throw new AffuseError(
      "ERR_AFFUSE_NOT_FOUND",
      `${source}: expected <split>-label.csv or label-6way.npz, found neither.`,
      "Columns: name,discrete,valence.",
    );
  }
  const raw = files.flatMap(({ file, split }) =>
    file.endsWith(".npz") ? readLabelNpz(file) : readLabelCsv(file, split),
  );
  return resolve(raw, options.classes ?? MER_CLASSES);
}

function resolve(raw: RawLabel[], wanted: readonly string[] | "auto"): LabelSet {
  const classes =
    wanted === "auto"
      ? [...new Set(raw.map((label) => label.discrete).filter((name) => name !== ""))].sort()
      : [...wanted];
  const index = new Map(classes.map((name, i) => [name.toLowerCase(), i]));
  if (index.size !== classes.length)
    throw new AffuseError("ERR_AFFUSE_LABEL", `the class list ${classes.join(", ")} names a class twice.`);
  const seen = new Map<string, string>();
  const clips = raw.map((label): ClipLabel => {
    const first = seen.get(label.name);
    if (first !== undefined) {
      throw new AffuseError(
        "ERR_AFFUSE_LABEL",
        `${label.where}: the clip ${label.name} is labelled twice (first at ${first}).`,
        "Every clip name may occur once over all splits.",
      );
    }
    seen.set(label.name, label.where);
    const emotion = label.discrete === "" ? -1 : (index.get(label.discrete.toLowerCase()) ?? -2);
    if (emotion === -2) {
      throw new AffuseError(
        "ERR_AFFUSE_LABEL",
        `${label.where}: unknown class ${JSON.stringify(label.discrete)}, expected one of ${classes.join(", ")}.`,
        'Correct it, or give the class list (key "classes").',
      );
    }
    return { name: label.name, emotion, valence: label.valence, split: label.split, groups: label.groups };
  });
  return { classes, clips };
}

/** The challenge's submission file `name,discrete,valence`, valence with six decimals. */
export function writeSubmission(
  file: string,
  predictions: Iterable<{ name: string; emotion: string; valence: number }>,
): void {
  const rows = [...predictions].map(({ name, emotion, valence }) => [
    name,
    emotion,
    Number.isFinite(valence) ? valence.toFixed(6) : "",
  ]);
  writeCsv(file, ["name", "discrete", "valence"], rows, "the submission");
}
