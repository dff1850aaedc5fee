// The memory of a device that is kept and given out again: on a system that watches it, and under programs in the emulator,
// which otherwise takes a fresh block each time.
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageRoot } from "#root";
import { sh } from "../helpers/process.ts";
import { device, ensureDevice } from "./device.ts";
import { at, compile, cxx, folder } from "./stand-in.ts";

const flags = ["-std=c++20", "-O1", "-g", "-Wall", "-Wextra", "-fsanitize=undefined", "-fno-sanitize-recover", "-I."];

/** Builds memory.cc beside the two headers, `change` made to one of them, and says how it ends. */
function ends(change?: [file: string, from: string, to: string]): string {
  for (const file of ["memory.h", "staging.h"]) {
    const source = readFileSync(path.join(packageRoot, "native/backend", file), "utf8");
    if (change?.[0] === file) assert.ok(source.includes(change[1]), change[1]);
    writeFileSync(at(file), change?.[0] === file ? source.replace(change[1], change[2]) : source);
  }
  copyFileSync(path.join(packageRoot, "test/cuda/fake_system.h"), at("driver.h"));
  const sources = ["test/cuda/memory.cc", "kernels/common/status.cc"];
  compile(cxx, ...flags, `-I${folder}`, ...sources, "-o", at("memory"));
  return sh(at("memory"), []).output.trim();
}

test("blocks go from call to call, stream to stream and into graphs, and back to the system", () => {
  assert.is(ends(), "done");
});

test("what would go wrong is seen", () => {
  const waits = "if (status.ok()) driver::follow(stream, other.last, status);";
  assert.match(ends(["memory.h", waits, ""]), /what is queued next waits for it|another stream waits/);
  const kept = "kept->second.marked && driver::passed(kept->second.last)";
  assert.match(ends(["memory.h", kept, "kept->second.marked"]), /nothing uses memory that is given out|no block as idle/);
});

(device === "emulated" ? test : test.skip)("programs in memory that is kept", () => {
  ensureDevice();
  const { code, output } = sh(process.execPath, ["--import", "tsx", "test/cuda/program.test.ts"], {
    AFFUSE_EMULATOR_CACHES: "1",
  });
  assert.is(code, 0, output);
});

test.run();
