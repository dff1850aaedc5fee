#include "profile.h"

#include <chrono>
#include <cstring>

#include "program.h"

namespace affuse {
namespace {

// Position of letter T in a rule's shape ("[B,T,D]": 1), or -1.
int frame_dimension(const TensorRule& rule) {
  int at = 0;
  for (const char* c = rule.shape; *c; ++c) {
    if (*c == ',') ++at;
    else if (*c == 'T' && (c[-1] == '[' || c[-1] == ',') && (c[1] == ']' || c[1] == ',')) return at;
  }
  return -1;
}

// Frames that there are over frames that there is room for.
double filled(const OpDef& op, const Tensor* in) {
  for (int i = 0; i < op.input_count; ++i) {
    if (strcmp(op.inputs[i].name, "lengths") || !in[i].data) continue;
    for (int j = 0; j < op.input_count; ++j) {
      const int d = frame_dimension(op.inputs[j]);
      if (d < 0 || !in[j].given() || d >= in[j].rank || in[j].dim[d] == 0) continue;
      double frames = 0;
      for (int64_t b = 0; b < in[i].count(); ++b) frames += double(in[i].i32()[b]);
      return frames / (double(in[i].count()) * double(in[j].dim[d]));
    }
  }
  return 1;
}

}  // namespace

int64_t clock_ns() {
  using namespace std::chrono;
  return duration_cast<nanoseconds>(steady_clock::now().time_since_epoch()).count();
}

Work work_of(const OpDef& op, const Tensor* in, const TensorDesc* out, const Attr* attr) {
  const double fraction = filled(op, in);
  TensorDesc inputs[kMaxInputs], outputs[kMaxOutputs];
  double read = 0, written = 0;
  for (int i = 0; i < op.input_count; ++i) {
    inputs[i] = in[i];
    read += double(in[i].bytes()) * (frame_dimension(op.inputs[i]) < 0 ? 1 : fraction);
  }
  for (int i = 0; i < op.output_count; ++i) {
    outputs[i] = out[i];
    written += double(out[i].bytes());
  }
  if (!op.flop_count) return {0, read, written};
  const double full = op.flop_count({inputs, outputs, attr});
  if (fraction == 1) return {full, read, written};
  // FLOPs are linear in T: what they are without frames, and the rest by the share of frames that there are.
  for (int i = 0; i < op.input_count; ++i)
    if (const int d = frame_dimension(op.inputs[i]); d >= 0 && d < inputs[i].rank) inputs[i].dim[d] = 0;
  for (int i = 0; i < op.output_count; ++i)
    if (const int d = frame_dimension(op.outputs[i]); d >= 0 && d < outputs[i].rank) outputs[i].dim[d] = 0;
  const double none = op.flop_count({inputs, outputs, attr});
  return {none + (full - none) * fraction, read, written};
}

RunRecord RunRecorder::finish(std::shared_ptr<const Program> program) {
  RunRecord record{std::move(program), std::move(spans_), {}};
  for (auto& lane : lanes_) record.tasks.insert(record.tasks.end(), lane.begin(), lane.end());
  return record;
}

}  // namespace affuse
