/**
 * Labels of clips: the MER 2023 layout (spec section 3), CSV or `label-6way.npz`, and any CSV of the same
 * columns.
 */
import { existsSync, readdirSync, statSync } from "node:fs";
import path from "node:path";
import { AffuseError, isAffuseError } from "../errors.ts";
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
  /**
   * Splits that are wanted of a folder. What is wrong with a file named after another split is then told to onNote, and the
   * file left out; a clip of a wanted split that another file has too is refused all the same. Default: all. With classes
   * `"auto"` every file is wanted, because each has a say in the classes.
   */
  needed?: readonly string[];
  onNote?: (text: string) => void;
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
  return readCsv(file, ["name"]).rows.map(({ line, values }) => {
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

/** The split that a label file is named after, if it is. */
const splitOf = (file: string): string | undefined => /^(.+?)[-_]labels?\.csv$/i.exec(path.basename(file))?.[1];

/**
 * The label files of a folder: every `<split>-label.csv`, else `label-6way.npz`, else `labels.csv`.
 */
export function findLabelFiles(folder: string): { file: string; split: string }[] {
  const names = readdirSync(folder).sort();
  const csv = names.flatMap((name) => {
    const split = splitOf(name);
    return split ? [{ file: path.join(folder, name), split }] : [];
  });
  if (csv.length > 0) return csv;
  for (const name of ["label-6way.npz", "labels.csv", "label.csv"]) {
    if (names.includes(name)) return [{ file: path.join(folder, name), split: "train" }];
  }
  return [];
}

/**
 * Reads labels. Names are enough: a clip without a class and a valence is one to predict.
 * @param source a label file (CSV or npz) or a folder that holds them
 * @returns every clip once; order as in the files
 * @throws ERR_AFFUSE_NOT_FOUND no label file; ERR_AFFUSE_LABEL unknown class, bad valence, duplicate name;
 * ERR_AFFUSE_FORMAT
 */
export function readLabels(source: string, options: LabelOptions = {}): LabelSet {
  const { split = "train", needed } = options;
  if (!existsSync(source))
    throw new AffuseError(
      "ERR_AFFUSE_NOT_FOUND",
      `${source} does not exist.`,
      "Check the path of the labels.",
    );
  const isFolder = statSync(source).isDirectory();
  const files = isFolder ? findLabelFiles(source) : [{ file: source, split: splitOf(source) ?? split }];
  if (files.length === 0) {
    throw new AffuseError(
      "ERR_AFFUSE_NOT_FOUND",
      `${source}: expected <split>-label.csv or label-6way.npz, found neither.`,
      "Columns: name,discrete,valence.",
    );
  }
  const read = ({ file, split }: { file: string; split: string }): RawLabel[] =>
    file.endsWith(".npz") ? readLabelNpz(file) : readLabelCsv(file, split);
  if (options.classes === "auto") {
    const parts = files.map(read);
    const names = parts.flat().map((label) => label.discrete);
    const classes = [...new Set(names.filter((name) => name !== ""))].sort();
    const labelled = new Labelling(classes);
    return { classes, clips: parts.flatMap((raw) => labelled.add(raw, true)) };
  }
  const classes = [...(options.classes ?? MER_CLASSES)];
  const labelled = new Labelling(classes);
  const isNeeded = ({ file, split }: { file: string; split: string }) =>
    !isFolder || !needed || splitOf(file) === undefined || needed.includes(split);
  const clips = new Map<string, ClipLabel[]>();
  for (const entry of files.filter(isNeeded)) clips.set(entry.file, labelled.add(read(entry), true));
  for (const entry of files.filter((other) => !isNeeded(other))) {
    try {
      clips.set(entry.file, labelled.add(read(entry), false));
    } catch (error) {
      if (!isAffuseError(error) || error instanceof LeakError) throw error;
      options.onNote?.(`the labels of ${entry.split} are left out: ${error.message.split("\n")[0]}`);
    }
  }
  return { classes, clips: files.flatMap(({ file }) => clips.get(file) ?? []) };
}

/** A clip of a wanted split that another split has too. */
class LeakError extends AffuseError {}

/** Rows become labels, file by file; no clip may occur twice. */
class Labelling {
  readonly #classes: readonly string[];
  readonly #index: Map<string, number>;
  readonly #seen = new Map<string, { where: string; needed: boolean }>();

  constructor(classes: readonly string[]) {
    this.#classes = classes;
    this.#index = new Map(classes.map((name, i) => [name.toLowerCase(), i]));
    if (this.#index.size !== classes.length)
      throw new AffuseError("ERR_AFFUSE_LABEL", `the class list ${classes.join(", ")} names a class twice.`);
  }

  /** All rows of a file or, if it throws, none. */
  add(raw: readonly RawLabel[], needed: boolean): ClipLabel[] {
    const own = new Map<string, string>();
    for (const { name, where } of raw) {
      const other = this.#seen.get(name);
      const first = own.get(name) ?? other?.where;
      if (first !== undefined) {
        throw new (other?.needed ? LeakError : AffuseError)(
          "ERR_AFFUSE_LABEL",
          `${where}: the clip ${name} is labelled twice (first at ${first}).`,
          "Every clip name may occur once over all splits.",
        );
      }
      own.set(name, where);
    }
    const clips = raw.map((label) => this.#label(label));
    for (const [name, where] of own) this.#seen.set(name, { where, needed });
    return clips;
  }

  #label({ name, discrete, valence, split, groups, where }: RawLabel): ClipLabel {
    const emotion = discrete === "" ? -1 : this.#index.get(discrete.toLowerCase());
    if (emotion === undefined) {
      throw new AffuseError(
        "ERR_AFFUSE_LABEL",
        `${where}: unknown class ${JSON.stringify(discrete)}, expected one of ${this.#classes.join(", ")}.`,
        'Correct it, or give the class list (key "classes").',
      );
    }
    return { name, emotion, valence, split, groups };
  }
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
