/** Finding a data set's clips. A clip is an exact file stem; its sound and its pictures may lie in different files. */
import { readdirSync, statSync } from "node:fs";
import path from "node:path";
import { AffuseError } from "../errors.ts";
import type { ClipFiles } from "../media/source.ts";

const SOUND = new Set([
  "wav",
  "mp3",
  "flac",
  "ogg",
  "opus",
  "m4a",
  "aac",
  "aiff",
  "aif",
  "wma",
  "ac3",
  "amr",
  "au",
]);
const VIDEO = new Set([
  "mp4",
  "mkv",
  "avi",
  "mov",
  "webm",
  "m4v",
  "mpg",
  "mpeg",
  "ts",
  "mts",
  "flv",
  "wmv",
  "asf",
  "3gp",
  "ogv",
  "mxf",
]);
/** Folders that media files are looked for in, beside the data folder itself. */
const MEDIA_FOLDERS = ["clips", "video", "videos"];

type Kind = "sound" | "faces" | "video";

function kindOf(file: string): Kind | undefined {
  const extension = path.extname(file).slice(1).toLowerCase();
  return extension === "npy"
    ? "faces"
    : SOUND.has(extension)
      ? "sound"
      : VIDEO.has(extension)
        ? "video"
        : undefined;
}

/** Files of the wanted kinds in a folder by stem. @throws ERR_AFFUSE_DUPLICATE two files of one kind and stem */
function listKind(folder: string, kinds: readonly Kind[]): Map<string, string> {
  const found = new Map<string, string>();
  let names: string[];
  try {
    names = readdirSync(folder, { withFileTypes: true })
      .filter((e) => !e.isDirectory() && !e.name.startsWith("."))
      .map((e) => e.name);
  } catch {
    return found; // an optional folder that is not there
  }
  for (const name of names.sort()) {
    const kind = kindOf(name);
    if (!kind || !kinds.includes(kind)) continue;
    const stem = name.slice(0, -path.extname(name).length);
    const other = found.get(stem);
    if (other) {
      throw new AffuseError(
        "ERR_AFFUSE_DUPLICATE",
        `${folder}: expected one file per clip, got ${path.basename(other)} and ${name} for the clip ${stem}.`,
        "Remove or rename one of them.",
      );
    }
    found.set(stem, path.join(folder, name));
  }
  return found;
}

/** A single file as a clip: which modalities it can hold is seen when it is opened. */
export function clipOfFile(file: string): ClipFiles {
  const name = path.basename(file, path.extname(file));
  const kind = kindOf(file);
  return {
    name,
    ...(kind === "faces" ? {} : { audio: file }),
    ...(kind === "sound" ? {} : { visual: file }),
  };
}

/**
 * The clips of a data set, sorted by name.
 *
 * `audio/*` (WAV or another sound file) and `faces/*.npy` come first; what a clip lacks there is taken from the media
 * file of its name in `clips/`, `video/` or `videos/`. Without any of these folders, media files in the folder itself.
 * @param data folder, or one file
 * @throws ERR_AFFUSE_NOT_FOUND no such folder or no clip in it, ERR_AFFUSE_DUPLICATE
 */
export function findClips(data: string): ClipFiles[] {
  const info = statSync(data, { throwIfNoEntry: false });
  if (!info) throw new AffuseError("ERR_AFFUSE_NOT_FOUND", `${data} does not exist.`, "Check the path.");
  if (!info.isDirectory()) return [clipOfFile(data)];
  const sound = listKind(path.join(data, "audio"), ["sound"]);
  const faces = listKind(path.join(data, "faces"), ["faces"]);
  const media = new Map<string, string>();
  for (const folder of MEDIA_FOLDERS) {
    for (const [stem, file] of listKind(path.join(data, folder), ["sound", "video"]))
      media.set(stem, media.get(stem) ?? file);
  }
  const loose =
    sound.size + faces.size + media.size === 0
      ? listKind(data, ["sound", "video"])
      : new Map<string, string>();
  const stems = [...new Set([...sound.keys(), ...faces.keys(), ...media.keys(), ...loose.keys()])].sort();
  if (stems.length === 0) {
    throw new AffuseError(
      "ERR_AFFUSE_NOT_FOUND",
      `${data}: expected audio/*.wav and faces/*.npy, or media files here or in clips/, found none.`,
      "Check the path.",
    );
  }
  return stems.map((name) => {
    const file = media.get(name) ?? loose.get(name);
    const own = file === undefined ? undefined : clipOfFile(file);
    const audio = sound.get(name) ?? own?.audio;
    const visual = faces.get(name) ?? own?.visual;
    return { name, ...(audio === undefined ? {} : { audio }), ...(visual === undefined ? {} : { visual }) };
  });
}
