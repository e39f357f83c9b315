// The directions in which a matrix is largest, to far more digits than PiSSA's float32 had.
#pragma once

#include <vector>

#include "base_matrix.h"

namespace portllm {

// Orthonormal vectors that span the first `rank` left singular vectors where rows <= cols, otherwise the right ones; one
// after the other, of length min(rows, cols). Fails where singular value `rank` is not set apart from the next.
std::vector<double> dominant_subspace(const BaseMatrix &matrix, uint64_t rank);

}  // namespace portllm
