// What the kernels of rule lora-f32/1 work on: a band of rows of one tensor, in the memory of one GPU.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "../cuda_protocol.h"

namespace portllm::cuda {

constexpr uint32_t kPanelCols = 64;  // figures are summed in float32 within 64 columns, in float64 beyond (docs/numerics.md)
constexpr uint32_t kLanes = 16;      // … and in lanes, column mod 16
constexpr uint32_t kFigures = 3;     // patch, realised, residual
constexpr uint32_t kGroupRows = 4;
constexpr uint64_t kPitchBytes = 128;

using Product = CudaProduct;
using RowFigures = CudaRowFigures;

// Rows [begin, end) are merged in place. Row 0 is row 4 * first_group of the tensor, so that a band may begin anywhere.
struct Band {
  uint8_t *rows;
  uint64_t pitch;  // bytes from row to row: a multiple of 128, and room for whole panels
  uint32_t begin;
  uint32_t end;
  uint32_t cols;
  uint64_t first_group;
  uint64_t groups;  // of the tensor
  const Product *products;  // the factors' memory begins with them
  uint32_t product_count;
  // [row][panel][figure][lane], float64 for F64 and else float32, and a count per row; null where no figures are wanted.
  void *partials;
  uint32_t *non_finite;
};

inline __host__ __device__ uint32_t panels_of(uint32_t cols) { return (cols + kPanelCols - 1) / kPanelCols; }

// Each enqueues on `stream` and returns the launch's error. `dtype` is a portllm_dtype.
cudaError_t merge_plain(const Band &band, int32_t dtype, cudaStream_t stream);
cudaError_t merge_tiles(const Band &band, int32_t dtype, cudaStream_t stream);
// Adds the partials of rows [begin, end) up in the order of the rule; figures[0] is row `begin`.
cudaError_t sum_figures(const Band &band, int32_t dtype, RowFigures *figures, cudaStream_t stream);

}  // namespace portllm::cuda
