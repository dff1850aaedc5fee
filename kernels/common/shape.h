// Small helpers for an operator's rules: infer functions say which shapes fit together and what is wrong if they do not.
// Not for cpu.cc.
#pragma once
#include <cstdio>
#include <initializer_list>
#include <iterator>

#include "op.h"

namespace affuse {

// A table and its length, for OpDef's pairs of members: AFFUSE_FIELDS(inputs, input_count, kInputs).
#define AFFUSE_FIELDS(table, count, list) .table = list, .count = int(std::size(list))

inline TensorDesc tensor_desc(DType dtype, std::initializer_list<int64_t> dims) {
  TensorDesc d;
  d.dtype = dtype;
  for (int64_t dim : dims) d.dim[d.rank++] = dim;
  return d;
}

// Same shape, other element type.
inline TensorDesc like(const TensorDesc& t, DType dtype) {
  TensorDesc d = t;
  d.dtype = dtype;
  return d;
}
inline TensorDesc like(const TensorDesc& t) { return like(t, t.dtype); }

inline bool same_shape(const TensorDesc& a, const TensorDesc& b) {
  if (a.rank != b.rank) return false;
  for (int i = 0; i < a.rank; ++i)
    if (a.dim[i] != b.dim[i]) return false;
  return true;
}

// "[2,3]"
struct ShapeText {
  char text[120];
  explicit ShapeText(const TensorDesc& t) {
    int n = snprintf(text, sizeof text, "[");
    for (int i = 0; i < t.rank; ++i)
      n += snprintf(text + n, sizeof text - size_t(n), i ? ",%lld" : "%lld", (long long)t.dim[i]);
    snprintf(text + n, sizeof text - size_t(n), "]");
  }
};

// ERR_AFFUSE_SHAPE unless tensor `name` is absent or has the wanted shape. `why`: "the shape of x".
inline void expect_shape(Status& status, const char* name, const TensorDesc& got, const TensorDesc& want,
                         const char* why) {
  if (!got.given() || same_shape(got, want)) return;
  status.fail("ERR_AFFUSE_SHAPE", "expected %s of shape %s (%s), got %s", name, ShapeText(want).text, why,
              ShapeText(got).text);
}

inline void expect_positive(Status& status, const char* name, const char* dimension, const TensorDesc& got,
                            int64_t dim) {
  if (dim >= 1) return;
  status.fail("ERR_AFFUSE_SHAPE", "expected %s with %s >= 1, got %s", name, dimension, ShapeText(got).text);
}

// Product of all dimensions but the last.
inline int64_t row_count(const TensorDesc& t) {
  int64_t n = 1;
  for (int i = 0; i + 1 < t.rank; ++i) n *= t.dim[i];
  return n;
}

}  // namespace affuse
