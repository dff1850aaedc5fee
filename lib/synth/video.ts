/** MP4 copies of a corpus's clips, encoded by FFmpeg (node-av, an optional peer) in a child process of their own. */
import { spawn } from "node:child_process";
import path from "node:path";
import { requireFromRoot } from "#root";
import { makeFolder } from "../data/files.ts";
import { AffuseError } from "../errors.ts";
import { nodeCommand } from "../workers/entry.ts";
import { facesPath, wavPath } from "./clip.ts";

export function videoPath(dir: string, name: string): string {
  return path.join(dir, "video", `${name}.mp4`);
}

/** What the child is sent for one clip; `null` ends it. */
export interface VideoJob {
  faces: string;
  wav: string;
  mp4: string;
}

/** What it answers. */
export type VideoAnswer = { done: string } | { error: { code: string; message: string } };

/**
 * Encodes clips of a corpus as MP4 (H.264 and AAC, 192×192 grey, 12.5 frames a second); files that exist are kept. The
 * bits depend on FFmpeg's version.
 * @param onProgress called with the number of clips done
 * @throws ERR_AFFUSE_NO_ENCODER without node-av, ERR_AFFUSE_ENCODE
 */
export async function encodeVideos(
  dir: string,
  names: readonly string[],
  onProgress?: (done: number) => void,
): Promise<void> {
  if (names.length === 0) return;
  try {
    requireFromRoot.resolve("node-av");
  } catch (error) {
    throw new AffuseError(
      "ERR_AFFUSE_NO_ENCODER",
      "Writing MP4 files needs the package node-av, which is not installed.",
      "Run: npm install node-av",
      { cause: error },
    );
  }
  makeFolder(path.join(dir, "video"));
  const [program, ...args] = nodeCommand("synth/video-child") as [string, ...string[]];
  const child = spawn(program, args, { stdio: ["ignore", "ignore", "inherit", "ipc"] });
  try {
    await new Promise<void>((resolve, reject) => {
      let done = 0;
      const next = (): void => {
        const name = names[done];
        if (name === undefined) resolve();
        else child.send({ faces: facesPath(dir, name), wav: wavPath(dir, name), mp4: videoPath(dir, name) } satisfies VideoJob);
      };
      child.on("message", (answer: VideoAnswer) => {
        if ("error" in answer) {
          reject(new AffuseError(answer.error.code, answer.error.message));
          return;
        }
        done++; // outside the call: its arguments are not evaluated when nobody listens
        onProgress?.(done);
        next();
      });
      child.on("error", reject);
      child.on("exit", (code, signal) => {
        reject(new AffuseError("ERR_AFFUSE_ENCODE", `The encoding process ended early (${signal ?? `code ${code}`}).`));
      });
      next();
    });
  } finally {
    child.removeAllListeners("exit");
    if (child.connected) child.disconnect();
    child.kill();
  }
}
