// A list of kernel calls and copies at addresses that do not change, run in its order on one lane;
// where the backend records for replay (a CUDA graph), from the second run on as such a recording.
// The backend's own choice of kernel is taken for each call; nothing else is planned.
#pragma once
#include <memory>
#include <vector>

#include "core/backend.h"

namespace supersonic::bench {

// An operand of a call: data of `spec` at an address.
struct Value {
  Spec spec;
  void* data = nullptr;
  const Planes* planes = nullptr;  // of a quantized matrix
  bool live = true;                // a result: somebody reads it
};
Value value_of(const StorageRef& storage);

// Memory that calls use in turn. `bytes` becomes what the largest of them asks for.
struct Work {
  void* at = nullptr;
  std::size_t bytes = 0;
};

// Host memory, and where kernels read or write the same: on a CPU one storage.
struct Mirror {
  Mirror(Backend& backend, const Spec& spec, const char* name);
  StorageRef host, here;
};

// An elementwise chain and what runs it.
struct Map {
  const Kernel* kernel;
  const ChainProgram* program;
};

class Calls {
 public:
  Calls(Backend& backend, Compute compute) : backend_(backend), compute_(compute) {}
  void clear() { calls_.clear(); }
  void add(const Op& op, const Attrs& attrs, const std::vector<Value>& in,
           const std::vector<Value>& out, Work& work);
  void add(const Map& map, const std::vector<Value>& in, const std::vector<Value>& out);
  void bring(const Mirror& m) { copy(m.here, m.host); }
  void take_home(const Mirror& m) { copy(m.host, m.here); }
  void run();  // and waits for its end

 private:
  struct Call {
    const Kernel* kernel = nullptr;  // null: a copy of in[0] to out[0]
    Problem problem;
    Pointers pointers;
    Place from = {}, to = {};
    std::size_t bytes = 0;
  };
  Call call(const std::vector<Value>& in, const std::vector<Value>& out) const;
  void copy(const StorageRef& to, const StorageRef& from);
  void enqueue();

  Backend& backend_;
  const Compute compute_;
  std::vector<Call> calls_;
  std::unique_ptr<Replay> replay_;
  int runs_ = 0;  // counted up to the recording
};

}  // namespace supersonic::bench
