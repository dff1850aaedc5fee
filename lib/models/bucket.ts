/**
 * Rounds a sequence length up to its bucket, so that few different programs are compiled: multiples of 8 up to 64,
 * then eight buckets per doubling (at most 14 % padding). 0 and 1 share the bucket of 8.
 * @param length longest sequence of a batch, >= 0
 */
export function bucket(length: number): number {
  let unit = 8;
  while (unit * 16 < length) unit *= 2;
  return Math.max(unit, Math.ceil(length / unit) * unit);
}
