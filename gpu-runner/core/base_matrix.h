// A tensor of the base model as it is stored, multiplied in float64 with an order of summation that neither the number of
// threads nor the processor changes.
#pragma once

#include <cstdint>

namespace portllm {

struct BaseMatrix {
  const uint8_t *bytes;
  int32_t dtype;
  uint64_t rows;
  uint64_t cols;
  uint32_t threads;
};

// The 16 lanes (index mod 16) of x·y, each summed in order, added to each other as sum_lanes does.
double dot(const double *x, const double *y, uint64_t size);

// to += length * direction
void add_multiple(double *to, const double *direction, double length, uint64_t size);

// y[k] = matrix x[k], for `count` vectors that lie one after the other: sums over the columns as in dot.
void multiply(const BaseMatrix &matrix, const double *x, uint64_t count, double *y);

// y[k] = matrixᵀ x[k]: sums over the rows in order.
void multiply_transposed(const BaseMatrix &matrix, const double *x, uint64_t count, double *y);

}  // namespace portllm
