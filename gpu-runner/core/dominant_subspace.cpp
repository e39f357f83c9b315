#include "dominant_subspace.h"

#include <algorithm>
#include <cmath>

#include "parallel.h"
#include "status.h"
#include "symmetric_eigen.h"
#include "tensor.h"

namespace portllm {
namespace {

constexpr uint64_t kBlock = 4;            // vectors by which the space grows: repeated singular values are found up to as often
constexpr uint64_t kLargestSpace = 2048;
constexpr double kSettled = 0x1p-40;      // residual of the wanted vectors, relative to the largest eigenvalue
constexpr double kNextSettled = 0x1p-20;  // of the one after them, which only has to be told apart
constexpr double kGone = 0x1p-40;         // a new direction shorter than this, relative to the product, is rounding
// What float32 takes for equal, with a margin for its own errors; and what is too small for that to matter.
constexpr double kApart = 0x1p-15;
constexpr double kNegligible = 0x1p-10;

// A fixed number in [-1/2, 1/2): splitmix64 of its place.
double start_value(uint64_t place) {
  uint64_t z = (place + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  z ^= z >> 31;
  return static_cast<double>(z >> 11) * 0x1p-53 - 0.5;
}

// Block Lanczos for Θ Θᵀ (or Θᵀ Θ, the smaller of the two) with every new vector made orthogonal to all before it, twice.
class Lanczos {
 public:
  Lanczos(const BaseMatrix &matrix, uint64_t rank)
      : matrix_(matrix), rank_(rank), size_(std::min(matrix.rows, matrix.cols)) {}

  std::vector<double> run() {
    for (uint64_t k = 0; k < std::min(kBlock, size_); k++) append_fresh();
    uint64_t next_check = std::max<uint64_t>(32, 2 * rank_);
    for (;;) {
      const uint64_t first = applied_, count = basis_count() - first;
      extend(first, count);
      const bool whole = applied_ == size_;
      if (!whole && applied_ < next_check) continue;
      const Eigen eigen = symmetric_eigen(projected(), applied_);
      if (whole || settled(eigen, first, count)) return vectors(eigen);
      if (applied_ >= kLargestSpace) fail(PORTLLM_UNDETERMINED, "the singular values of the base do not settle");
      next_check = applied_ + std::max<uint64_t>(16, applied_ / 4);
    }
  }

 private:
  uint64_t basis_count() const { return basis_.size() / size_; }
  double *vector(uint64_t k) { return &basis_[k * size_]; }

  // One more basis vector, from fixed numbers.
  void append_fresh() {
    const uint64_t count = basis_count();
    for (;;) {
      std::vector<double> fresh(size_);
      for (uint64_t i = 0; i < size_; i++) fresh[i] = start_value(started_ * size_ + i);
      started_++;
      for (int pass = 0; pass < 2; pass++) {
        for (uint64_t k = 0; k < count; k++) add_multiple(fresh.data(), vector(k), -dot(vector(k), fresh.data(), size_), size_);
      }
      const double length = std::sqrt(dot(fresh.data(), fresh.data(), size_));
      if (length < kGone) continue;
      for (double &value : fresh) value /= length;
      basis_.insert(basis_.end(), fresh.begin(), fresh.end());
      return;
    }
  }

  // Applies the operator to basis vectors [first, first + count), and appends what is new in the results to the basis.
  void extend(uint64_t first, uint64_t count) {
    const uint64_t known = basis_count();
    std::vector<double> products(count * size_), between(count * std::max(matrix_.rows, matrix_.cols));
    if (matrix_.rows <= matrix_.cols) {
      multiply_transposed(matrix_, vector(first), count, between.data());
      multiply(matrix_, between.data(), count, products.data());
    } else {
      multiply(matrix_, vector(first), count, between.data());
      multiply_transposed(matrix_, between.data(), count, products.data());
    }
    std::vector<double> lengths(count);
    for (uint64_t q = 0; q < count; q++) lengths[q] = std::sqrt(dot(&products[q * size_], &products[q * size_], size_));
    column_.resize(known * count);
    std::fill(column_.begin(), column_.end(), 0.0);
    for (int pass = 0; pass < 2; pass++) orthogonalise(products, known, count);
    // Column first + q of the projected matrix, up to its last entry.
    for (uint64_t q = 0; q < count; q++) {
      columns_.emplace_back();
      for (uint64_t k = 0; k < known; k++) columns_.back().push_back(column_[k * count + q]);
    }
    applied_ = known;
    for (uint64_t q = 0; q < count; q++) {
      double *product = &products[q * size_];
      std::vector<double> along(basis_count() - known, 0.0);
      for (int pass = 0; pass < 2; pass++) {
        for (uint64_t k = known; k < basis_count(); k++) {
          const double length = dot(vector(k), product, size_);
          along[k - known] += length;
          add_multiple(product, vector(k), -length, size_);
        }
      }
      if (basis_count() < size_) along.push_back(append_rest(product, kGone * lengths[q]));
      std::vector<double> &column = columns_[first + q];
      column.insert(column.end(), along.begin(), along.end());
    }
  }

  // Appends the direction of what is left of a product, or a fresh one where that is no longer than `least`; its length.
  double append_rest(double *rest, double least) {
    const double length = std::sqrt(dot(rest, rest, size_));
    if (!(length > least)) {
      append_fresh();
      return 0;
    }
    for (uint64_t i = 0; i < size_; i++) rest[i] /= length;
    basis_.insert(basis_.end(), rest, rest + size_);
    return length;
  }

  // products -= basis · (basisᵀ products), over the first `known` vectors; adds the coefficients to column_.
  void orthogonalise(std::vector<double> &products, uint64_t known, uint64_t count) {
    const uint64_t threads = matrix_.threads;
    std::vector<double> coefficients(known * count);
    parallel(threads, [&](uint64_t thread) {
      const FloatMode mode;
      for (uint64_t k = known * thread / threads; k < known * (thread + 1) / threads; k++) {
        for (uint64_t q = 0; q < count; q++) coefficients[k * count + q] = dot(vector(k), &products[q * size_], size_);
      }
    });
    parallel(threads, [&](uint64_t thread) {
      const FloatMode mode;
      const uint64_t begin = size_ * thread / threads, end = size_ * (thread + 1) / threads;
      for (uint64_t k = 0; k < known; k++) {
        for (uint64_t q = 0; q < count; q++) {
          add_multiple(&products[q * size_ + begin], vector(k) + begin, -coefficients[k * count + q], end - begin);
        }
      }
    });
    for (uint64_t k = 0; k < known * count; k++) column_[k] += coefficients[k];
  }

  // The operator within the space: banded but for rounding, which is left out, and symmetric, of which the lower half is taken.
  std::vector<double> projected() const {
    std::vector<double> matrix(applied_ * applied_, 0.0);
    for (uint64_t j = 0; j < applied_; j++) {
      for (uint64_t i = j; i < std::min<uint64_t>(applied_, columns_[j].size()); i++) matrix[i * applied_ + j] = matrix[j * applied_ + i] = columns_[j][i];
    }
    return matrix;
  }

  bool settled(const Eigen &eigen, uint64_t first, uint64_t count) const {
    const double largest = std::fabs(eigen.values[0]);
    for (uint64_t i = 0; i <= rank_ && i < applied_; i++) {
      if (residual(&eigen.vectors[i * applied_], first, count) > (i < rank_ ? kSettled : kNextSettled) * largest) return false;
    }
    return true;
  }

  // How far the operator carries the vector out of the space: only its last block's products reach beyond.
  double residual(const double *inside, uint64_t first, uint64_t count) const {
    double squares = 0;
    for (uint64_t k = applied_; k < basis_.size() / size_; k++) {
      double beyond = 0;
      for (uint64_t q = 0; q < count; q++) {
        if (k < columns_[first + q].size()) beyond += columns_[first + q][k] * inside[first + q];
      }
      squares += beyond * beyond;
    }
    return std::sqrt(squares);
  }

  std::vector<double> vectors(const Eigen &eigen) {
    const auto singular = [&](uint64_t i) { return i < applied_ ? std::sqrt(std::max(0.0, eigen.values[i])) : 0; };
    if (rank_ < size_ && singular(rank_ - 1) > kNegligible * singular(0) && singular(rank_ - 1) - singular(rank_) < kApart * singular(0)) {
      fail(PORTLLM_UNDETERMINED, "singular values %llu and %llu of the base are too alike (%.9g and %.9g, the largest being %.9g) to tell which of them PiSSA took out",
           static_cast<unsigned long long>(rank_), static_cast<unsigned long long>(rank_ + 1), singular(rank_ - 1), singular(rank_), singular(0));
    }
    std::vector<double> result(rank_ * size_, 0.0);
    for (uint64_t i = 0; i < rank_; i++) {
      for (uint64_t k = 0; k < applied_; k++) add_multiple(&result[i * size_], vector(k), eigen.vectors[i * applied_ + k], size_);
    }
    return result;
  }

  const BaseMatrix &matrix_;
  const uint64_t rank_;
  const uint64_t size_;
  uint64_t started_ = 0;
  uint64_t applied_ = 0;                      // basis vectors that the operator has been applied to
  std::vector<double> basis_;                 // orthonormal, one after the other
  std::vector<double> column_;                // of extend
  std::vector<std::vector<double>> columns_;  // of the projected matrix, with what reaches beyond it
};

}  // namespace

std::vector<double> dominant_subspace(const BaseMatrix &matrix, uint64_t rank) { return Lanczos(matrix, rank).run(); }

}  // namespace portllm
