// P as Q_B K Q_A^T, from its factors alone: orthonormal bases of both sides and the small core between them.
#pragma once

#include <cstdint>
#include <vector>

#include "analysis_kernels.h"

namespace portllm {

// Column vectors of `length` float64 elements, each padded with zeros to `stride`.
struct Columns {
  uint64_t length = 0;
  uint64_t stride = 0;
  std::vector<double> values;

  explicit Columns(uint64_t n = 0) : length(n), stride((n + kPad - 1) / kPad * kPad) {}
  uint64_t count() const { return stride ? values.size() / stride : 0; }
  double *at(uint64_t k) { return values.data() + k * stride; }
  const double *at(uint64_t k) const { return values.data() + k * stride; }
  // Appends a column of zeros.
  double *append();
};

// Turns the columns of `m` into an orthonormal basis Q of their span, largest first, and returns S (row-major,
// Q's count x m's count before) such that m = Q S. Columns within the rounding noise of the largest give no direction.
std::vector<double> orthonormalise(const AnalysisKernels &kernels, Columns &m);

struct PatchCore {
  // K, row-major: write_rank x read_rank.
  std::vector<double> core;
  double squared = 0;
  double spectral = 0;
};

// P = left right^T, `left` and `right` having as many columns; both become their bases.
PatchCore factor_patch(const AnalysisKernels &kernels, Columns &left, Columns &right);

}  // namespace portllm
