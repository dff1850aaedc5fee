// Recorded launches: on the device one CUDA graph, a chain of kernel nodes in the order of the launches; in the emulator
// a list. Included by backend.cu only.
#pragma once
#include <memory>
#include <vector>

#include "driver.h"

namespace affuse::cuda {

class RecordedLaunches final : public Recording, public LaunchKeeper {
 public:
#if defined(__CUDACC__)
  ~RecordedLaunches() {
    if (ready_) (void)cudaGraphExecDestroy(ready_);
    if (graph_) (void)cudaGraphDestroy(graph_);
  }
  bool begin(Status& status) { return driver::check(cudaGraphCreate(&graph_, 0), "make a graph", status); }
  bool end(Status& status) {
    return driver::check(cudaGraphInstantiate(&ready_, graph_, 0), "prepare a graph", status);
  }
  void replay(Stream stream, Status& status) {
    if (!nodes_.empty()) driver::check(cudaGraphLaunch(ready_, stream), "run a graph", status);
  }
#else
  bool begin(Status&) { return true; }
  bool end(Status&) { return true; }
  void replay(Stream, Status& status) {
    for (const Node& node : nodes_)
      if (status.ok()) node.started(status);
  }
#endif

  // What a timeline calls it: the first and the last of its operators, which are noted in order.
  void note(const char* op) {
    if (!operators_++) snprintf(name_, sizeof name_, "program %s", op);
    last_ = op;
  }
  const char* name() {
    if (last_) {
      const size_t used = strlen(name_);
      snprintf(name_ + used, sizeof name_ - used, " … %s (%d operators)", last_, operators_);
      last_ = nullptr;
    }
    return name_;
  }

  // Where launches go from now on: to the end, or in the place of what `step` has.
  void append(int step) { step_ = step, replacing_ = false; }
  void replace(int step) {
    step_ = step, replacing_ = true, next_ = 0;
    while (next_ < nodes_.size() && nodes_[next_].step != step) ++next_;
  }
  // After replace(): whether the step made as many launches as it had.
  bool complete() const { return next_ == nodes_.size() || nodes_[next_].step != step_; }

  void keep(const Started& started, Status& status) override {
    if (replacing_) {
      if (complete())
        return status.fail("ERR_AFFUSE_INTERNAL", "expected step %d to launch what it did before, got more", step_);
      set(nodes_[next_++], started, status);
      return;
    }
    nodes_.push_back({step_, {}});
    add(nodes_.back(), started, status);
  }

 private:
#if defined(__CUDACC__)
  struct Node {
    int step;
    cudaGraphNode_t node;
  };
  void add(Node& node, const Started& started, Status& status) {
    const bool first = nodes_.size() == 1;
    const cudaGraphNode_t* const before = first ? nullptr : &nodes_[nodes_.size() - 2].node;
    driver::check(cudaGraphAddKernelNode(&node.node, graph_, before, first ? 0 : 1, &started), "take a kernel into a graph",
                  status);
  }
  void set(Node& node, const Started& started, Status& status) {
    driver::check(cudaGraphExecKernelNodeSetParams(ready_, node.node, &started), "change a kernel of a graph", status);
  }
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t ready_ = nullptr;
#else
  struct Node {
    int step;
    Started started;
  };
  void add(Node& node, const Started& started, Status&) { node.started = started; }
  void set(Node& node, const Started& started, Status&) { node.started = started; }
#endif
  std::vector<Node> nodes_;
  char name_[120] = "program";
  const char* last_ = nullptr;
  int operators_ = 0;
  int step_ = 0;
  bool replacing_ = false;
  size_t next_ = 0;
};

}  // namespace affuse::cuda
