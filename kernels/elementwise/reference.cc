#include "elementwise.h"

namespace affuse {
namespace {

// Flat index into b of the element that meets element i of a.
int64_t index_of_b(const TensorDesc& a, const TensorDesc& b, int64_t i) {
  int64_t at = 0, stride = 1;
  for (int d = 1; d <= a.rank; ++d) {
    const int64_t coordinate = i % a.dim[a.rank - d];
    i /= a.dim[a.rank - d];
    if (d > b.rank) continue;
    if (b.dim[b.rank - d] != 1) at += coordinate * stride;
    stride *= b.dim[b.rank - d];
  }
  return at;
}

}  // namespace

void add_reference(const OpCall& call) {
  const Tensor &a = call.in[0], &b = call.in[1];
  for (int64_t i = 0; i < a.count(); ++i) call.out[0].f64()[i] = a.f64()[i] + b.f64()[index_of_b(a, b, i)];
}

void mul_reference(const OpCall& call) {
  const Tensor &a = call.in[0], &b = call.in[1];
  for (int64_t i = 0; i < a.count(); ++i) call.out[0].f64()[i] = a.f64()[i] * b.f64()[index_of_b(a, b, i)];
}

void add_backward_reference(const OpCall& call) {
  const Tensor &a = call.in[0], &b = call.in[1], &da = call.out[0], &db = call.out[1];
  const double* dy = call.in[2].f64();
  if (db.data)
    for (int64_t j = 0; j < b.count(); ++j) db.f64()[j] = 0;
  for (int64_t i = 0; i < a.count(); ++i) {
    if (da.data) da.f64()[i] = dy[i];
    if (db.data) db.f64()[index_of_b(a, b, i)] += dy[i];
  }
}

void mul_backward_reference(const OpCall& call) {
  const Tensor &a = call.in[0], &b = call.in[1], &da = call.out[0], &db = call.out[1];
  const double* dy = call.in[2].f64();
  if (db.data)
    for (int64_t j = 0; j < b.count(); ++j) db.f64()[j] = 0;
  for (int64_t i = 0; i < a.count(); ++i) {
    const int64_t j = index_of_b(a, b, i);
    if (da.data) da.f64()[i] = dy[i] * b.f64()[j];
    if (db.data) db.f64()[j] += dy[i] * a.f64()[i];
  }
}

void scale_reference(const OpCall& call) {
  for (int64_t i = 0; i < call.in[0].count(); ++i) call.out[0].f64()[i] = call.attr[0].f * call.in[0].f64()[i];
}

void scale_backward_reference(const OpCall& call) {
  for (int64_t i = 0; i < call.in[1].count(); ++i) call.out[0].f64()[i] = call.attr[0].f * call.in[1].f64()[i];
}

}  // namespace affuse
