#include "tensor.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cmath>

#include "handles.h"
#include "parallel.h"
#include "source.h"
#include "status.h"
#include "tile_sizes.h"

namespace portllm {
namespace {

void check_rows(const portllm_tensor &tensor, uint64_t first_row, uint64_t row_count) {
  if (row_count == 0 || first_row > tensor.rows || row_count > tensor.rows - first_row) {
    fail(PORTLLM_INVALID, "rows %llu..+%llu are outside the tensor's %llu rows", static_cast<unsigned long long>(first_row),
         static_cast<unsigned long long>(row_count), static_cast<unsigned long long>(tensor.rows));
  }
}

void check_threads(uint32_t threads) {
  if (threads == 0 || threads > kThreadCap) fail(PORTLLM_INVALID, "%u threads: 1 to %u are possible", threads, kThreadCap);
}

bool overlap(const uint8_t *a, uint64_t a_size, const uint8_t *b, uint64_t b_size) { return a < b + b_size && b < a + a_size; }

// Cuts rows [first, first + count) into runs of about `share` rows, between groups of four rows.
std::vector<uint64_t> row_bounds(uint64_t first, uint64_t count, uint64_t share) {
  const uint64_t step = std::max<uint64_t>(kTileRows, rounded_up(share, kTileRows));
  std::vector<uint64_t> bounds{first};
  while (bounds.back() < first + count) bounds.push_back(std::min(first + count, bounds.back() / kTileRows * kTileRows + step));
  return bounds;
}

// A merge of rows whose arguments have been checked; nothing can be added to the tensor any more.
class Merge {
 public:
  const std::shared_ptr<portllm_tensor> tensor;

  Merge(portllm_tensor *handle, int32_t path, int32_t kept, const Rows &asked, uint64_t w_bytes, uint64_t out_bytes, const portllm_bytes *operands,
        uint64_t operand_count)
      : tensor(Handles<portllm_tensor>::get(handle, "tensor")), kept_(kept), asked_(asked), operands_(operands) {
    if (!asked.w || !asked.out) fail(PORTLLM_INVALID, "the rows' memory is null");
    check_kept(kept);
    const std::lock_guard<std::mutex> adding(tensor->adding);
    if (tensor->steps.empty()) fail(PORTLLM_INVALID, "nothing is added to the tensor");
    check_rows(*tensor, asked.first, asked.count);
    check_memory(w_bytes, out_bytes, operand_count);
    on_gpu_ = path == PORTLLM_CUDA && cuda_rows(*tensor) > 0;
    kernels_ = on_gpu_ ? &kScalarPath : &path_of(path);
    tensor->seal();
    if (kept) tensor->keep_figures();
  }

  bool on_gpu() const { return on_gpu_; }
  void run_on_gpu() const { cuda_merge(*tensor, kept_, asked_.first, asked_.count, asked_.w, asked_.out); }

  // Rows [begin, end) of those asked for, on the calling thread.
  void run(uint64_t begin, uint64_t end) const {
    const uint64_t skipped = begin - asked_.first, offset = skipped * tensor->row_bytes;
    std::vector<const uint8_t *> at(tensor->operand_dtypes.size());
    for (size_t k = 0; k < at.size(); k++) at[k] = static_cast<const uint8_t *>(operands_[k].bytes) + skipped * tensor->operand_row_bytes(k);
    const bool large = asked_.count * tensor->row_bytes >= kLargeBytes;
    tensor->merge_rows(*kernels_, kept_, large, {begin, end - begin, asked_.w + offset, asked_.out + offset, at.data()});
  }

 private:
  void check_memory(uint64_t w_bytes, uint64_t out_bytes, uint64_t operand_count) const {
    const uint64_t expected = asked_.count * tensor->row_bytes;
    if (w_bytes != expected || out_bytes != expected) {
      fail(PORTLLM_INVALID, "%llu rows take %llu bytes, but W has %llu and the output %llu", static_cast<unsigned long long>(asked_.count),
           static_cast<unsigned long long>(expected), static_cast<unsigned long long>(w_bytes), static_cast<unsigned long long>(out_bytes));
    }
    if (asked_.w != asked_.out && overlap(asked_.w, expected, asked_.out, expected)) {
      fail(PORTLLM_INVALID, "the output overlaps W without being the same memory");
    }
    if (operand_count != tensor->operand_dtypes.size() || (operand_count && !operands_)) {
      fail(PORTLLM_INVALID, "%llu operands were given where the contributions have %llu", static_cast<unsigned long long>(operand_count),
           static_cast<unsigned long long>(tensor->operand_dtypes.size()));
    }
    for (uint64_t k = 0; k < operand_count; k++) {
      const auto *bytes = static_cast<const uint8_t *>(operands_[k].bytes);
      const uint64_t needed = asked_.count * tensor->operand_row_bytes(k);
      if (!bytes) fail(PORTLLM_INVALID, "operand %llu is null", static_cast<unsigned long long>(k));
      if (operands_[k].size != needed) {
        fail(PORTLLM_INVALID, "operand %llu has %llu bytes where %llu rows take %llu", static_cast<unsigned long long>(k),
             static_cast<unsigned long long>(operands_[k].size), static_cast<unsigned long long>(asked_.count), static_cast<unsigned long long>(needed));
      }
      if (overlap(bytes, needed, asked_.out, expected)) fail(PORTLLM_INVALID, "the output overlaps operand %llu", static_cast<unsigned long long>(k));
    }
  }

  const int32_t kept_;
  const Rows asked_;  // without operands
  const portllm_bytes *const operands_;
  const Path *kernels_ = nullptr;
  bool on_gpu_ = false;
};

}  // namespace

uint64_t checked_product(uint64_t a, uint64_t b, const char *what) {
  uint64_t product;
  if (__builtin_mul_overflow(a, b, &product) || product > (UINT64_MAX >> 2)) {
    fail(PORTLLM_INVALID, "%s is too large to address", what);
  }
  return product;
}

void check_kept(int32_t kept) {
  if (kept < PORTLLM_KEEP_NOTHING || kept > PORTLLM_KEEP_COUNT) fail(PORTLLM_INVALID, "%d is nothing that is kept: 0, 1 or 2 is needed", kept);
}

double sum_lanes(const double *lanes) {
  double eight[8], four[4];
  for (int l = 0; l < 8; l++) eight[l] = lanes[l] + lanes[l + 8];
  for (int l = 0; l < 4; l++) four[l] = eight[l] + eight[l + 4];
  return (four[0] + four[2]) + (four[1] + four[3]);
}

}  // namespace portllm

using namespace portllm;

bool portllm_tensor::additive() const {
  return dtype <= PORTLLM_BF16 && steps.size() == 1 && steps[0].kind == Step::kProducts;
}

bool portllm_tensor::measures() const {
  for (const Step &step : steps) {
    if (step.by_columns) return true;
  }
  return false;
}

uint64_t portllm_tensor::operand_row_bytes(uint64_t operand) const { return cols * element_bytes(operand_dtypes[operand]); }

void portllm_tensor::keep_figures() {
  const std::lock_guard<std::mutex> lock(figures_mutex);
  if (!figures) figures.reset(new RowFigures[rows]());
}

void portllm_tensor::seal() {
  if (steps.empty()) fail(PORTLLM_INVALID, "nothing is added to the tensor");
  if (measures()) {
    const std::lock_guard<std::mutex> lock(measure_mutex);
    if (measured_rows < rows) {
      fail(PORTLLM_INVALID, "%llu of %llu rows are measured: DoRA over columns needs all of them before the first is merged",
           static_cast<unsigned long long>(measured_rows), static_cast<unsigned long long>(rows));
    }
  }
  sealed = true;
}

void portllm_tensor::merge_rows(const Path &path, int32_t kept, bool large, const Rows &asked) {
  const FloatMode mode;
  if (additive()) merge_band(path, kept, large, asked);
  else merge_steps(path, kept, large, asked);
#if defined(__x86_64__)
  if (large) _mm_sfence();  // non-temporal stores are not ordered by the thread's end
#endif
}

extern "C" {

int32_t portllm_tensor_create(int32_t dtype, uint64_t rows, uint64_t cols, portllm_tensor **tensor,
                              char *message, size_t message_size) {
  return guarded(message, message_size, [&] {
    if (!tensor) fail(PORTLLM_INVALID, "the place for the tensor is null");
    *tensor = nullptr;
    if (!mergeable(dtype)) {
      fail(PORTLLM_INVALID, "dtype %d cannot be merged: only F64, F32, F16, BF16, F8_E4M3 and F8_E5M2 can", dtype);
    }
    if (rows == 0 || cols == 0) fail(PORTLLM_INVALID, "the tensor has no elements");
    checked_product(checked_product(rows, cols, "the tensor"), sizeof(double), "the tensor");
    if (cols > kRowCap / element_bytes(dtype)) {
      fail(PORTLLM_INVALID, "a row of %llu elements is longer than the %llu bytes that are worked on at once", static_cast<unsigned long long>(cols),
           static_cast<unsigned long long>(kRowCap));
    }
    auto made = std::make_shared<portllm_tensor>();
    made->dtype = dtype;
    made->rows = rows;
    made->cols = cols;
    made->row_bytes = cols * element_bytes(dtype);
    *tensor = Handles<portllm_tensor>::add(std::move(made));
  });
}

int32_t portllm_tensor_merge(portllm_tensor *handle, int32_t path, uint32_t threads, int32_t figures, uint64_t first_row,
                             uint64_t row_count, const void *w, uint64_t w_bytes, void *out, uint64_t out_bytes,
                             const portllm_bytes *operands, uint64_t operand_count, char *message, size_t message_size) {
  return guarded(message, message_size, [&] {
    check_threads(threads);
    const Rows asked{first_row, row_count, static_cast<const uint8_t *>(w), static_cast<uint8_t *>(out), nullptr};
    const Merge merge(handle, path, figures, asked, w_bytes, out_bytes, operands, operand_count);
    if (merge.on_gpu()) return merge.run_on_gpu();

    // Whole tiles per thread; a boundary inside a group of four rows would compute that group twice.
    const uint64_t work = row_count * merge.tensor->cols * (merge.tensor->total_rank + 8);
    const uint64_t wanted = std::max<uint64_t>(1, std::min<uint64_t>(threads, work / kThreadMultiplyAdds));
    const std::vector<uint64_t> bounds = row_bounds(first_row, row_count, (row_count + wanted - 1) / wanted);
    parallel(bounds.size() - 1, [&](uint64_t share) { merge.run(bounds[share], bounds[share + 1]); });
  });
}

int32_t portllm_tensor_merge_file(portllm_tensor *handle, int32_t path, int32_t figures, uint64_t first_row, uint64_t row_count, int32_t file,
                                  uint64_t offset, void *out, uint64_t out_bytes, const portllm_bytes *operands, uint64_t operand_count,
                                  char *message, size_t message_size) {
  return guarded(message, message_size, [&] {
    auto *rows = static_cast<uint8_t *>(out);
    const Merge merge(handle, path, figures, {first_row, row_count, rows, rows, nullptr}, out_bytes, out_bytes, operands, operand_count);
    const uint64_t row_bytes = merge.tensor->row_bytes;
    if (merge.on_gpu()) {
      read_exactly(file, rows, out_bytes, offset, "W");
      return merge.run_on_gpu();
    }
    const std::vector<uint64_t> bounds = row_bounds(first_row, row_count, kReadBytes / row_bytes);
    for (size_t part = 0; part + 1 < bounds.size(); part++) {
      const uint64_t skipped = (bounds[part] - first_row) * row_bytes;
      read_exactly(file, rows + skipped, (bounds[part + 1] - bounds[part]) * row_bytes, offset + skipped, "W");
      merge.run(bounds[part], bounds[part + 1]);
    }
  });
}

int32_t portllm_tensor_supported(const portllm_tensor *handle, int32_t path) {
  bool supported = false;
  guarded(nullptr, 0, [&] {
    const auto tensor = Handles<portllm_tensor>::get(handle, "tensor");
    const std::lock_guard<std::mutex> adding(tensor->adding);
    supported = portllm_path_supported(path) && (path != PORTLLM_CUDA || cuda_rows(*tensor) > 0);
  });
  return supported ? 1 : 0;
}

int32_t portllm_tensor_measures(const portllm_tensor *handle) {
  bool measures = false;
  guarded(nullptr, 0, [&] {
    const auto tensor = Handles<portllm_tensor>::get(handle, "tensor");
    const std::lock_guard<std::mutex> adding(tensor->adding);
    measures = tensor->measures();
  });
  return measures ? 1 : 0;
}

int32_t portllm_tensor_measure(portllm_tensor *handle, int32_t path, uint32_t threads, uint64_t first_row, uint64_t row_count, const void *w,
                               uint64_t w_bytes, char *message, size_t message_size) {
  return guarded(message, message_size, [&] {
    const auto tensor = Handles<portllm_tensor>::get(handle, "tensor");
    if (!w) fail(PORTLLM_INVALID, "the rows' memory is null");
    check_threads(threads);
    std::unique_lock<std::mutex> adding(tensor->adding);
    if (!tensor->measures()) fail(PORTLLM_INVALID, "no contribution to this tensor measures its rows");
    check_rows(*tensor, first_row, row_count);
    if (w_bytes != row_count * tensor->row_bytes) {
      fail(PORTLLM_INVALID, "%llu rows take %llu bytes, but W has %llu", static_cast<unsigned long long>(row_count),
           static_cast<unsigned long long>(row_count * tensor->row_bytes), static_cast<unsigned long long>(w_bytes));
    }
    const Path &kernels = path_of(path);
    tensor->sealed = true;
    adding.unlock();
    tensor->measure(kernels, threads, first_row, row_count, static_cast<const uint8_t *>(w));
  });
}

int32_t portllm_tensor_figures(const portllm_tensor *handle, portllm_figures *figures, char *message, size_t message_size) {
  return guarded(message, message_size, [&] {
    const auto tensor = Handles<portllm_tensor>::get(handle, "tensor");
    if (!figures) fail(PORTLLM_INVALID, "the place for the figures is null");
    const std::lock_guard<std::mutex> lock(tensor->figures_mutex);
    double patch = 0, realised = 0, residual = 0;
    uint64_t count = 0;
    if (tensor->figures) {
      for (uint64_t i = 0; i < tensor->rows; i++) {
        patch += tensor->figures[i].patch;
        realised += tensor->figures[i].realised;
        residual += tensor->figures[i].residual;
        count += tensor->figures[i].non_finite;
      }
    }
    *figures = {std::sqrt(patch), std::sqrt(realised), std::sqrt(residual), static_cast<double>(count)};
  });
}

void portllm_tensor_free(portllm_tensor *handle) { Handles<portllm_tensor>::remove(handle); }

}  // extern "C"
