import { AffuseError } from "../errors.ts";
import type { NativeBuffer, NativeProgram, TypedArray } from "../native/addon.ts";
import type { ProgramPlan } from "./compile.ts";
import { elementCount, type Value } from "./value.ts";

export interface RunOptions {
  /** By input name; exactly the program's inputs. */
  feeds?: Readonly<Record<string, TypedArray>>;
  /** By scalar name; exactly the program's scalars. */
  scalars?: Readonly<Record<string, number>>;
  /** Feeds made by the addon's allocate() are read in place: the caller leaves them alone until the run is done. */
  lend?: boolean;
}

/** A compiled graph. One run is one native call on the runtime's own threads. */
export class Program {
  readonly plan: ProgramPlan;
  #native: NativeProgram | null;
  #constants: NativeBuffer | null;
  readonly #feeds: [string, Value][];

  constructor(native: NativeProgram, plan: ProgramPlan, constants: NativeBuffer | null) {
    this.#native = native;
    this.plan = plan;
    this.#constants = constants;
    this.#feeds = plan.feeds.map((value) => [value.source.kind === "input" ? value.source.name : "", value]);
  }

  /** Names of the inputs that every run must feed. */
  get feedNames(): string[] {
    return this.#feeds.map(([name]) => name);
  }

  /** Memory of the program alone, without the shared buffers. */
  get arenaBytes(): number {
    return this.plan.arenaBytes;
  }

  /**
   * Runs once. Feeds are copied before this returns unless they are lent; runs that share buffers execute in call order.
   * @returns copies of the fetched values, by name
   * @throws AffuseError ERR_AFFUSE_FEED, ERR_AFFUSE_SCALAR, ERR_AFFUSE_DISPOSED, or an operator's own data check
   */
  async run<Name extends string = string>(options: RunOptions = {}): Promise<Record<Name, TypedArray>> {
    if (!this.#native)
      throw new AffuseError("ERR_AFFUSE_DISPOSED", "expected a live program, got a disposed one.");
    const feeds = options.feeds ?? {};
    const ordered = this.#feeds.map(([name, value]) => checkFeed(value, name, feeds[name]));
    checkNames("ERR_AFFUSE_FEED", "feeds", Object.keys(feeds), this.feedNames);
    const scalars = options.scalars ?? {};
    checkNames("ERR_AFFUSE_SCALAR", "scalars", Object.keys(scalars), this.plan.scalars);
    const values = this.plan.scalars.map((name) => {
      const value = scalars[name];
      if (typeof value === "number" && Number.isFinite(value)) return value;
      throw new AffuseError(
        "ERR_AFFUSE_SCALAR",
        `expected a finite number for scalar "${name}", got ${String(value)}.`,
      );
    });
    const results = await this.#native.run(ordered, values, options.lend ?? false);
    return Object.fromEntries(
      this.plan.fetches.map(([name], i) => [name, results[i] as TypedArray]),
    ) as Record<Name, TypedArray>;
  }

  /** Frees the arena once running calls are done. */
  dispose(): void {
    this.#native?.dispose();
    this.#constants?.dispose();
    this.#native = null;
    this.#constants = null;
  }
}

function checkNames(code: string, what: string, given: readonly string[], known: readonly string[]): void {
  const extra = given.filter((name) => !known.includes(name));
  if (extra.length === 0) return;
  throw new AffuseError(
    code,
    `expected ${what} ${known.join(", ") || "(none)"}, got also ${extra.join(", ")}.`,
  );
}

/** @throws AffuseError ERR_AFFUSE_FEED unless the data fits the value's type and size */
function checkFeed(value: Value, name: string, data: unknown): TypedArray {
  const expected = value.dtype === "f32" ? Float32Array : value.dtype === "i32" ? Int32Array : Float64Array;
  const length = elementCount(value);
  if (data instanceof expected && data.length === length) return data;
  let got: string = data === undefined ? "nothing" : typeof data;
  if (ArrayBuffer.isView(data)) got = `${data.constructor.name} of ${(data as TypedArray).length} elements`;
  throw new AffuseError(
    "ERR_AFFUSE_FEED",
    `expected feed "${name}" as ${expected.name} of ${length} elements ([${value.shape.join(",")}]), got ${got}.`,
  );
}
