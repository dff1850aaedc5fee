/** The device that the suites here run on: "emulated", or what AFFUSE_TEST_DEVICE names ("cuda" where there is a GPU). */
import { spawnSync } from "node:child_process";
import path from "node:path";
import { packageRoot } from "#root";
import type { Call } from "../operators/run.ts";
import { addon } from "../operators/suite.ts";
import { recorded, recording } from "./recorded.ts";

export const device = process.env.AFFUSE_TEST_DEVICE ?? "emulated";

/** Builds the emulated library if it is older than the sources; ends the process with the compiler's words if that fails. */
export function ensureDevice(): void {
  if (device !== "emulated" || process.env.AFFUSE_EMULATED_LIBRARY) return;
  const { status } = spawnSync(process.execPath, ["scripts/build-emulated.mjs", "--if-stale"], {
    cwd: packageRoot,
    stdio: ["ignore", "inherit", "inherit"],
  });
  if (status !== 0) throw new Error(`building for the emulator failed (${path.join("scripts", "build-emulated.mjs")})`);
}

/** addon.call with the device in the place of "cpu". */
const onDevice: Call = (where, ...rest) => addon.call(where === "cpu" ? device : where, ...rest);
export const deviceCall = recording ? recorded(onDevice) : onDevice;

/** Names of the operators that the device's library has kernels for. */
export function ported(): ReadonlySet<string> {
  return new Set(addon.backends().find((backend) => backend.name === device.replace(/:.*/, ""))?.operators);
}
