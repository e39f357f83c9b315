#include "tensor.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cmath>

#include "handles.h"
#include "parallel.h"
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
    const auto tensor = Handles<portllm_tensor>::get(handle, "tensor");
    if (!w || !out) fail(PORTLLM_INVALID, "the rows' memory is null");
    check_threads(threads);
    check_kept(figures);
    std::unique_lock<std::mutex> adding(tensor->adding);
    if (tensor->steps.empty()) fail(PORTLLM_INVALID, "nothing is added to the tensor");
    check_rows(*tensor, first_row, row_count);
    const uint64_t expected = row_count * tensor->row_bytes;
    if (w_bytes != expected || out_bytes != expected) {
      fail(PORTLLM_INVALID, "%llu rows take %llu bytes, but W has %llu and the output %llu", static_cast<unsigned long long>(row_count),
           static_cast<unsigned long long>(expected), static_cast<unsigned long long>(w_bytes), static_cast<unsigned long long>(out_bytes));
    }
    const auto *from = static_cast<const uint8_t *>(w);
    auto *to = static_cast<uint8_t *>(out);
    if (from != to && overlap(from, expected, to, expected)) fail(PORTLLM_INVALID, "the output overlaps W without being the same memory");
    if (operand_count != tensor->operand_dtypes.size() || (operand_count && !operands)) {
      fail(PORTLLM_INVALID, "%llu operands were given where the contributions have %llu", static_cast<unsigned long long>(operand_count),
           static_cast<unsigned long long>(tensor->operand_dtypes.size()));
    }
    for (uint64_t k = 0; k < operand_count; k++) {
      const auto *bytes = static_cast<const uint8_t *>(operands[k].bytes);
      const uint64_t needed = row_count * tensor->operand_row_bytes(k);
      if (!bytes) fail(PORTLLM_INVALID, "operand %llu is null", static_cast<unsigned long long>(k));
      if (operands[k].size != needed) {
        fail(PORTLLM_INVALID, "operand %llu has %llu bytes where %llu rows take %llu", static_cast<unsigned long long>(k),
             static_cast<unsigned long long>(operands[k].size), static_cast<unsigned long long>(row_count), static_cast<unsigned long long>(needed));
      }
      if (overlap(bytes, needed, to, expected)) fail(PORTLLM_INVALID, "the output overlaps operand %llu", static_cast<unsigned long long>(k));
    }
    const bool on_gpu = path == PORTLLM_CUDA && cuda_rows(*tensor) > 0;
    const Path &kernels = on_gpu ? kScalarPath : path_of(path);
    tensor->seal();
    adding.unlock();
    if (figures) tensor->keep_figures();
    if (on_gpu) return cuda_merge(*tensor, figures, first_row, row_count, from, to);

    // Whole tiles per thread; a boundary inside a group of four rows would compute that group twice.
    const uint64_t work = row_count * tensor->cols * (tensor->total_rank + 8);
    const uint64_t wanted = std::max<uint64_t>(1, std::min<uint64_t>(threads, work / kThreadMultiplyAdds));
    const uint64_t share = rounded_up((row_count + wanted - 1) / wanted, kTileRows);
    const bool large = expected >= kLargeBytes;
    std::vector<uint64_t> bounds{first_row};
    while (bounds.back() < first_row + row_count) {
      const uint64_t next = (bounds.back() / kTileRows) * kTileRows + share;
      bounds.push_back(std::min(first_row + row_count, next));
    }
    parallel(bounds.size() - 1, [&](uint64_t band) {
      const uint64_t begin = bounds[band], skipped = begin - first_row;
      std::vector<const uint8_t *> at(operand_count);
      for (uint64_t k = 0; k < operand_count; k++) {
        at[k] = static_cast<const uint8_t *>(operands[k].bytes) + skipped * tensor->operand_row_bytes(k);
      }
      const uint64_t offset = skipped * tensor->row_bytes;
      tensor->merge_rows(kernels, figures, large, {begin, bounds[band + 1] - begin, from + offset, to + offset, at.data()});
    });
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
