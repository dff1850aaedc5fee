// Races, lifetimes and order in the runtime, without Node around it: to be run under ThreadSanitizer and AddressSanitizer.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "native/runtime/cpu.h"
#include "native/runtime/pool.h"
#include "native/runtime/program.h"
#include "native/runtime/registry.h"
#include "native/runtime/scheduler.h"
#include "stress.h"

void require(bool condition, const char* what) {
  if (condition) return;
  fprintf(stderr, "failed: %s\n", what);
  abort();
}

namespace {

// y = softmax(x) on so many threads; the same bits every time.
struct Softmax {
  static constexpr int64_t kRows = 257, kColumns = 33;
  std::vector<float> x = std::vector<float>(kRows * kColumns), expected = x;
  Softmax() {
    for (size_t i = 0; i < x.size(); ++i) x[i] = float((i * 7919) % 101) / 50 - 1;
    run(1, expected);
  }
  void run(int threads, std::vector<float>& y) {
    const int64_t dim[] = {kRows, kColumns};
    const affuse_tensor in = affuse_tensor_f32(x.data(), 2, dim), out = affuse_tensor_f32(y.data(), 2, dim);
    affuse_error error;
    if (affuse_run("softmax", "cpu", &in, 1, nullptr, 0, &out, 1, threads, &error)) {
      fprintf(stderr, "%s: %s\n", error.code, error.message);
      abort();
    }
  }
  bool same(const std::vector<float>& y) const { return !memcmp(y.data(), expected.data(), y.size() * sizeof(float)); }
};

void concurrent_callers(int rounds) {
  Softmax softmax;
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c)
    callers.emplace_back([&, c] {
      std::vector<float> y(softmax.x.size());
      for (int i = 0; i < rounds; ++i) {
        softmax.run(1 + (i + c) % 5, y);
        require(softmax.same(y), "concurrent callers get the same bits");
      }
    });
  for (std::thread& caller : callers) caller.join();
}

// Every index exactly once, no two running tasks with one worker number.
void pool_contract(int rounds) {
  for (int round = 0; round < rounds; ++round) {
    struct State {
      std::atomic<int> seen[200] = {};
      std::atomic<bool> busy[4] = {};
    } state;
    affuse::Pool::instance().run(
        4, 200,
        [](void* arg, int64_t index, int worker) {
          auto* s = static_cast<State*>(arg);
          require(worker >= 0 && worker < 4 && !s->busy[worker].exchange(true), "a worker number has one user");
          s->seen[index]++;
          s->busy[worker] = false;
        },
        &state);
    for (auto& count : state.seen) require(count == 1, "every task runs once");
    if (round % 50 == 0) affuse::Pool::instance().stop();
  }
}

struct Counting : affuse::Job {
  static inline std::atomic<int> met{0};
  struct Chain {
    std::vector<int> log, ended;
    std::atomic<int> inside{0}, flying{0};
  };
  Chain& chain;
  int id;
  Counting(Chain& c, int i) : chain(c), id(i) {
    resources = {&c};
    queue = i % 10 ? 1 : 0;
  }
  void run(affuse::Scratch& scratch, const std::atomic<bool>&) override {
    const int flying = ++chain.flying;
    require(flying <= 2, "one job at a time is queued behind another");
    require(flying == 1 || queue, "a job of no queue runs alone");
    met += flying - 1;
    require(chain.inside++ == 0, "jobs that share a resource do not meet");
    affuse::Status status;
    memset(scratch.reserve(1000, status), 1, 1000);
    chain.log.push_back(id);  // unguarded on purpose: the scheduler is the guard
    chain.inside--;
    if (id % 7 == 0) return;
    queued();
    usleep(useconds_t(id * 37 % 50));  // some wait longer than the next one
  }
  void finished(std::shared_ptr<Job>) override {
    chain.ended.push_back(id);
    --chain.flying;
  }
};

void scheduler_order(int rounds) {
  for (int round = 0; round < rounds; ++round) {
    Counting::Chain chains[3];
    std::atomic<int> settled{0};
    {
      affuse::Scheduler scheduler(4);
      for (int i = 0; i < 90; ++i)
        require(scheduler.submit(std::make_shared<Counting>(chains[i % 3], i / 3)), "a job is taken");
      if (round % 2) {
        // Let some finish, then tear down in the middle.
        usleep(useconds_t(round * 37 % 500));
        continue;
      }
      struct Last : affuse::Job {
        std::atomic<int>& done;
        explicit Last(std::atomic<int>& d) : done(d) {}
        void run(affuse::Scratch&, const std::atomic<bool>&) override {}
        void finished(std::shared_ptr<Job>) override { done++; }
      };
      auto last = std::make_shared<Last>(settled);
      for (auto& chain : chains) last->resources.push_back(&chain);
      scheduler.submit(last);
      last.reset();
      while (!settled) usleep(100);
    }
    for (const auto& [log, ended, inside, flying] : chains) {
      require(settled == 0 || log.size() == 30, "all jobs ran before one that waits for them");
      for (size_t i = 0; i < log.size(); ++i) require(log[i] == int(i), "jobs run in the order of submission");
      require(ended == log, "and finish in it");
    }
  }
  require(Counting::met > 0, "some jobs are queued behind another");
}

// y ← 2 x in a buffer, many times, from programs that share it.
void programs(int rounds) {
  using namespace affuse;
  Status status;
  const auto buffer = Buffer::create(64, status);
  const OpDef* add = find_operator("add");
  const auto value = [](int where) {
    ProgramValue v;
    v.dtype = DType::f32;
    v.rank = 1;
    v.dim[0] = 16;
    v.buffer = where;
    return v;
  };
  ProgramSpec spec;
  spec.arena_bytes = 64;
  spec.buffers = {buffer};
  spec.values = {value(0), value(-1)};
  spec.instructions = {{add, {0, 0}, {1}, std::vector<Attr>(1), {}}, {add, {1, 0}, {}, std::vector<Attr>(1), {}}};
  spec.instructions[1].outputs = {-1};
  spec.fetches = {1};
  const auto program = Program::create(spec, status);
  require(program != nullptr, status.message);
  for (int i = 0; i < 16; ++i) reinterpret_cast<float*>(buffer->at(0))[i] = float(i);
  ArenaPool arenas;
  Scratch scratch;
  const std::atomic<bool> never{false}, at_once{true};
  for (int round = 0; round < rounds; ++round) {
    auto arena = arenas.acquire(64, status);
    ProgramRun run;
    run.arena = arena.get();
    run.threads = 1 + round % 3;
    RunRecorder record(true, run.threads);
    if (round % 2) run.recorder = &record;
    program->run(run, scratch, never, status);
    if (round % 2) require(record.finish(program).spans.size() >= 3, "a recorded run has its operators");
    run.recorder = nullptr;
    require(status.ok() && static_cast<float*>(run.fetches[0].data())[3] == 6, "a program computes");
    Status cancelled;
    program->run(run, scratch, at_once, cancelled);
    require(!cancelled.ok(), "a cancelled run says so");
    arenas.release(std::move(arena));
  }
}

// A child of fork() has none of the parent's threads and must not wait for them.
void forked() {
  Softmax softmax;
  std::vector<float> y(softmax.x.size());
  softmax.run(4, y);
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    softmax.run(4, y);
    _exit(softmax.same(y) ? 0 : 1);
  }
  int state = 0;
  waitpid(child, &state, 0);
  require(WIFEXITED(state) && WEXITSTATUS(state) == 0, "a forked child computes");
}

// --- every operator ---------------------------------------------------------------------------------------------------

// "[B,T,D]" with the sizes below; "..." is one dimension of 3.
int64_t size_of(const std::string& letter) {
  static const std::map<std::string, int64_t> sizes = {{"...", 3}, {"R", 3}, {"A", 5},  {"B", 5},  {"T", 37}, {"D", 19},
                                                       {"J", 2},   {"C", 21}, {"m", 6}, {"n", 10}, {"P", 40}, {"O", 23},
                                                       {"1", 1}};
  const auto found = sizes.find(letter);
  return found == sizes.end() ? 8 : found->second;
}

affuse_tensor describe(const affuse_tensor_rule& rule) {
  affuse_tensor t = {rule.dtype, 0, {}, nullptr};
  std::string letter;
  for (const char* c = rule.shape + 1; *c; ++c) {
    if (*c != ',' && *c != ']') {
      letter += *c;
      continue;
    }
    if (!letter.empty() && t.rank < AFFUSE_MAX_RANK) t.dim[t.rank++] = size_of(letter);
    letter.clear();
  }
  return t;
}

size_t count_of(const affuse_tensor& t) {
  size_t n = t.dtype == AFFUSE_NONE ? 0 : 1;
  for (int i = 0; i < t.rank; ++i) n *= size_t(t.dim[i]);
  return n;
}

// Runs the operator on 1 and on 4 threads, in memory that ends where the tensors end; false if these shapes do not fit it.
bool run_operator(const char* name, const affuse_operator& op, bool optional) {
  std::vector<affuse_tensor> in(size_t(op.inputs)), out(size_t(op.outputs));
  std::vector<std::vector<int32_t>> memory, results[2];
  for (int i = 0; i < op.inputs; ++i) {
    affuse_tensor_rule rule;
    affuse_operator_input(name, i, &rule, nullptr);
    if (rule.optional && !optional) continue;
    affuse_tensor& t = in[size_t(i)] = describe(rule);
    memory.emplace_back(count_of(t));
    t.data = memory.back().data();
    for (size_t e = 0; e < memory.back().size(); ++e) {
      const float x = float((e * 7919 + size_t(i) * 31) % 101) / 101;
      if (rule.dtype != AFFUSE_I32) static_cast<float*>(t.data)[e] = strcmp(rule.name, "v") ? 2 * x - 1 : x;
      else static_cast<int32_t*>(t.data)[e] = strcmp(rule.name, "lengths") ? int32_t(e % 2) : int32_t(e * 9 % 38);
    }
  }
  if (affuse_infer(name, "cpu", in.data(), op.inputs, nullptr, 0, out.data(), op.outputs, nullptr)) return false;
  for (auto& result : results) {
    for (affuse_tensor& t : out) {
      result.emplace_back(count_of(t));
      t.data = result.back().data();
    }
    const int threads = &result == results ? 1 : 4;
    if (affuse_run(name, "cpu", in.data(), op.inputs, nullptr, 0, out.data(), op.outputs, threads, nullptr)) return false;
  }
  require(results[0] == results[1], "the same bits on four threads");
  return true;
}

void every_operator() {
  int ran = 0;
  for (int i = 0; i < affuse_operator_count(); ++i) {
    affuse_operator op;
    affuse_operator_at(i, &op, nullptr);
    const bool plain = run_operator(op.name, op, false), all = run_operator(op.name, op, true);
    ran += plain || all;
    if (!plain && !all) printf("not these shapes: %s\n", op.name);
  }
  printf("%d of %d operators\n", ran, affuse_operator_count());
  require(2 * ran > affuse_operator_count(), "most operators run");
}

// The control: a race and a use after free that the sanitizers must report.
[[gnu::noinline]] int broken() {
  int* shared = new int(0);
  std::thread other([&] {
    for (int i = 0; i < 1000; ++i) *static_cast<volatile int*>(shared) = i;
  });
  for (int i = 0; i < 1000; ++i) *static_cast<volatile int*>(shared) = i;
  other.join();
  delete shared;
  return *static_cast<volatile int*>(shared);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 2 && !strcmp(argv[2], "broken")) return broken() < 0;
  const int rounds = argc > 1 ? atoi(argv[1]) : 200;
  setenv("AFFUSE_WAKE", "1", 1);  // small operators use their helpers too
  affuse::set_default_threads(4);
  every_operator();
  concurrent_callers(rounds);
  pool_contract(rounds);
  scheduler_order(rounds / 2);
  programs(rounds);
  devices(rounds);
  if (argc > 2 && !strcmp(argv[2], "fork")) forked();
  affuse_shutdown();
  puts("done");
}
