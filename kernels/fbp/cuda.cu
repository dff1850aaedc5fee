// fbp on a device. Forward: a block is a tile of rows by outputs of the fused kernel (tile_cuda.h); rows of a that several
// rows of v share are projected once, by a product of their own. Where that tile does not suit (too few blocks to fill the
// device, k beyond 8, tf32 in products that pay) two products split as they like write a chunk of projections, which a
// second kernel pools. A last small kernel finishes the norm, a team of threads for a row (or group) that stays in
// registers. Backward: the same at s, projections kept or made again for a chunk of rows that fits the L2, gradients in
// their place, four products.
#include "../gemm/cuda/product.h"
#include "plan.h"
#include "rows_cuda.h"

namespace affuse::cuda {
namespace {

using gemm::ceil_div;
using gemm::Layout;

constexpr int64_t kProjected = int64_t(8) << 20;  // floats of projections in a chunk: they stay in L2
constexpr int kMostFactors = 8;                   // of the fused kernels

int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
gemm::Rounding rounding(const FbpSizes& z) { return gemm::rounding_of(z.precision); }

// ---- the fused kernels by k and by size ----

template <class Pair, int K>
struct Fused {
  static constexpr int rows = Pair::kRows, outputs = Pair::kOutputs;
  using Operand = typename Pair::Operand;
  static void run(Queue& queue, const Operand& a, const Operand& U, const Operand& v, const Operand& V, const FbpFinish& f) {
    const auto shared = SharedBytes().take<typename Pair::Word>(Pair::kRing).template take<uint8_t>(rows * outputs);
    launch("fbp_fused", fbp_fused<Pair, K>, queue, Grid{ceil_div(f.B, rows), ceil_div(f.o, outputs)}, gemm::kThreads,
           shared.bytes, a, U, v, V, f);
  }
};
template <int K>
using ExactFused = Fused<ExactPair<K, 8 / K>, K>;
// 128 rows while registers hold the sums of both projections, else 64.
template <int K>
using LargeFused = Fused<RoundedPair<K, K < 4 ? 4 / K : 1, K <= 5 ? 4 : 2>, K>;
template <int K>
using SmallFused = Fused<RoundedPair<K, K < 4 ? 4 / K : 1, 2>, K>;

template <int K>
struct Factors {
  static constexpr int k = K;
};
template <class Body>
void with_factors(int64_t k, const Body& body) {
  switch (k) {
    case 1: return body(Factors<1>{});
    case 2: return body(Factors<2>{});
    case 3: return body(Factors<3>{});
    case 4: return body(Factors<4>{});
    case 5: return body(Factors<5>{});
    case 6: return body(Factors<6>{});
    case 7: return body(Factors<7>{});
    case 8: return body(Factors<8>{});
  }
}

enum class Way : int { products, fused, fused_small };  // the last with bf16 only

// Estimated cycles of a fused kernel.
template <class F>
double cycles_of(const FbpSizes& z, double share, int processors) {
  const double blocks = double(ceil_div(z.B, F::rows)) * double(ceil_div(z.o, F::outputs));
  const double depth = double(z.n) + (z.group > 1 ? 0.0 : double(z.m)), rate = z.bf16 ? 1024 : 128;
  const double tile = 4000 + double(F::rows) * F::outputs * double(z.k) * depth / (rate * share);
  return double(ceil_div(int64_t(blocks), processors)) * tile;
}
Way way_of(const FbpSizes& z, int processors) {
  if (z.k > kMostFactors || z.B == 0) return Way::products;
  Way best = Way::products;
  double least = gemm::product_cycles(Layout::nt, z.B, z.P, z.n, rounding(z), processors) +
                 (z.group > 1 ? 0.0 : gemm::product_cycles(Layout::nt, z.A, z.P, z.m, rounding(z), processors)) + 5000 +
                 double(z.A + z.B) * double(z.P) / (2.0 * processors);
  with_factors(z.k, [&](auto factors) {
    constexpr int K = decltype(factors)::k;
    const auto offer = [&](Way way, double cycles) {
      if (cycles < least) least = cycles, best = way;
    };
    if (!z.bf16) return offer(Way::fused, cycles_of<ExactFused<K>>(z, 0.9, processors));
    double before = gemm::rounding_cycles(z.B * z.n, processors) + gemm::rounding_cycles(z.P * z.n, processors);
    if (z.group == 1)
      before += gemm::rounding_cycles(z.A * z.m, processors) + gemm::rounding_cycles(z.P * z.m, processors);
    offer(Way::fused, before + cycles_of<LargeFused<K>>(z, 0.9, processors));
    if constexpr (K <= 5) offer(Way::fused_small, before + cycles_of<SmallFused<K>>(z, 0.6, processors));
  });
  return best;
}

// ---- forward ----

struct ForwardRoom {
  Way way;
  int64_t chunk;            // rows of a at a time
  float *hu = nullptr, *hv = nullptr;      // projections of a chunk, where nobody wants them as outputs
  float *a = nullptr, *v = nullptr, *U = nullptr, *V = nullptr;  // operands of the fused kernel, rounded
  float* products;
  int64_t total;
  ForwardRoom(const FbpSizes& z, bool keeps_u, bool keeps_v, int processors, void* base) : way(way_of(z, processors)) {
    gemm::Scratch room(base);
    const bool fused = way != Way::products, projects_u = !fused || z.group > 1;
    chunk = larger(1, z.A);
    if (projects_u) {
      const int64_t fits = larger(1, kProjected / (z.P * (1 + (fused ? 0 : z.group))));
      chunk = fits < chunk ? fits : chunk;
    }
    const int64_t rows = chunk * z.group;
    if (projects_u && !keeps_u) hu = room.take(chunk * z.P);
    if (!fused && !keeps_v) hv = room.take(rows * z.P);
    if (fused && z.bf16) {
      const int64_t places = gemm::round_up(z.o, 8) * z.k;
      v = room.take(rows * gemm::rounded_words(z.n));
      V = room.take(places * gemm::rounded_words(z.n));
      if (!projects_u) a = room.take(chunk * gemm::rounded_words(z.m)), U = room.take(places * gemm::rounded_words(z.m));
    }
    int64_t most = 0;
    for (const int64_t part : {chunk, z.A % chunk}) {  // a shorter chunk may be split more
      if (projects_u) most = larger(most, gemm::product_floats(Layout::nt, part, z.P, z.m, rounding(z), processors));
      if (!fused) most = larger(most, gemm::product_floats(Layout::nt, part * z.group, z.P, z.n, rounding(z), processors));
    }
    products = room.take(most);
    total = room.floats();
  }
};

gemm::Plain plain(const float* p, int64_t lines, int64_t K) { return {p, K, lines, int(K), aligned(p) && K % 4 == 0}; }

int activation_kind(int64_t kind) {
  return kind == FbpActivation::relu ? int(ActivationKind::relu)
                                     : kind == FbpActivation::tanh ? int(ActivationKind::tanh) : int(ActivationKind::none);
}

// h = f(x W^T + b) of some rows.
void project(Queue& queue, const FbpSizes& z, const float* x, const float* W, const float* b, int64_t rows, int64_t K,
             int activation, float* h, float* room) {
  const auto finish = gemm::finish_of(h, nullptr, b, z.P, activation_kind(activation));
  gemm::product(queue, {Layout::nt, rows, z.P, K, x, K, W, K, finish, rounding(z)}, room);
}

DropoutMask mask_of(const OpCall& call) {
  return dropout_mask(call.attr[FbpAttr::dropout].f, call.attr[FbpAttr::seed].u, call.attr[FbpAttr::step].i,
                      call.attr[FbpAttr::instance].i);
}

// r, s, hu and hv of the whole call, each where wanted.
void run_forward(const OpCall& call, Queue& queue, const FbpSizes& z, const ForwardRoom& room, bool power, float* r,
                 float* s, float* hu, float* hv) {
  const float *a = call.in[FbpIn::a].f32(), *v = call.in[FbpIn::v].f32();
  const float *U = call.in[FbpIn::U].f32(), *V = call.in[FbpIn::V].f32();
  const float *bu = call.in[FbpIn::bu].f32(), *bv = call.in[FbpIn::bv].f32();
  const int activation = int(call.attr[FbpAttr::activation].i);
  const bool fused = room.way != Way::products, projects_u = !fused || z.group > 1;
  gemm::Rounded rounded_U{}, rounded_V{};
  if (fused && z.bf16) {
    const int64_t places = gemm::round_up(z.o, 8) * z.k;
    const FbpOrder order{0, int(z.k), 8};
    rounded_V = gemm::rounded(queue, plain(V, z.P, z.n), order, places, room.V);
    if (!projects_u) rounded_U = gemm::rounded(queue, plain(U, z.P, z.m), order, places, room.U);
  }
  for (int64_t first = 0; first < z.A; first += room.chunk) {
    const int64_t count = z.A - first < room.chunk ? z.A - first : room.chunk;
    const int64_t row = first * z.group, rows = count * z.group;
    const auto at = [](float* p, int64_t n) { return p ? p + n : nullptr; };
    float* const to_u = hu ? hu + first * z.P : projects_u ? room.hu : nullptr;
    if (projects_u) project(queue, z, a + first * z.m, U, bu, count, z.m, activation, to_u, room.products);
    FbpFinish f{rows, z.o, z.P, row, int(z.k), activation, power, z.dropout, float(call.attr[FbpAttr::eps].f), bu, bv,
                projects_u ? to_u : nullptr, divider(z.group, rows), mask_of(call), at(r, row * z.o), at(s, row * z.o),
                projects_u ? nullptr : to_u, at(hv, row * z.P)};
    const auto x = plain(a + first * z.m, count, z.m), y = plain(v + row * z.n, rows, z.n);
    if (!fused) {
      float* const to_v = hv ? hv + row * z.P : room.hv;
      project(queue, z, y.p, V, bv, rows, z.n, activation, to_v, room.products);
      const int64_t blocks = ceil_div(rows * z.o, 256), most = int64_t(queue.processors) * 32;
      launch("fbp_pool", z.k % 4 == 0 && aligned(to_u) && aligned(to_v) ? fbp_pool<4> : fbp_pool<1>, queue,
             Grid{blocks < most ? blocks : most}, 256, 0, f, to_v, divider(z.o, rows * z.o));
    } else if (!z.bf16) {
      with_factors(z.k, [&](auto factors) {
        ExactFused<decltype(factors)::k>::run(queue, x, plain(U, z.P, z.m), y, plain(V, z.P, z.n), f);
      });
    } else {
      const gemm::Rounded right = gemm::rounded(queue, y, room.v);
      const gemm::Rounded left = projects_u ? right : gemm::rounded(queue, x, room.a);
      with_factors(z.k, [&](auto factors) {
        constexpr int K = decltype(factors)::k;
        if (room.way == Way::fused) LargeFused<K>::run(queue, left, rounded_U, right, rounded_V, f);
        else SmallFused<K <= 5 ? K : 5>::run(queue, left, rounded_U, right, rounded_V, f);
      });
    }
  }
}

// What shares a norm: a row's or a group's elements.
struct Scopes {
  int64_t count, size;
  bool l2;
  FbpRoot root;
  double eps2;
};
Scopes scopes_of(const OpCall& call, const FbpSizes& z) {
  const int64_t normalize = call.attr[FbpAttr::normalize].i;
  const int64_t rows = call.attr[FbpAttr::l2_scope].i == FbpScope::group ? z.group : 1;
  return {z.B / rows, rows * z.o, normalize == FbpNormalize::l2 || normalize == FbpNormalize::power_l2,
          {normalize == FbpNormalize::power || normalize == FbpNormalize::power_l2, float(call.attr[FbpAttr::eps].f)},
          call.attr[FbpAttr::eps2].f};
}
void norm(Queue& queue, const Scopes& a, float* r) {
  rows_of<4>(queue, "fbp_norm", a.count, a.size, FbpNorm{r, a.eps2, a.size % 4 == 0 && aligned(r)});
}
// dz and given may be null.
void gradient_at_s(Queue& queue, const Scopes& a, const float* s, const float* dz, const float* given, float* ds) {
  constexpr const char* name = "fbp_gradient_at_s";
  const bool wide = aligned(s) && aligned(dz) && aligned(given) && aligned(ds);
  if (!dz || !a.l2)
    each<4>(queue, name, a.count * a.size, wide, FbpRootGradient{s, dz, given, ds, a.root});
  else
    rows_of<4>(queue, name, a.count, a.size,
               FbpNormGradient{s, dz, given, ds, a.root, a.eps2, wide && a.size % 4 == 0});
}

void fbp(const OpCall& call, Queue& queue) {
  const FbpSizes z = fbp_shape(call.in, call.attr);
  if (z.B == 0) return;
  float *r = call.out[FbpOut::z].f32(), *hu = call.out[FbpOut::hu].f32(), *hv = call.out[FbpOut::hv].f32();
  const ForwardRoom room(z, hu, hv, queue.processors, call.workspace);
  const Scopes scopes = scopes_of(call, z);
  run_forward(call, queue, z, room, scopes.root.power, r, call.out[FbpOut::s].f32(), hu, hv);
  if (r && scopes.l2) norm(queue, scopes, r);
}
size_t workspace(const OpShape& s, int processors) {
  const bool keeps_u = s.out[FbpOut::hu].given(), keeps_v = s.out[FbpOut::hv].given();
  return size_t(ForwardRoom(fbp_shape(s.in, s.attr), keeps_u, keeps_v, processors, nullptr).total) * sizeof(float);
}

// ---- backward ----

// Rows of a at a time: what is at the projections takes half of the L2, from which the products read it again; weights, rows
// and gradients pass through the other half. Whole tiles where there are several.
int64_t backward_chunk(const FbpSizes& z, int64_t cache) {
  constexpr int64_t kTile = 128;
  const int64_t fits = larger(1, cache / 2 / int64_t(sizeof(float)) / (z.P * (1 + z.group)));
  const int64_t chunk = fits > kTile ? fits / kTile * kTile : fits;
  return chunk < z.A ? chunk : larger(1, z.A);
}

struct BackwardRoom {
  int64_t chunk, slices;  // rows of a at a time; a group's
  float *s, *ds, *gu, *gv, *partial;
  ForwardRoom forward;    // of s again, where it was not saved; before and beside the products, in their place
  float* products;
  int64_t total;
  template <class Desc>
  BackwardRoom(const FbpSizes& z, const Desc* in, int processors, int64_t cache, void* base)
      : chunk(backward_chunk(z, cache)), slices(ceil_div(z.group, kFbpSlice)),
        forward(z, false, false, processors, nullptr) {
    gemm::Scratch room(base);
    const bool saved = in[FbpIn::s].given();
    s = room.take(saved ? 0 : z.B * z.o);
    ds = room.take(z.B * z.o);
    gu = room.take(chunk * z.P);
    gv = room.take(chunk * z.group * z.P);
    partial = room.take(slices > 1 ? chunk * slices * z.P : 0);
    int64_t most = saved ? 0 : forward.total;
    for (const int64_t part : {chunk, z.A % chunk})
      for (const int side : {0, 1}) {
        const int64_t rows = side ? part * z.group : part, width = side ? z.n : z.m;
        most = larger(most, gemm::product_floats(Layout::nt, rows, z.P, width, rounding(z), processors));
        most = larger(most, gemm::product_floats(Layout::nn, rows, width, z.P, rounding(z), processors));
        most = larger(most, gemm::product_floats(Layout::tn, z.P, width, rows, rounding(z), processors));
        most = larger(most, gemm::column_sums_floats(rows, z.P, processors));
      }
    products = room.take(most);
    if (!saved) forward = ForwardRoom(z, false, false, processors, products);
    total = room.floats();
  }
};

// From g [rows, P] at the projections to one modality's gradients; the rows start at `first` of the whole.
struct Side {
  const float *x, *W;
  int64_t width;
  float *dx, *dW, *db;
};
void products(Queue& queue, const FbpSizes& z, const Side& side, const float* g, int64_t first, int64_t rows, float* room) {
  const auto stored = [&](float* y, bool add) {
    return gemm::finish_of(y, nullptr, nullptr, side.width, ActivationKind::none, add);
  };
  if (side.dx) {
    const auto finish = stored(side.dx + first * side.width, false);
    gemm::product(queue, {Layout::nn, rows, side.width, z.P, g, z.P, side.W, side.width, finish, rounding(z)}, room);
  }
  if (side.dW) {
    const float* const x = side.x + first * side.width;
    const auto finish = stored(side.dW, first > 0);
    gemm::product(queue, {Layout::tn, z.P, side.width, rows, g, z.P, x, side.width, finish, rounding(z)}, room);
  }
  if (side.db) gemm::column_sums(queue, g, rows, z.P, side.db, first > 0, room);
}

void fbp_backward(const OpCall& call, Queue& queue) {
  const FbpSizes z = fbp_shape(call.in, call.attr);
  const Tensor *in = call.in, *out = call.out;
  const BackwardRoom room(z, in, queue.processors, queue.cache, call.workspace);
  const Side u{in[FbpIn::a].f32(), in[FbpIn::U].f32(), z.m, out[0].f32(), out[2].f32(), out[4].f32()};
  const Side v{in[FbpIn::v].f32(), in[FbpIn::V].f32(), z.n, out[1].f32(), out[3].f32(), out[5].f32()};
  if (z.B == 0) {
    products(queue, z, u, nullptr, 0, 0, room.products);
    return products(queue, z, v, nullptr, 0, 0, room.products);
  }
  const float* s = in[FbpIn::s].f32();
  if (!s) {
    run_forward(call, queue, z, room.forward, false, nullptr, room.s, nullptr, nullptr);
    s = room.s;
  }
  gradient_at_s(queue, scopes_of(call, z), s, in[FbpIn::dz].f32(), in[FbpIn::ds].f32(), room.ds);
  const bool kept = fbp_kept(in), wants_u = u.dx || u.dW || u.db, wants_v = v.dx || v.dW || v.db;
  const int activation = int(call.attr[FbpAttr::activation].i);
  for (int64_t first = 0; first < z.A; first += room.chunk) {
    const int64_t count = z.A - first < room.chunk ? z.A - first : room.chunk;
    const int64_t row = first * z.group, rows = count * z.group;
    const float *hu = room.gu, *hv = room.gv;
    if (kept) {
      hu = in[FbpIn::hu].f32() + first * z.P;
      hv = in[FbpIn::hv].f32() + row * z.P;
    } else {
      project(queue, z, u.x + first * z.m, u.W, in[FbpIn::bu].f32(), count, z.m, activation, room.gu, room.products);
      project(queue, z, v.x + row * z.n, v.W, in[FbpIn::bv].f32(), rows, z.n, activation, room.gv, room.products);
    }
    const FbpGradients f{count, z.o, z.P, z.group, room.slices, row, int(z.k), activation, z.dropout, mask_of(call), hu, hv,
                         room.ds + row * z.o, wants_u ? room.gu : nullptr, wants_v ? room.gv : nullptr, room.partial};
    const bool wide = z.P % 4 == 0 && aligned(hu) && aligned(hv);
    const int64_t blocks = ceil_div(z.P, wide ? 1024 : 256), items = count * room.slices;
    const int64_t most = larger(1, int64_t(queue.processors) * 16 / blocks);
    const Grid grid{blocks, items < most ? items : most};
    launch("fbp_gradients", wide ? fbp_gradients<4> : fbp_gradients<1>, queue, grid, 256, 0, f);
    if (wants_u && room.slices > 1)
      each(queue, "fbp gathered", count * z.P, wide, FbpGathered{f, divider(z.P, count * z.P)});
    if (wants_u) products(queue, z, u, room.gu, first, count, room.products);
    if (wants_v) products(queue, z, v, room.gv, row, rows, room.products);
  }
}
size_t backward_workspace(const OpShape& s, int processors, int64_t cache) {
  return size_t(BackwardRoom(fbp_shape(s.in, s.attr), s.in, processors, cache, nullptr).total) * sizeof(float);
}

}  // namespace

AFFUSE_DEVICE_OP(kFbp, "fbp", &fbp, &workspace)
AFFUSE_DEVICE_OP(kFbpBackward, "fbp.backward", &fbp_backward, nullptr, &backward_workspace)

}  // namespace affuse::cuda
