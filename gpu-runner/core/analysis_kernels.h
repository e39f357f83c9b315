// The inner loops of the analysis, one table per path. Matrices are float64, each vector padded with
// zeros to kPad; a lane is a column number mod 8, and every operation on a lane is the same on every path.
#pragma once

#include <cstdint>

namespace portllm {

constexpr uint64_t kLaneCount = 8;
// Vectors in memory are padded to this many elements.
constexpr uint64_t kPad = 32;
// Rows that are widened at once, and the columns of them that are worked on: 64 KiB of float64.
constexpr uint64_t kChunkRows = 32;
constexpr uint64_t kPanelCols = 256;

struct AnalysisKernels {
  // `count` stored elements as float64, exactly.
  void (*widen)(int32_t dtype, const uint8_t *from, uint64_t count, double *to);
  // sum of a[j] * b[j], and c = fma(-factor, q, c); n is a multiple of kPad.
  double (*dot)(const double *a, const double *b, uint64_t n);
  void (*subtract)(double *c, double factor, const double *q, uint64_t n);
  // sums[i * sums_stride + k] += x_i . q_k for i < rows, k < count; rows is a multiple of 4.
  void (*add_dots)(const double *x, uint64_t x_stride, uint64_t rows, const double *q, uint64_t q_stride,
                   uint64_t count, uint64_t n, double *sums, uint64_t sums_stride);
  // sums[i] += x_i . x_i; rows is a multiple of 4.
  void (*add_squares)(const double *x, uint64_t x_stride, uint64_t rows, uint64_t n, double *sums);
  // sums_k[j] += b_k[i] * x_i[j], row after row.
  void (*add_columns)(const double *x, uint64_t x_stride, uint64_t rows, const double *b, uint64_t b_stride,
                      uint64_t count, uint64_t n, double *sums, uint64_t sums_stride);
};

extern const AnalysisKernels kScalarAnalysis;
#if defined(__x86_64__)
extern const AnalysisKernels kAvx2Analysis;
extern const AnalysisKernels kAvx512Analysis;
#endif

}  // namespace portllm
