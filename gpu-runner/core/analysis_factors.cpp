#include "analysis_factors.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace portllm {
namespace {

// Largest singular value of a rows x cols matrix, by one-sided Jacobi rotations of its columns.
double largest_singular_value(const AnalysisKernels &kernels, const std::vector<double> &matrix, uint64_t rows, uint64_t cols) {
  Columns columns(rows);
  for (uint64_t k = 0; k < cols; k++) {
    double *column = columns.append();
    for (uint64_t i = 0; i < rows; i++) column[i] = matrix[i * cols + k];
  }
  constexpr int kSweeps = 60;
  bool rotated = true;
  for (int sweep = 0; sweep < kSweeps && rotated; sweep++) {
    rotated = false;
    for (uint64_t p = 0; p + 1 < cols; p++) {
      for (uint64_t q = p + 1; q < cols; q++) {
        double *a = columns.at(p), *b = columns.at(q);
        const double aa = kernels.dot(a, a, columns.stride), bb = kernels.dot(b, b, columns.stride);
        const double ab = kernels.dot(a, b, columns.stride);
        if (std::fabs(ab) <= 1e-15 * std::sqrt(aa) * std::sqrt(bb)) continue;
        rotated = true;
        const double zeta = (bb - aa) / (2 * ab);
        const double t = (zeta < 0 ? -1.0 : 1.0) / (std::fabs(zeta) + std::sqrt(1 + zeta * zeta));
        const double c = 1 / std::sqrt(1 + t * t), s = c * t;
        for (uint64_t i = 0; i < rows; i++) {
          const double x = a[i], y = b[i];
          a[i] = c * x - s * y;
          b[i] = s * x + c * y;
        }
      }
    }
  }
  double largest = 0;
  for (uint64_t k = 0; k < cols; k++) largest = std::max(largest, kernels.dot(columns.at(k), columns.at(k), columns.stride));
  return std::sqrt(largest);
}

}  // namespace

double *Columns::append() {
  values.resize(values.size() + stride, 0.0);
  return values.data() + values.size() - stride;
}

// Gram-Schmidt, modified, with the largest remaining column next; the chosen one is orthogonalised a second time,
// which makes the basis orthonormal to rounding however dependent the columns are.
std::vector<double> orthonormalise(const AnalysisKernels &kernels, Columns &m) {
  const uint64_t count = m.count(), n = m.stride;
  std::vector<uint64_t> column(count);  // which column of the input is in each place
  for (uint64_t k = 0; k < count; k++) column[k] = k;
  std::vector<double> s(count * count, 0.0);
  const auto norm = [&](uint64_t k) { return std::sqrt(kernels.dot(m.at(k), m.at(k), n)); };
  double noise = 0;
  uint64_t kept = 0, end = count;  // places from `end` on gave no direction
  while (kept < end) {
    uint64_t best = kept;
    double best_norm = -1;
    for (uint64_t k = kept; k < end; k++) {
      const double size = norm(k);
      if (size > best_norm) {
        best = k;
        best_norm = size;
      }
    }
    if (kept == 0) {
      noise = best_norm * std::numeric_limits<double>::epsilon() * static_cast<double>(std::max(m.length, count));
    }
    const auto swap = [&](uint64_t a, uint64_t b) {
      if (a == b) return;
      std::swap_ranges(m.at(a), m.at(a) + n, m.at(b));
      std::swap(column[a], column[b]);
    };
    swap(kept, best);
    double *q = m.at(kept);
    for (uint64_t t = 0; t < kept; t++) {
      const double r = kernels.dot(m.at(t), q, n);
      kernels.subtract(q, r, m.at(t), n);
      s[t * count + column[kept]] += r;
    }
    const double size = norm(kept);
    if (!(size > noise)) {
      swap(kept, --end);
      continue;
    }
    for (uint64_t j = 0; j < n; j++) q[j] /= size;
    s[kept * count + column[kept]] = size;
    for (uint64_t k = kept + 1; k < end; k++) {
      const double r = kernels.dot(q, m.at(k), n);
      kernels.subtract(m.at(k), r, q, n);
      s[kept * count + column[k]] = r;
    }
    kept++;
  }
  m.values.resize(kept * n);
  s.resize(kept * count);
  return s;
}

PatchCore factor_patch(const AnalysisKernels &kernels, Columns &left, Columns &right) {
  const uint64_t count = left.count();
  const std::vector<double> s_left = orthonormalise(kernels, left), s_right = orthonormalise(kernels, right);
  const uint64_t rows = left.count(), cols = right.count();
  PatchCore result;
  result.core.assign(rows * cols, 0.0);
  for (uint64_t a = 0; a < rows; a++) {
    for (uint64_t b = 0; b < cols; b++) {
      double sum = 0;
      for (uint64_t k = 0; k < count; k++) sum = std::fma(s_left[a * count + k], s_right[b * count + k], sum);
      result.core[a * cols + b] = sum;
      result.squared = std::fma(sum, sum, result.squared);
    }
  }
  result.spectral = largest_singular_value(kernels, result.core, rows, cols);
  return result;
}

}  // namespace portllm
