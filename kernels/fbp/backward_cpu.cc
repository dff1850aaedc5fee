// FBP backward: gradient at s, gradients at the projections from the recomputed projections, then four products.
#include "pass.h"

namespace affuse::AFFUSE_ISA {
namespace {

template <int F>
AFFUSE_INLINE Vec slope(Vec h, Vec g) {  // g f'(x) from h = f(x)
  if constexpr (F == FbpActivation::relu) return keep(lt(zero(), h), g);
  else if constexpr (F == FbpActivation::tanh) return g * fnma(h, h, set1(1.0f));
  else return g;
}

// Lane l to p[l*k], l < lanes.
AFFUSE_INLINE void scatter(float* p, Vec v, int64_t k, int lanes) {
  if (k == 1) return put(p, v, lanes);
  alignas(64) float t[kLanes];
  store(t, v);
  for (int l = 0; l < lanes; ++l) p[l * k] = t[l];
}

// gu [rows of a, P] (or [strips, P] where a group spans strips) and gv [rows, P] in the projections' own order.
template <int F>
struct Gradients {
  int64_t k, group, o, P;
  bool by_strip;
  int64_t first_strip, first_row, first_a;
  const float* ds;
  float *gu, *gv;  // null: not wanted
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
      const double squares = long_sum(count, [&](int64_t i, int n) {
        const Vec r = root(get(x + i, n));
        return r * r;
      });
      const double dot = long_sum(count, [&](int64_t i, int n) { return root(get(x + i, n)) * get(dz + i, n); });
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
void products(const Workers& workers, const FbpSizes& z, const Side& side, const float* g, int64_t first, int64_t rows,
              float* scratch) {
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
  const auto at = fbp_backward_plan(z, plan, workers.count, call.in[FbpIn::s].given());
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
    fbp_run_forward(call, pass, false, nullptr, room + at.s);
    s = room + at.s;
  }
  gradient_at_s(call, z, s, room + at.ds);
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const int64_t first = chunk * at.chunk_strips, count = gemm::min64(at.chunk_strips, plan.strips - first);
    const FbpStrip head = fbp_strip(z, plan, first), tail = fbp_strip(z, plan, first + count - 1);
    const int64_t rows = tail.row + tail.rows - head.row, a_rows = tail.a_row + tail.a_rows - head.a_row;
    fbp_with_activation(call.attr[FbpAttr::activation].i, [&](auto tag) {
      constexpr int F = decltype(tag)::value;
      fbp_pass(pass, first, count,
               Gradients<F>{z.k, z.group, z.o, z.P, by_strip, first, head.row, head.a_row, room + at.ds,
                            gu && by_strip ? partial : gu, gv});
    });
    if (gu && by_strip)
      for (int64_t i = 0; i < a_rows; ++i)
        gemm::column_sums(workers, partial + i * plan.strips_per_group * z.P, plan.strips_per_group, z.P, gu + i * z.P);
    products(workers, z, u, gu, head.a_row, a_rows, room + at.pass);
    products(workers, z, v, gv, head.row, rows, room + at.pass);
  }
}

}  // namespace affuse::AFFUSE_ISA
