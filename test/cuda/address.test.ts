// The parity of the CUDA kernels under AddressSanitizer: overruns of shared and device memory.
import { test } from "uvu";
import { sanitized } from "./sanitized.ts";

sanitized("address", 700);

test.run();
