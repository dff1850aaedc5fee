// Products of matrices on a device, for every room:
//
//   C[i,n] = sum over k of rows(i,k) columns(k,n)          i < M, n < N, k < K
//
//   gemm::Product p{gemm::Layout::nt, M, N, K, x, D, W, D, finish, rounding};    y = f(x W^T + b)
//   gemm::product(queue, p, workspace);    product_floats(layout, M, N, K, rounding, processors) floats at 16 bytes
//
// float32: exact, kernels/gemm/cuda/tile.h. bf16: operands are rounded to bf16 and laid along K in the workspace first, once
// for all blocks that read them: half the bytes in L2, every copy 16 bytes, one layout for the multiplication (mma.h). A
// batch of few rows reads them as they are (RoundingUnit in units.h). tf32: likewise, in large tiles; where those do not pay,
// exact float32.
//
// Blocks that do not fill the device split K; partial sums lie in the workspace and are added in the order of K. The way is
// a function of sizes and queue.processors alone (plan()), and so are the results.
#pragma once
#include "../../common/cuda/activate.h"
#include "../../common/cuda/stream.h"
#include "tile.h"

namespace affuse::cuda::gemm {

enum class Layout : int {
  nt,  // rows [M,K], columns [N,K]: y = x W^T
  nn,  // rows [M,K], columns [K,N]: dx = g W
  tn,  // rows [K,M], columns [K,N]: dW = g^T x
};

// What happens to sums: z = sum + bias; pre = z, y = f(z) or y += z, each where wanted.
struct Finish {
  float *y, *pre;
  const float* bias;  // null: 0
  int64_t ld;         // of y and pre
  int activation;     // ActivationKind
  bool add;
  bool wide;  // groups of four columns lie at multiples of 16 bytes; wide_finish() says so
  template <int N>
  AFFUSE_DEVICE void operator()(int64_t row, int64_t column, Pack<N> z) const {
    if (bias) z = z + get<N>(bias + column);
    const int64_t at = row * ld + column;
    if (pre) put(pre + at, z);
    if (!y) return;
    if (add) z = get<N>(y + at) + z;
    put(y + at, activate(activation, z));
  }
};
inline Finish finish_of(float* y, float* pre, const float* bias, int64_t ld, int activation, bool add = false) {
  return {y, pre, bias, ld, activation, add, aligned(y) && aligned(pre) && aligned(bias) && ld % 4 == 0};
}

struct Product {
  Layout layout;
  int64_t M, N, K;
  const float* rows;
  int64_t ld_rows;
  const float* columns;
  int64_t ld_columns;
  Finish finish;
  Rounding rounding;
};

int64_t product_floats(Layout layout, int64_t M, int64_t N, int64_t K, Rounding rounding, int processors);
// Estimated cycles, to compare ways with.
double rounding_cycles(int64_t elements, int processors);
double product_cycles(Layout layout, int64_t M, int64_t N, int64_t K, Rounding rounding, int processors);
void product(Queue& queue, const Product& p, float* workspace);

// out[c] (+)= sum over rows of g[r * columns + c], in an order that rows, columns and processors decide. rows may be 0.
int64_t column_sums_floats(int64_t rows, int64_t columns, int processors);
void column_sums(Queue& queue, const float* g, int64_t rows, int64_t columns, float* out, bool add, float* workspace);

// Room for one after another in a workspace; with a null base only the size is of interest.
class Scratch {
 public:
  explicit Scratch(void* base) : base_(static_cast<float*>(base)) {}
  float* take(int64_t floats) {
    float* const at = base_ ? base_ + used_ : nullptr;
    used_ += (floats + 63) / 64 * 64;
    return at;
  }
  int64_t floats() const { return used_; }

 private:
  float* base_;
  int64_t used_ = 0;
};

}  // namespace affuse::cuda::gemm
