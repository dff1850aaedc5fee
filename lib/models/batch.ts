import { AffuseError } from "../errors.ts";
import type { Batch, StreamSpec } from "./types.ts";

/**
 * Checks a batch against a model's streams: types and sizes here; lengths and labels out of range are the operators'
 * own errors (ERR_AFFUSE_LENGTH, ERR_AFFUSE_LABEL).
 * @throws AffuseError ERR_AFFUSE_BATCH
 */
export function checkBatch(batch: Batch, streams: readonly StreamSpec[]): void {
  const fail = (expected: string, got: string) => {
    throw new AffuseError("ERR_AFFUSE_BATCH", `expected ${expected}, got ${got}.`);
  };
  const { size } = batch;
  if (!Number.isInteger(size) || size < 1) fail("a batch size of at least 1", String(size));
  const check = (
    what: string,
    data: unknown,
    type: Float32ArrayConstructor | Int32ArrayConstructor,
    length: number,
  ) => {
    if (data instanceof type && data.length === length) return;
    const got = ArrayBuffer.isView(data)
      ? `${data.constructor.name} of ${(data as Float32Array).length}`
      : String(data);
    fail(`${what} as ${type.name} of ${length} elements`, got);
  };
  for (const { name, dim } of streams) {
    const stream = batch.streams[name];
    if (!stream) {
      fail(`stream "${name}" in the batch`, Object.keys(batch.streams).join(", ") || "no streams");
      continue;
    }
    if (!Number.isInteger(stream.T) || stream.T < 0)
      fail(`T of stream "${name}" as a whole number`, String(stream.T));
    check(
      `data of stream "${name}" [${size},${stream.T},${dim}]`,
      stream.data,
      Float32Array,
      size * stream.T * dim,
    );
    check(`lengths of stream "${name}"`, stream.lengths, Int32Array, size);
    check(`presence of stream "${name}"`, stream.presence, Float32Array, size);
  }
  if (batch.labels) check("labels", batch.labels, Int32Array, size);
  if (batch.valence) check("valence", batch.valence, Float32Array, size);
}
