#include "base_matrix.h"

#include <algorithm>
#include <vector>

#include "parallel.h"
#include "tensor.h"

// Compiled once more for wider vectors, one of which is chosen when the library is loaded. The operations are the same.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define PORTLLM_WIDE __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define PORTLLM_WIDE
#endif

namespace portllm {
namespace {

constexpr uint64_t kPiece = 512;  // columns that are widened at a time; they and the sums stay in L1
constexpr uint64_t kGroup = 4;    // vectors for which they are used
constexpr uint64_t kRows = 4;     // rows whose products are added while the sums are in registers

}  // namespace

PORTLLM_WIDE void widen(int32_t dtype, const uint8_t *from, uint64_t count, double *to) { read_elements(dtype, from, count, to); }

// lanes[k] += the lanes of piece·x[k], for four vectors `stride` apart; size is a multiple of 16.
PORTLLM_WIDE void add_dots(const double *piece, uint64_t size, const double *x, uint64_t stride, double (*lanes)[kLanes]) {
  for (uint64_t k = 0; k < kGroup; k++) {
    double sums[kLanes];
    for (uint64_t l = 0; l < kLanes; l++) sums[l] = lanes[k][l];
    for (uint64_t j = 0; j < size; j += kLanes) {
      for (uint64_t l = 0; l < kLanes; l++) sums[l] = sums[l] + piece[j + l] * x[k * stride + j + l];
    }
    for (uint64_t l = 0; l < kLanes; l++) lanes[k][l] = sums[l];
  }
}

// y[k] += piece * x[k], for the pieces of four rows one after the other.
PORTLLM_WIDE void add_scaled(const double (*piece)[kPiece], uint64_t size, const double *x, uint64_t stride, double (*y)[kPiece]) {
  for (uint64_t k = 0; k < kGroup; k++) {
    const double x0 = x[k], x1 = x[stride + k], x2 = x[2 * stride + k], x3 = x[3 * stride + k];
    for (uint64_t j = 0; j < size; j++) {
      y[k][j] = (((y[k][j] + piece[0][j] * x0) + piece[1][j] * x1) + piece[2][j] * x2) + piece[3][j] * x3;
    }
  }
}

PORTLLM_WIDE double dot(const double *x, const double *y, uint64_t size) {
  double lanes[kLanes] = {};
  const uint64_t whole = size / kLanes * kLanes;
  for (uint64_t j = 0; j < whole; j += kLanes) {
    for (uint64_t l = 0; l < kLanes; l++) lanes[l] = lanes[l] + x[j + l] * y[j + l];
  }
  for (uint64_t j = whole; j < size; j++) lanes[j - whole] = lanes[j - whole] + x[j] * y[j];
  return sum_lanes(lanes);
}

PORTLLM_WIDE void add_multiple(double *to, const double *direction, double length, uint64_t size) {
  for (uint64_t i = 0; i < size; i++) to[i] = to[i] + length * direction[i];
}

void multiply(const BaseMatrix &matrix, const double *x, uint64_t count, double *y) {
  const uint64_t element = element_bytes(matrix.dtype), padded = rounded_up(matrix.cols, kLanes), groups = (count + kGroup - 1) / kGroup;
  // Zeros where there are no columns or no vectors.
  std::vector<double> wide(groups * kGroup * padded, 0.0);
  for (uint64_t k = 0; k < count; k++) std::copy(x + k * matrix.cols, x + (k + 1) * matrix.cols, &wide[k * padded]);
  parallel(matrix.threads, [&](uint64_t thread) {
    const FloatMode mode;
    double piece[kPiece];
    std::vector<double> lanes(groups * kGroup * kLanes);
    for (uint64_t i = matrix.rows * thread / matrix.threads; i < matrix.rows * (thread + 1) / matrix.threads; i++) {
      std::fill(lanes.begin(), lanes.end(), 0.0);
      for (uint64_t col = 0; col < matrix.cols; col += kPiece) {
        const uint64_t size = std::min(kPiece, matrix.cols - col), whole = rounded_up(size, kLanes);
        std::fill(piece + size, piece + whole, 0.0);
        widen(matrix.dtype, matrix.bytes + (i * matrix.cols + col) * element, size, piece);
        for (uint64_t g = 0; g < groups; g++) {
          add_dots(piece, whole, &wide[g * kGroup * padded + col], padded, reinterpret_cast<double(*)[kLanes]>(&lanes[g * kGroup * kLanes]));
        }
      }
      for (uint64_t k = 0; k < count; k++) y[k * matrix.rows + i] = sum_lanes(&lanes[k * kLanes]);
    }
  });
}

void multiply_transposed(const BaseMatrix &matrix, const double *x, uint64_t count, double *y) {
  const uint64_t element = element_bytes(matrix.dtype), pieces = (matrix.cols + kPiece - 1) / kPiece, groups = (count + kGroup - 1) / kGroup;
  // The vectors' values of one row side by side; zeros where there are no vectors.
  const uint64_t stride = groups * kGroup;
  std::vector<double> by_row(rounded_up(matrix.rows, kRows) * stride, 0.0);
  for (uint64_t k = 0; k < count; k++) {
    for (uint64_t i = 0; i < matrix.rows; i++) by_row[i * stride + k] = x[k * matrix.rows + i];
  }
  parallel(std::min<uint64_t>(matrix.threads, pieces), [&](uint64_t thread) {
    const FloatMode mode;
    const uint64_t shares = std::min<uint64_t>(matrix.threads, pieces);
    double piece[kRows][kPiece];
    std::vector<double> sums(groups * kGroup * kPiece);
    for (uint64_t col = pieces * thread / shares * kPiece; col < std::min(matrix.cols, pieces * (thread + 1) / shares * kPiece); col += kPiece) {
      const uint64_t size = std::min(kPiece, matrix.cols - col);
      std::fill(sums.begin(), sums.end(), 0.0);
      for (uint64_t i = 0; i < matrix.rows; i += kRows) {
        // Beyond the last row, zeros times zeros are added: +0, which changes no sum but −0, and none begins so.
        for (uint64_t r = 0; r < kRows; r++) {
          if (i + r < matrix.rows) widen(matrix.dtype, matrix.bytes + ((i + r) * matrix.cols + col) * element, size, piece[r]);
          else std::fill(piece[r], piece[r] + size, 0.0);
        }
        for (uint64_t g = 0; g < groups; g++) {
          add_scaled(piece, size, &by_row[i * stride + g * kGroup], stride, reinterpret_cast<double(*)[kPiece]>(&sums[g * kGroup * kPiece]));
        }
      }
      for (uint64_t k = 0; k < count; k++) std::copy(&sums[k * kPiece], &sums[k * kPiece] + size, y + k * matrix.cols + col);
    }
  });
}

}  // namespace portllm
