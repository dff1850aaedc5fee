/** The exact surface of the compiled addon (native/addon). Thin: everything friendly is built on top, in lib/kernels and lib/graph. */

export type DType = "f32" | "f64" | "i32";
export type TypedArray = Float32Array | Float64Array | Int32Array;
export type Device = "cpu" | "reference" | (string & {});

/** Shape and element type of a row-major, contiguous tensor. */
export interface TensorDesc {
  dtype: DType;
  shape: readonly number[];
}

/** A tensor on the host: `data.length` equals the product of `shape`, `data`'s class follows from `dtype`. */
export interface HostTensor extends TensorDesc {
  data: TypedArray;
}

export type AttributeValue = number | bigint | boolean | string;
export type Attributes = Readonly<Record<string, AttributeValue>>;

export interface TensorRule {
  name: string;
  /** For people: "[B,T,D]". */
  shape: string;
  dtype: DType;
  /** Input: may be absent. Output: made only when asked for. */
  optional: boolean;
  doc: string;
}

export interface AttributeRule {
  name: string;
  kind: "real" | "integer" | "boolean" | "choice" | "seed";
  default: AttributeValue;
  low: number;
  high: number;
  choices: string[];
  doc: string;
}

/** One operator as the native registry describes it. */
export interface OperatorInfo {
  name: string;
  summary: string;
  inputs: TensorRule[];
  outputs: TensorRule[];
  attributes: AttributeRule[];
  /** Name of the backward operator, or null. */
  backward: string | null;
  /** Formulas in the rules' shape letters. */
  flops: string;
  bytes: string;
}

export interface Backend {
  name: string;
  available: boolean;
  code: string | null;
  reason: string | null;
  /** Names of the operators that have kernels there; empty where it is not available. */
  operators: string[];
}

/** Where a program's value lives: `buffer` is an index into ProgramDesc.buffers, or -1 for the program's own arena. */
export interface ProgramValue extends TensorDesc {
  buffer: number;
  /** Byte offset, a multiple of 64. */
  offset: number;
  /** In the arena: index of the fed value whose bytes these are (itself, or a view of it). Such a feed can be lent. */
  feed?: number;
}

export interface Instruction {
  op: string;
  /** Indexes into `values` in the operator's order, -1 for an absent optional tensor. */
  inputs: number[];
  outputs: number[];
  attributes: Attributes;
  /**
   * Attributes that take their value from run()'s scalars instead: attribute name → scalar index. A value that would make
   * outputs of other shapes fails the run with ERR_AFFUSE_SCALAR.
   */
  scalars?: Readonly<Record<string, number>>;
}

export interface ProgramDesc {
  device: Device;
  arenaBytes: number;
  buffers: NativeBuffer[];
  values: ProgramValue[];
  instructions: Instruction[];
  /** Values that run() fills from its feeds (copied before run() returns), in order. */
  feeds: number[];
  /** Values that run() returns copies of, in order. */
  fetches: number[];
  /** How many scalars run() takes. */
  scalars: number;
}

/** Memory owned by the runtime: parameters, gradients, optimiser state. Shared between programs. */
export interface NativeBuffer {
  readonly bytes: number;
  /**
   * Copies out of the buffer, starting at a byte offset, until `target` is full.
   * @throws ERR_AFFUSE_BUSY while a run that uses the buffer is outstanding; ERR_AFFUSE_RANGE, ERR_AFFUSE_DISPOSED
   */
  read(offset: number, target: TypedArray): void;
  /** Copies `source` into the buffer at a byte offset. Throws as read(). */
  write(offset: number, source: TypedArray): void;
  /** Frees the memory once no program uses it; later calls throw ERR_AFFUSE_DISPOSED. */
  dispose(): void;
}

export interface NativeProgram {
  /**
   * Runs the whole program once on the runtime's own threads. Feeds are copied before this returns. Runs of one
   * program, and of programs that share buffers, execute one after another in call order.
   * @param lend float32 feeds made by allocate() are read in place instead: do not write to them until the promise settles
   */
  run(feeds: TypedArray[], scalars: number[], lend?: boolean): Promise<TypedArray[]>;
  dispose(): void;
}

/**
 * What kernels/roof can measure: multiply-adds in registers by type (`fma`), reading from a level of the memory hierarchy
 * (`read`), and, through DRAM, copying with ordinary and with non-temporal stores (`copy`, `copy-nt`; bytes = read + written,
 * the reading that ordinary stores cause is not counted) and updating in place (`update`: y += c·x, 12 bytes an element).
 * Beside these, in FLOP/s, what a kernel of some shape can reach at most: the register tile of the matrix core on operands that
 * lie in L1 (`tile`), and reading with sixteen multiply-adds for every register read (`multiply16`: weights times 16 rows). And
 * multiply-adds with an empty instruction after each (`issue`): as quick as `fma` on a core that nothing else uses.
 */
export type RoofKind =
  | "fma.f32"
  | "fma.bf16"
  | "read.l1"
  | "read.l2"
  | "read.l3"
  | "read.dram"
  | "copy.dram"
  | "copy-nt.dram"
  | "update.dram"
  | "tile.l1"
  | "multiply16.dram"
  | "issue.f32";

/** What programs did between startProfile() and stopProfile(). Times are nanoseconds since startProfile(). */
export interface NativeProfile {
  /** Each program's instructions. `shapes`: of the inputs, "x[32,200,1024] W[256,1024]". `inPlace`: an output is an input. */
  programs: { op: string; shapes: string; inPlace: boolean }[][];
  /** Finished runs in the order in which they ended. */
  runs: {
    /** Index into `programs`. */
    program: number;
    /**
     * Six numbers per span: step, begin, end, FLOPs, bytes read, bytes written. Steps from 0 are instructions, whose FLOPs and
     * bytes count the valid frames only; −1 is the whole run, −2 copying feeds, −3 copying fetches, −4 packing weights.
     */
    spans: Float64Array;
    /** Four numbers per task of a parallel region: instruction, worker (0 runs the program), begin, end. */
    tasks: Float64Array;
  }[];
}

export interface NativeAddon {
  readonly version: string;
  operators(): OperatorInfo[];
  backends(): Backend[];
  /** Chosen and possible instruction sets, thread count, cache sizes in bytes. */
  cpu(): { isa: string; levels: string[]; threads: number; caches: { l1: number; l2: number; l3: number } };
  /** A zeroed array in memory that run() can read in place (`lend`). */
  allocate(length: number): Float32Array;
  /** Threads used by programs and operator calls that do not say; at least 1. */
  setThreads(count: number): void;
  /**
   * Output descriptions, optional outputs included; null for an output that this call does not have (the gradient of an
   * absent input). Throws the operator's coded error.
   */
  infer(op: string, inputs: (TensorDesc | null)[], attributes: Attributes): (TensorDesc | null)[];
  cost(op: string, inputs: (TensorDesc | null)[], attributes: Attributes): { flops: number; bytes: number };
  /**
   * Runs one operator on the calling thread's time, zero-copy. `outputs[i]`: a tensor to write into (a typed array of the right
   * length), true to allocate one, false/null for not wanted.
   */
  call(
    device: Device,
    op: string,
    inputs: (HostTensor | null)[],
    attributes: Attributes,
    outputs: (TypedArray | boolean | null)[],
    threads?: number,
  ): (HostTensor | null)[];
  /** The same on the runtime's threads; inputs are copied before this returns, outputs are always fresh. */
  callAsync(
    device: Device,
    op: string,
    inputs: (HostTensor | null)[],
    attributes: Attributes,
    outputs: (boolean | null)[],
    threads?: number,
  ): Promise<(HostTensor | null)[]>;
  createBuffer(bytes: number): NativeBuffer;
  createProgram(desc: ProgramDesc): NativeProgram;
  /**
   * One ceiling of this machine, measured now on the calling thread's time (native/runtime/roof.h).
   * @param threads default: as operator calls @param seconds about how long, default 0.02 @param isa one of cpu().levels
   * @returns FLOP/s (fma.*) or bytes/s (the rest): the best slice. 0 where the level lacks the instruction or the size of
   *   the cache is unknown
   * @throws ERR_AFFUSE_ROOF for an unknown kind, ERR_AFFUSE_CPU for a level that cannot run here, ERR_AFFUSE_MEMORY
   */
  roof(kind: RoofKind, threads?: number, seconds?: number, isa?: string): number;
  /**
   * Times every program that this environment runs until stopProfile(); with `tasks` also every task of its parallel regions.
   * @throws ERR_AFFUSE_BUSY while a profile is being made
   */
  startProfile(tasks?: boolean): void;
  /** Ends the profile and returns it. Throws ERR_AFFUSE_BUSY while a run of it is outstanding, ERR_AFFUSE_PROFILE without one. */
  stopProfile(): NativeProfile;
}
