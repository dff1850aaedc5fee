/**
 * Writing files so that a crash, a full disk or kill -9 never leaves half of one; reading them with coded
 * errors.
 */
import { randomBytes } from "node:crypto";
import {
  closeSync,
  existsSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import path from "node:path";
import { AffuseError } from "../errors.ts";

const WHY: Record<string, [string, string]> = {
  ENOSPC: ["the disk is full", "Free some space or choose another place."],
  EDQUOT: ["the disk quota is used up", "Free some space or choose another folder."],
  EACCES: ["no permission", "Choose a folder you may write to."],
  EPERM: ["not permitted", "Choose a folder you may write to."],
  EROFS: ["the file system is read-only", "Choose a folder you may write to."],
  ENOTDIR: ["a part of the path is a file, not a folder", "Choose another path."],
  EEXIST: ["a file of that name is in the way", "Choose another path."],
  EISDIR: ["it is a folder", "Choose another path."],
  ENOENT: ["the folder does not exist", "Create it first."],
  EMFILE: ["too many open files", "Raise the limit (ulimit -n)."],
  ENAMETOOLONG: ["the name is too long", "Choose a shorter one."],
};

/** Why something could not be written, in words. */
export function writeError(error: unknown, what: string, target: string): AffuseError {
  const code = (error as NodeJS.ErrnoException).code ?? "";
  const [why, hint] = WHY[code] ?? [(error as Error).message, ""];
  return new AffuseError(
    "ERR_AFFUSE_WRITE",
    `Could not write ${what} to ${target}: ${why}${code ? ` (${code})` : ""}.`,
    hint,
    {
      cause: error,
    },
  );
}

/** Makes a folder and its parents. @throws ERR_AFFUSE_WRITE */
export function makeFolder(folder: string, what = "the folder"): void {
  // Not mkdir's own `recursive`: Node 20 loops for ever where a folder's parent exists and yet it answers
  // ENOENT (/proc).
  const missing: string[] = [];
  let at = path.resolve(folder);
  for (; !existsSync(at) && at !== path.dirname(at); at = path.dirname(at)) missing.unshift(at);
  try {
    for (const part of missing) {
      try {
        mkdirSync(part);
      } catch (error) {
        // someone else was faster
        if ((error as NodeJS.ErrnoException).code !== "EEXIST" || !statSync(part).isDirectory()) throw error;
      }
    }
    if (!statSync(folder).isDirectory()) throw Object.assign(new Error("not a folder"), { code: "ENOTDIR" });
  } catch (error) {
    throw writeError(error, what, folder);
  }
}

const temporaryFor = (target: string) =>
  path.join(
    path.dirname(target),
    `.${path.basename(target).slice(0, 100)}.${process.pid}.${randomBytes(4).toString("hex")}.tmp`,
  );

/** What is there: a device or a pipe is written to, never replaced (root could: /dev/null would be gone). */
function isSpecial(target: string): boolean {
  try {
    const found = statSync(target);
    return !found.isFile() && !found.isDirectory();
  } catch {
    return false; // nothing, or what the writing will complain of
  }
}

/** The file behind a symbolic link: the link stays. */
function linked(target: string): string {
  try {
    return lstatSync(target).isSymbolicLink() ? realpathSync(target) : target;
  } catch {
    return target; // nothing there, or a link to nothing, which is replaced
  }
}

/**
 * For commands that work for minutes before they write: whether a file can be written there at all. Makes
 * its folder and, for a moment, a file in it. @throws ERR_AFFUSE_WRITE
 */
export function requireWritable(target: string, what = "the file"): void {
  try {
    if (target === "") throw Object.assign(new Error("a file's name is empty"), { code: "ENOENT" });
    const found = statSync(target, { throwIfNoEntry: false });
    if (found?.isDirectory()) throw Object.assign(new Error("a folder"), { code: "EISDIR" });
    if (isSpecial(target)) return;
  } catch (error) {
    throw writeError(error, what, target);
  }
  const file = linked(target);
  makeFolder(path.dirname(file), `the folder of ${what}`);
  const temporary = temporaryFor(file);
  try {
    writeFileSync(temporary, "0", { flag: "wx" });
  } catch (error) {
    throw writeError(error, what, target);
  } finally {
    rmSync(temporary, { force: true });
  }
}

/**
 * Writes a whole file: temporary name in the same folder, fsync, rename. Readers see the old file or the new
 * one. Parent folders are made. A symbolic link stays one; a device or a pipe is written to as it is.
 * @param data text, bytes, or several pieces to be written one after another (no joined copy is made)
 * @param what named in the error, e.g. "the checkpoint"
 * @param durable false skips fsync: for thousands of files that can be made again, where a power cut is
 * caught otherwise
 * @throws ERR_AFFUSE_WRITE; the old file is then untouched and no temporary file stays
 */
export function writeFileAtomic(
  target: string,
  data: string | Uint8Array | readonly Uint8Array[],
  what = "the file",
  durable = true,
): void {
  const special = isSpecial(target);
  const goal = special ? target : linked(target);
  makeFolder(path.dirname(goal), `the folder of ${what}`);
  const temporary = temporaryFor(goal);
  const pieces = typeof data === "string" ? [Buffer.from(data)] : data instanceof Uint8Array ? [data] : data;
  let file = -1;
  try {
    file = special ? openSync(target, "w") : openSync(temporary, "wx");
    for (const piece of pieces) {
      for (let done = 0; done < piece.length; )
        done += writeSync(file, piece, done, Math.min(piece.length - done, 1 << 28));
    }
    if (durable && !special) fsyncSync(file);
    closeSync(file);
    file = -1;
    if (special) return;
    renameSync(temporary, goal);
    if (durable) syncFolder(path.dirname(goal));
  } catch (error) {
    if (file >= 0) closeSync(file);
    if (!special) rmSync(temporary, { force: true });
    throw writeError(error, what, target);
  }
}

/**
 * Removes what killed processes left behind of writeFileAtomic() in a folder; files of processes that still
 * run are kept.
 */
export function removeTemporaries(folder: string): void {
  for (const name of existsSync(folder) ? readdirSync(folder) : []) {
    const pid = /^\..+\.(\d+)\.[0-9a-f]{8}\.tmp$/.exec(name)?.[1];
    if (pid === undefined || isRunning(Number(pid))) continue;
    rmSync(path.join(folder, name), { force: true });
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"; // somebody else's: it runs
  }
}

/** Makes the rename itself durable where the file system allows it; not every one does, which is no error. */
function syncFolder(folder: string): void {
  try {
    const handle = openSync(folder, "r");
    try {
      fsyncSync(handle);
    } finally {
      closeSync(handle);
    }
  } catch {
    // Some file systems refuse fsync on folders; the rename is atomic all the same.
  }
}

/** JSON with a line break at the end, written atomically. */
export function writeJson(target: string, value: unknown, what = "the file"): void {
  writeFileAtomic(target, `${JSON.stringify(value, null, 2)}\n`, what);
}

/** Largest file that is read whole, in bytes. */
export const MAX_FILE_BYTES = 2 ** 31 - 1;

function readError(error: unknown, target: string): AffuseError {
  const code = (error as NodeJS.ErrnoException).code ?? "";
  if (code === "ENOENT" || code === "ENOTDIR") {
    return new AffuseError("ERR_AFFUSE_NOT_FOUND", `${target} does not exist.`, "Check the path.", {
      cause: error,
    });
  }
  return new AffuseError("ERR_AFFUSE_READ", `Could not read ${target}: ${(error as Error).message}.`, "", {
    cause: error,
  });
}

/**
 * Reads a whole file.
 * @throws ERR_AFFUSE_NOT_FOUND, ERR_AFFUSE_READ, ERR_AFFUSE_TOO_LARGE
 */
export function readBytes(target: string, maxBytes = MAX_FILE_BYTES): Uint8Array {
  try {
    const size = statSync(target).size;
    if (size > maxBytes) {
      throw new AffuseError(
        "ERR_AFFUSE_TOO_LARGE",
        `${target} has ${size} bytes, expected at most ${maxBytes}.`,
      );
    }
    return readFileSync(target);
  } catch (error) {
    if (error instanceof AffuseError) throw error;
    throw readError(error, target);
  }
}

/** Reads a UTF-8 text file without its byte order mark. Invalid UTF-8 is ERR_AFFUSE_FORMAT. */
export function readText(target: string, maxBytes = 256 * 1024 * 1024): string {
  const bytes = readBytes(target, maxBytes);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes); // also drops a byte order mark
  } catch (error) {
    throw new AffuseError("ERR_AFFUSE_FORMAT", `${target} is not UTF-8 text.`, "Save it as UTF-8.", {
      cause: error,
    });
  }
}

/** Reads and parses a JSON file. @throws ERR_AFFUSE_FORMAT and readText's errors */
export function readJson(target: string): unknown {
  const text = readText(target);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new AffuseError(
      "ERR_AFFUSE_FORMAT",
      `${target} is not valid JSON: ${(error as Error).message}.`,
      "",
      { cause: error },
    );
  }
}
