// The merge core's side of the CUDA helper: starts the process, lends its lanes, keeps factors on its GPUs.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "cuda_protocol.h"

struct portllm_tensor;

namespace portllm {

class CudaHelper;

// Where a tensor's factors are on the GPUs; empty until its first merge there. Its end frees them.
class CudaFactors {
 public:
  ~CudaFactors();

 private:
  friend class CudaLane;
  std::mutex mutex_;
  std::weak_ptr<CudaHelper> helper_;
  uint64_t id_ = 0;
  std::vector<bool> on_device_;
};

// One slot of the helper with the tensor's factors on its GPU, held for the lifetime of this object. Waits for a free one.
class CudaLane {
 public:
  CudaLane(std::shared_ptr<CudaHelper> helper, portllm_tensor &tensor);
  ~CudaLane();
  CudaLane(const CudaLane &) = delete;

  // kCudaSlotBytes of pinned memory, aligned to pages.
  uint8_t *memory() const;
  // Merges the rows that lie in memory(), in place; at most cuda_rows of them. `kept` is a portllm_keep.
  void merge(int32_t kept, uint64_t first_row, uint64_t row_count);

 private:
  void place_factors();
  std::shared_ptr<CudaHelper> helper_;
  portllm_tensor &tensor_;
  uint32_t lane_;
};

// The helper of this process; fails where none was started, or it has ended.
std::shared_ptr<CudaHelper> cuda_helper();
bool cuda_running();
uint32_t cuda_lanes(const CudaHelper &helper);

// Rows that a slot holds; 0 where the tensor cannot be merged by the helper.
uint64_t cuda_rows(const portllm_tensor &tensor);

// Rows [first_row, first_row + row_count) from `w` to `out` through all lanes; cuda_rows is not 0.
void cuda_merge(portllm_tensor &tensor, int32_t kept, uint64_t first_row, uint64_t row_count, const uint8_t *w, uint8_t *out);

}  // namespace portllm
