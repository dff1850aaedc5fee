/**
 * How operands of matrix products may be rounded before they are multiplied; sums, tensors, gradients and the optimiser
 * stay float32. bf16: always. tf32: where a device has faster products for it, which the CPU has not.
 */
export const PRECISIONS = ["f32", "bf16", "tf32"] as const;
export type Precision = (typeof PRECISIONS)[number];
