// The parity of the CUDA kernels under ThreadSanitizer: missing barriers, and blocks that share what they write. A switch costs it microseconds, so
// only the smallest cases.
import { test } from "uvu";
import { sanitized } from "./sanitized.ts";

sanitized("thread", 120);

test.run();
