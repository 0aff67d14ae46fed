#include "backend/cuda/cuda_backend.h"

#include <cstdlib>
#include <cstring>
#include <vector>

#include "backend/cuda/chain.h"
#include "backend/cuda/cuda_memory.h"
#include "backend/cuda/estimate.h"
#include "backend/cuda/replay.h"
#include "backend/cuda/upload.h"
#include "core/device.h"
#include "core/error.h"

namespace supersonic::cuda {

std::span<const Kernel* const> cuda_kernels();  // generated

namespace {

constexpr int kLeastDriver = 13000;  // CUDA 13.0: driver 580
DeviceLimits limits;

class CudaBackend : public Backend {
 public:
  explicit CudaBackend(int device)
      : device_(device), pool_((check(cudaSetDevice(device), "cudaSetDevice"), device)), uploader_(device) {
    use();
    read_limits();
    estimates_ = read_estimates(device);
    check(cudaMalloc(reinterpret_cast<void**>(&faults_.claimed), sizeof(unsigned)), "cudaMalloc");
    check(cudaMemset(faults_.claimed, 0, sizeof(unsigned)), "cudaMemset");
    check(cudaHostAlloc(reinterpret_cast<void**>(&faults_.report), sizeof(FaultReport), cudaHostAllocMapped), "cudaHostAlloc");
    *faults_.report = {};
    for (CudaLane& lane : lanes_) {
      check(cudaStreamCreateWithFlags(&lane.stream, cudaStreamNonBlocking), "cudaStreamCreate");
      lane.limits = &limits;
      lane.faults = faults_;
    }
    for (cudaEvent_t* e : {&fork_, &join_}) check(cudaEventCreateWithFlags(e, cudaEventDisableTiming), "cudaEventCreate");
    check(cudaDeviceSynchronize(), "opening the device");
  }

  const char* name() const override { return "cuda"; }
  Place compute_place() const override { return {Place::device, static_cast<std::uint8_t>(device_)}; }
  std::span<const Kernel* const> kernels() const override { return cuda_kernels(); }
  const Kernel* chain_kernel(const ChainProgram&) override { return &cuda::chain_kernel; }

  std::unique_ptr<Arena> arena(Place place) override {
    use();
    return place.kind == Place::device ? device_arena(device_) : locked_host_arena();
  }
  StorageRef storage(const Spec& spec, std::string name) override {
    use();
    return device_storage(pool_, spec, std::move(name));
  }

  Locked lock(const StorageRef& host) override {
    use();
    const StorageRef copied = locked_copy(host);
    return {copied, seen_from_device(device_, copied)};
  }
  StorageRef result_storage(const Spec& spec, std::string name) override {
    use();
    return locked_storage(spec, std::move(name));
  }

  Lane& lane(LaneKind kind) override {
    use();
    return lanes_[static_cast<int>(kind)];
  }
  int events() const override { return static_cast<int>(events_.size()); }
  void reserve_events(int count) override {
    use();
    while (events() < count) {
      events_.push_back(nullptr);
      check(cudaEventCreateWithFlags(&events_.back(), cudaEventDisableTiming), "cudaEventCreate");
    }
  }
  void signal(Lane& lane, int event) override { check(cudaEventRecord(events_[event], stream_of(lane)), "cudaEventRecord"); }
  void wait(Lane& lane, int event) override { check(cudaStreamWaitEvent(stream_of(lane), events_[event]), "cudaStreamWaitEvent"); }

  void copy(void* to, Place to_place, const void* from, Place from_place, std::size_t bytes, Lane& lane) override {
    if (!bytes) return;
    const cudaStream_t stream = stream_of(lane);
    if (staging_) {
      if (void* staged = to_place.kind == Place::device ? nullptr : staging_->at(to)) to = staged;
      if (void* staged = from_place.kind == Place::device ? nullptr : staging_->at(from)) from = staged;
    }
    if (from_place.kind == Place::host && to_place.kind == Place::device && !staging_ && Uploader::takes(bytes)) {
      check(cudaStreamSynchronize(stream), "the device reports");  // what the lane does before comes first
      return uploader_.copy(to, from, bytes);
    }
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream), "cudaMemcpyAsync");
    // Between two host addresses the driver copies at once; the lane's earlier work comes first all the same.
  }

  void sync() override {
    use();
    for (CudaLane& lane : lanes_) check(cudaStreamSynchronize(lane.stream), "the device reports");
    throw_faults();
  }

  bool computes(Compute c) const override { return c != Compute::fp8 || limits.capability == 90; }
  double seconds(const Problem& p) const override { return estimates_.seconds(p); }
  double copy_seconds(std::size_t bytes) const override { return estimates_.copy_seconds(bytes); }

  std::unique_ptr<Replay> capture(const Plan& plan, const std::function<void()>& enqueue) override;
  std::unique_ptr<Fence> fence() override;

 private:
  friend class GraphReplay;
  friend class EventFence;

  void use() const { check(cudaSetDevice(device_), "cudaSetDevice"); }

  void read_limits() {
    cudaDeviceProp p{};
    check(cudaGetDeviceProperties(&p, device_), "cudaGetDeviceProperties");
    CHECK(p.major * 10 + p.minor >= 75, "{} has compute capability {}.{}: 7.5 (Turing) or newer is needed, or --device cpu", p.name,
          p.major, p.minor);
    limits = {p.major * 10 + p.minor, p.multiProcessorCount, p.sharedMemPerBlockOptin, static_cast<std::size_t>(p.l2CacheSize)};
  }

  void throw_faults() {
    const FaultReport r = *faults_.report;
    if (r.kind == 0) return;
    *faults_.report = {};
    check(cudaMemset(faults_.claimed, 0, sizeof(unsigned)), "cudaMemset");
    check(cudaDeviceSynchronize(), "cudaMemset");
    switch (static_cast<FaultKind>(r.kind)) {
      case FaultKind::embedding_id:
        fail(ErrorKind::failure, "embedding: id {} at position {} lies outside the table of {} rows", r.value, r.position, r.limit);
      case FaultKind::cache_row:
        fail(ErrorKind::failure, "kv_append: rows {} to {} are outside of a cache of {}", r.value, r.value + r.position, r.limit);
      case FaultKind::label:
        fail(ErrorKind::failure, "cross-entropy: label {} of row {} lies outside the vocabulary of {}", r.value, r.position, r.limit);
      case FaultKind::logits:
        fail(ErrorKind::failure, "sampler: the highest of {} logits at position {} is no number; the model's weights or its arithmetic "
             "are broken", r.value, r.position);
      case FaultKind::none: break;
    }
  }

  const int device_;
  StoragePool pool_;
  Uploader uploader_;
  Estimates estimates_;
  FaultSink faults_;
  CudaLane lanes_[kLanes];
  std::vector<cudaEvent_t> events_;
  cudaEvent_t fork_ = nullptr, join_ = nullptr;
  const Staging* staging_ = nullptr;  // while a plan is captured
};

class GraphReplay : public Replay {
 public:
  GraphReplay(CudaBackend& backend, std::unique_ptr<Staging> staging) : backend_(backend), staging_(std::move(staging)) {}
  ~GraphReplay() override {
    if (graph_) cudaGraphExecDestroy(graph_);
  }

  void record(const std::function<void()>& enqueue, unsigned lanes) {
    const cudaStream_t main = backend_.lanes_[0].stream;
    check(cudaStreamBeginCapture(main, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    cudaGraph_t graph = nullptr;
    try {
      backend_.staging_ = staging_.get();
      check(cudaEventRecord(backend_.fork_, main), "cudaEventRecord");
      for (int k = 1; k < kLanes; ++k)
        if (lanes >> k & 1) check(cudaStreamWaitEvent(backend_.lanes_[k].stream, backend_.fork_), "cudaStreamWaitEvent");
      enqueue();
      for (int k = 1; k < kLanes; ++k) {
        if (!(lanes >> k & 1)) continue;
        check(cudaEventRecord(backend_.join_, backend_.lanes_[k].stream), "cudaEventRecord");
        check(cudaStreamWaitEvent(main, backend_.join_), "cudaStreamWaitEvent");
      }
    } catch (...) {
      backend_.staging_ = nullptr;
      if (cudaStreamEndCapture(main, &graph) == cudaSuccess && graph) cudaGraphDestroy(graph);
      cudaGetLastError();
      throw;
    }
    backend_.staging_ = nullptr;
    check(cudaStreamEndCapture(main, &graph), "cudaStreamEndCapture");
    const cudaError_t status = cudaGraphInstantiate(&graph_, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "cudaGraphInstantiate");
  }

  void start() override {
    backend_.use();
    staging_->fill();
    check(cudaGraphLaunch(graph_, backend_.lanes_[0].stream), "cudaGraphLaunch");
  }
  void finish() override { staging_->empty(); }
  bool runs_ahead() const override { return staging_->unused(); }

 private:
  CudaBackend& backend_;
  std::unique_ptr<Staging> staging_;
  cudaGraphExec_t graph_ = nullptr;
};

class EventFence : public Fence {
 public:
  explicit EventFence(CudaBackend& backend) : backend_(backend) {
    backend_.use();
    check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate");
  }
  ~EventFence() override { cudaEventDestroy(event_); }
  void mark() override {
    backend_.use();
    check(cudaEventRecord(event_, backend_.lanes_[0].stream), "cudaEventRecord");
  }
  void wait() override {
    check(cudaEventSynchronize(event_), "the device reports");
    backend_.throw_faults();
  }

 private:
  CudaBackend& backend_;
  cudaEvent_t event_ = nullptr;
};

std::unique_ptr<Fence> CudaBackend::fence() { return std::make_unique<EventFence>(*this); }

std::unique_ptr<Replay> CudaBackend::capture(const Plan& plan, const std::function<void()>& enqueue) {
  use();
  auto staging = std::make_unique<Staging>();
  if (!staging->prepare(plan)) return nullptr;
  unsigned lanes = 0;
  for (const Step& s : plan.steps()) lanes |= 1u << static_cast<int>(s.lane);
  auto replay = std::make_unique<GraphReplay>(*this, std::move(staging));
  replay->record(enqueue, lanes);
  return replay;
}

// Kernels are loaded when the device is opened, so that later loading takes no memory that a plan was promised.
void before_first_call() { setenv("CUDA_MODULE_LOADING", "EAGER", 0); }

// How many devices there are; throws where the driver cannot be used.
int device_count() {
  before_first_call();
  int version = 0, count = 0;
  check(cudaDriverGetVersion(&version), "cudaDriverGetVersion");
  CHECK(version != 0, "no NVIDIA driver answers: install driver 580 or newer, or use --device cpu");
  CHECK(version >= kLeastDriver, "the NVIDIA driver implements CUDA {}.{}, and 13.0 is needed: install driver 580 or newer, or use "
        "--device cpu", version / 1000, version % 1000 / 10);
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorNoDevice) count = 0;
  else check(status, "cudaGetDeviceCount");
  CHECK(count > 0, "the NVIDIA driver sees no GPU: check nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device cpu");
  return count;
}

GpuInfo describe(int device) {
  GpuInfo g;
  cudaDeviceProp p{};
  check(cudaGetDeviceProperties(&p, device), "cudaGetDeviceProperties");
  static_assert(sizeof g.name == sizeof p.name);
  std::memcpy(g.name, p.name, sizeof g.name);
  g.capability_major = p.major;
  g.capability_minor = p.minor;
  g.multiprocessors = p.multiProcessorCount;
  check(cudaDriverGetVersion(&g.cuda_version), "cudaDriverGetVersion");
  check(cudaSetDevice(device), "cudaSetDevice");
  std::size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  g.free_bytes = free;
  g.total_bytes = total;
  return g;
}

void explain(char* error, std::size_t error_bytes, const char* what) {
  if (error_bytes) fmt::format_to_n(error, error_bytes - 1, "{}", what).out[0] = '\0';
}

}  // namespace

const DeviceLimits& device_limits() { return limits; }

void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  const cudaError_t pending = cudaGetLastError();  // so that the next call does not report it again
  static_cast<void>(pending);
  fail(status == cudaErrorMemoryAllocation ? ErrorKind::memory : ErrorKind::failure, "{}: {} ({})", call, cudaGetErrorString(status),
       cudaGetErrorName(status));
}

}  // namespace supersonic::cuda

extern "C" __attribute__((visibility("default"))) supersonic::Backend* supersonic_open_cuda(int device, char* error, std::size_t error_bytes) {
  namespace cuda = supersonic::cuda;
  try {
    const int count = cuda::device_count();
    CHECK(device < count, "there is no GPU {}: this machine has {}, counted from 0", device, count);
    return new cuda::CudaBackend(device);  // for the life of the process: storages may be freed late
  } catch (const std::exception& e) {
    cuda::explain(error, error_bytes, e.what());
    return nullptr;
  }
}

extern "C" __attribute__((visibility("default"))) int supersonic_list_cuda(supersonic::GpuInfo* out, int capacity, char* error,
                                                                          std::size_t error_bytes) {
  namespace cuda = supersonic::cuda;
  int listed = 0;
  try {
    for (const int count = std::min(cuda::device_count(), capacity); listed < count; ++listed) out[listed] = cuda::describe(listed);
  } catch (const std::exception& e) {
    cuda::explain(error, error_bytes, e.what());
  }
  return listed;
}
