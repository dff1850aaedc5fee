#include "linear.h"

#include "../common/math.h"
#include "../common/reduce.h"

namespace affuse::AFFUSE_ISA {
namespace {

using Kind = ActivationKind;

template <int F>
AFFUSE_INLINE Vec activate(Vec z) {
  if constexpr (F == Kind::relu) return max(zero(), z);
  else if constexpr (F == Kind::gelu) return gelu(z);
  else if constexpr (F == Kind::tanh) return tanh(z);
  else if constexpr (F == Kind::sigmoid) return sigmoid(z);
  else return z;
}

// f'(z) dy from what is at hand: s is y = f(z), for gelu z itself.
template <int F>
AFFUSE_INLINE Vec backward_of(Vec s, Vec dy) {
  if constexpr (F == Kind::relu) return keep(lt(zero(), s), dy);
  else if constexpr (F == Kind::gelu) return dy * gelu_grad(s);
  else if constexpr (F == Kind::tanh) return dy * fnma(s, s, set1(1.0f));
  else if constexpr (F == Kind::sigmoid) return dy * (s * (set1(1.0f) - s));
  else return dy;
}

template <int F>
struct Tag {
  static constexpr int kind = F;
};
// Calls body(Tag<f>) for the value of the attribute.
template <class Body>
AFFUSE_INLINE void with_kind(int64_t kind, Body&& body) {
  switch (kind) {
    case Kind::relu: return body(Tag<Kind::relu>{});
    case Kind::gelu: return body(Tag<Kind::gelu>{});
    case Kind::tanh: return body(Tag<Kind::tanh>{});
    case Kind::sigmoid: return body(Tag<Kind::sigmoid>{});
    default: return body(Tag<Kind::none>{});
  }
}

// z = sum + b; y = f(z), pre = z, each where wanted.
template <int F>
struct Finish : gemm::Epilogue {
  const float* b;
  float *y, *pre;
  int64_t O;
  AFFUSE_INLINE void ahead(const gemm::Tile& t) const { gemm::prefetch_tile(y ? y : pre, O, t); }
  AFFUSE_INLINE void tile(const gemm::Tile& t, int) const {
    for_lanes(t.cols, [&](int64_t c, int n) AFFUSE_INLINE_BODY {
      const Vec bias = b ? load(b + t.col + c, n) : zero();
      const int64_t at = t.row * O + t.col + c;
      const float* const sums = t.acc + c;
      const auto z = [&](int r) AFFUSE_INLINE_BODY { return load(sums + r * gemm::kTileStride) + bias; };
      if (!pre)
        for (int r = 0; r < t.rows; ++r) store(y + at + r * O, activate<F>(z(r)), n);
      else
        for (int r = 0; r < t.rows; ++r) {
          store(pre + at + r * O, z(r), n);
          if (y) store(y + at + r * O, activate<F>(z(r)), n);
        }
    });
  }
};

struct Sizes {
  int64_t R, D, O;
  explicit AFFUSE_INLINE Sizes(const OpCall& call) : D(call.in[1].dim[1]), O(call.in[1].dim[0]) {
    R = 1;
    for (int i = 0; i + 1 < call.in[0].rank; ++i) R *= call.in[0].dim[i];
  }
};

AFFUSE_INLINE const float* packed_weight(const OpCall& call) {
  return call.packed ? static_cast<const float*>(call.packed[1]) : nullptr;
}

AFFUSE_INLINE bool bf16(const OpCall& call) { return call.attr[LinearAttr::precision].i == gemm::Precision::bf16; }

template <int F>
void forward(const OpCall& call, const Sizes& s, const float* packed, float* y, float* pre, float* scratch) {
  Finish<F> finish;
  finish.b = call.in[2].f32();
  finish.y = y;
  finish.pre = pre;
  finish.O = s.O;
  const gemm::PlainRows x{call.in[0].f32(), s.D};
  if (bf16(call)) {
    const gemm::Bf16 format{gemm::keeps_pairs(s.R)};
    const float* columns = packed;
    if (!columns) {
      gemm::pack_columns_bf16(call.in[1].f32(), s.D, s.O, s.D, gemm::Layout::nk, scratch, *call.workers, format.pairs);
      columns = scratch;
      scratch += gemm::packed_floats_bf16(s.O, s.D, format.pairs);
    }
    const gemm::Bf16Rows rounded{x, s.D};
    return gemm::run(*call.workers, s.R, s.O, gemm::even(s.D), rounded, columns, finish, scratch, gemm::Split::any, format);
  }
  if (packed) gemm::run(*call.workers, s.R, s.O, s.D, x, packed, finish, scratch);
  else gemm::run_unpacked(*call.workers, s.R, s.O, s.D, x, call.in[1].f32(), s.D, finish, scratch);
}

constexpr int64_t kChunk = 16384;  // elements per task of an element-wise pass

}  // namespace

void linear_forward(const OpCall& call) {
  const Sizes s(call);
  if (s.R == 0) return;
  with_kind(call.attr[LinearAttr::activation].i, [&](auto tag) {
    forward<decltype(tag)::kind>(call, s, packed_weight(call), call.out[0].f32(), call.out[1].f32(),
                                 static_cast<float*>(call.workspace));
  });
}

void linear_backward(const OpCall& call) {
  const Sizes s(call);
  const int64_t kind = call.attr[LinearAttr::activation].i;
  const bool reduced = bf16(call);
  const Workers& workers = *call.workers;
  const auto at = linear_backward_scratch(s.R, s.D, s.O, workers.count, kind != Kind::none, reduced);
  float* room = static_cast<float*>(call.workspace);
  float *dx = call.out[0].f32(), *dW = call.out[1].f32(), *db = call.out[2].f32();
  const float *dy = call.in[5].f32(), *g = dy;
  if (kind != Kind::none && s.R > 0) {
    const float* saved = kind == Kind::gelu ? call.in[4].f32() : call.in[3].f32();
    if (!saved) {  // y (gelu: z) again, into g's place
      with_kind(kind == Kind::gelu ? int64_t(Kind::none) : kind, [&](auto tag) {
        forward<decltype(tag)::kind>(call, s, nullptr, room, nullptr, room + at.products);
      });
      saved = room;
    }
    with_kind(kind, [&](auto tag) {
      const int64_t N = s.R * s.O;
      parallel(workers, gemm::ceil_div(N, kChunk), [&](int64_t task, int) {
        const int64_t from = task * kChunk;
        for_lanes(gemm::min64(kChunk, N - from), [&](int64_t i, int n) {
          put(room + from + i, backward_of<decltype(tag)::kind>(get(saved + from + i, n), get(dy + from + i, n)), n);
        });
      });
    });
    g = room;
  }
  if (dx && s.R > 0) {
    const gemm::PlainRows rows{g, s.O};
    const gemm::Store store(dx, s.D);
    const float *W = call.in[1].f32(), *packed = packed_weight(call);
    const gemm::PlainColumns columns{W, s.D};
    float* place = room + at.products;
    const gemm::Bf16 format{gemm::keeps_pairs(s.R)};
    if (!packed && linear_streams_dx(s.R)) {
      if (reduced) gemm::stream(workers, s.R, s.D, s.O, rows, columns, store, place, gemm::Bf16Passing{});
      else gemm::stream(workers, s.R, s.D, s.O, rows, columns, store, place);
    } else {
      if (!packed) {
        packed = place;
        if (reduced) gemm::pack_columns_bf16(W, s.D, s.D, s.O, gemm::Layout::kn, place, workers, format.pairs);
        else gemm::pack_columns(W, s.D, s.D, s.O, gemm::Layout::kn, place, workers);
        place += reduced ? gemm::packed_floats_bf16(s.D, s.O, format.pairs) : gemm::packed_floats(s.D, s.O);
      }
      if (reduced)
        gemm::run(workers, s.R, s.D, gemm::even(s.O), gemm::Bf16Rows{rows, s.O}, packed, store, place, gemm::Split::any,
                  format);
      else
        gemm::run(workers, s.R, s.D, s.O, rows, packed, store, place);
    }
  }
  if (dW) {
    const gemm::TransposedRows rows{g, s.O};
    const gemm::PlainColumns columns{call.in[0].f32(), s.D};
    const gemm::Store store(dW, s.D);
    float* const place = room + at.products;
    if (reduced) gemm::stream(workers, s.O, s.D, s.R, rows, columns, store, place, gemm::Bf16Passing{});
    else gemm::stream(workers, s.O, s.D, s.R, rows, columns, store, place);
  }
  if (db) gemm::column_sums(workers, g, s.R, s.O, db);
}

// W as columns: nk for the forward, kn for dx.
static void pack(const OpShape& s, gemm::Layout layout, const void* data, void* packed, const Workers& workers) {
  const int64_t O = s.in[1].dim[0], D = s.in[1].dim[1], N = layout == gemm::Layout::nk ? O : D, K = O + D - N;
  auto* const to = static_cast<float*>(packed);
  const auto* const from = static_cast<const float*>(data);
  if (s.attr[LinearAttr::precision].i == gemm::Precision::bf16) {
    int64_t R = 1;
    for (int i = 0; i + 1 < s.in[0].rank; ++i) R *= s.in[0].dim[i];
    gemm::pack_columns_bf16(from, D, N, K, layout, to, workers, gemm::keeps_pairs(R));
  } else {
    gemm::pack_columns(from, D, N, K, layout, to, workers);
  }
}
void linear_pack(const OpShape& s, int, const void* data, void* packed, const Workers& workers) {
  pack(s, gemm::Layout::nk, data, packed, workers);
}
void linear_backward_pack(const OpShape& s, int, const void* data, void* packed, const Workers& workers) {
  pack(s, gemm::Layout::kn, data, packed, workers);
}

}  // namespace affuse::AFFUSE_ISA
