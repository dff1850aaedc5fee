// bf16 with more rows than operands are read unrounded for: every kernel whose operands are rounded beforehand. As if the device
// had sixteen multiprocessors: some are chosen only where large tiles would leave it idle.
import { test } from "uvu";
import { agree, agreeFbp, whole } from "./agree.ts";
import { device, ensureDevice } from "./device.ts";

ensureDevice();
process.env.AFFUSE_CUDA_PROCESSORS = "16"; // read when the device is opened

/** Left out where the GPU suite is tried on the emulator: these run here anyway. */
const brief = device === "emulated" && process.env.AFFUSE_TEST_MOST !== undefined;
const longer = brief ? test.skip : test;
const precision = "bf16";

test("linear", () => {
  const sizes = [
    [257, 19, 21], // 64 x 64
    [520, 19, 140], // 128 x 128
  ] as const;
  for (const [R, D, O] of brief ? sizes.slice(0, 1) : sizes) {
    const [x, W, b, dy] = [whole([R, D], 4), whole([O, D], 4), whole([O], 8), whole([R, O], 4)];
    agree(`${R} rows`, "linear", [x, W, b], { precision }, [true, true]);
    agree(`${R} rows`, "linear.backward", [x, W, b, null, null, dy], { precision }, [true, true, true]);
  }
});

longer("fbp, fused in tiles of 64 rows", () => {
  for (const k of [1, 2, 3, 4, 5]) agreeFbp([260, 11, 9, 40, k, 1], precision, k % 2 ? 0 : 0.5, false);
});

longer("fbp, fused in the largest tiles", () => {
  for (const k of [1, 2, 3, 4, 5, 6, 7, 8]) agreeFbp([520, 11, 9, 33, k, 1], precision, k % 2 ? 0 : 0.5, false);
});

test.run();
