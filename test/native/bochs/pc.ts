/**
 * A PC in the emulator Bochs that runs static Linux programs on a processor that this machine is not: a Linux kernel and a
 * RAM disk with the programs and their files, without BIOS or boot loader (boot.S, init.c). AFFUSE_BOCHS names the
 * emulator (default: bochs), AFFUSE_KERNEL the kernel (default: the last of /boot).
 */
import { spawn, spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { packageRoot } from "#root";

/** A program of the RAM disk with its arguments, and its environment. */
export interface Command {
  args: string[];
  env?: Record<string, string>;
}

export interface Ran {
  code: number;
  output: string;
}

/** Addresses of what boot.S loads; it knows the first and the third. */
const PARAMETERS = 0x10000;
const COMMAND_LINE = 0x11000;
const KERNEL = 0x1000000;
const RAM_DISK = 0x8000000;

const bochs = () => process.env.AFFUSE_BOCHS || "bochs";

function kernel(): string {
  if (process.env.AFFUSE_KERNEL) return process.env.AFFUSE_KERNEL;
  const names = existsSync("/boot") ? readdirSync("/boot") : [];
  return path.join("/boot", names.filter((name) => name.startsWith("vmlinuz")).sort().at(-1) ?? "vmlinuz");
}

/** Processors that the emulator knows; none where it is missing. */
export function models(): string[] {
  const { error, output } = spawnSync(bochs(), ["--help", "cpu"], { encoding: "utf8", timeout: 20_000 });
  return error ? [] : output.join(" ").split(/\s+/);
}

/** What is missing for such a PC, in words; null: nothing. */
export function missing(): string | null {
  if (models().length === 0) return `no ${bochs()} on this machine`;
  if (!existsSync(kernel())) return `there is no ${kernel()}; AFFUSE_KERNEL names a Linux kernel`;
  return null;
}

/** The RAM disk: a cpio archive ("newc") of files that may all be executed. */
function ramDisk(files: Record<string, string | Buffer>): Buffer {
  const parts: Buffer[] = [];
  const put = (part: Buffer) => parts.push(part, Buffer.alloc(-part.length & 3));
  const entry = (name: string, mode: number, content: Buffer = Buffer.alloc(0), device = [0, 0]) => {
    const fields = [parts.length, mode, 0, 0, 1, 0, content.length, 0, 0, ...device, name.length + 1, 0];
    put(Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}${name}\0`));
    put(content);
  };
  entry("dev", 0o040755);
  entry("dev/console", 0o020600, undefined, [5, 1]);
  for (const [name, content] of Object.entries(files))
    entry(name, 0o100755, typeof content === "string" ? readFileSync(content) : content);
  entry("TRAILER!!!", 0);
  return Buffer.concat(parts);
}

/** Parameters and command line of the kernel, from PARAMETERS on. */
function parameters(image: Buffer, diskBytes: number, megabytes: number): Buffer {
  const page = Buffer.alloc(COMMAND_LINE - PARAMETERS + 4096);
  image.copy(page, 0x1f1, 0x1f1, 0x202 + image.readUInt8(0x201));
  page[0x210] = 0xff; // a boot loader without a number
  page.writeUInt32LE(KERNEL, 0x214);
  page.writeUInt32LE(RAM_DISK, 0x218);
  page.writeUInt32LE(diskBytes, 0x21c);
  page.writeUInt32LE(COMMAND_LINE, 0x228);
  const memory: [number, number][] = [
    [0, 0x9f000],
    [0x100000, megabytes * 2 ** 20],
  ];
  page[0x1e8] = memory.length;
  memory.forEach(([from, to], i) => {
    page.writeBigUInt64LE(BigInt(from), 0x2d0 + 20 * i);
    page.writeBigUInt64LE(BigInt(to - from), 0x2d8 + 20 * i);
    page.writeUInt32LE(1, 0x2e0 + 20 * i);
  });
  const words = [
    // ramfs: the other kind of root ends at half of the memory, and files would be cut off without a word.
    "console=ttyS0 quiet rootfstype=ramfs rdinit=/init panic=-1",
    // Cost only time here: hardware that is not there, defence, self-tests, measuring the clock (of which Bochs tells lies).
    "acpi=off noapic nolapic pci=off nokaslr mitigations=off cryptomgr.notests idle=halt",
    "tsc=reliable tsc_early_khz=1000000 lpj=1000000 random.trust_cpu=on no5lvl",
    // xsavec and xsaves, whose sizes Bochs states such that the kernel turns AVX off; umip, pku, la57, rdpid and fsrm, with
    // which Bochs 3.0 stays in a loop of page faults.
    "clearcpuid=321,323,514,515,528,534,580",
  ];
  page.write(`${words.join(" ")}\0`, COMMAND_LINE - PARAMETERS, "latin1");
  return page;
}

const SECTOR = 512;
const TRACK = 63 * 16 * SECTOR;

/** The disk: a list of its parts (first sector, sectors, address), then the parts. Returns its size in cylinders. */
function writeDisk(to: string, parts: [address: number, content: Buffer][]): number {
  const file = openSync(to, "w");
  const list = new Uint32Array(SECTOR / 4);
  let at = 1;
  parts.forEach(([address, content], i) => {
    const sectors = Math.ceil(content.length / SECTOR);
    list.set([at, sectors, address], 3 * i);
    writeAll(file, content, at * SECTOR);
    at += sectors;
  });
  writeAll(file, Buffer.from(list.buffer), 0);
  const cylinders = Math.ceil((at * SECTOR) / TRACK);
  ftruncateSync(file, cylinders * TRACK);
  closeSync(file);
  return cylinders;
}

function writeAll(file: number, content: Buffer, from: number): void {
  for (let at = 0; at < content.length; ) at += writeSync(file, content, at, content.length - at, from + at);
}

function must(command: string, args: string[]): void {
  const { status, stderr, error } = spawnSync(command, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")}: ${error?.message ?? stderr}`);
}

/** Runs the commands one after another on a processor of this model; what they printed and how they ended. */
export async function emulate(
  model: string,
  files: Record<string, string>,
  commands: Command[],
  seconds: number,
): Promise<Ran[]> {
  const folder = mkdtempSync(path.join(tmpdir(), "affuse-bochs-"));
  try {
    const at = (name: string) => path.join(folder, name);
    const source = (name: string) => path.join(packageRoot, "test/native/bochs", name);
    must("cc", ["-O1", "-Wall", "-static", source("init.c"), "-o", at("init")]);
    must("cc", ["-m32", "-c", source("boot.S"), "-o", at("boot.o")]);
    must("objcopy", ["-O", "binary", "-j", ".text", at("boot.o"), at("rom")]);
    // Bochs wants one; nobody calls it. 55 aa, its length, and the bytes add up to 0.
    writeFileSync(at("vgarom"), Buffer.concat([Buffer.from([0x55, 0xaa, 1]), Buffer.alloc(509)]));
    const lines = commands.map(({ args, env = {} }) =>
      [...Object.entries(env).map(([name, value]) => `${name}=${value}`), ...args].join("\t"),
    );
    const disk = ramDisk({ init: at("init"), commands: Buffer.from(`${lines.join("\n")}\n`), ...files });
    // The kernel unpacks the RAM disk beside it.
    const megabytes = Math.ceil((RAM_DISK + 2 * disk.length) / 2 ** 28) * 256 + 256;
    const image = readFileSync(kernel());
    const cylinders = writeDisk(at("disk"), [
      [PARAMETERS, parameters(image, disk.length, megabytes)],
      [KERNEL, image.subarray(((image[0x1f1] || 4) + 1) * SECTOR)],
      [RAM_DISK, disk],
    ]);
    const settings = [
      "config_interface: textconfig",
      "display_library: term",
      "plugin_ctrl: speaker=0",
      `cpu: model=${model}, count=1, ips=100000000, reset_on_triple_fault=0`,
      "clock: sync=none, time0=1600000000",
      `megs: ${megabytes}`,
      `romimage: file=${at("rom")}`,
      `vgaromimage: file=${at("vgarom")}`,
      "ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14",
      `ata0-master: type=disk, path=${at("disk")}, mode=flat, cylinders=${cylinders}, heads=16, spt=63`,
      "port_e9_hack: enabled=1",
      `com1: enabled=1, mode=file, dev=${at("serial")}`,
      `log: ${at("log")}`,
      ...["panic: action=fatal", "error: action=ignore", "info: action=ignore", "debug: action=ignore"],
    ];
    writeFileSync(at("bochsrc"), `${settings.join("\n")}\n`);
    writeFileSync(at("debugger"), "c\n"); // Debian's has one, and stops in it
    const printed = await run(["-q", "-f", at("bochsrc"), "-rc", at("debugger")], seconds);
    const last = (name: string) => (existsSync(at(name)) ? readFileSync(at(name), "latin1").slice(-2000) : "");
    return commands.map(({ args }, i) => {
      const found = printed.match(new RegExp(`\\x01begin ${i}\\n([^]*?)\\n\\x01end ${i} (\\d+)\\n`));
      if (found) return { code: Number(found[2]), output: found[1] as string };
      throw new Error(`${args[0]} did not end within ${seconds} s: ${printed.slice(-2000)}${last("serial")}${last("log")}`);
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** What the emulator printed. `timeout` also ends it when this process was killed meanwhile. */
function run(args: string[], seconds: number): Promise<string> {
  return new Promise((resolve) => {
    const child = spawn("timeout", ["--foreground", "-s", "KILL", String(seconds), bochs(), ...args], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, TERM: "vt100" },
    });
    let printed = "";
    child.stdout.setEncoding("latin1").on("data", (part) => {
      printed += part;
    });
    let said = "";
    child.stderr.setEncoding("latin1").on("data", (part) => {
      said = (said + part).slice(-2000);
    });
    child.on("error", (error) => resolve(error.message));
    child.on("close", () => resolve(printed.includes("\x01begin") ? printed : printed + said));
  });
}
