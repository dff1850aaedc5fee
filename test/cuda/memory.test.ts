// The memory of a device that is kept and given out again: on a system that watches it, and under programs in the emulator,
// which otherwise takes a fresh block each time.
import { copyFileSync } from "node:fs";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { sh } from "../helpers/process.ts";
import { at, compile, cxx, folder } from "./compile.ts";
import { device, ensureDevice } from "./device.ts";

test("blocks go from call to call, stream to stream and into graphs, and back to the system", () => {
  for (const file of ["memory.h", "staging.h"]) copyFileSync(`native/backend/${file}`, at(file));
  copyFileSync("test/cuda/fake_system.h", at("driver.h"));
  const sources = ["test/cuda/memory.cc", "kernels/common/status.cc"];
  compile(cxx, "-std=c++20", "-Wall", "-Wextra", "-I.", `-I${folder}`, ...sources, "-o", at("watched"));
  assert.is(sh(at("watched"), []).output.trim(), "done");
});

test("what would go wrong on a system that keeps no order is seen", () => {
  assert.match(sh(at("watched"), ["deaf"]).output, /what is queued next waits for it/);
  assert.match(sh(at("watched"), ["hasty"]).output, /nothing uses memory that is given out/);
});

(device === "emulated" ? test : test.skip)("programs in memory that is kept", () => {
  ensureDevice();
  const { code, output } = sh(process.execPath, ["--import", "tsx", "test/cuda/program.test.ts"], {
    AFFUSE_CUDA_CACHE: "1",
  });
  assert.is(code, 0, output);
});

test.run();
