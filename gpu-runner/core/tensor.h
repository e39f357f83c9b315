// A target tensor with its packed factors, and its merge, band by band (merge_band.cpp).
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "portllm_core.h"
#include "tile.h"

namespace portllm {

struct FreeMemory {
  void operator()(float *memory) const;
};
using AlignedFloats = std::unique_ptr<float, FreeMemory>;

// Figures of one row; summed in row order at the end, so that threads and tiling do not show.
struct RowFigures {
  double patch;
  double realised;
  double residual;
  uint64_t non_finite;
};

// The kernels of a path; fails where the number is unknown or the processor lacks it.
const Path &path_of(int32_t path);

// Size in bytes of one element, or 0 for a number that is no dtype.
uint64_t element_bytes(int32_t dtype);

// Sets the floating-point mode that the rule needs (nearest even, subnormals kept) for its lifetime.
class FloatMode {
 public:
  FloatMode();
  ~FloatMode();
  FloatMode(const FloatMode &) = delete;

 private:
  unsigned saved_ = 0;
};

}  // namespace portllm

struct portllm_tensor {
  int32_t dtype;
  uint64_t rows;
  uint64_t cols;
  uint64_t row_bytes;
  uint64_t total_rank = 0;
  std::vector<portllm::PackedProduct> products;
  std::vector<portllm::AlignedFloats> memory;
  std::unique_ptr<portllm::RowFigures[]> figures;  // one per row, from the first merge with figures on
  std::mutex figures_mutex;
  std::atomic<bool> sealed{false};

  // Allocates the row figures once; safe to call from several threads.
  void keep_figures();
  // One thread's share: rows [first_row, first_row + row_count), contiguous at `w` and `out`.
  void merge_band(const portllm::Path &path, bool with_figures, bool stream, uint64_t first_row,
                  uint64_t row_count, const uint8_t *w, uint8_t *out);
};
