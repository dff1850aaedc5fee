// Runs recorded operator calls (test/operators/record.ts) through the C interface of libaffuse, for machines without
// Node: the float32 kernels of the level that AFFUSE_CPU names against the float64 reference results and the bounds that
// were recorded.
//
//   replay FILE [--only TEXT] [--threads N,N,…] [--sabotage]
//
// Outputs start as NaN between guard bands, inputs and outputs lie at odd element offsets, workspaces are poisoned
// (AFFUSE_POISON). Every thread count has to give the same bits. Prints a line per failure and closes with
// "LEVEL: N runs of M operators, F failed"; returns 0, 1 when any failed, 2 when the file or the usage is wrong.
// --sabotage moves one element of each output beyond its bound: all runs that have such an element ("N moved") have to fail.
#include <affuse/affuse.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <set>
#include <string>
#include <vector>

namespace {

constexpr uint32_t kSentinel = 0x7fc5a5a5;  // a NaN that no arithmetic makes
constexpr int64_t kGuard = 40;

class Reader {
 public:
  explicit Reader(const char* path) : file_(fopen(path, "rb")) {
    if (!file_) stop("cannot be opened");
  }
  ~Reader() {
    if (file_) fclose(file_);
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  void bytes(void* to, size_t size) {
    if (size && fread(to, 1, size, file_) != size) stop("ends in the middle of a record");
  }
  uint32_t word() {
    uint32_t x;
    bytes(&x, 4);
    return x;
  }
  std::string text() {
    std::string s(word(), '\0');
    bytes(s.data(), s.size());
    return s;
  }
  template <class T>
  std::vector<T> array(int64_t count) {
    std::vector<T> v(static_cast<size_t>(count));
    bytes(v.data(), v.size() * sizeof(T));
    return v;
  }

 private:
  [[noreturn]] static void stop(const char* why) {
    fprintf(stderr, "the recording %s\n", why);
    exit(2);
  }
  FILE* file_;
};

struct Shape {
  affuse_tensor desc{};
  int64_t count = 0;
};

Shape read_shape(Reader& in) {
  Shape s;
  s.desc.dtype = int32_t(in.word());
  if (s.desc.dtype == AFFUSE_NONE) return s;
  s.desc.rank = int32_t(in.word());
  s.count = 1;
  for (int i = 0; i < s.desc.rank; ++i) s.count *= s.desc.dim[i] = in.word();
  return s;
}

// `count` 32-bit elements at an odd offset between words of kSentinel.
struct Guarded {
  std::vector<uint32_t> words;
  int64_t from, count;
  Guarded(int64_t count, int64_t offset)
      : words(size_t(2 * kGuard + offset + count), kSentinel), from(kGuard + offset), count(count) {}
  uint32_t* data() { return words.data() + from; }
  bool damaged() const {
    for (int64_t i = 0; i < int64_t(words.size()); ++i)
      if ((i < from || i >= from + count) && words[size_t(i)] != kSentinel) return true;
    return false;
  }
};

struct Output {
  Shape shape;
  bool squared;  // compared as z|z|
  std::vector<double> want, bound;
  std::vector<uint32_t> words;  // of an integer output
};

struct Run {
  std::string op, label;
  std::vector<std::pair<std::string, std::string>> attributes;
  std::vector<Shape> shapes;
  std::vector<std::vector<uint32_t>> inputs;
  std::vector<Output> outputs;
};

Run read_run(Reader& in) {
  Run run;
  run.op = in.text();
  run.label = in.text();
  for (uint32_t n = in.word(); n > 0; --n) {
    std::string name = in.text();
    run.attributes.emplace_back(name, in.text());
  }
  for (uint32_t n = in.word(); n > 0; --n) {
    run.shapes.push_back(read_shape(in));
    run.inputs.push_back(in.array<uint32_t>(run.shapes.back().count));
  }
  for (uint32_t n = in.word(); n > 0; --n) {
    Output out;
    out.shape = read_shape(in);
    out.squared = in.word() != 0;
    if (out.shape.desc.dtype == AFFUSE_I32) {
      out.words = in.array<uint32_t>(out.shape.count);
    } else {
      out.want = in.array<double>(out.shape.count);
      out.bound = in.array<double>(out.shape.count);
    }
    run.outputs.push_back(std::move(out));
  }
  return run;
}

using Results = std::vector<Guarded>;

// Calls the operator; says what went wrong apart from the values. Outputs other than `alone` are left out unless it is -1.
std::string call(const Run& run, int threads, int64_t offset, int alone, Results& results) {
  std::vector<Guarded> held;
  std::vector<affuse_tensor> in, out;
  std::vector<affuse_attribute> attributes;
  for (const auto& [name, value] : run.attributes) attributes.push_back({name.c_str(), value.c_str()});
  for (size_t i = 0; i < run.shapes.size(); ++i) {
    held.emplace_back(run.shapes[i].count, offset);
    if (run.shapes[i].count) memcpy(held[i].data(), run.inputs[i].data(), run.inputs[i].size() * 4);
  }
  for (const Output& o : run.outputs) results.emplace_back(o.shape.count, offset);
  for (size_t i = 0; i < held.size(); ++i) {
    in.push_back(run.shapes[i].desc);
    in[i].data = held[i].data();
  }
  for (size_t i = 0; i < results.size(); ++i) {
    out.push_back(run.outputs[i].shape.desc);
    out[i].data = results[i].data();
    if (alone >= 0 && int(i) != alone) out[i].dtype = AFFUSE_NONE;
  }
  affuse_error error;
  if (affuse_run(run.op.c_str(), "cpu", in.data(), int(in.size()), attributes.data(), int(attributes.size()), out.data(),
                 int(out.size()), threads, &error))
    return std::string(error.code) + ": " + error.message;
  for (size_t i = 0; i < held.size(); ++i)
    if (held[i].damaged() ||
        (run.shapes[i].count && memcmp(held[i].data(), run.inputs[i].data(), run.inputs[i].size() * 4) != 0))
      return "input " + std::to_string(i) + " was written to";
  for (size_t i = 0; i < results.size(); ++i)
    if (results[i].damaged()) return "wrote outside of output " + std::to_string(i);
  return {};
}

// The worst element beyond its bound, in words; empty: none.
std::string compare(const Output& out, Guarded& got) {
  if (out.shape.desc.dtype == AFFUSE_I32) {
    const bool same = got.count == 0 || memcmp(got.data(), out.words.data(), out.words.size() * 4) == 0;
    return same ? "" : "integers differ";
  }
  double worst = 0;
  int64_t bad = 0, at = -1;
  for (int64_t i = 0; i < out.shape.count; ++i) {
    float x;
    memcpy(&x, got.data() + i, 4);
    const double value = out.squared ? double(x) * fabs(double(x)) : double(x);
    const double want = out.want[size_t(i)], limit = out.bound[size_t(i)] + 0x1p-126;  // denormals may be flushed
    if (value == want || (isnan(value) && isnan(want))) continue;
    const double distance = fabs(value - want);
    if (distance <= limit) continue;
    ++bad;
    const double ratio = isnan(distance) ? INFINITY : distance / limit;
    if (at < 0 || ratio > worst) worst = ratio, at = i;
  }
  if (!bad) return {};
  char text[200];
  float x;
  memcpy(&x, got.data() + at, 4);
  snprintf(text, sizeof text, "%lld of %lld beyond the bound, worst element %lld: expected %.9g +- %.2g, got %.9g",
           (long long)bad, (long long)out.shape.count, (long long)at, out.want[size_t(at)], out.bound[size_t(at)],
           double(x));
  return text;
}

void sabotage(const Output& out, Guarded& got) {
  const int64_t i = out.shape.count / 2;
  const double limit = out.bound[size_t(i)] + 0x1p-120, to = out.want[size_t(i)] + 3 * limit;
  const float x = float(out.squared ? copysign(sqrt(fabs(to)), to) : to);
  memcpy(got.data() + i, &x, 4);
}

int usage() {
  fprintf(stderr, "usage: replay FILE [--only TEXT] [--threads N,N,...] [--sabotage]\n");
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  setenv("AFFUSE_POISON", "1", 1);
  const char *path = nullptr, *only = nullptr;
  std::vector<int> threads;
  bool broken = false;
  for (int i = 1; i < argc; ++i) {
    if (!strcmp(argv[i], "--sabotage")) broken = true;
    else if (!strcmp(argv[i], "--only") && i + 1 < argc) only = argv[++i];
    else if (!strcmp(argv[i], "--threads") && i + 1 < argc)
      for (char* p = argv[++i]; *p; p += *p == ',') {
        const char* const from = p;
        const long count = strtol(p, &p, 10);
        if (p == from || count < 1) return usage();
        threads.push_back(int(count));
      }
    else if (argv[i][0] != '-' && !path) path = argv[i];
    else return usage();
  }
  if (!path) return usage();
  if (threads.empty()) threads = {1, 2, 3};

  Reader in(path);
  if (in.text() != "affuse recording 1") {
    fprintf(stderr, "%s is not a recording of this version\n", path);
    return 2;
  }
  int runs = 0, failed = 0, moved = 0;
  std::set<std::string> operators;
  for (uint32_t left = in.word(); left > 0; --left) {
    const Run run = read_run(in);
    if (only && run.op.find(only) == std::string::npos) continue;
    ++runs;
    operators.insert(run.op);
    const int before = failed;
    std::string wrong;
    auto say = [&](const std::string& what) {
      printf("%s (%s): %s\n", run.op.c_str(), run.label.c_str(), what.c_str());
      failed = before + 1;
    };
    Results first;
    if (!(wrong = call(run, threads[0], 1, -1, first)).empty()) say(wrong);
    bool any = false;
    for (size_t i = 0; i < first.size(); ++i) {
      const Output& out = run.outputs[i];
      if (broken && out.shape.desc.dtype == AFFUSE_F32 && out.shape.count) {
        sabotage(out, first[i]);
        any = true;
      }
      if (!(wrong = compare(out, first[i])).empty()) say("output " + std::to_string(i) + ": " + wrong);
    }
    moved += any;
    if (broken) continue;
    for (size_t t = 1; t < threads.size(); ++t) {
      Results again;
      if (!(wrong = call(run, threads[t], 3, -1, again)).empty()) say(wrong);
      for (size_t i = 0; i < again.size(); ++i)
        if (again[i].count && memcmp(again[i].data(), first[i].data(), size_t(again[i].count) * 4) != 0)
          say("output " + std::to_string(i) + " differs between " + std::to_string(threads[0]) + " and " +
              std::to_string(threads[t]) + " threads");
    }
    int wanted = 0;
    for (const Output& out : run.outputs) wanted += out.shape.desc.dtype != AFFUSE_NONE;
    for (size_t i = 0; wanted > 1 && i < run.outputs.size(); ++i) {
      if (run.outputs[i].shape.desc.dtype == AFFUSE_NONE) continue;
      Results one;
      if (!(wrong = call(run, threads[0], 2, int(i), one)).empty()) say("asked for alone: " + wrong);
      if (!(wrong = compare(run.outputs[i], one[i])).empty())
        say("output " + std::to_string(i) + " asked for alone: " + wrong);
    }
  }
  printf("%s: %d runs of %d operators, %d failed\n", affuse_cpu_level(), runs, int(operators.size()), failed);
  if (broken) printf("%d moved\n", moved);
  affuse_shutdown();
  return failed || runs == 0 ? 1 : 0;
}
