// The analysis of one tensor: what is kept between calls, and the walk over the rows.
#include <algorithm>
#include <cmath>
#include <memory>
#include <mutex>
#include <vector>

#include "analysis_factors.h"
#include "analysis_kernels.h"
#include "elements.h"
#include "handles.h"
#include "parallel.h"
#include "portllm_analysis.h"
#include "status.h"
#include "tensor.h"
#include "tile_sizes.h"

namespace portllm {
namespace {

// Below this much work per thread, starting it costs more than it saves.
constexpr uint64_t kThreadWork = 1u << 20;

const AnalysisKernels &kernels_of(int32_t path) {
  path_of(path);  // refuses what this processor cannot run
#if defined(__x86_64__)
  if (path == PORTLLM_AVX2) return kAvx2Analysis;
  if (path == PORTLLM_AVX512 || path == PORTLLM_AVX512_BF16) return kAvx512Analysis;
#endif
  return kScalarAnalysis;
}

void require_dtype(int32_t dtype, const char *what) {
  if (element_bytes(dtype) == 0 || dtype == PORTLLM_F8_E8M0) fail(PORTLLM_INVALID, "%s has dtype %d, which has no exact float64 value", what, dtype);
}

// What a row of W and W' gives, besides the sums over columns.
struct RowSums {
  double base, drift, target;
  double drift_read, base_read;
};

struct Sample {
  uint64_t row;
  double squared;
  portllm_row_match match;
};

}  // namespace
}  // namespace portllm

using namespace portllm;

struct portllm_analysis {
  int32_t base_dtype, target_dtype;
  uint64_t rows, cols;
  Columns left, right;  // of the factors, then their orthonormal bases: Q_B and Q_A
  Columns sampled;      // rows of W
  std::vector<Sample> samples;
  PatchCore patch;
  Columns drift_write, base_write;  // Q_B^T D and Q_B^T W, one column of them for each of Q_B
  portllm_analysis_sums sums{};
  uint64_t rows_done = 0;
  bool sealed = false;
  bool failed = false;
  std::mutex calling;

  void seal(const AnalysisKernels &kernels);
  void walk_rows(const AnalysisKernels &kernels, uint64_t count, const uint8_t *base, const uint8_t *target, RowSums *row_sums, double *dots) const;
  void walk_columns(const AnalysisKernels &kernels, uint64_t first_row, uint64_t row_count, uint64_t first_panel, uint64_t end_panel, const uint8_t *base, const uint8_t *target);
  void fold(uint64_t first_row, const std::vector<RowSums> &row_sums, const std::vector<double> &dots);
};

namespace {

// A chunk of rows by a panel of columns in float64: W, W' and their difference. Beyond the edge are zeros.
struct Chunk {
  double base[kChunkRows * kPanelCols];
  double target[kChunkRows * kPanelCols];
  double drift[kChunkRows * kPanelCols];
  uint64_t width = 0;  // columns, padded
  uint64_t depth = 0;  // rows, padded

  void fill(const AnalysisKernels &kernels, const portllm_analysis &of, uint64_t rows, uint64_t col, const uint8_t *from_base, const uint8_t *from_target) {
    const uint64_t cols = std::min(kPanelCols, of.cols - col);
    width = rounded_up(cols, kPad);
    depth = rounded_up(rows, 4);
    const uint64_t base_element = element_bytes(of.base_dtype), target_element = element_bytes(of.target_dtype);
    for (uint64_t i = 0; i < depth; i++) {
      double *w = base + i * kPanelCols, *evolved = target + i * kPanelCols, *d = drift + i * kPanelCols;
      const uint64_t present = i < rows ? cols : 0;
      if (present) {
        kernels.widen(of.base_dtype, from_base + (i * of.cols + col) * base_element, cols, w);
        kernels.widen(of.target_dtype, from_target + (i * of.cols + col) * target_element, cols, evolved);
      }
      for (uint64_t j = present; j < width; j++) w[j] = evolved[j] = 0;
      for (uint64_t j = 0; j < width; j++) d[j] = evolved[j] - w[j];
    }
  }
};

}  // namespace

void portllm_analysis::seal(const AnalysisKernels &kernels) {
  if (sealed) return;
  patch = factor_patch(kernels, left, right);
  drift_write = base_write = Columns(cols);
  for (uint64_t k = 0; k < left.count(); k++) {
    drift_write.append();
    base_write.append();
  }
  sealed = true;
}

// `row_sums` and `dots` (one for each sample) of rows that one thread takes whole, panel after panel.
void portllm_analysis::walk_rows(const AnalysisKernels &kernels, uint64_t count, const uint8_t *base, const uint8_t *target, RowSums *row_sums, double *dots) const {
  const FloatMode mode;
  const auto chunk = std::make_unique<Chunk>();
  const uint64_t read = right.count(), sample_count = samples.size();
  const uint64_t base_row = cols * element_bytes(base_dtype), target_row = cols * element_bytes(target_dtype);
  std::vector<double> drift_read(kChunkRows * read), base_read(kChunkRows * read), sample_dots(kChunkRows * sample_count);
  for (uint64_t first = 0; first < count; first += kChunkRows) {
    const uint64_t rows = std::min(kChunkRows, count - first);
    std::fill(drift_read.begin(), drift_read.end(), 0.0);
    std::fill(base_read.begin(), base_read.end(), 0.0);
    std::fill(sample_dots.begin(), sample_dots.end(), 0.0);
    double squares[3][kChunkRows] = {};
    for (uint64_t col = 0; col < cols; col += kPanelCols) {
      chunk->fill(kernels, *this, rows, col, base + first * base_row, target + first * target_row);
      kernels.add_squares(chunk->base, kPanelCols, chunk->depth, chunk->width, squares[0]);
      kernels.add_squares(chunk->drift, kPanelCols, chunk->depth, chunk->width, squares[1]);
      if (read) {
        kernels.add_dots(chunk->drift, kPanelCols, chunk->depth, right.at(0) + col, right.stride, read, chunk->width, drift_read.data(), read);
        kernels.add_dots(chunk->base, kPanelCols, chunk->depth, right.at(0) + col, right.stride, read, chunk->width, base_read.data(), read);
      }
      if (sample_count) {
        kernels.add_squares(chunk->target, kPanelCols, chunk->depth, chunk->width, squares[2]);
        kernels.add_dots(chunk->target, kPanelCols, chunk->depth, sampled.at(0) + col, sampled.stride, sample_count, chunk->width, sample_dots.data(), sample_count);
      }
    }
    for (uint64_t i = 0; i < rows; i++) {
      RowSums &sums = row_sums[first + i];
      sums = {squares[0][i], squares[1][i], squares[2][i], 0, 0};
      for (uint64_t k = 0; k < read; k++) {
        sums.drift_read = std::fma(drift_read[i * read + k], drift_read[i * read + k], sums.drift_read);
        sums.base_read = std::fma(base_read[i * read + k], base_read[i * read + k], sums.base_read);
      }
    }
    std::copy_n(sample_dots.begin(), rows * sample_count, dots + first * sample_count);
  }
}

// Adds the rows, in order, to Q_B^T D and Q_B^T W; a thread has some panels of columns to itself.
void portllm_analysis::walk_columns(const AnalysisKernels &kernels, uint64_t first_row, uint64_t row_count, uint64_t first_panel, uint64_t end_panel, const uint8_t *base, const uint8_t *target) {
  const uint64_t write = left.count();
  if (!write) return;
  const FloatMode mode;
  const auto chunk = std::make_unique<Chunk>();
  const uint64_t base_row = cols * element_bytes(base_dtype), target_row = cols * element_bytes(target_dtype);
  for (uint64_t panel = first_panel; panel < end_panel; panel++) {
    const uint64_t col = panel * kPanelCols;
    for (uint64_t first = 0; first < row_count; first += kChunkRows) {
      const uint64_t rows = std::min(kChunkRows, row_count - first);
      chunk->fill(kernels, *this, rows, col, base + first * base_row, target + first * target_row);
      const double *q = left.at(0) + first_row + first;
      kernels.add_columns(chunk->drift, kPanelCols, rows, q, left.stride, write, chunk->width, drift_write.at(0) + col, drift_write.stride);
      kernels.add_columns(chunk->base, kPanelCols, rows, q, left.stride, write, chunk->width, base_write.at(0) + col, base_write.stride);
    }
  }
}

// Row after row, so that the sums do not depend on how the rows were cut.
void portllm_analysis::fold(uint64_t first_row, const std::vector<RowSums> &row_sums, const std::vector<double> &dots) {
  for (uint64_t i = 0; i < row_sums.size(); i++) {
    const RowSums &row = row_sums[i];
    const uint64_t number = first_row + i;
    if (!std::isfinite(row.base) || !std::isfinite(row.drift)) {
      fail(PORTLLM_NONFINITE, "row %llu of the %s holds a NaN, an infinity, or values too large to be squared",
           static_cast<unsigned long long>(number), std::isfinite(row.base) ? "target" : "base");
    }
    sums.base_squared += row.base;
    sums.drift_squared += row.drift;
    sums.drift_read_squared += row.drift_read;
    sums.base_read_squared += row.base_read;
    for (uint64_t k = 0; k < samples.size(); k++) {
      Sample &sample = samples[k];
      if (!(sample.squared > 0) || !(row.target > 0)) continue;
      const double cosine = dots[i * samples.size() + k] / (std::sqrt(sample.squared) * std::sqrt(row.target));
      if (number == sample.row) {
        sample.match.same = cosine;
      } else if (!(cosine <= sample.match.best)) {
        sample.match.best = cosine;
        sample.match.best_row = static_cast<double>(number);
      }
    }
  }
}

namespace {

// Checks a stored factor and appends its columns, or its rows, to `to`, times `scale`.
void append_factor(Columns &to, const portllm_matrix &matrix, const char *name, uint64_t rows, uint64_t cols, bool by_rows, double scale) {
  if (!matrix.bytes) fail(PORTLLM_INVALID, "the %s factor is null", name);
  const int32_t dtype = matrix.dtype;
  require_dtype(dtype, name);
  const uint64_t width = element_bytes(dtype), elements = matrix.size / width;
  uint64_t last = 0, along_rows = 0, along_cols = 0;
  if (matrix.size % width || __builtin_mul_overflow(rows - 1, matrix.row_stride, &along_rows) ||
      __builtin_mul_overflow(cols - 1, matrix.col_stride, &along_cols) || __builtin_add_overflow(along_rows, along_cols, &last) ||
      __builtin_add_overflow(last, matrix.offset, &last) || last >= elements) {
    fail(PORTLLM_INVALID, "the %s factor of %llu x %llu does not lie within its %llu bytes", name, static_cast<unsigned long long>(rows),
         static_cast<unsigned long long>(cols), static_cast<unsigned long long>(matrix.size));
  }
  // Strides of 0 would make a few bytes stand for any number of elements, each of which is widened.
  if (rows > elements / cols) {
    fail(PORTLLM_INVALID, "the %s factor has %llu elements, but %llu x %llu are needed", name, static_cast<unsigned long long>(elements),
         static_cast<unsigned long long>(rows), static_cast<unsigned long long>(cols));
  }
  const uint64_t count = by_rows ? rows : cols, length = by_rows ? cols : rows;
  const uint64_t step = by_rows ? matrix.row_stride : matrix.col_stride, stride = by_rows ? matrix.col_stride : matrix.row_stride;
  checked_product(to.values.size() + checked_product(count, to.stride, "a factor"), sizeof(double), "a factor");
  for (uint64_t k = 0; k < count; k++) {
    double *column = to.append();
    for (uint64_t i = 0; i < length; i++) {
      const uint64_t at = matrix.offset + k * step + i * stride;
      double value;
      kScalarAnalysis.widen(dtype, static_cast<const uint8_t *>(matrix.bytes) + at * width, 1, &value);
      if (!std::isfinite(value)) fail(PORTLLM_NONFINITE, "the %s factor holds a NaN or an infinity at element %llu", name, static_cast<unsigned long long>(at));
      column[i] = scale * value;
    }
  }
}

// An analysis while one call works on it; others wait. It lives until the call ends, whatever is freed meanwhile.
class OpenAnalysis {
 public:
  explicit OpenAnalysis(const portllm_analysis *handle) : analysis_(Handles<portllm_analysis>::get(handle, "analysis")), calling_(analysis_->calling) {
    if (analysis_->failed) fail(PORTLLM_INVALID, "an earlier call of this analysis failed");
  }

  portllm_analysis *operator->() const { return analysis_.get(); }

  void require_complete() const {
    if (analysis_->rows_done != analysis_->rows) {
      fail(PORTLLM_INVALID, "%llu of %llu rows have come", static_cast<unsigned long long>(analysis_->rows_done), static_cast<unsigned long long>(analysis_->rows));
    }
  }

 private:
  const std::shared_ptr<portllm_analysis> analysis_;
  const std::lock_guard<std::mutex> calling_;
};

}  // namespace

extern "C" {

int32_t portllm_analysis_create(int32_t base_dtype, int32_t target_dtype, uint64_t rows, uint64_t cols,
                                portllm_analysis **analysis, char *message, size_t message_size) {
  return guarded(message, message_size, [&] {
    if (!analysis) fail(PORTLLM_INVALID, "the place for the analysis is null");
    *analysis = nullptr;
    require_dtype(base_dtype, "the base");
    require_dtype(target_dtype, "the target");
    if (rows == 0 || cols == 0) fail(PORTLLM_INVALID, "the tensor has no elements");
    checked_product(checked_product(rows, cols, "the tensor"), sizeof(double), "the tensor");
    checked_product(rows + kPad, sizeof(double), "the tensor");
    checked_product(cols + kPad, sizeof(double), "the tensor");
    auto made = std::make_shared<portllm_analysis>();
    made->base_dtype = base_dtype;
    made->target_dtype = target_dtype;
    made->rows = rows;
    made->cols = cols;
    made->left = Columns(rows);
    made->right = made->sampled = Columns(cols);
    *analysis = Handles<portllm_analysis>::add(std::move(made));
  });
}

int32_t portllm_analysis_add(portllm_analysis *handle, const portllm_matrix *left, const portllm_matrix *right,
                             uint64_t rank, double scale, char *message, size_t message_size) {
  return guarded(message, message_size, [&] {
    const OpenAnalysis analysis(handle);
    if (!left || !right) fail(PORTLLM_INVALID, "a factor is null");
    if (analysis->sealed) fail(PORTLLM_INVALID, "rows have come: no more can be added");
    if (rank == 0) fail(PORTLLM_INVALID, "the rank is 0");
    if (!std::isfinite(scale)) fail(PORTLLM_NONFINITE, "the scale is not finite");
    Columns new_left(analysis->rows), new_right(analysis->cols);
    append_factor(new_left, *left, "left", analysis->rows, rank, false, 1);
    append_factor(new_right, *right, "right", rank, analysis->cols, true, scale);
    analysis->left.values.insert(analysis->left.values.end(), new_left.values.begin(), new_left.values.end());
    try {
      analysis->right.values.insert(analysis->right.values.end(), new_right.values.begin(), new_right.values.end());
    } catch (...) {
      analysis->failed = true;
      throw;
    }
  });
}

int32_t portllm_analysis_sample(portllm_analysis *handle, const uint64_t *rows, uint64_t count, const void *base,
                                uint64_t base_bytes, char *message, size_t message_size) {
  return guarded(message, message_size, [&] {
    const OpenAnalysis analysis(handle);
    if (analysis->sealed || !analysis->samples.empty()) fail(PORTLLM_INVALID, "rows are sampled once, before the first have come");
    if (!rows || !base || count == 0) fail(PORTLLM_INVALID, "no rows are sampled");
    if (count > analysis->rows) fail(PORTLLM_INVALID, "more rows are sampled than there are");
    const uint64_t row_bytes = analysis->cols * element_bytes(analysis->base_dtype);
    if (base_bytes != checked_product(count, row_bytes, "the sample")) fail(PORTLLM_INVALID, "the sampled rows have another size than their number says");
    Columns sampled(analysis->cols);
    std::vector<Sample> samples;
    for (uint64_t k = 0; k < count; k++) {
      if (rows[k] >= analysis->rows || (k > 0 && rows[k] <= rows[k - 1])) fail(PORTLLM_INVALID, "the sampled rows are not rows of the tensor in ascending order");
      double *column = sampled.append();
      kScalarAnalysis.widen(analysis->base_dtype, static_cast<const uint8_t *>(base) + k * row_bytes, analysis->cols, column);
      const double squared = kScalarAnalysis.dot(column, column, sampled.stride);
      samples.push_back({rows[k], squared, {NAN, NAN, NAN}});
    }
    analysis->sampled = std::move(sampled);
    analysis->samples = std::move(samples);
  });
}

int32_t portllm_analysis_rows(portllm_analysis *handle, int32_t path, uint32_t threads, uint64_t first_row,
                              uint64_t row_count, const void *base, uint64_t base_bytes, const void *target,
                              uint64_t target_bytes, char *message, size_t message_size) {
  return guarded(message, message_size, [&] {
    const OpenAnalysis analysis(handle);
    if (!base || !target) fail(PORTLLM_INVALID, "the rows' memory is null");
    if (threads == 0 || threads > kThreadCap) fail(PORTLLM_INVALID, "%u threads: 1 to %u are possible", threads, kThreadCap);
    if (first_row != analysis->rows_done || row_count == 0 || row_count > analysis->rows - first_row) {
      fail(PORTLLM_INVALID, "rows %llu..+%llu do not follow the %llu of %llu rows that have come", static_cast<unsigned long long>(first_row),
           static_cast<unsigned long long>(row_count), static_cast<unsigned long long>(analysis->rows_done), static_cast<unsigned long long>(analysis->rows));
    }
    const uint64_t base_row = analysis->cols * element_bytes(analysis->base_dtype), target_row = analysis->cols * element_bytes(analysis->target_dtype);
    if (base_bytes != row_count * base_row || target_bytes != row_count * target_row) {
      fail(PORTLLM_INVALID, "%llu rows take %llu and %llu bytes, but the base has %llu and the target %llu", static_cast<unsigned long long>(row_count),
           static_cast<unsigned long long>(row_count * base_row), static_cast<unsigned long long>(row_count * target_row),
           static_cast<unsigned long long>(base_bytes), static_cast<unsigned long long>(target_bytes));
    }
    const AnalysisKernels &kernels = kernels_of(path);
    try {
      {
        const FloatMode mode;
        analysis->seal(kernels);
      }
      const auto *w = static_cast<const uint8_t *>(base);
      const auto *evolved = static_cast<const uint8_t *>(target);
      std::vector<RowSums> row_sums(row_count);
      std::vector<double> dots(row_count * analysis->samples.size());
      const uint64_t panels = (analysis->cols + kPanelCols - 1) / kPanelCols;
      const uint64_t work = row_count * analysis->cols * (2 * (analysis->left.count() + analysis->right.count()) + analysis->samples.size() + 8);
      const uint64_t wanted = std::max<uint64_t>(1, std::min<uint64_t>(threads, work / kThreadWork));
      const uint64_t row_share = rounded_up((row_count + wanted - 1) / wanted, kChunkRows), panel_share = (panels + wanted - 1) / wanted;
      parallel(wanted, [&](uint64_t thread) {
        const uint64_t first = std::min(row_count, thread * row_share), end = std::min(row_count, first + row_share);
        if (first < end) {
          analysis->walk_rows(kernels, end - first, w + first * base_row, evolved + first * target_row, row_sums.data() + first, dots.data() + first * analysis->samples.size());
        }
        const uint64_t first_panel = std::min(panels, thread * panel_share), end_panel = std::min(panels, first_panel + panel_share);
        analysis->walk_columns(kernels, first_row, row_count, first_panel, end_panel, w, evolved);
      });
      analysis->fold(first_row, row_sums, dots);
      analysis->rows_done += row_count;
    } catch (...) {
      analysis->failed = true;  // part of the sums may be in
      throw;
    }
  });
}

int32_t portllm_analysis_finish(const portllm_analysis *handle, int32_t path, portllm_analysis_sums *sums,
                                char *message, size_t message_size) {
  return guarded(message, message_size, [&] {
    if (!sums) fail(PORTLLM_INVALID, "the place for the sums is null");
    const OpenAnalysis analysis(handle);
    analysis.require_complete();
    const AnalysisKernels &kernels = kernels_of(path);
    const FloatMode mode;
    portllm_analysis_sums result = analysis->sums;
    const uint64_t write = analysis->left.count(), read = analysis->right.count();
    result.patch_squared = analysis->patch.squared;
    result.patch_spectral = analysis->patch.spectral;
    result.write_rank = static_cast<double>(write);
    result.read_rank = static_cast<double>(read);
    for (uint64_t k = 0; k < write; k++) {
      const double *drift = analysis->drift_write.at(k), *base = analysis->base_write.at(k);
      result.drift_write_squared += kernels.dot(drift, drift, analysis->drift_write.stride);
      result.base_write_squared += kernels.dot(base, base, analysis->base_write.stride);
      for (uint64_t l = 0; l < read; l++) {
        // <D, P> = <Q_B^T D Q_A, K>
        const double projected = kernels.dot(drift, analysis->right.at(l), analysis->right.stride);
        result.inner = std::fma(projected, analysis->patch.core[k * read + l], result.inner);
      }
    }
    *sums = result;
  });
}

int32_t portllm_analysis_matches(const portllm_analysis *handle, portllm_row_match *matches, uint64_t count,
                                 char *message, size_t message_size) {
  return guarded(message, message_size, [&] {
    const OpenAnalysis analysis(handle);
    analysis.require_complete();
    if (count != analysis->samples.size() || (count > 0 && !matches)) fail(PORTLLM_INVALID, "there are %zu sampled rows", analysis->samples.size());
    for (uint64_t k = 0; k < count; k++) matches[k] = analysis->samples[k].match;
  });
}

void portllm_analysis_free(portllm_analysis *handle) { Handles<portllm_analysis>::remove(handle); }

}  // extern "C"
