// Several vectors that go through one formula side by side, for files compiled once per ISA level (cpu.cc).
//
// exp, tanh and their like are chains of some twenty dependent instructions. The processor's scheduler holds about three
// such chains, so one vector after another leaves its ports half idle; with kMany vectors in step the ports are full. The
// functions of math.h take Vec or Many<Vec> alike:
//
//   for_many(count, [&](int64_t i, auto n) { put(y + i, tanh(get(x + i, n)), n); });
//
// calls the body with n = Many<Vec>::Whole while kMany * kLanes elements are left, and then as for_lanes does. A result
// is the same whichever way it is computed.
#pragma once
#include "reduce.h"

#if defined(__GNUC__) && !defined(__clang__)
// Vec as a template argument loses its may_alias: nothing here reads memory through another type.
#pragma GCC diagnostic ignored "-Wignored-attributes"
#endif

namespace affuse::AFFUSE_ISA {

#if defined(AFFUSE_ISA_AVX512)
constexpr int kMany = 4;
#else
constexpr int kMany = 2;  // sixteen registers hold no more
#endif

template <class T>
struct Many {
  struct Whole {};
  T part[kMany];
};

namespace detail {
template <class T>
constexpr bool is_many = false;
template <class T>
constexpr bool is_many<Many<T>> = true;
template <class T>
AFFUSE_INLINE const T& part(const T& x, int) {
  return x;
}
template <class T>
AFFUSE_INLINE const T& part(const Many<T>& x, int i) {
  return x.part[i];
}
template <class F, class... T>
AFFUSE_INLINE auto each_part(F&& f, const T&... x) {
  Many<decltype(f(part(x, 0)...))> y;
#pragma GCC unroll 4
  for (int i = 0; i < kMany; ++i) y.part[i] = f(part(x, i)...);
  return y;
}
}  // namespace detail

template <class A, class B>
concept OneIsMany = detail::is_many<A> || detail::is_many<B>;

#define AFFUSE_MANY_1(name, expression)     \
  template <class A>                        \
    requires detail::is_many<A>             \
  AFFUSE_INLINE auto name(const A& a) {     \
    return detail::each_part([](const auto& x) AFFUSE_INLINE_BODY { return expression; }, a); \
  }
#define AFFUSE_MANY_2(name, expression)                  \
  template <class A, class B>                            \
    requires OneIsMany<A, B>                             \
  AFFUSE_INLINE auto name(const A& a, const B& b) {      \
    return detail::each_part([](const auto& x, const auto& y) AFFUSE_INLINE_BODY { return expression; }, a, b); \
  }
#define AFFUSE_MANY_3(name)                                              \
  template <class A, class B, class C>                                   \
    requires(OneIsMany<A, B> || detail::is_many<C>)                      \
  AFFUSE_INLINE auto name(const A& a, const B& b, const C& c) {          \
    return detail::each_part(                                            \
        [](const auto& x, const auto& y, const auto& z) AFFUSE_INLINE_BODY { return name(x, y, z); }, a, b, c); \
  }
AFFUSE_MANY_1(operator-, -x)
AFFUSE_MANY_1(abs, abs(x))
AFFUSE_MANY_1(sqrt, sqrt(x))
AFFUSE_MANY_1(round, round(x))
AFFUSE_MANY_1(to_int, to_int(x))
AFFUSE_MANY_1(to_float, to_float(x))
AFFUSE_MANY_1(bits, bits(x))
AFFUSE_MANY_1(from_bits, from_bits(x))
AFFUSE_MANY_2(operator+, x + y)
AFFUSE_MANY_2(operator-, x - y)
AFFUSE_MANY_2(operator*, x* y)
AFFUSE_MANY_2(operator/, x / y)
AFFUSE_MANY_2(min, min(x, y))
AFFUSE_MANY_2(max, max(x, y))
AFFUSE_MANY_2(copysign, copysign(x, y))
AFFUSE_MANY_2(lt, lt(x, y))
AFFUSE_MANY_2(add, add(x, y))
AFFUSE_MANY_2(sub, sub(x, y))
AFFUSE_MANY_2(keep, keep(x, y))
AFFUSE_MANY_3(fma)
AFFUSE_MANY_3(fnma)
AFFUSE_MANY_3(select)
#undef AFFUSE_MANY_1
#undef AFFUSE_MANY_2
#undef AFFUSE_MANY_3
template <int n, class T>
AFFUSE_INLINE auto shift_left(const Many<T>& a) {
  return detail::each_part([](const auto& x) AFFUSE_INLINE_BODY { return shift_left<n>(x); }, a);
}
template <int n, class T>
AFFUSE_INLINE auto shift_right(const Many<T>& a) {
  return detail::each_part([](const auto& x) AFFUSE_INLINE_BODY { return shift_right<n>(x); }, a);
}

using WholeMany = Many<Vec>::Whole;
AFFUSE_INLINE Many<Vec> get(const float* p, WholeMany) {
  Many<Vec> v;
#pragma GCC unroll 4
  for (int i = 0; i < kMany; ++i) v.part[i] = load(p + i * kLanes);
  return v;
}
AFFUSE_INLINE void put(float* p, const Many<Vec>& v, WholeMany) {
#pragma GCC unroll 4
  for (int i = 0; i < kMany; ++i) store(p + i * kLanes, v.part[i]);
}

template <class F>
AFFUSE_INLINE void for_many(int64_t count, F&& body) {
  int64_t i = 0;
  for (; i + kMany * kLanes <= count; i += kMany * kLanes) body(i, WholeMany{});
  for (; i + kLanes <= count; i += kLanes) body(i, kLanes);
  if (i < count) body(i, int(count - i));
}

}  // namespace affuse::AFFUSE_ISA
