/**
 * NumPy's `.npz`: a zip of `.npy` members. Inflating is bounded before it starts, so a zip bomb costs
 * nothing.
 */
import { unzipSync, zipSync } from "fflate";
import { AffuseError } from "../errors.ts";
import { readBytes, writeFileAtomic } from "./files.ts";
import { encodeNpy, type NpyArray, parseNpy, parseNpyHeader } from "./npy.ts";
import { type Pickled, unpickle } from "./unpickle.ts";

export interface NpzLimits {
  /** Largest sum of the members' sizes after inflating, bytes. Default 1 GiB. */
  maxBytes?: number;
  /** Most members. Default 10 000. */
  maxMembers?: number;
}

/** Deflate cannot do better than 1032:1, so a member that claims more is lying about its size. */
const MAX_RATIO = 1032;

/** Inflates the `.npy` members, by name without the extension. */
function members(bytes: Uint8Array, name: string, limits: NpzLimits): Map<string, Uint8Array> {
  const { maxBytes = 2 ** 30, maxMembers = 10_000 } = limits;
  const tooLarge = (what: string) =>
    new AffuseError("ERR_AFFUSE_TOO_LARGE", `${name}: ${what}.`, "Split the archive if it is genuine.");
  let total = 0;
  let count = 0;
  const sizes = new Map<string, number>();
  let files: Record<string, Uint8Array>;
  try {
    files = unzipSync(bytes, {
      filter: (file) => {
        if (++count > maxMembers) throw tooLarge(`more than ${maxMembers} members`);
        if (!file.name.endsWith(".npy")) return false;
        total += file.originalSize;
        if (total > maxBytes) throw tooLarge(`the members inflate to more than ${maxBytes} bytes`);
        if (file.size > bytes.length || file.originalSize > file.size * MAX_RATIO + 64) {
          throw new AffuseError(
            "ERR_AFFUSE_FORMAT",
            `${name}: member ${file.name} claims an impossible size.`,
          );
        }
        if (sizes.has(file.name))
          throw new AffuseError("ERR_AFFUSE_FORMAT", `${name}: member ${file.name} occurs twice.`);
        sizes.set(file.name, file.originalSize);
        return true;
      },
    });
  } catch (error) {
    if (error instanceof AffuseError) throw error;
    throw new AffuseError(
      "ERR_AFFUSE_FORMAT",
      `${name} is damaged or not a .npz file: ${(error as Error).message}.`,
      "",
      { cause: error },
    );
  }
  const out = new Map<string, Uint8Array>();
  for (const [member, data] of Object.entries(files)) {
    if (data.length !== sizes.get(member))
      throw new AffuseError("ERR_AFFUSE_FORMAT", `${name}: member ${member} is cut off.`);
    out.set(member.slice(0, -4), data);
  }
  if (out.size === 0)
    throw new AffuseError("ERR_AFFUSE_FORMAT", `${name} holds no .npy members, or its directory is damaged.`);
  return out;
}

/**
 * Reads every numeric member. Object arrays are refused.
 * @throws ERR_AFFUSE_FORMAT, ERR_AFFUSE_TOO_LARGE, ERR_AFFUSE_PICKLE, ERR_AFFUSE_DTYPE
 */
export function readNpz(file: string, limits: NpzLimits = {}): Map<string, NpyArray> {
  const out = new Map<string, NpyArray>();
  for (const [name, bytes] of members(readBytes(file), file, limits))
    out.set(name, parseNpy(bytes, `${file}:${name}`));
  return out;
}

/**
 * Reads an archive whose members are pickled dictionaries (MER 2023's `label-6way.npz`) through the allow-
 * list of unpickle.ts. Plain numeric members are left out.
 */
export function readPickledNpz(file: string, limits: NpzLimits = {}): Map<string, Pickled> {
  const out = new Map<string, Pickled>();
  for (const [name, bytes] of members(readBytes(file, 256 * 1024 * 1024), file, limits)) {
    const header = parseNpyHeader(bytes, `${file}:${name}`);
    if (header.descr.endsWith("O")) out.set(name, unpickle(bytes.subarray(header.offset), `${file}:${name}`));
  }
  return out;
}

/** Writes a `.npz` atomically (stored, not compressed, as np.savez does). Same input, same bytes. */
export function writeNpz(file: string, arrays: Record<string, NpyArray>): void {
  const files: Record<string, Uint8Array> = {};
  for (const [name, { shape, data }] of Object.entries(arrays)) files[`${name}.npy`] = encodeNpy(shape, data);
  writeFileAtomic(file, zipSync(files, { level: 0, mtime: "1980-01-01T00:00:00" }), "the arrays");
}
