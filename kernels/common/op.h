// The contract between the kernels and whoever runs them.
//
// A kernel is a plain function over raw pointers: it allocates nothing, starts no thread, throws nothing and knows
// nothing of Node. What it needs comes in an OpCall: tensors, attributes, scratch memory and a way to spread tasks.
// An operator is an OpDef: a table that says what it takes and gives, and points at its functions.
#pragma once
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace affuse {

enum class DType : uint8_t { none = 0, f32, f64, i32 };  // none: an optional tensor that was not given

constexpr int kMaxRank = 5;
constexpr int kMaxInputs = 20;
constexpr int kMaxOutputs = 12;
constexpr int kMaxAttrs = 12;

// Everything below that has a body is always inlined: kernel files are compiled once per ISA level, and a shared
// out-of-line copy (COMDAT) might be the AVX-512 one on a machine without it.
#define AFFUSE_INLINE inline __attribute__((always_inline))

AFFUSE_INLINE constexpr size_t dtype_size(DType t) {
  return t == DType::f64 ? 8 : t == DType::none ? 0 : 4;
}

// Shape and element type; row-major and contiguous always.
struct TensorDesc {
  DType dtype = DType::none;
  int rank = 0;
  int64_t dim[kMaxRank] = {0, 0, 0, 0, 0};

  AFFUSE_INLINE bool given() const { return dtype != DType::none; }
  AFFUSE_INLINE int64_t count() const {
    int64_t n = given() ? 1 : 0;
    for (int i = 0; i < rank; ++i) n *= dim[i];
    return n;
  }
  AFFUSE_INLINE size_t bytes() const { return size_t(count()) * dtype_size(dtype); }
};

struct Tensor : TensorDesc {
  void* data = nullptr;  // null exactly when not given() or count() == 0
  template <class T>
  AFFUSE_INLINE T* as() const { return static_cast<T*>(data); }
  AFFUSE_INLINE float* f32() const { return as<float>(); }
  AFFUSE_INLINE double* f64() const { return as<double>(); }
  AFFUSE_INLINE int32_t* i32() const { return as<int32_t>(); }
};

// One attribute value; the AttrRule at the same index says which member holds.
union Attr {
  double f;    // real
  int64_t i;   // integer, boolean (0/1) and choice (index into AttrRule::choices)
  uint64_t u;  // seed
};

// First error wins. The message says what was expected and what came.
struct Status {
  const char* code = nullptr;  // null: no error; else a string literal "ERR_AFFUSE_…"
  char message[400] = {0};
  bool ok() const { return code == nullptr; }
  __attribute__((format(printf, 3, 4))) void fail(const char* error_code, const char* format, ...);
};

// How a kernel spreads work. `run` calls task(arg, index, worker) once for every index in [0, tasks), from at most
// `count` threads at a time; worker is in [0, count) and no two running tasks share one. A kernel's partition into tasks may
// depend on shapes only, never on `count`, so that results are bitwise equal for any number of threads.
struct Workers {
  int count = 1;
  void* self = nullptr;
  void (*run)(void* self, int64_t tasks, void (*task)(void* arg, int64_t index, int worker), void* arg) = nullptr;
};

template <class F>
inline void parallel(const Workers& w, int64_t tasks, F&& body) {  // body(int64_t index, int worker)
  if (tasks <= 0) return;
  if (tasks == 1 || w.count == 1 || !w.run) {
    for (int64_t i = 0; i < tasks; ++i) body(i, 0);
    return;
  }
  using Body = std::remove_reference_t<F>;
  const auto call = [](void* arg, int64_t index, int worker) { (*static_cast<Body*>(arg))(index, worker); };
  w.run(w.self, tasks, call, (void*)&body);
}

// Shapes and attributes of a call before there is any data: what inference, workspace and cost formulas see.
// `out` holds the requested outputs only (dtype none: the caller does not want that one).
struct OpShape {
  const TensorDesc* in = nullptr;
  const TensorDesc* out = nullptr;  // null while inferring
  const Attr* attr = nullptr;
};

struct OpCall {
  const Tensor* in = nullptr;    // OpDef::inputs order; absent optional ones have data == nullptr and dtype none
  const Tensor* out = nullptr;   // OpDef::outputs order; an output that nobody wants is absent likewise
  const Attr* attr = nullptr;    // OpDef::attrs order
  // packed[i]: input i already in the operator's packed layout (see OpDef::pack), else null. The array itself may be null.
  const void* const* packed = nullptr;
  void* workspace = nullptr;     // 64-byte aligned, OpDef::workspace bytes; holds garbage
  const Workers* workers = nullptr;
};

using KernelFn = void (*)(const OpCall&);

struct TensorRule {
  const char* name;   // the spec's symbol
  const char* shape;  // for people: "[B,T,D]"
  DType dtype = DType::f32;
  bool optional = false;  // input: may be absent. Output: saved tensor, made only when asked for by name
  const char* doc = "";
};

enum class AttrKind : uint8_t { real, integer, boolean, choice, seed };

struct AttrRule {
  const char* name;
  AttrKind kind;
  double fallback = 0;        // default; for choice an index
  double low = -1e300, high = 1e300;  // inclusive range for real and integer
  const char* choices = nullptr;      // "none|l2|power|power-l2"
  const char* doc = "";
};

// CPU levels. Order is the order of preference; a kernel without an entry for a level runs on the nearest one before it
// that it has. kernels/<room>/cpu.cc is compiled for each, except that avx512bf16 is avx512 with other micro kernels for
// bf16 operands.
enum Isa : int { kBaseline = 0, kAvx2 = 1, kAvx512 = 2, kAvx512Bf16 = 3, kNeon = 4, kIsaCount = 5 };

struct OpDef {
  const char* name;     // "fbp", "fbp.backward"
  const char* summary;  // the formula in one line, with the spec section
  const TensorRule* inputs;
  int input_count;
  const TensorRule* outputs;
  int output_count;
  const AttrRule* attrs;
  int attr_count;

  const char* backward = nullptr;  // name of the backward operator; null: not differentiable
  const char* flops;     // formula for people, in the shape letters above
  const char* bytes;     // least bytes moved: every input read once, every output written once
  double (*flop_count)(const OpShape&);

  // Checks shapes and writes the description of every output it could make (also optional ones). dtype, rank of given
  // inputs against the rules' names, missing inputs and attribute ranges are checked before this is called: only
  // relations between dimensions are left.
  void (*infer)(const OpShape&, TensorDesc* out, Status&);
  // Checks that need the data (lengths within [0,T], labels within [0,C)); null: none.
  void (*validate)(const OpCall&, Status&) = nullptr;
  // Scratch bytes for the CPU kernels with this many workers; null: none.
  size_t (*workspace)(const OpShape&, int workers) = nullptr;
  // float64, single-threaded, as the formula reads. Every float tensor is float64. Null: not allowed.
  KernelFn reference = nullptr;
  // float32; one per ISA level, null where the level is not built.
  KernelFn cpu[kIsaCount];

  // Weights that can be packed ahead: pack_bytes(shape, input) is the size of input's packed form (0: that input is never
  // packed), pack_key names the layout (the same key and the same tensor may share one packed copy between operators),
  // pack makes it. Null: the operator packs nothing.
  size_t (*pack_bytes)(const OpShape&, int input) = nullptr;
  const char* (*pack_key)(const OpShape&, int input) = nullptr;
  void (*pack[kIsaCount])(const OpShape&, int input, const void* data, void* packed, const Workers&) = {};
};

// In a room's header: AFFUSE_DECLARE_KERNEL(fbp_forward) declares one function per ISA level;
// in its definition: AFFUSE_KERNEL_TABLE(fbp_forward) is the initialiser of OpDef::cpu;
// in cpu.cc, inside `namespace affuse::AFFUSE_ISA`: void fbp_forward(const OpCall&) { … }.
#define AFFUSE_DECLARE_KERNEL(fn)              \
  namespace baseline { void fn(const OpCall&); } \
  namespace avx2 { void fn(const OpCall&); }     \
  namespace avx512 { void fn(const OpCall&); }   \
  namespace neon { void fn(const OpCall&); }
// AFFUSE_DECLARE_PACK(linear_pack) does the same for a function of OpDef::pack.
#define AFFUSE_DECLARE_PACK(fn)                                                         \
  namespace baseline { void fn(const OpShape&, int, const void*, void*, const Workers&); } \
  namespace avx2 { void fn(const OpShape&, int, const void*, void*, const Workers&); }     \
  namespace avx512 { void fn(const OpShape&, int, const void*, void*, const Workers&); }   \
  namespace neon { void fn(const OpShape&, int, const void*, void*, const Workers&); }
// Levels that the build leaves out (AFFUSE_CPU_LEVELS, another architecture) have no entry.
#if AFFUSE_BUILT_AVX2
#define AFFUSE_ENTRY_AVX2(fn) &avx2::fn
#else
#define AFFUSE_ENTRY_AVX2(fn) nullptr
#endif
#if AFFUSE_BUILT_AVX512
#define AFFUSE_ENTRY_AVX512(fn) &avx512::fn
#else
#define AFFUSE_ENTRY_AVX512(fn) nullptr
#endif
#if AFFUSE_BUILT_NEON
#define AFFUSE_ENTRY_NEON(fn) &neon::fn
#else
#define AFFUSE_ENTRY_NEON(fn) nullptr
#endif
#define AFFUSE_KERNEL_TABLE(fn) \
  {&baseline::fn, AFFUSE_ENTRY_AVX2(fn), AFFUSE_ENTRY_AVX512(fn), nullptr, AFFUSE_ENTRY_NEON(fn)}

}  // namespace affuse
