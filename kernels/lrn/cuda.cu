// lrn on a device. A block brings all channels that some positions of the map need to shared memory and takes the windows'
// sums from there: x is read once, but for the rims of chunks where there are many channels.
//
//   channel-last   a warp has one position, its lanes neighbouring channels
//   in planes      32 positions (8 where windows are large) beside each other, channels dealt to the rows of threads
//
// Backward the same: x with a rim of two windows, then dy a d^(-beta-1) with a rim of one, then the sums of those.
#include "lrn.h"

#include "../common/cuda/divide.h"
#include "../common/cuda/launch.h"

namespace affuse::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kLargeWindow = 32;  // from here on fewer positions fit

struct Call {
  Maps m;
  int before, after, chunk, tiles;  // channels of a chunk; chunks
  float k, alpha, beta;
  LrnFactor factor;
  const int32_t* widths;
  const float *x, *dy;
  float* out;  // y or dx
  Divider plane, width, chunks;

  AFFUSE_DEVICE bool own(int64_t position) const {  // of B H W
    if (!widths) return true;
    const Parts item = plane.split(position);
    return width.split(item.rest).rest < widths[item.quotient];
  }
};

// d^-beta and d^-1 by roots that are rounded correctly.
struct ThreeQuarters {
  static AFFUSE_DEVICE float power(float d, float) {
    const float root = sqrtf(d);
    return 1.0f / (root * sqrtf(root));
  }
};
struct Half {
  static AFFUSE_DEVICE float power(float d, float) { return 1.0f / sqrtf(d); }
};
struct AnyPower {
  static AFFUSE_DEVICE float power(float d, float beta) { return expf(-beta * logf(d)); }
};

// FLT_MAX instead of infinity keeps everything finite (alpha may be 0); NaN passes.
AFFUSE_DEVICE float clamped(float d) { return d > 3.40282347e38f ? 3.40282347e38f : d; }

// Which position and which channels a thread has: channel-last P = 8 warps, else P positions by kThreads / P channels.
template <bool LAST, int P>
struct Layout {
  static constexpr int kStep = LAST ? 32 : kThreads / P;  // between a thread's channels
  static AFFUSE_DEVICE int position() { return LAST ? int(warp()) : int(threadIdx.x) % P; }
  static AFFUSE_DEVICE int channel() { return LAST ? int(lane()) : int(threadIdx.x) / P; }
  // Where channel c of this thread's position lies in an array of `channels` of them; the next one is kNext further.
  static constexpr int kNext = LAST ? 1 : P;
  static AFFUSE_DEVICE int place(int channels) { return LAST ? position() * channels : position(); }
  static AFFUSE_DEVICE void sync() {
    if (LAST) warp_barrier();  // a warp's position is nobody else's
    else barrier();
  }
  static AFFUSE_DEVICE int64_t start(const Call& call, int64_t position) {  // of channel 0 in memory
    if (LAST) return position * call.m.C;
    const Parts item = call.plane.split(position);
    return item.quotient * call.m.C * (call.m.H * call.m.W) + item.rest;
  }
};

AFFUSE_DEVICE float window_sum(const float* s, int next, int before, int after) {
  if (before == 2 && after == 2)  // n = 5, the usual one
    return (s[-2 * next] + s[2 * next]) + (s[-next] + s[next]) + s[0];
  float sum = 0;
  for (int j = -before; j <= after; ++j) sum += s[j * next];
  return sum;
}
AFFUSE_DEVICE float window_squares(const float* s, int next, int before, int after) {
  if (before == 2 && after == 2) {
    const float a = s[-2 * next], b = s[-next], c = s[0], d = s[next], e = s[2 * next];
    return (a * a + e * e) + (b * b + d * d) + c * c;
  }
  float sum = 0;
  for (int j = -before; j <= after; ++j) sum += s[j * next] * s[j * next];
  return sum;
}

template <class Power, bool LAST, int P, bool BACKWARD>
AFFUSE_GLOBAL(kThreads, 4) lrn_kernel(Call call, int64_t positions, int64_t tasks) {
  using L = Layout<LAST, P>;
  const int rim = call.before + call.after, C = int(call.m.C);
  const int left = BACKWARD ? rim : call.before, channels = call.chunk + (BACKWARD ? 2 * rim : rim);
  Shared shared;
  float* const x = shared.take<float>(unsigned(P * channels));
  float* const t = BACKWARD ? shared.take<float>(unsigned(P * (call.chunk + rim))) : nullptr;
  float* const u = BACKWARD ? shared.take<float>(unsigned(P * call.chunk)) : nullptr;
  const int64_t apart = LAST ? 1 : call.m.H * call.m.W;  // of channels in memory
  const auto scale = [&](const float* s) {
    return clamped(fmaf(call.alpha, clamped(window_squares(s, L::kNext, call.before, call.after)), call.k));
  };
  for (int64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
    const Parts part = call.chunks.split(task);
    const int64_t position = part.quotient * P + L::position();
    const int c0 = int(part.rest) * call.chunk, chunk = C - c0 < call.chunk ? C - c0 : call.chunk;
    const bool there = position < positions, own = there && call.own(position);
    const int64_t start = there ? L::start(call, position) + c0 * apart : 0;
    float* const own_x = x + L::place(channels);
#pragma unroll 4
    for (int c = L::channel(); c < chunk + channels - call.chunk; c += L::kStep) {
      const int from = c - left;
      own_x[c * L::kNext] = own && c0 + from >= 0 && c0 + from < C ? call.x[start + from * apart] : 0.0f;
    }
    L::sync();
    if constexpr (!BACKWARD) {
#pragma unroll 2
      for (int c = L::channel(); c < chunk; c += L::kStep) {
        if (!there) break;
        const float* s = own_x + (c + left) * L::kNext;
        call.out[start + c * apart] = own ? *s * Power::power(scale(s), call.beta) : 0.0f;
      }
    } else {
      float *const own_t = t + L::place(call.chunk + rim), *const own_u = u + L::place(call.chunk);
#pragma unroll 2
      for (int c = L::channel(); c < chunk + rim; c += L::kStep) {
        const int from = c - call.after;  // dx_c needs the terms of [c - after, c + before]
        float term = 0, first = 0;
        if (own && c0 + from >= 0 && c0 + from < C) {
          const float* s = own_x + (from + left) * L::kNext;
          const float d = scale(s);
          first = call.dy[start + from * apart] * Power::power(d, call.beta);
          term = call.factor.terms / d * *s * first;
        }
        own_t[c * L::kNext] = term;
        if (from >= 0 && from < chunk) own_u[from * L::kNext] = first;
      }
      L::sync();
#pragma unroll 2
      for (int c = L::channel(); c < chunk; c += L::kStep) {
        if (!there) break;
        const float sum = window_sum(own_t + (c + call.after) * L::kNext, L::kNext, call.after, call.before);
        const float v = own_x[(c + left) * L::kNext];
        call.out[start + c * apart] = fmaf(-(call.factor.a * v), sum, own_u[c * L::kNext]);
      }
    }
    L::sync();
  }
}

template <class Power, bool LAST, int P, bool BACKWARD>
void queue_kernel(Queue& queue, Call& call) {
  const int64_t positions = call.m.B * call.m.H * call.m.W, C = call.m.C, rim = call.before + call.after;
  // Channels of a chunk: enough that rims cost little, few enough that several blocks fit beside each other. The rims of a very
  // large window leave room for fewer: those of the largest, 1024 channels, for 32 where a block has 99 KB.
  const int64_t most = rim >= kLargeWindow ? 256 : LAST ? 512 : 64;
  call.chunk = int(C < most ? C : most);
  const auto shared = [&] {
    SharedBytes bytes;
    bytes.take<float>(size_t(P * (call.chunk + (BACKWARD ? 2 * rim : rim))));
    if (BACKWARD) bytes.take<float>(size_t(P * (call.chunk + rim))).template take<float>(size_t(P * call.chunk));
    return bytes.bytes;
  };
  while (shared() > queue.shared && call.chunk > 32) call.chunk = (call.chunk + 1) / 2;
  const int64_t chunks = (C + call.chunk - 1) / call.chunk, tasks = (positions + P - 1) / P * chunks;
  const int64_t all = positions > tasks ? positions : tasks;
  call.chunks = divider(chunks, all);
  call.plane = divider(call.m.H * call.m.W, all);
  call.width = divider(call.m.W, all);
  const int64_t full = int64_t(queue.processors) * 16;
  const auto kernel = lrn_kernel<Power, LAST, P, BACKWARD>;
  launch(BACKWARD ? "lrn.backward" : "lrn", kernel, queue, Grid{tasks < full ? tasks : full}, kThreads, shared(), call,
         positions, tasks);
}

template <bool BACKWARD>
void run(const OpCall& op, Queue& queue) {
  if (!op.out[0].data) return;
  const LrnAttrs a = lrn_attrs(op.attr);
  Call call{};
  call.m = maps_of(op.in[0], op.attr[5].i);
  // A window that is cut at both edges needs no more than the channels there are.
  const int64_t last = call.m.C - 1;
  call.before = int(a.before < last ? a.before : last);
  call.after = int(a.after < last ? a.after : last);
  call.k = float(a.k), call.alpha = float(a.alpha), call.beta = float(a.beta), call.factor = lrn_factor(a);
  call.widths = op.in[1].i32();
  call.x = op.in[0].f32();
  call.dy = BACKWARD ? op.in[2].f32() : nullptr;
  call.out = op.out[0].f32();
  const auto with = [&](auto power) {
    using Power = decltype(power);
    if (call.m.last) queue_kernel<Power, true, 8, BACKWARD>(queue, call);
    else if (call.before + call.after < kLargeWindow) queue_kernel<Power, false, 32, BACKWARD>(queue, call);
    else queue_kernel<Power, false, 8, BACKWARD>(queue, call);
  };
  if (a.beta == 0.75) with(ThreeQuarters{});
  else if (a.beta == 0.5) with(Half{});
  else with(AnyPower{});
}

}  // namespace

AFFUSE_DEVICE_OP(kLrn, "lrn", &run<false>)
AFFUSE_DEVICE_OP(kLrnBackward, "lrn.backward", &run<true>)

}  // namespace affuse::cuda
