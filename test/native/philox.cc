// dropout_apply of kernels/common/philox.h against its definition, one element at a time: bit for bit, at every offset
// within a block, at lengths around those of blocks, and where the low word of a group's number overflows inside the run.
// Compiled by math.test.ts once per instruction set; returns how many runs differed.
#include "kernels/common/philox.h"

#include <stdio.h>
#include <string.h>

namespace simd = affuse::AFFUSE_ISA;

namespace {

int failures = 0;

void check(const affuse::DropoutMask& mask, uint64_t first, int64_t n) {
  constexpr int64_t kMost = 1024;
  float x[kMost], y[kMost + 1], far[kMost + 1];
  for (int64_t i = 0; i < n; ++i) x[i] = float(i) - 100.5f;
  y[n] = far[n] = 7;
  simd::dropout_apply(mask, first, n, x, y);
  simd::dropout_apply<64>(mask, first, n, x, far);
  int64_t wrong = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float want = affuse::dropout_keeps(mask, first + uint64_t(i)) ? x[i] * float(mask.scale) : 0.0f;
    wrong += memcmp(&want, y + i, 4) != 0 || memcmp(&want, far + i, 4) != 0;
  }
  if (wrong == 0 && y[n] == 7 && far[n] == 7) return;
  ++failures;
  printf("first %llu, %lld elements: %lld wrong\n", (unsigned long long)first, (long long)n, (long long)wrong);
}

}  // namespace

int main() {
  const affuse::DropoutMask masks[] = {
      affuse::dropout_mask(0.5, 0x0123456789abcdefULL, 3, 1),
      affuse::dropout_mask(0.1, 0xffffffffffffffffULL, 0xffffffffLL, 0xffffffffLL),
      affuse::dropout_mask(0, 1, 0, 0),
      affuse::dropout_mask(0x1.fffffffffffffp-1, 1, 0, 0),
  };
  const uint64_t carry = uint64_t(1) << 34;  // where the group's low word overflows
  const uint64_t starts[] = {0, carry - 700, carry - 64, carry, 3 * carry - 333, 0x3fffffff0ULL};
  const int64_t lengths[] = {0, 1, 3, 4, 15, 16, 17, 63, 64, 65, 127, 128, 129, 200, 1024};
  for (const auto& mask : masks)
    for (const uint64_t start : starts)
      for (uint64_t offset = 0; offset < 5; ++offset)
        for (const int64_t n : lengths) check(mask, start + offset, n);
  return failures > 255 ? 255 : failures;
}
