/** A clip's sound and pictures, wherever they lie: WAV and `.npy` are read directly, everything else is decoded. */
import { open } from "node:fs/promises";
import { AffuseError, isAffuseError } from "../errors.ts";
import { type DecodeOptions, decodeAudio, decodeFrames, type PictureRequest } from "./decode.ts";
import { readFaces, readFacesHeader } from "./faces.ts";
import type { FrameBlock } from "./image.ts";
import { type Audio, readWav } from "./wav.ts";

/** The files of one clip. */
export interface ClipFiles {
  /** Exact file stem. */
  name: string;
  /** Sound: WAV or any media file. */
  audio?: string;
  /** Pictures: `.npy` or any media file. */
  visual?: string;
}

/** Why a modality of a clip is not there; not an error. */
export interface Missing {
  missing: string;
}

export interface Pictures {
  blocks: AsyncIterable<FrameBlock>;
}

/** What a file is, by its first bytes. @throws ERR_AFFUSE_NOT_FOUND, ERR_AFFUSE_DECODE for an empty file */
export async function sniff(file: string): Promise<"wav" | "npy" | "media"> {
  const handle = await open(file, "r").catch((error: NodeJS.ErrnoException) => {
    const what = error.code === "ENOENT" ? "does not exist" : `cannot be opened (${error.code})`;
    throw new AffuseError("ERR_AFFUSE_NOT_FOUND", `${file} ${what}.`, "Check the path.", { cause: error });
  });
  try {
    if (!(await handle.stat()).isFile())
      throw new AffuseError("ERR_AFFUSE_NOT_FOUND", `${file} is not a file.`);
    const head = Buffer.alloc(12);
    const { bytesRead } = await handle.read(head, 0, 12, 0);
    if (bytesRead === 0) throw new AffuseError("ERR_AFFUSE_DECODE", `${file} is empty.`);
    const text = head.toString("latin1", 0, bytesRead);
    if (text.startsWith("\x93NUMPY")) return "npy";
    return text.startsWith("RIFF") && text.slice(8) === "WAVE" ? "wav" : "media";
  } finally {
    await handle.close();
  }
}

/**
 * A clip's sound, at its own rate (WAV) or at `sampleRate` (decoded).
 * @throws ERR_AFFUSE_FORMAT, ERR_AFFUSE_DECODE, ERR_AFFUSE_NOT_FOUND, ERR_AFFUSE_TOO_LARGE, ERR_AFFUSE_NO_DECODER
 */
export async function openSound(
  clip: ClipFiles,
  sampleRate: number,
  options: DecodeOptions = {},
): Promise<Audio | Missing> {
  if (clip.audio === undefined) return { missing: "no sound file" };
  const kind = await sniff(clip.audio);
  if (kind === "npy") return { missing: "no sound: the file holds face frames" };
  let audio: Audio | null;
  try {
    audio = kind === "wav" ? await readWav(clip.audio) : await decodeAudio(clip.audio, sampleRate, options);
  } catch (error) {
    // Compressed samples inside a WAV file: the decoder knows them.
    if (!isAffuseError(error) || error.code !== "ERR_AFFUSE_CODEC") throw error;
    audio = await decodeAudio(clip.audio, sampleRate, options);
  }
  if (audio === null) return { missing: "no audio stream" };
  return audio.samples.length === 0 ? { missing: "the sound has no samples" } : audio;
}

/** A clip's pictures; a `.npy` is yielded as it is, a video already fitted. Errors as openSound, also while iterating. */
export async function openPictures(
  clip: ClipFiles,
  request: PictureRequest,
  options: DecodeOptions = {},
): Promise<Pictures | Missing> {
  if (clip.visual === undefined) return { missing: "no picture file" };
  const kind = await sniff(clip.visual);
  if (kind === "wav") return { missing: "no pictures: the file holds sound" };
  if (kind === "npy") {
    if (readFacesHeader(clip.visual).frames === 0) return { missing: "the file has no frames" };
    return { blocks: readFaces(clip.visual, request.perBlock) };
  }
  return (await decodeFrames(clip.visual, request, options)) ?? { missing: "no video stream" };
}
