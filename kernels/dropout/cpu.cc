#include "../common/philox.h"
#include "../common/stream.h"
#include "dropout.h"

namespace affuse::AFFUSE_ISA {
namespace {

constexpr int64_t kChunk = 32768;  // elements per task: 256 KB of traffic

void apply(const OpCall& c, const Tensor& x, const Tensor& y) {
  const DropoutMask mask = dropout_mask(c.attr[0].f, c.attr[1].u, c.attr[3].i, c.attr[2].i);
  const int64_t n = y.count();
  const float* source = x.f32();
  float* target = y.f32();
  parallel(*c.workers, (n + kChunk - 1) / kChunk, [&](int64_t task, int) {
    const int64_t from = task * kChunk, count = n - from < kChunk ? n - from : kChunk;
    dropout_apply<kRowAhead>(mask, uint64_t(from), count, source + from, target + from);
  });
}

}  // namespace

void dropout_forward(const OpCall& c) { apply(c, c.in[0], c.out[0]); }
void dropout_backward(const OpCall& c) { apply(c, c.in[1], c.out[0]); }

}  // namespace affuse::AFFUSE_ISA
