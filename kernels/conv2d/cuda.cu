// conv2d on a device: products over channel-last maps, as on the CPU (conv2d.h). A block has a tile of positions by
// channels; a row of the patch matrix is read where it lies, in a map around which an edge of zeros is laid once, 16
// bytes at a time where the channels allow it.
//
//   forward   positions by O over K = kh kw C          dx   phase by phase of the stride: positions by C over taps O
//   dW        O by K over all positions, cut into pieces that are added up in order; db: sums over the rows of g
//
// Only columns that are an item's own take part; what lies beyond is not read.
#include "../gemm/cuda/product.h"
#include "cuda/maps.h"

namespace affuse::cuda {
namespace {

using conv::Patches;
using Weights = gemm::Transposed;

// Sums to the places of their positions.
struct Target {
  conv::Rows out;
  const float* bias;  // null: 0
  int64_t N;
  bool relu, wide;
  template <int W>
  AFFUSE_DEVICE void finish(const conv::Grid::Place& p, int64_t n, Pack<W> z) const {
    if (!p.own) z = fill<W>(0.0f);
    else if (bias) z = z + get<W>(bias + n);
    if (relu) z = z.map([](float v) { return v < 0.0f ? 0.0f : v; });
    put(out.at(p) + n, z);
  }
  AFFUSE_DEVICE void operator()(int64_t m, int64_t n, const Pack<4>& z) const {
    if (m >= out.grid.count || n >= N) return;
    const conv::Grid::Place p = out.grid.place(m);
    if (wide) return finish(p, n, z);
#pragma unroll
    for (int e = 0; e < 4; ++e)
      if (n + e < N) finish(p, n + e, Pack<1>{{z.v[e]}});
  }
};

template <class Unit>
using PositionFeed = conv::PositionLines<Unit::kRows, Unit::kPitch>;
template <class Unit>
using ColumnFeed = gemm::Feed<Weights, Unit::kColumns>;
template <class Unit>
AFFUSE_GLOBAL(gemm::kThreads, 2) multiply_positions(Patches p, Weights weights, Target target, int64_t tile_columns) {
  Shared shared;
  float* const ring = shared.take<float>(gemm::tile_words<Unit, PositionFeed<Unit>, ColumnFeed<Unit>>());
  const int64_t row = blockIdx.x / tile_columns, row0 = row * Unit::kRows;
  const int64_t column0 = (blockIdx.x - row * tile_columns) * Unit::kColumns;
  const PositionFeed<Unit> rows(p, row0);
  const ColumnFeed<Unit> columns(weights, gemm::InOrder{column0});
  gemm::multiply_tile<Unit>(rows, columns, row0, column0, 0, int(p.K), ring, target);
}

struct WeightTarget {
  float* to;  // of a block's piece, [O][K]
  int64_t O, K;
  AFFUSE_DEVICE void operator()(int64_t o, int64_t k, const Pack<4>& v) const {
    if (o >= O) return;
#pragma unroll
    for (int e = 0; e < 4; ++e)
      if (k + e < K) to[o * K + k + e] = v.v[e];
  }
};

template <class Unit>
using GradientFeed = conv::PositionDepth<Unit::kRows>;
template <class Unit>
AFFUSE_GLOBAL(gemm::kThreads, 2) multiply_gradients(Patches g, Patches x, WeightTarget target, int64_t tile_columns,
                                                    int64_t piece) {
  using Feed = GradientFeed<Unit>;
  Shared shared;
  float* const ring = shared.take<float>(gemm::tile_words<Unit, Feed, Feed>());
  const int64_t row = blockIdx.x / tile_columns, row0 = row * Unit::kRows;
  const int64_t column0 = (blockIdx.x - row * tile_columns) * Unit::kColumns;
  const int64_t from = blockIdx.y * piece, count = g.rows.grid.count, to = from + piece < count ? from + piece : count;
  target.to += blockIdx.y * target.O * target.K;
  gemm::multiply_tile<Unit>(Feed(g, row0), Feed(x, column0), row0, column0, from, to, ring, target);
}

void positions(Queue& queue, int precision, const Patches& p, const Weights& weights, const Target& target) {
  if (p.K > (int64_t(1) << 31) - 256)
    return queue.status->fail("ERR_AFFUSE_SIZE", "expected windows of at most 2^31 - 256 elements on a device, got %lld",
                              (long long)p.K);
  const gemm::SquarePlan plan = gemm::square_plan(p.rows.grid.count, target.N, p.K, false, queue.processors);
  gemm::with_square<true>(plan, gemm::rounding_of(precision), [&](auto unit) {
    using Unit = typename decltype(unit)::type;
    const unsigned words = gemm::tile_words<Unit, PositionFeed<Unit>, ColumnFeed<Unit>>();
    launch("conv2d", multiply_positions<Unit>, queue, Grid{plan.tiles}, gemm::kThreads,
           SharedBytes().take<float>(words).bytes, p, weights, target, plan.columns);
  });
}

Weights weights_of(const float* packed, int64_t N, int64_t K) { return {packed, N, N, int(K), N % 4 == 0}; }

conv::Grid output_grid(const Conv& c, const int32_t* widths) {
  return conv::grid_of(c.x.B, c.y.H, c.y.W, widths, c.stride, c.kw - 2 * c.pad);
}
// The patches of x; staged: x with its edge, or x itself.
Patches patches(const Conv& c, const conv::Grid& grid, const float* staged) {
  const Stage s = stage_x(c);
  const int64_t row = s.W * s.C;
  return conv::patches_of({grid, const_cast<float*>(staged), s.image(), c.stride * row, c.stride * s.C}, row, c.kw * s.C,
                          c.x.C * c.taps());
}
const float* staged_x(Queue& queue, const Conv& c, const OpCall& call, float* room) {
  if (!stages_x(c)) return call.in[0].f32();
  conv::stage(queue, c.x, stage_x(c), call.in[0].f32(), nullptr, room, call.in[3].i32(), 1, 1);
  return room;
}
int64_t staged_floats(const Conv& c) { return stages_x(c) ? c.x.B * stage_x(c).image() : 0; }

struct ForwardRoom {
  float *x, *weights, *rows;
};
ForwardRoom forward_room(const Conv& c, gemm::Scratch& room) {
  ForwardRoom r{};
  r.x = room.take(staged_floats(c));
  r.weights = room.take(c.O * c.x.C * c.taps());
  r.rows = room.take(c.y.last || c.O == 1 ? 0 : c.x.B * c.y.H * c.y.W * c.O);
  return r;
}

void run_forward(const OpCall& call, Queue& queue, const Conv& c, const ForwardRoom& r, float* y) {
  const int64_t C = c.x.C, O = c.O, K = C * c.taps();
  const conv::Grid grid = output_grid(c, call.in[3].i32());
  const float* const x = staged_x(queue, c, call, r.x);
  each_of<1, 4>(queue, "conv2d W", O * K,
                conv::ForwardWeights{call.in[1].f32(), r.weights, C, c.taps(), divider(O, O * K), divider(C, O * K)});
  const bool direct = c.y.last || O == 1;
  float* const rows = direct ? y : r.rows;
  const float* const bias = call.in[2].f32();
  const Target target{
      {grid, rows, c.y.H * c.y.W * O, c.y.W * O, O}, bias, O, c.relu, O % 4 == 0 && aligned(rows) && aligned(bias)};
  positions(queue, c.precision, patches(c, grid, x), weights_of(r.weights, O, K), target);
  if (!direct) conv::unstage(queue, c.y, rows, y);
}

void forward(const OpCall& call, Queue& queue) {
  const Conv c = conv_of(call.in[0], call.in[1], call.attr);
  write_widths(queue, call.out[1], call.in[3], c.kw, c.stride, c.pad);
  gemm::Scratch room(call.workspace);
  if (call.out[0].data) run_forward(call, queue, c, forward_room(c, room), call.out[0].f32());
}
size_t forward_workspace(const OpShape& s, int) {
  gemm::Scratch room(nullptr);
  forward_room(conv_of(s.in[0], s.in[1], s.attr), room);
  return size_t(room.floats()) * sizeof(float);
}

struct BackwardRoom {
  ForwardRoom forward;
  float *y, *x, *g, *rows, *weights, *parts, *sums;
};
bool stages_gradient(const Conv& c, const Stage& s, bool widths) {
  return (!c.y.last && c.O > 1) || c.relu || widths || s.H != c.y.H || s.W != c.y.W;
}
gemm::SquarePlan gradient_plan(const Conv& c, int processors) {
  return gemm::square_plan(c.O, c.x.C * c.taps(), c.x.B * c.y.H * c.y.W, true, processors);
}
template <class Descs>
BackwardRoom backward_room(const Conv& c, const Descs* in, const Descs* out, int processors, gemm::Scratch& room) {
  const bool dx = out[0].given(), dW = out[1].given();
  const int64_t K = c.x.C * c.taps();
  BackwardRoom r{};
  if (c.relu && !in[4].given()) {
    r.forward = forward_room(c, room);
    r.y = room.take(c.x.B * c.y.H * c.y.W * c.O);
  }
  const Stage g = stage_g(c, dx);
  if (dW) r.x = room.take(staged_floats(c));
  if (stages_gradient(c, g, in[3].given())) r.g = room.take(c.x.B * g.image());
  if (dx) r.weights = room.take(c.O * K + 64 * c.kh * c.kw);  // every phase begins at a multiple of 64
  if (dx && !c.x.last && c.x.C > 1) r.rows = room.take(c.x.B * c.x.H * c.x.W * c.x.C);
  if (dW) r.parts = room.take(gradient_plan(c, processors).pieces * c.O * K);
  if (out[2].given()) r.sums = room.take(gemm::column_sums_floats(c.x.B * g.H * g.W, c.O, processors));
  return r;
}

void weight_gradient(const OpCall& call, Queue& queue, const Conv& c, const Stage& s, const float* g,
                     const BackwardRoom& r) {
  const int64_t C = c.x.C, O = c.O, K = C * c.taps();
  const conv::Grid grid = output_grid(c, call.in[3].i32());
  const Patches x = patches(c, grid, staged_x(queue, c, call, r.x));
  float* const base = const_cast<float*>(g) + (s.top * s.W + s.left) * O;
  const Patches rows = conv::patches_of({grid, base, s.image(), s.W * O, O}, 0, O, O);
  const gemm::SquarePlan plan = gradient_plan(c, queue.processors);
  const int64_t piece = gemm::round_up(gemm::ceil_div(grid.count, plan.pieces), gemm::kDepth);
  gemm::with_square<false>(plan, gemm::rounding_of(c.precision), [&](auto unit) {
    using Unit = typename decltype(unit)::type;
    const unsigned words = gemm::tile_words<Unit, GradientFeed<Unit>, GradientFeed<Unit>>();
    launch("conv2d dW", multiply_gradients<Unit>, queue, Grid{plan.tiles, plan.pieces}, gemm::kThreads,
           SharedBytes().take<float>(words).bytes, rows, x, WeightTarget{r.parts, O, K}, plan.columns, piece);
  });
  each_of<1, 4>(queue, "conv2d dW pieces", O * K,
                conv::WeightsAdded{r.parts, call.out[1].f32(), C, c.taps(), O * K, plan.pieces, divider(c.taps(), O * K),
                                   divider(C, O * K)});
}

void input_gradient(const OpCall& call, Queue& queue, const Conv& c, const Stage& s, const float* g, const BackwardRoom& r) {
  const int64_t C = c.x.C, O = c.O;
  const bool direct = c.x.last || C == 1;
  float* const dx = direct ? call.out[0].f32() : r.rows;
  const int64_t n = call.out[0].count();
  if (c.stride > c.kh || c.stride > c.kw) each(queue, "conv2d dx zero", n, aligned(dx), Filled{dx, 0.0f});
  float* weights = r.weights;
  for (int64_t rh = 0; rh < c.stride && rh < c.kh; ++rh)
    for (int64_t rw = 0; rw < c.stride && rw < c.kw; ++rw) {
      const Phase ph = phase_of(rh, c.x.H, c.kh, c.stride, c.pad), pw = phase_of(rw, c.x.W, c.kw, c.stride, c.pad);
      const int64_t K = ph.taps * pw.taps * O;
      if (ph.count == 0 || pw.count == 0 || c.x.B == 0) continue;
      each_of<1, 4>(
          queue, "conv2d W", K * C,
          conv::PhaseWeights{call.in[1].f32(), weights, C, c.kw, c.taps(), c.stride, rh + c.stride * (ph.taps - 1),
                             rw + c.stride * (pw.taps - 1), divider(C, K * C), divider(O, K * C), divider(pw.taps, K * C)});
      const conv::Grid grid = conv::grid_of(c.x.B, ph.count, pw.count, call.in[3].i32(), c.stride, pw.first + 1);
      const int64_t h = (ph.first + c.pad) / c.stride - (ph.taps - 1) + s.top;
      const int64_t w = (pw.first + c.pad) / c.stride - (pw.taps - 1) + s.left, row = s.W * O;
      const Patches p =
          conv::patches_of({grid, const_cast<float*>(g) + h * row + w * O, s.image(), row, O}, row, pw.taps * O, K);
      const conv::Rows to{grid, dx + (ph.first * c.x.W + pw.first) * C, c.x.H * c.x.W * C, c.stride * c.x.W * C,
                          c.stride * C};
      positions(queue, c.precision, p, weights_of(weights, C, K), Target{to, nullptr, C, false, C % 4 == 0 && aligned(dx)});
      weights += (K * C + 63) / 64 * 64;
    }
  if (!direct) conv::unstage(queue, c.x, dx, call.out[0].f32());
}

void backward(const OpCall& call, Queue& queue) {
  const Conv c = conv_of(call.in[0], call.in[1], call.attr);
  gemm::Scratch room(call.workspace);
  const BackwardRoom r = backward_room<Tensor>(c, call.in, call.out, queue.processors, room);
  const float* y = call.in[4].f32();
  const int32_t* widths = call.in[3].i32();
  if (c.relu && !y && c.x.B > 0) run_forward(call, queue, c, r.forward, r.y), y = r.y;
  const Stage s = stage_g(c, call.out[0].given());
  const float* g = call.in[5].f32();
  if (r.g) {
    conv::stage(queue, c.y, s, g, c.relu ? y : nullptr, r.g, widths, c.stride, c.kw - 2 * c.pad);
    g = r.g;
  }
  if (call.out[1].data) weight_gradient(call, queue, c, s, g, r);
  if (call.out[2].data) gemm::column_sums(queue, g, c.x.B * s.H * s.W, c.O, call.out[2].f32(), false, r.sums);
  if (call.out[0].data) input_gradient(call, queue, c, s, g, r);
}
size_t backward_workspace(const OpShape& s, int processors) {
  gemm::Scratch room(nullptr);
  backward_room<TensorDesc>(conv_of(s.in[0], s.in[1], s.attr), s.in, s.out, processors, room);
  return size_t(room.floats()) * sizeof(float);
}

}  // namespace

AFFUSE_DEVICE_OP(kConv2d, "conv2d", &forward, &forward_workspace)
AFFUSE_DEVICE_OP(kConv2dBackward, "conv2d.backward", &backward, &backward_workspace)

}  // namespace affuse::cuda
