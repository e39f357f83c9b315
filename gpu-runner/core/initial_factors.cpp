// The product that PiSSA or OLoRA took out of the base when training began, made again from the base's tensor.
#include <algorithm>
#include <cmath>
#include <vector>

#include "dominant_subspace.h"
#include "status.h"
#include "tensor.h"

namespace portllm {
namespace {

constexpr uint32_t kMostThreads = 1024;
// A column this much shorter without its part along those before it depends on them, as far as float32 can tell.
constexpr double kIndependent = 0x1p-18;

// OLoRA: an orthonormal basis of the first `rank` columns, one vector after the other.
std::vector<double> first_columns(const BaseMatrix &matrix, uint64_t rank) {
  std::vector<double> basis(rank * matrix.rows);
  const uint64_t element = element_bytes(matrix.dtype);
  for (uint64_t i = 0; i < matrix.rows; i++) {
    std::vector<double> row(rank);
    read_elements(matrix.dtype, matrix.bytes + i * matrix.cols * element, rank, row.data());
    for (uint64_t k = 0; k < rank; k++) basis[k * matrix.rows + i] = row[k];
  }
  for (uint64_t k = 0; k < rank; k++) {
    double *column = &basis[k * matrix.rows];
    const double before = std::sqrt(dot(column, column, matrix.rows));
    for (int pass = 0; pass < 2; pass++) {
      for (uint64_t p = 0; p < k; p++) {
        const double *earlier = &basis[p * matrix.rows];
        add_multiple(column, earlier, -dot(earlier, column, matrix.rows), matrix.rows);
      }
    }
    const double length = std::sqrt(dot(column, column, matrix.rows));
    if (!(length > kIndependent * before)) {
      fail(PORTLLM_UNDETERMINED, "column %llu of the base depends on those before it, so that what OLoRA took out is not determined", static_cast<unsigned long long>(k + 1));
    }
    for (uint64_t i = 0; i < matrix.rows; i++) column[i] /= length;
  }
  return basis;
}

void check(int32_t method, const BaseMatrix &base, uint64_t bytes, uint64_t rank) {
  if (method != PORTLLM_PISSA && method != PORTLLM_OLORA) fail(PORTLLM_INVALID, "method %d is unknown: PiSSA (0) or OLoRA (1) is needed", method);
  if (!base.bytes) fail(PORTLLM_INVALID, "the base is null");
  if (!mergeable(base.dtype) || base.dtype == PORTLLM_F64) {
    fail(PORTLLM_INVALID, "the base has dtype %d: these methods begin from F32, F16, BF16, F8_E4M3 and F8_E5M2 only", base.dtype);
  }
  if (base.rows == 0 || base.cols == 0) fail(PORTLLM_INVALID, "the base has no elements");
  const uint64_t elements = checked_product(checked_product(base.rows, base.cols, "the base"), sizeof(double), "the base") / sizeof(double);
  if (bytes != elements * element_bytes(base.dtype)) {
    fail(PORTLLM_INVALID, "the base has %llu bytes where %llu x %llu elements need %llu", static_cast<unsigned long long>(bytes),
         static_cast<unsigned long long>(base.rows), static_cast<unsigned long long>(base.cols),
         static_cast<unsigned long long>(elements * element_bytes(base.dtype)));
  }
  if (rank == 0) fail(PORTLLM_INVALID, "the rank is 0");
  if (rank > std::min(base.rows, base.cols)) {
    fail(PORTLLM_INVALID, "the rank is %llu, but a matrix of %llu x %llu has at most %llu", static_cast<unsigned long long>(rank),
         static_cast<unsigned long long>(base.rows), static_cast<unsigned long long>(base.cols),
         static_cast<unsigned long long>(std::min(base.rows, base.cols)));
  }
  if (base.threads == 0 || base.threads > kMostThreads) fail(PORTLLM_INVALID, "%u threads: 1 to %u are possible", base.threads, kMostThreads);
  double bad = 0;
  portllm_count_non_finite(base.bytes, bytes, base.dtype, &bad, nullptr, 0);
  if (bad > 0) fail(PORTLLM_NONFINITE, "the base holds a NaN or an infinity");
}

}  // namespace
}  // namespace portllm

using namespace portllm;

extern "C" int32_t portllm_initial_factors(int32_t method, const void *base, uint64_t base_bytes, int32_t dtype, uint64_t rows, uint64_t cols,
                                           uint64_t rank, uint32_t threads, float *left, uint64_t left_count, float *right, uint64_t right_count,
                                           char *message, size_t message_size) {
  return guarded(message, message_size, [&] {
    const BaseMatrix matrix{static_cast<const uint8_t *>(base), dtype, rows, cols, threads};
    check(method, matrix, base_bytes, rank);
    if (!left || !right || left_count != rows * rank || right_count != rank * cols) {
      fail(PORTLLM_INVALID, "the factors need %llu and %llu numbers of room", static_cast<unsigned long long>(rows * rank), static_cast<unsigned long long>(rank * cols));
    }
    const FloatMode mode;
    std::vector<double> columns(rank * rows), across(rank * cols);
    if (method == PORTLLM_OLORA || rows <= cols) {
      columns = method == PORTLLM_OLORA ? first_columns(matrix, rank) : dominant_subspace(matrix, rank);
      multiply_transposed(matrix, columns.data(), rank, across.data());
    } else {
      across = dominant_subspace(matrix, rank);
      multiply(matrix, across.data(), rank, columns.data());
    }
    for (uint64_t k = 0; k < rank; k++) {
      for (uint64_t i = 0; i < rows; i++) left[i * rank + k] = static_cast<float>(columns[k * rows + i]);
      for (uint64_t j = 0; j < cols; j++) right[k * cols + j] = static_cast<float>(across[k * cols + j]);
    }
  });
}
