// FBP backward: gradient at s, gradients at the projections from kept or recomputed projections, then four products.
#include "pass.h"

namespace affuse::AFFUSE_ISA {
namespace {

template <int F>
AFFUSE_INLINE Vec slope(Vec h, Vec g) {  // g f'(x) from h = f(x)
  if constexpr (F == FbpActivation::relu) return keep(lt(zero(), h), g);
  else if constexpr (F == FbpActivation::tanh) return g * fnma(h, h, set1(1.0f));
  else return g;
}

// gu [rows of a, P] (or [strips, P] where a group spans strips) and gv [rows, P] in the projections' own order.
template <int F>
struct Gradients {
  int64_t k, group, o, P;
  bool by_strip;
  int64_t first_strip, first_row, first_a;
  const float* ds;
  float *gu, *gv;  // null: not wanted
  AFFUSE_INLINE void before(const FbpGroup&) const {}
  AFFUSE_INLINE void operator()(const FbpPiece& p) const {
    const int64_t per_a = p.strip.a_rows > 1 ? group : p.strip.rows, column = p.block * kLanes * k + p.j;
    int64_t row = 0;
    for (int64_t ar = 0; ar < p.strip.a_rows; ++ar) {
      const Vec hu = fbp_activate<F>(load(p.hu + ar * gemm::kTileStride) + p.bias_u);
      Vec sum = zero();
      for (const int64_t end = gemm::min64(row + per_a, p.strip.rows); row < end; ++row) {
        const Vec hv = fbp_activate<F>(load(p.hv + row * gemm::kTileStride) + p.bias_v);
        Vec dp = get(ds + (p.strip.row + row) * o + p.block * kLanes, p.lanes), to_u, to_v;
        if (p.mask) {
          const Vec f = load(p.mask + row * k * kLanes);
          const Mask dropped = eq(f, zero());
          dp = dp * f;
          to_u = select(dropped, zero(), dp * hv);
          to_v = select(dropped, zero(), dp * hu);
        } else {
          to_u = dp * hv;
          to_v = dp * hu;
        }
        sum += to_u;
        if (gv) scatter(gv + (p.strip.row + row - first_row) * P + column, slope<F>(hv, to_v), k, p.lanes);
      }
      const int64_t at = by_strip ? p.strip_index - first_strip : p.strip.a_row + ar - first_a;
      if (gu) scatter(gu + at * P + column, slope<F>(hu, sum), k, p.lanes);
    }
  }
};

// The same from the projections that the forward kept: element by element, in pieces of columns that L1 holds.
constexpr int64_t kKeptColumns = 2048;

// out[c - from] = ds[c / k], c in [from, to); up to kLanes - 1 floats beyond that are written too.
AFFUSE_INLINE void repeat(const float* ds, int64_t k, int64_t from, int64_t to, float* out) {
  for (int64_t q = from / k; from < to; ++q) {
    const int64_t n = gemm::min64(to, (q + 1) * k) - from;
    const Vec d = set1(ds[q]);
    for (int64_t i = 0; i < n; i += kLanes) store(out + i, d);
    from += n;
    out += n;
  }
}

// For rows [first, first + count) of a and the rows of v that meet them; gu and gv (null: not wanted) start there.
template <int F>
void kept_gradients(const FbpPass& p, const float* hu, const float* hv, const float* ds, int64_t first, int64_t count,
                    float* gu, float* gv) {
  const FbpSizes& z = p.z;
  const int64_t blocks = gemm::ceil_div(z.P, kKeptColumns);
  const int64_t share = gemm::max64(1, 32768 / (z.group * gemm::min64(z.P, kKeptColumns)));
  parallel(*p.workers, gemm::ceil_div(count, share) * blocks, [&](int64_t task, int) {
    const int64_t c0 = task % blocks * kKeptColumns, n = gemm::min64(kKeptColumns, z.P - c0);
    const int64_t a0 = task / blocks * share, a1 = gemm::min64(count, a0 + share);
    alignas(64) float dp[kKeptColumns + kLanes], factors[kKeptColumns + kLanes];
    for (int64_t a = a0; a < a1; ++a) {
      const float* const u = hu + (first + a) * z.P + c0;
      float* const to_u = gu ? gu + a * z.P + c0 : nullptr;
      for (int64_t g = 0; g < z.group; ++g) {
        const int64_t row = (first + a) * z.group + g;
        const float* const v = hv + row * z.P + c0;
        float* const to_v = gv ? gv + (a * z.group + g) * z.P + c0 : nullptr;
        repeat(ds + row * z.o, z.k, c0, c0 + n, dp);
        if (z.dropout) dropout_factors(p.mask, uint64_t(row * z.P + c0), n, factors);
        for_lanes(n, [&](int64_t i, int lanes) {
          const Vec x = get(u + i, lanes), y = get(v + i, lanes);
          Vec d = get(dp + i, lanes), at_u, at_v;
          if (z.dropout) {
            const Vec f = get(factors + i, lanes);
            const Mask dropped = eq(f, zero());
            d = d * f;
            at_u = select(dropped, zero(), d * y);
            at_v = select(dropped, zero(), d * x);
          } else {
            at_u = d * y;
            at_v = d * x;
          }
          if (to_v) put(to_v + i, slope<F>(y, at_v), lanes);
          if (!to_u) return;
          if (g > 0) at_u += get(to_u + i, lanes);
          put(to_u + i, g + 1 == z.group ? slope<F>(x, at_u) : at_u, lanes);
        });
      }
    }
  });
}

// ds += the gradient that dz sends back through normalisation; s as the forward left it.
void gradient_at_s(const OpCall& call, const FbpSizes& z, const float* s, float* ds) {
  const int64_t normalize = call.attr[FbpAttr::normalize].i;
  const bool power = normalize == FbpNormalize::power || normalize == FbpNormalize::power_l2;
  const bool l2 = normalize == FbpNormalize::l2 || normalize == FbpNormalize::power_l2;
  const Vec eps = set1(float(call.attr[FbpAttr::eps].f)), half = set1(0.5f);
  const double eps2 = call.attr[FbpAttr::eps2].f;
  const float *dz0 = call.in[FbpIn::dz].f32(), *given0 = call.in[FbpIn::ds].f32();
  fbp_each_scope(call, z, [&](int64_t from, int64_t count) {
    const float *x = s + from, *dz = dz0 ? dz0 + from : nullptr, *given = given0 ? given0 + from : nullptr;
    auto root = [&](Vec q) { return power ? q / sqrt(abs(q) + eps) : q; };
    Vec scale = set1(1.0f), pull = zero();
    if (dz && l2) {
      double squares = long_sum(count, [&](int64_t i, int n) {
        const Vec r = root(get(x + i, n));
        return r * r;
      });
      double dot = long_sum(count, [&](int64_t i, int n) { return root(get(x + i, n)) * get(dz + i, n); });
      if (squares - squares != 0 || dot - dot != 0) {  // beyond float32: once more in float64, as the forward
        squares = dot = 0;
        for (int64_t i = 0; i < count; ++i) {
          float lanes[kLanes];
          store(lanes, root(set1(x[i])));
          squares += double(lanes[0]) * double(lanes[0]);
          dot += double(lanes[0]) * double(dz[i]);
        }
      }
      const double length = __builtin_sqrt(squares + eps2);
      scale = set1(float(1 / length));
      pull = set1(float(dot / length / length));  // z sum(z dz) = r * this
    }
    for_lanes(count, [&](int64_t i, int n) {
      Vec d = zero();
      if (dz) {
        const Vec q = get(x + i, n);
        d = fnma(root(q), pull, get(dz + i, n)) * scale;
        if (power) {
          const Vec m = abs(q), t = m + eps;
          d = d * (fma(m, half, eps) / t / sqrt(t));
        }
      }
      if (given) d += get(given + i, n);
      put(ds + from + i, d, n);
    });
  });
}

// From g [rows,P] at the projections to one modality's gradients; the rows start at `first` of the whole.
struct Side {
  const float *x, *W;
  int64_t width;
  float *dx, *dW, *db;
};
// With bf16 operands (the same two products, rounded).
void products_bf16(const Workers& workers, const FbpSizes& z, const Side& side, const float* g, int64_t first,
                   int64_t rows, float* scratch) {
  if (side.dx) {
    const gemm::PlainRows from{g, z.P};
    const gemm::Store store(side.dx + first * side.width, side.width);
    if (fbp_streams_dx(rows)) {
      gemm::stream(workers, rows, side.width, z.P, from, gemm::PlainColumns{side.W, side.width}, store, scratch,
                   gemm::Bf16Passing{});
    } else {
      const gemm::Bf16 format{gemm::keeps_pairs(rows)};
      gemm::pack_columns_bf16(side.W, side.width, side.width, z.P, gemm::Layout::kn, scratch, workers, format.pairs);
      gemm::run(workers, rows, side.width, gemm::even(z.P), gemm::Bf16Rows{from, z.P}, scratch, store,
                scratch + gemm::packed_floats_bf16(side.width, z.P, format.pairs), gemm::Split::any, format);
    }
  }
  if (side.dW) {
    const gemm::TransposedRows transposed{g, z.P};
    const gemm::PlainColumns x{side.x + first * side.width, side.width};
    const gemm::Bf16Passing format;
    const gemm::Store store(side.dW, side.width);
    const gemm::AddTo add(side.dW, side.width);
    if (first == 0) gemm::stream(workers, z.P, side.width, rows, transposed, x, store, scratch, format);
    else gemm::stream(workers, z.P, side.width, rows, transposed, x, add, scratch, format);
  }
  if (side.db) gemm::column_sums(workers, g, rows, z.P, side.db, first > 0);
}

void products(const Workers& workers, const FbpSizes& z, const Side& side, const float* g, int64_t first, int64_t rows,
              float* scratch) {
  if (z.bf16) return products_bf16(workers, z, side, g, first, rows, scratch);
  if (side.dx) {
    const gemm::PlainRows from{g, z.P};
    const gemm::Store store(side.dx + first * side.width, side.width);
    if (fbp_streams_dx(rows)) {
      gemm::stream(workers, rows, side.width, z.P, from, gemm::PlainColumns{side.W, side.width}, store, scratch);
    } else {
      gemm::pack_columns(side.W, side.width, side.width, z.P, gemm::Layout::kn, scratch, workers);
      gemm::run(workers, rows, side.width, z.P, from, scratch, store, scratch + gemm::packed_floats(side.width, z.P));
    }
  }
  if (side.dW) {
    const gemm::TransposedRows transposed{g, z.P};
    const gemm::PlainColumns x{side.x + first * side.width, side.width};
    if (first == 0) gemm::stream(workers, z.P, side.width, rows, transposed, x, gemm::Store(side.dW, side.width), scratch);
    else gemm::stream(workers, z.P, side.width, rows, transposed, x, gemm::AddTo(side.dW, side.width), scratch);
  }
  if (side.db) gemm::column_sums(workers, g, rows, z.P, side.db, first > 0);
}

}  // namespace

void fbp_backward(const OpCall& call) {
  const FbpSizes z = fbp_sizes(call.in, call.attr);
  const Workers& workers = *call.workers;
  const FbpPlan plan = fbp_plan(z);
  const float* s = call.in[FbpIn::s].f32();
  const bool kept = fbp_kept(call.in);
  const auto at = fbp_backward_plan(z, plan, workers.count, call.in[FbpIn::s].given(), kept);
  float* room = static_cast<float*>(call.workspace);
  const Tensor *in = call.in, *out = call.out;
  const Side u{in[FbpIn::a].f32(), in[FbpIn::U].f32(), z.m, out[0].f32(), out[2].f32(), out[4].f32()};
  const Side v{in[FbpIn::v].f32(), in[FbpIn::V].f32(), z.n, out[1].f32(), out[3].f32(), out[5].f32()};
  if (z.B == 0) {
    products(workers, z, u, nullptr, 0, 0, room + at.pass);
    products(workers, z, v, nullptr, 0, 0, room + at.pass);
    return;
  }
  float *gu = u.dx || u.dW || u.db ? room + at.gu : nullptr, *gv = v.dx || v.dW || v.db ? room + at.gv : nullptr;
  float* const partial = room + at.partial;
  const bool by_strip = plan.strips_per_group > 1;
  const int64_t chunks = gemm::ceil_div(plan.strips, at.chunk_strips);

  const FbpPass pass = fbp_pass_of(call, z, room + at.pass);
  if (!s) {
    fbp_run_forward(call, room + at.pass, false, nullptr, room + at.s, nullptr, nullptr);
    s = room + at.s;
  }
  gradient_at_s(call, z, s, room + at.ds);
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const int64_t first = chunk * at.chunk_strips, count = gemm::min64(at.chunk_strips, plan.strips - first);
    const FbpStrip head = fbp_strip(z, plan, first), tail = fbp_strip(z, plan, first + count - 1);
    const int64_t rows = tail.row + tail.rows - head.row, a_rows = tail.a_row + tail.a_rows - head.a_row;
    fbp_with_activation(call.attr[FbpAttr::activation].i, [&](auto tag) {
      constexpr int F = decltype(tag)::value;
      if (kept)
        kept_gradients<F>(pass, in[FbpIn::hu].f32(), in[FbpIn::hv].f32(), room + at.ds, head.a_row, a_rows, gu, gv);
      else
        fbp_pass(pass, first, count,
                 Gradients<F>{z.k, z.group, z.o, z.P, by_strip, first, head.row, head.a_row, room + at.ds,
                              gu && by_strip ? partial : gu, gv});
    });
    if (gu && by_strip && !kept)
      for (int64_t i = 0; i < a_rows; ++i)
        gemm::column_sums(workers, partial + i * plan.strips_per_group * z.P, plan.strips_per_group, z.P, gu + i * z.P);
    products(workers, z, u, gu, head.a_row, a_rows, room + at.pass);
    products(workers, z, v, gv, head.row, rows, room + at.pass);
  }
}

}  // namespace affuse::AFFUSE_ISA
