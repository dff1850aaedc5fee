// linear on a device: every product is gemm::product (kernels/gemm/cuda/product.h), bias and activation are its Finish. The
// backward writes g = dy f'(z) once, unless there is no activation, and multiplies it twice.
#include "../common/cuda/activate.h"
#include "../gemm/cuda/product.h"
#include "linear.h"

namespace affuse::cuda {
namespace {

using Kind = ActivationKind;

struct Sizes {
  int64_t R = 1, D, O;
  int kind;
  gemm::Rounding rounding;
  template <class Desc>
  Sizes(const Desc* in, const Attr* attr)
      : D(in[1].dim[1]), O(in[1].dim[0]), kind(int(attr[LinearAttr::activation].i)),
        rounding(gemm::rounding_of(attr[LinearAttr::precision].i)) {
    for (int i = 0; i + 1 < in[0].rank; ++i) R *= in[0].dim[i];
  }
};

void forward(const OpCall& call, Queue& queue, const Sizes& s, int kind, float* y, float* pre, float* workspace) {
  gemm::product(queue,
                {gemm::Layout::nt, s.R, s.O, s.D, call.in[0].f32(), s.D, call.in[1].f32(), s.D,
                 gemm::finish_of(y, pre, call.in[2].f32(), s.O, kind), s.rounding},
                workspace);
}

void linear(const OpCall& call, Queue& queue) {
  const Sizes s(call.in, call.attr);
  forward(call, queue, s, s.kind, call.out[0].f32(), call.out[1].f32(), static_cast<float*>(call.workspace));
}
size_t workspace(const OpShape& shape, int processors) {
  const Sizes s(shape.in, shape.attr);
  return size_t(gemm::product_floats(gemm::Layout::nt, s.R, s.O, s.D, s.rounding, processors)) * sizeof(float);
}

struct Sloped {
  int kind;
  const float *saved, *dy;
  float* g;
  template <int N>
  AFFUSE_DEVICE void operator()(int64_t i) const {
    const int f = kind;
    put(g + i, map2(get<N>(saved + i), get<N>(dy + i), [f](float s, float d) { return slope_times(f, s, d); }));
  }
};

// g first, then one product after another in the same place.
struct BackwardRoom {
  float *g, *products;
  int64_t total;
  BackwardRoom(const Sizes& s, int processors, void* base) {
    using gemm::Layout;
    gemm::Scratch room(base);
    g = room.take(s.kind == Kind::none ? 0 : s.R * s.O);
    int64_t most = gemm::column_sums_floats(s.R, s.O, processors);
    for (const int64_t n : {gemm::product_floats(Layout::nt, s.R, s.O, s.D, s.rounding, processors),
                            gemm::product_floats(Layout::nn, s.R, s.D, s.O, s.rounding, processors),
                            gemm::product_floats(Layout::tn, s.O, s.D, s.R, s.rounding, processors)})
      most = n > most ? n : most;
    products = room.take(most);
    total = room.floats();
  }
};

void linear_backward(const OpCall& call, Queue& queue) {
  const Sizes s(call.in, call.attr);
  const BackwardRoom room(s, queue.processors, call.workspace);
  float *dx = call.out[0].f32(), *dW = call.out[1].f32(), *db = call.out[2].f32();
  const float *dy = call.in[5].f32(), *g = dy;
  if (s.kind != Kind::none && s.R > 0) {
    const float* saved = s.kind == Kind::gelu ? call.in[4].f32() : call.in[3].f32();
    if (!saved) {  // y (gelu: z) again, into g's place
      forward(call, queue, s, s.kind == Kind::gelu ? int(Kind::none) : s.kind, room.g, nullptr, room.products);
      saved = room.g;
    }
    each(queue, "linear.backward g", s.R * s.O, aligned(saved) && aligned(dy), Sloped{s.kind, saved, dy, room.g});
    g = room.g;
  }
  if (dx)
    gemm::product(queue,
                  {gemm::Layout::nn, s.R, s.D, s.O, g, s.O, call.in[1].f32(), s.D,
                   gemm::finish_of(dx, nullptr, nullptr, s.D, Kind::none), s.rounding},
                  room.products);
  if (dW)
    gemm::product(queue,
                  {gemm::Layout::tn, s.O, s.D, s.R, g, s.O, call.in[0].f32(), s.D,
                   gemm::finish_of(dW, nullptr, nullptr, s.D, Kind::none), s.rounding},
                  room.products);
  if (db) gemm::column_sums(queue, g, s.R, s.O, db, false, room.products);
}
size_t backward_workspace(const OpShape& shape, int processors) {
  return size_t(BackwardRoom(Sizes(shape.in, shape.attr), processors, nullptr).total) * sizeof(float);
}

}  // namespace

AFFUSE_DEVICE_OP(kLinear, "linear", &linear, &workspace)
AFFUSE_DEVICE_OP(kLinearBackward, "linear.backward", &linear_backward, &backward_workspace)

}  // namespace affuse::cuda
