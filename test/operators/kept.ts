/**
 * What references give is the same for every suite that asks: with AFFUSE_TEST_SHARED=<folder> (test/run.mjs) the first
 * that computes it leaves it there, under a digest of all that it depends on.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import path from "node:path";
import { deserialize, serialize } from "node:v8";
import type { Inputs } from "./run.ts";

const folder = process.env.AFFUSE_TEST_SHARED && path.join(process.env.AFFUSE_TEST_SHARED, "models");

/** `make()`, or what it gave for the same `about` and `inputs` in another process. */
export function kept<T>(about: unknown[], inputs: Inputs, make: () => T): T {
  if (!folder) return make();
  const digest = createHash("sha256").update(serialize(about));
  for (const [name, { shape, data }] of Object.entries(inputs)) {
    digest.update(JSON.stringify([name, shape, data.constructor.name]));
    digest.update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  }
  const file = path.join(folder, digest.digest("hex"));
  if (existsSync(file)) return deserialize(readFileSync(file)) as T;
  const value = make();
  mkdirSync(folder, { recursive: true });
  writeFileSync(`${file}.${process.pid}`, serialize(value));
  renameSync(`${file}.${process.pid}`, file);
  return value;
}
