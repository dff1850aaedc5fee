// Column sums of a few hundred rows of partial sums, in the order of the rows: what kernels that sum over samples end with.
#pragma once
#include "launch.h"

namespace affuse::cuda {

struct ColumnSums {
  const float* partial;  // [rows][columns]
  int64_t rows, columns;
  float* out[2];   // the first `split` sums and the others; null: nobody wants them
  int64_t split;
};

// 32 columns by 8 runs of rows: run w adds rows w, w + 8, …, then the runs are added.
template <int = 0>
AFFUSE_GLOBAL(256, 4) column_sums_kernel(ColumnSums a) {
  Shared shared;
  float* const room = shared.take<float>(256);
  for (int64_t first = int64_t(blockIdx.x) * 32; first < a.columns; first += int64_t(gridDim.x) * 32) {
    const int64_t column = first + lane();
    float total = 0;
    if (column < a.columns) {
#pragma unroll 4
      for (int64_t r = warp(); r < a.rows; r += 8) total += a.partial[r * a.columns + column];
    }
    room[threadIdx.x] = total;
    barrier();
    if (warp() == 0 && column < a.columns) {
#pragma unroll
      for (unsigned w = 1; w < 8; ++w) total += room[w * 32 + lane()];
      float* const to = column < a.split ? a.out[0] : a.out[1];
      if (to) to[column < a.split ? column : column - a.split] = total;
    }
    barrier();
  }
}

template <int = 0>  // templates, so that only who calls them compiles them
void column_sums(Queue& queue, const char* name, const ColumnSums& sums) {
  const int64_t blocks = (sums.columns + 31) / 32, most = int64_t(queue.processors) * 8;
  const Grid grid{blocks < most ? blocks : most};
  launch(name, column_sums_kernel<>, queue, grid, 256, SharedBytes().take<float>(256).bytes, sums);
}

}  // namespace affuse::cuda
