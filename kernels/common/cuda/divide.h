// Division by a number that is the same for a whole launch: a multiplication and a shift (Granlund, Montgomery 1994).
#pragma once
#include "verbs.h"

namespace affuse::cuda {

struct Parts {
  int64_t quotient, rest;
};

// Divides numbers of [0, most]; below 2^31 without a division.
struct Divider {
  int64_t divisor;
  uint32_t multiplier, shift;
  bool small;

  AFFUSE_DEVICE int64_t quotient(int64_t n) const {
    if (!small) return n / divisor;
    return int64_t((multiply_high(multiplier, uint32_t(n)) + uint32_t(n)) >> shift);  // the sum stays below 2^32
  }
  AFFUSE_DEVICE Parts split(int64_t n) const {
    const int64_t q = quotient(n);
    return {q, n - q * divisor};
  }
};

inline Divider divider(int64_t divisor, int64_t most) {
  Divider d{divisor < 1 ? 1 : divisor, 0, 0, false};
  if (most >= int64_t(1) << 31 || d.divisor >= int64_t(1) << 31) return d;
  while ((int64_t(1) << d.shift) < d.divisor) ++d.shift;
  const uint64_t power = uint64_t(1) << d.shift;
  d.multiplier = uint32_t(((power - uint64_t(d.divisor)) << 32) / uint64_t(d.divisor) + 1);
  d.small = true;
  return d;
}

}  // namespace affuse::cuda
