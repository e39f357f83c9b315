// Eigenvalues and eigenvectors of small symmetric matrices, in plain float64 whose every operation is where it is written.
#pragma once

#include <cstdint>
#include <vector>

namespace portllm {

struct Eigen {
  std::vector<double> values;   // descending
  std::vector<double> vectors;  // one a row, orthonormal
};

// Of the symmetric matrix `a`, size x size.
Eigen symmetric_eigen(std::vector<double> a, uint64_t size);

}  // namespace portllm
