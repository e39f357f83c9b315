// Lanes over GPUs: each lane has a slot of pinned memory, a stream and its own memory on one GPU. While one lane's rows
// are computed, another's are copied in and a third's out; the streams keep the order within a lane.
#pragma once

#include <cuda_runtime.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../cuda_protocol.h"
#include "kernels.h"

namespace portllm::cuda {

using Kernel = cudaError_t (*)(const Band &band, int32_t dtype, cudaStream_t stream);

// One GPU and the factors that lie on it, by tensor.
class Device {
 public:
  Device(int index, std::string name) : index_(index), name_(std::move(name)) {}
  int index() const { return index_; }
  const std::string &name() const { return name_; }

  // Fails with MEMORY where CUDA says so, otherwise with DEVICE: in one sentence that names the GPU, what was done and why.
  void check(cudaError_t error, const char *what) const;
  // For the calling thread.
  void select() const { check(cudaSetDevice(index_), "selecting it"); }

  void open(uint64_t tensor, uint64_t bytes, cudaStream_t stream);
  void close(uint64_t tensor, cudaStream_t stream);
  // Address of `bytes` from `offset` on in the tensor's memory.
  uint8_t *factors(uint64_t tensor, uint64_t offset, uint64_t bytes);

 private:
  struct Factors {
    uint8_t *memory;
    uint64_t bytes;
  };
  int index_;
  std::string name_;
  std::mutex mutex_;
  std::map<uint64_t, Factors> tensors_;
};

// The usable GPUs, or fails with UNSUPPORTED and the reason.
std::vector<std::unique_ptr<Device>> find_devices();
// "2 GPUs: NVIDIA H100 80GB HBM3 (sm_90), …"
std::string describe(const std::vector<std::unique_ptr<Device>> &devices);

// Serves one call at a time, from any thread. Each returns when the GPU is done, also when it fails.
class Lane {
 public:
  // `slot`: kCudaSlotStride bytes, aligned to pages.
  Lane(Device &device, uint8_t *slot, Kernel kernel);
  ~Lane();
  Lane(const Lane &) = delete;

  void open(uint64_t tensor, uint64_t bytes);
  void fill(uint64_t tensor, uint64_t offset, uint64_t bytes);
  void close(uint64_t tensor);
  void merge(const CudaRequest &request);

 private:
  template <class Work>
  void run(Work work);
  void enqueue_merge(const CudaRequest &request);

  Device &device_;
  uint8_t *slot_;
  Kernel kernel_;
  cudaStream_t stream_ = nullptr;
  uint8_t *rows_ = nullptr;
  void *partials_ = nullptr;
  uint32_t *non_finite_ = nullptr;
  RowFigures *figures_ = nullptr;
  bool pinned_ = false;
};

}  // namespace portllm::cuda
