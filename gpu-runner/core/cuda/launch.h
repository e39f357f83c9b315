// A kernel launch and its shared memory in plain C++, so that a host compiler reads the same source (tests/cuda/shim).
#pragma once

#include <cuda_runtime.h>

#include "../portllm_core.h"

namespace portllm::cuda {

template <class Argument>
cudaError_t launch(void (*kernel)(Argument), dim3 grid, uint32_t threads, uint32_t shared_bytes, cudaStream_t stream, const Argument &argument) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, argument);
}

// The block's shared memory, of the size that launch was told.
template <class Layout>
__device__ inline Layout &shared_memory() {
#if defined(__CUDACC__)
  extern __shared__ uint4 memory[];
#else
  void *memory = cuda_shim::shared_memory();
#endif
  return *reinterpret_cast<Layout *>(memory);
}

}  // namespace portllm::cuda
