// One attention-guided gather: 2 clips of at most 5 frames with 3 features, gathered by a learned query.
import { kernels } from "affuse";

const x = Float32Array.from({ length: 2 * 5 * 3 }, (_, i) => Math.sin(i));
const { c, alpha } = kernels.afg({
  x: { shape: [2, 5, 3], data: x },
  lengths: { shape: [2], data: Int32Array.of(5, 3) },
  W: { shape: [4, 3], data: new Float32Array(12).fill(0.5) },
  b: { shape: [4], data: new Float32Array(4) },
  u: { shape: [4], data: Float32Array.of(1, -1, 2, 0.5) },
});
console.log(c.shape, alpha.data); // [ 2, 1, 3 ]; weights of padding are exactly 0
