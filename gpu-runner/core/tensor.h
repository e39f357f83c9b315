// A target tensor with its contributions packed, and its merge, band by band (merge_band.cpp, merge_steps.cpp).
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda_client.h"
#include "elements.h"
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

// A run of products, or one contribution of another kind.
struct Step {
  enum Kind { kProducts, kDora, kDense, kReplace };
  explicit Step(Kind of) : kind(of) {}

  Kind kind;
  // kProducts, and kDora, which has one.
  uint64_t first_product = 0;
  uint64_t product_count = 0;
  // kDora
  bool by_columns = false;
  double weight = 1;
  std::vector<float> magnitude;
  std::vector<double> column_squares;  // by columns: sums over the rows measured so far
  std::vector<double> column_factors;  // by columns: magnitude / norm, once all rows are measured
  // kDense, kReplace
  double scale = 1;
  int32_t value_dtype = -1;
  int32_t base_dtype = -1;
  uint64_t first_operand = 0;  // the value; the base follows
};

// Rows [first, first + count) of a tensor, contiguous at `w` and `out`; `operands[k]` is the same rows of operand k.
struct Rows {
  uint64_t first;
  uint64_t count;
  const uint8_t *w;
  uint8_t *out;
  const uint8_t *const *operands;
};

// a * b; fails where that, or four times that, does not fit 64 bits.
uint64_t checked_product(uint64_t a, uint64_t b, const char *what);

inline uint64_t rounded_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

// Dtypes of targets and operands.
inline bool mergeable(int32_t dtype) { return dtype >= PORTLLM_F32 && dtype <= PORTLLM_F8_E5M2; }

// Fails where the number is no portllm_keep.
void check_kept(int32_t kept);

// The kernels of a path of the processor; fails where the number is unknown or the processor lacks it.
const Path &path_of(int32_t path);
// The best of them.
const Path &processor_path();

// The lanes of a row added up, always in the same order.
double sum_lanes(const double *lanes);

// `lanes` are null where norms are not kept.
inline RowFigures row_figures(const RowLanes *lanes, uint64_t non_finite) {
  if (!lanes) return {0, 0, 0, non_finite};
  return {sum_lanes(lanes->patch), sum_lanes(lanes->realised), sum_lanes(lanes->residual), non_finite};
}

// Sets the floating-point mode that the rules need (nearest even, subnormals kept) for its lifetime.
class FloatMode {
 public:
  FloatMode();
  ~FloatMode();
  FloatMode(const FloatMode &) = delete;

 private:
  uint64_t saved_ = 0;
};

}  // namespace portllm

struct portllm_tensor {
  int32_t dtype;
  uint64_t rows;
  uint64_t cols;
  uint64_t row_bytes;
  uint64_t total_rank = 0;
  std::vector<portllm::PackedProduct> products;
  std::vector<portllm::Step> steps;
  std::vector<int32_t> operand_dtypes;
  std::vector<portllm::AlignedFloats> memory;
  std::unique_ptr<portllm::RowFigures[]> figures;  // one per row, from the first merge with figures on
  std::mutex adding;  // held while contributions are added, and until it is known that no more will be
  std::mutex figures_mutex;
  std::mutex measure_mutex;
  uint64_t measured_rows = 0;
  std::atomic<bool> sealed{false};
  portllm::CudaFactors cuda;

  // Only products are added, in a dtype that the paths have kernels for.
  bool additive() const;
  // Whether the columns have to be measured over all rows before the first merge.
  bool measures() const;
  uint64_t operand_row_bytes(uint64_t operand) const;
  // Allocates the row figures once; safe to call from several threads.
  void keep_figures();
  // Begins merging: no more contributions; fails where there is none, or rows are left to measure. `adding` is held.
  void seal();
  // The next rows of the first pass, with as many threads as are worth it.
  void measure(const portllm::Path &path, uint32_t threads, uint64_t first_row, uint64_t row_count, const uint8_t *w);
  // One thread's share of a merge; `kept` is a portllm_keep; `large` is what it is in a Tile.
  void merge_rows(const portllm::Path &path, int32_t kept, bool large, const portllm::Rows &rows);

 private:
  void merge_band(const portllm::Path &path, int32_t kept, bool large, const portllm::Rows &rows);
  void merge_steps(const portllm::Path &path, int32_t kept, bool large, const portllm::Rows &rows);
};
