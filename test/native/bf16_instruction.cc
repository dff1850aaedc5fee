// vdpbf16ps against its description in plain C (Intel's manual, volume 2: the upper elements first, every step rounded to
// nearest even, denormal operands and results are zeros): says whether an emulated processor may judge the kernels.
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>

#include <bit>

namespace {

float from_bits(uint32_t bits) { return std::bit_cast<float>(bits); }
uint32_t bits_of(float x) { return std::bit_cast<uint32_t>(x); }
float flushed(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x; }
float step(float c, uint32_t a, uint32_t b) {
  return flushed(fmaf(flushed(from_bits(a)), flushed(from_bits(b)), flushed(c)));
}

uint64_t state = 88172645463325252u;
uint32_t random_word() {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return uint32_t(state >> 16);
}

}  // namespace

int main() {
  int checked = 0, wrong = 0;
  for (int round = 0; round < 60000; ++round) {
    uint32_t a[16], b[16], c[16], got[16];
    for (int i = 0; i < 16; ++i) {
      a[i] = random_word(), b[i] = random_word(), c[i] = random_word();
      if (round % 3 == 0) {  // near 1
        a[i] = (a[i] & 0x80ff80ff) | 0x3f003f00;
        b[i] = (b[i] & 0x80ff80ff) | 0x3f003f00;
        c[i] = (c[i] & 0x80ffffff) | 0x3f000000;
      } else if (round % 3 == 1) {  // near the smallest normal numbers
        a[i] = (a[i] & 0x8fff8fff) | 0x10001000;
        b[i] = (b[i] & 0xafffafff) | 0x20002000;
        c[i] &= 0x83ffffff;
      }  // else any bits: infinities and NaN too
    }
    const __m512i x = _mm512_loadu_si512(a), y = _mm512_loadu_si512(b);
    _mm512_storeu_si512(got, _mm512_castps_si512(_mm512_dpbf16_ps(_mm512_castsi512_ps(_mm512_loadu_si512(c)),
                                                                  (__m512bh)x, (__m512bh)y)));
    for (int i = 0; i < 16; ++i, ++checked) {
      const float upper = step(from_bits(c[i]), a[i] & 0xffff0000, b[i] & 0xffff0000);
      const float want = step(upper, a[i] << 16, b[i] << 16);
      if (bits_of(want) == got[i] || (isnan(want) && isnan(from_bits(got[i])))) continue;
      if (++wrong <= 8) printf("%08x + %08x %08x: expected %08x, got %08x\n", c[i], a[i], b[i], bits_of(want), got[i]);
    }
  }
  printf("%d of %d wrong\n", wrong, checked);
  return wrong != 0;
}
