/** stand_in.cc as the library of device "cuda", and scripts that run on it in a process of their own. */
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import path from "node:path";
import { packageRoot } from "#root";
import { addon } from "../operators/suite.ts";
import { at, compile, cxx } from "./compile.ts";

export type Environment = Record<string, string | undefined>;

export const standIn = at("stand_in.so");
{
  const version = `-DSTAND_IN_VERSION="${addon.version}"`;
  const flags = ["-std=c++20", "-O1", "-shared", "-fPIC", "-fvisibility=hidden", "-I.", version];
  compile(cxx, ...flags, "test/cuda/stand_in.cc", "kernels/common/status.cc", "-o", standIn);
}

/** Twice three numbers by call and by program, on the device and then on the CPU, in a process of its own. */
export const SCRIPT = `
import { loadAddon } from ${JSON.stringify(path.join(packageRoot, "lib/native/load.ts"))};
const addon = loadAddon();
const x = { dtype: "f32", shape: [3], data: Float32Array.of(1, 2, 3) };
const value = { dtype: "f32", shape: [3], buffer: -1 };
const desc = (device) => ({
  device, arenaBytes: 512, buffers: [], values: [{ ...value, offset: 0, feed: 0 }, { ...value, offset: 256 }],
  instructions: [{ op: "scale", inputs: [0], outputs: [1], attributes: { factor: 2 } }], feeds: [0], fetches: [1], scalars: 0,
});
const tried = async (work) => {
  try {
    return [...(await work())].join();
  } catch (error) {
    return error.code;
  }
};
const results = [];
for (const device of ["cuda", "cpu", "cuda"]) {
  results.push(await tried(() => addon.call(device, "scale", [x], { factor: 2 }, [true])[0].data));
  results.push(await tried(async () => (await addon.createProgram(desc(device)).run([x.data], []))[0]));
}
console.log(JSON.stringify(results));
`;

/** What a script that follows SCRIPT's first lines prints: its own lines, and what the library says, in order. */
export function told(script: string, env: Environment): { own: string[]; library: string[] } {
  writeFileSync(at("steps.mts"), SCRIPT.replace(/const results = \[\];[\s\S]*/, script));
  const output = execFileSync(process.execPath, ["--import", "tsx", at("steps.mts")], {
    cwd: packageRoot,
    encoding: "utf8",
    env: { ...process.env, AFFUSE_CUDA_LIBRARY: standIn, ...env },
  });
  const lines = output.trim().split("\n");
  const library = lines.filter((line) => /^(fed|queued|comput)/.test(line));
  return { own: lines.filter((line) => !library.includes(line)), library };
}
