/* affuse: the C interface of the compiled core. C99; the only header that a downstream library needs.
 *
 * Tensors are row-major and contiguous and stay the caller's: a call reads and writes them in place and keeps nothing. All
 * functions may be called from any thread. Functions that can fail return 0, or -1 with `error` filled in (it may be NULL).
 * A NULL where something is read or written is ERR_AFFUSE_USAGE.
 * Operators, their tensors and attributes are documented by affuse_operator_* and by `affuse op --list`.
 *
 *   const affuse_tensor in[4] = {affuse_tensor_f32(a, 2, (const int64_t[]){B, m}), ...};
 *   const affuse_tensor out[1] = {affuse_tensor_f32(z, 2, (const int64_t[]){B, o})};
 *   const affuse_attribute attributes[] = {{"k", "4"}};
 *   affuse_error error;
 *   if (affuse_run("fbp", "cpu", in, 4, attributes, 1, out, 1, 0, &error))
 *     fprintf(stderr, "%s: %s\n", error.code, error.message);
 */
#ifndef AFFUSE_AFFUSE_H
#define AFFUSE_AFFUSE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Changes when a structure or the meaning of a function changes; additions keep it. */
#define AFFUSE_ABI_VERSION 1

#define AFFUSE_API __attribute__((visibility("default")))

#define AFFUSE_MAX_RANK 5
#define AFFUSE_MAX_INPUTS 20
#define AFFUSE_MAX_OUTPUTS 12

/* AFFUSE_ABI_VERSION of the library itself: compare it with the header's before anything else. */
AFFUSE_API int affuse_abi_version(void);
/* "0.1.0" */
AFFUSE_API const char* affuse_version(void);

typedef struct affuse_error {
  char code[48];     /* "ERR_AFFUSE_SHAPE"; stable */
  char message[464]; /* what was expected and what came */
} affuse_error;

enum affuse_dtype { AFFUSE_NONE = 0, AFFUSE_F32 = 1, AFFUSE_F64 = 2, AFFUSE_I32 = 3 };

typedef struct affuse_tensor {
  int32_t dtype; /* AFFUSE_NONE: an optional input that is absent, an output that is not wanted */
  int32_t rank;
  int64_t dim[AFFUSE_MAX_RANK];
  void* data; /* aligned to its element type at least; may be NULL when a dimension is 0 */
} affuse_tensor;

/* A value as text: "4", "0.1", "true", "power-l2"; seeds in decimal, up to 2^64 - 1. */
typedef struct affuse_attribute {
  const char* name;
  const char* value;
} affuse_attribute;

/* --- what there is ------------------------------------------------------------------------------------------------ */

typedef struct affuse_operator {
  const char* name;
  const char* summary;
  const char* backward; /* name of the operator that differentiates it, or NULL */
  const char* flops;    /* formulas in the letters of the shapes */
  const char* bytes;
  int32_t inputs, outputs, attributes;
} affuse_operator;

typedef struct affuse_tensor_rule {
  const char* name;
  const char* shape; /* "[B,T,D]" */
  const char* doc;
  int32_t dtype;    /* AFFUSE_F32 (AFFUSE_F64 as well on the reference device) or AFFUSE_I32 */
  int32_t optional; /* input: may be absent; output: not needed by inference */
} affuse_tensor_rule;

enum affuse_kind { AFFUSE_REAL = 0, AFFUSE_INTEGER = 1, AFFUSE_BOOLEAN = 2, AFFUSE_CHOICE = 3, AFFUSE_SEED = 4 };

typedef struct affuse_attribute_rule {
  const char* name;
  const char* choices; /* "none|l2", or NULL */
  const char* doc;
  int32_t kind;
  double fallback; /* the default; for a choice the index of its word */
  double low, high;
} affuse_attribute_rule;

AFFUSE_API int affuse_operator_count(void);
/* Operator `index` in [0, affuse_operator_count()), or by name. Strings live as long as the library. */
AFFUSE_API int affuse_operator_at(int index, affuse_operator* result, affuse_error* error);
AFFUSE_API int affuse_operator_find(const char* name, affuse_operator* result, affuse_error* error);
AFFUSE_API int affuse_operator_input(const char* name, int index, affuse_tensor_rule* result, affuse_error* error);
AFFUSE_API int affuse_operator_output(const char* name, int index, affuse_tensor_rule* result, affuse_error* error);
AFFUSE_API int affuse_operator_attribute(const char* name, int index, affuse_attribute_rule* result, affuse_error* error);

/* "baseline", "avx2", "avx512", "avx512bf16" or "neon": what kernels run on. AFFUSE_CPU in the environment forces a level. */
AFFUSE_API const char* affuse_cpu_level(void);
/* Threads of calls that pass 0: AFFUSE_THREADS, else what affinity and cgroup allow. */
AFFUSE_API int affuse_threads(void);
AFFUSE_API int affuse_set_threads(int count, affuse_error* error);
/* Ends the helper threads; the next call starts new ones. No call may be in progress. Never required. */
AFFUSE_API void affuse_shutdown(void);

/* --- running -------------------------------------------------------------------------------------------------------- */

/* Writes the description of every output that these inputs allow (dtype AFFUSE_NONE: not this one); data is not touched.
 * `device` is "cpu" (float32) or "reference" (float64, one thread, as the formula reads); NULL means "cpu". */
AFFUSE_API int affuse_infer(const char* name, const char* device, const affuse_tensor* inputs, int input_count,
                            const affuse_attribute* attributes, int attribute_count, affuse_tensor* outputs,
                            int output_count, affuse_error* error);

/* Runs an operator. Inputs and outputs stand in the operator's order; those beyond the counts are absent. Outputs must have
 * the inferred description and may overlap nothing, except that adam's, adamw's and clip_by_norm's outputs may be the inputs
 * of the same name. threads: 0 for affuse_threads(); never changes a result. */
AFFUSE_API int affuse_run(const char* name, const char* device, const affuse_tensor* inputs, int input_count,
                          const affuse_attribute* attributes, int attribute_count, const affuse_tensor* outputs,
                          int output_count, int threads, affuse_error* error);

/* --- devices --------------------------------------------------------------------------------------------------------- */

/* affuse_run() takes "cuda" and "cuda:1" too: it copies in, runs, copies out and waits. These two are for memory that is
 * on the device already (cudaMalloc, a torch tensor's data_ptr()).
 *
 * affuse_queue() queues an operator on `stream` (a cudaStream_t; NULL: affuse's own) and returns. All data is device memory,
 * at multiples of 4 bytes; lengths, labels and widths are not checked, as nobody can look at them without waiting. Calls
 * may go to any streams in turn: their workspace is affuse's, and on another stream it is reused only behind the work that
 * used it, of which an event keeps track. Only the data that they share is the caller's to order. A stream may be destroyed
 * when its work is done. affuse_finish() waits for affuse's own stream and gives the first error of what was queued there.
 *
 * While the caller captures `stream` into a CUDA graph nothing can be allocated: make the same calls once before, else
 * ERR_AFFUSE_CAPTURE says so. The workspace of captured calls stays with their graph until the process ends, so the graph may
 * be run at any time, on any stream, but not twice at once (as two executables made of it could be). */
AFFUSE_API int affuse_queue(const char* name, const char* device, const affuse_tensor* inputs, int input_count,
                            const affuse_attribute* attributes, int attribute_count, const affuse_tensor* outputs,
                            int output_count, void* stream, affuse_error* error);
AFFUSE_API int affuse_finish(const char* device, affuse_error* error);

/* --- conveniences --------------------------------------------------------------------------------------------------- */

/* affuse_tensor_f32(data, 2, (const int64_t[]){rows, columns}) */
static inline affuse_tensor affuse_tensor_make(int32_t dtype, void* data, int32_t rank, const int64_t* dim) {
  affuse_tensor t = {0, 0, {0, 0, 0, 0, 0}, NULL};
  int32_t i;
  t.dtype = dtype;
  t.rank = rank;
  t.data = data;
  for (i = 0; i < rank && i < AFFUSE_MAX_RANK; ++i) t.dim[i] = dim[i];
  return t;
}
static inline affuse_tensor affuse_tensor_f32(float* data, int32_t rank, const int64_t* dim) {
  return affuse_tensor_make(AFFUSE_F32, data, rank, dim);
}
static inline affuse_tensor affuse_tensor_i32(int32_t* data, int32_t rank, const int64_t* dim) {
  return affuse_tensor_make(AFFUSE_I32, data, rank, dim);
}

#ifdef __cplusplus
}
#endif
#endif
