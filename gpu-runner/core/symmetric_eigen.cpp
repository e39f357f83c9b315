#include "symmetric_eigen.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "status.h"

namespace portllm {
namespace {

constexpr int kSteps = 100;  // of QL for one eigenvalue; two or three are usual

// Householder: afterwards `a` is tridiagonal, with this diagonal and these off-diagonals. Returns the rows of the
// transformation, in which the tridiagonal matrix is q a qᵀ.
std::vector<double> tridiagonalise(std::vector<double> &a, uint64_t size, std::vector<double> &diagonal, std::vector<double> &off) {
  std::vector<double> reflectors(size * size, 0.0), betas(size, 0.0), p(size);
  for (uint64_t k = 0; k + 2 < size; k++) {
    double *v = &reflectors[k * size];
    double below = 0;
    for (uint64_t i = k + 2; i < size; i++) below += a[i * size + k] * a[i * size + k];
    if (below == 0) continue;
    const double alpha = a[(k + 1) * size + k];
    const double norm = std::sqrt(alpha * alpha + below);
    for (uint64_t i = k + 1; i < size; i++) v[i] = a[i * size + k];
    v[k + 1] = alpha < 0 ? alpha - norm : alpha + norm;
    const double beta = betas[k] = 2 / (v[k + 1] * v[k + 1] + below);
    // a <- (1 - beta v vᵀ) a (1 - beta v vᵀ) = a - v wᵀ - w vᵀ
    std::fill(p.begin(), p.end(), 0.0);
    for (uint64_t i = k + 1; i < size; i++) {
      for (uint64_t j = 0; j < size; j++) p[j] += a[i * size + j] * v[i];
    }
    double along = 0;
    for (uint64_t i = 0; i < size; i++) p[i] *= beta;
    for (uint64_t i = k + 1; i < size; i++) along += v[i] * p[i];
    for (uint64_t i = 0; i < size; i++) p[i] -= beta / 2 * along * v[i];
    for (uint64_t i = 0; i < size; i++) {
      for (uint64_t j = 0; j < size; j++) a[i * size + j] -= v[i] * p[j] + p[i] * v[j];
    }
  }
  for (uint64_t i = 0; i < size; i++) diagonal[i] = a[i * size + i];
  for (uint64_t i = 0; i + 1 < size; i++) off[i] = a[(i + 1) * size + i];

  std::vector<double> q(size * size, 0.0);
  for (uint64_t i = 0; i < size; i++) q[i * size + i] = 1;
  for (uint64_t k = size; k-- > 0;) {
    if (betas[k] == 0) continue;
    const double *v = &reflectors[k * size];
    for (uint64_t i = 0; i < size; i++) {
      double along = 0;
      for (uint64_t j = k + 1; j < size; j++) along += q[i * size + j] * v[j];
      for (uint64_t j = k + 1; j < size; j++) q[i * size + j] -= betas[k] * along * v[j];
    }
  }
  return q;
}

// Implicit QL with Wilkinson's shift; the rows of `z` are turned along.
void diagonalise(std::vector<double> &d, std::vector<double> &e, std::vector<double> &z, uint64_t size) {
  for (uint64_t l = 0; l < size; l++) {
    for (int step = 0;; step++) {
      uint64_t m = l;
      for (; m + 1 < size; m++) {
        const double around = std::fabs(d[m]) + std::fabs(d[m + 1]);
        if (std::fabs(e[m]) + around == around) break;
      }
      if (m == l) break;
      if (step == kSteps) fail(PORTLLM_UNDETERMINED, "the singular values of the base do not settle");
      double g = (d[l + 1] - d[l]) / (2 * e[l]);
      double r = std::sqrt(g * g + 1);
      g = d[m] - d[l] + e[l] / (g < 0 ? g - r : g + r);
      double s = 1, c = 1, p = 0;
      bool split = false;
      for (uint64_t i = m; i-- > l && !split;) {
        const double f = s * e[i], b = c * e[i];
        r = std::sqrt(f * f + g * g);
        e[i + 1] = r;
        if (r == 0) {
          d[i + 1] -= p;
          e[m] = 0;
          split = true;
          continue;
        }
        s = f / r;
        c = g / r;
        g = d[i + 1] - p;
        r = (d[i] - g) * s + 2 * c * b;
        p = s * r;
        d[i + 1] = g + p;
        g = c * r - b;
        double *upper = &z[i * size], *lower = &z[(i + 1) * size];
        for (uint64_t k = 0; k < size; k++) {
          const double turned = lower[k];
          lower[k] = s * upper[k] + c * turned;
          upper[k] = c * upper[k] - s * turned;
        }
      }
      if (split) continue;
      d[l] -= p;
      e[l] = g;
      e[m] = 0;
    }
  }
}

}  // namespace

Eigen symmetric_eigen(std::vector<double> a, uint64_t size) {
  std::vector<double> values(size), off(size, 0.0);
  std::vector<double> rows = tridiagonalise(a, size, values, off);
  diagonalise(values, off, rows, size);
  std::vector<uint64_t> order(size);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](uint64_t i, uint64_t j) { return values[i] > values[j]; });
  Eigen result;
  for (const uint64_t i : order) {
    result.values.push_back(values[i]);
    result.vectors.insert(result.vectors.end(), rows.begin() + static_cast<int64_t>(i * size), rows.begin() + static_cast<int64_t>((i + 1) * size));
  }
  return result;
}

}  // namespace portllm
