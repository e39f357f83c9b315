// A tensor and its contributions as a fuzz input tells them, sound or not; made as often as it is needed.
#pragma once

#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "../elements.h"
#include "random_bytes.h"

namespace fuzz {

inline void expect(bool holds, const char *what, const char *message = "") {
  if (holds) return;
  std::fprintf(stderr, "EXPECTED: %s %s\n", what, message);
  std::abort();
}

enum Outcome { kMade, kInvalid, kNonFinite };

// Whether a call ended as foretold, and said so.
inline void expect_outcome(int32_t status, Outcome outcome, const char *message, const char *what) {
  const int32_t expected = outcome == kMade ? PORTLLM_OK : outcome == kInvalid ? PORTLLM_INVALID : PORTLLM_NONFINITE;
  if (status != expected) std::fprintf(stderr, "status %d instead of %d: %s\n", status, expected, message);
  expect(status == expected, what);
  expect((status == PORTLLM_OK) == (message[0] == 0), "a sentence for every refusal", what);
}

// Small, or such that sums and products with it pass 2^64.
inline uint64_t hostile_number(FuzzedDataProvider &in) {
  const auto small = in.ConsumeIntegralInRange<uint64_t>(0, 200);
  switch (in.ConsumeIntegral<uint8_t>() % 5) {
    case 0: return small;
    case 1: return 0 - small;
    case 2: return UINT64_MAX / (1 + small) + 1;
    case 3: return (1ull << (small % 64)) + small % 3 - 1;
    default: return in.ConsumeIntegral<uint64_t>();
  }
}

// Mostly 1 to `most`, sometimes anything.
inline uint64_t size_of(FuzzedDataProvider &in, uint64_t most) {
  const auto pick = in.ConsumeIntegral<uint8_t>();
  return pick == 255 ? hostile_number(in) : pick == 254 ? 0 : 1 + pick % most;
}

inline Content content_of(FuzzedDataProvider &in) {
  const auto pick = in.ConsumeIntegral<uint8_t>();
  return pick < 200 ? kOrdinary : pick < 230 ? kAnyFinite : pick < 240 ? kZeros : kAnyBits;
}

inline double value_at(int32_t dtype, const uint8_t *bytes, uint64_t index) {
  double value;
  portllm::read_elements(dtype, bytes + index * portllm::element_bytes(dtype), 1, &value);
  return value;
}

struct Matrix {
  std::vector<uint8_t> bytes;
  uint64_t offset, row_stride, col_stride;
  int32_t dtype;

  portllm_matrix native() const { return {bytes.data(), bytes.size(), offset, row_stride, col_stride, dtype}; }

  float at(uint64_t i, uint64_t j) const { return static_cast<float>(value_at(dtype, bytes.data(), offset + i * row_stride + j * col_stride)); }

  Outcome outcome(uint64_t rows, uint64_t cols) const {
    if (bytes.data() == nullptr || dtype < PORTLLM_F32 || dtype > PORTLLM_BF16) return kInvalid;
    const uint64_t element = portllm::element_bytes(dtype), count = bytes.size() / element;
    using Wide = unsigned __int128;
    if (bytes.size() % element || static_cast<Wide>(rows) * cols > count) return kInvalid;
    const Wide down = static_cast<Wide>(rows - 1) * row_stride, across = static_cast<Wide>(cols - 1) * col_stride;
    if (down >= count || across >= count || down + across + offset >= count) return kInvalid;
    for (uint64_t i = 0; i < rows; i++) {
      for (uint64_t j = 0; j < cols; j++) {
        if (!std::isfinite(at(i, j))) return kNonFinite;
      }
    }
    return kMade;
  }
};

// A stored matrix that holds rows x cols by rows, by columns, or within something larger; or with one number wrong.
inline Matrix matrix_of(FuzzedDataProvider &in, uint64_t rows, uint64_t cols) {
  const auto dtype = in.ConsumeIntegralInRange<int32_t>(0, 2);
  uint64_t count = 1, row_stride = cols, col_stride = 1, offset = 0;
  const auto layout = in.ConsumeIntegral<uint8_t>();
  if (layout & 1) row_stride = 1, col_stride = rows;
  const uint64_t spread = 1 + (layout >> 1) % 3;
  row_stride *= spread;
  col_stride *= spread;
  offset = (layout >> 4) % spread;
  if (rows < 4096 && cols < 4096) count = std::min<uint64_t>(rows * cols * spread, 1 << 16);
  Matrix matrix{elements(dtype, count, content_of(in), in.ConsumeIntegral<uint16_t>()), offset, row_stride, col_stride, dtype};
  switch (in.ConsumeIntegral<uint8_t>() % 32) {
    case 1: matrix.bytes.resize(in.ConsumeIntegralInRange<uint64_t>(0, matrix.bytes.size())); break;
    case 2: matrix.offset = hostile_number(in); break;
    case 3: matrix.row_stride = hostile_number(in); break;
    case 4: matrix.col_stride = hostile_number(in); break;
    case 5: matrix.dtype = in.ConsumeIntegralInRange<int32_t>(-2, 8); break;
    case 6: matrix.offset += in.ConsumeIntegralInRange<uint64_t>(0, 3); break;
    case 7: matrix.row_stride = matrix.col_stride = 0; break;
    case 8: matrix.bytes.resize(matrix.bytes.size() / 2), matrix.col_stride = in.ConsumeIntegralInRange<uint64_t>(0, 1); break;
  }
  // Of exactly their size, so that reading one byte more is seen.
  matrix.bytes.shrink_to_fit();
  return matrix;
}

struct Contribution {
  enum Kind : uint8_t { kProduct, kDora, kDense, kReplace } kind;
  Matrix left, right;
  uint64_t rank;
  float scale;
  // kDora
  std::vector<uint8_t> magnitude;
  int32_t magnitude_dtype;
  int32_t axis;
  double weight;
  // kDense, kReplace
  int32_t value_dtype, base_dtype;
};

struct Recipe {
  int32_t dtype;
  uint64_t rows, cols;
  std::vector<Contribution> contributions;

  bool is_tensor() const {
    if (dtype < PORTLLM_F32 || dtype > PORTLLM_F8_E5M2 || rows == 0 || cols == 0) return false;
    const unsigned __int128 bytes = static_cast<unsigned __int128>(rows) * cols * 8;
    return bytes <= UINT64_MAX >> 2 && cols <= (32u << 20) / portllm::element_bytes(dtype);
  }
};

inline float scale_of(FuzzedDataProvider &in) {
  const auto pick = in.ConsumeIntegral<uint8_t>();
  if (pick < 240) return static_cast<float>(pick) / 64 - 1;
  const auto bits = in.ConsumeIntegral<uint32_t>();
  float scale;
  std::memcpy(&scale, &bits, 4);
  return scale;
}

inline Contribution contribution_of(FuzzedDataProvider &in, uint64_t rows, uint64_t cols) {
  Contribution made{};
  const auto pick = in.ConsumeIntegral<uint8_t>();
  made.kind = pick < 120 ? Contribution::kProduct : pick < 180 ? Contribution::kDora : pick < 240 ? Contribution::kDense : Contribution::kReplace;
  made.scale = scale_of(in);
  if (made.kind == Contribution::kProduct || made.kind == Contribution::kDora) {
    made.rank = size_of(in, 20);
    made.left = matrix_of(in, rows, made.rank);
    made.right = matrix_of(in, made.rank, cols);
  }
  if (made.kind == Contribution::kDora) {
    made.axis = in.ConsumeIntegral<uint8_t>() % 16 == 0 ? in.ConsumeIntegral<int32_t>() : in.ConsumeBool();
    made.weight = in.ConsumeBool() ? 1 : scale_of(in);
    made.magnitude_dtype = in.ConsumeIntegralInRange<int32_t>(0, 2);
    const uint64_t values = made.axis == PORTLLM_COLUMNS ? cols : rows;
    made.magnitude = elements(made.magnitude_dtype, std::min<uint64_t>(values, 4096), content_of(in), in.ConsumeIntegral<uint16_t>());
    if (in.ConsumeIntegral<uint8_t>() == 1) made.magnitude.resize(in.ConsumeIntegralInRange<uint64_t>(0, made.magnitude.size()));
    made.magnitude.shrink_to_fit();
  }
  const auto dtype = [&] { return in.ConsumeIntegral<uint8_t>() == 255 ? in.ConsumeIntegral<int32_t>() : in.ConsumeIntegralInRange<int32_t>(0, 5); };
  made.value_dtype = dtype();
  made.base_dtype = in.ConsumeBool() ? -1 : dtype();
  return made;
}

inline Recipe recipe_of(FuzzedDataProvider &in, uint64_t most_rows, uint64_t most_cols, size_t most_contributions) {
  Recipe recipe{};
  const auto dtype = in.ConsumeIntegral<uint8_t>();
  recipe.dtype = dtype == 255 ? in.ConsumeIntegral<int32_t>() : dtype % 6;
  recipe.rows = size_of(in, most_rows);
  recipe.cols = size_of(in, most_cols);
  const auto count = in.ConsumeIntegralInRange<size_t>(0, most_contributions);
  for (size_t i = 0; i < count; i++) recipe.contributions.push_back(contribution_of(in, recipe.rows, recipe.cols));
  return recipe;
}

// How the core must take a contribution after those before it that it took.
inline Outcome outcome_of(const Recipe &recipe, const Contribution &contribution, const std::vector<const Contribution *> &before) {
  const auto operand = [](int32_t dtype) { return dtype >= PORTLLM_F32 && dtype <= PORTLLM_F8_E5M2; };
  if (!before.empty() && before[0]->kind == Contribution::kReplace) return kInvalid;
  if (contribution.kind == Contribution::kReplace) return before.empty() && operand(contribution.value_dtype) ? kMade : kInvalid;
  if (contribution.kind == Contribution::kDense) {
    if (!operand(contribution.value_dtype) || (contribution.base_dtype != -1 && !operand(contribution.base_dtype))) return kInvalid;
    return std::isfinite(contribution.scale) ? kMade : kNonFinite;
  }
  if (contribution.kind == Contribution::kDora) {
    if (contribution.axis != PORTLLM_ROWS && contribution.axis != PORTLLM_COLUMNS) return kInvalid;
    if (!std::isfinite(contribution.weight)) return kNonFinite;
    const uint64_t values = contribution.axis == PORTLLM_COLUMNS ? recipe.cols : recipe.rows;
    const uint64_t element = portllm::element_bytes(contribution.magnitude_dtype);
    if (contribution.magnitude.size() != static_cast<unsigned __int128>(values) * element) return kInvalid;
    for (uint64_t i = 0; i < values; i++) {
      if (!std::isfinite(value_at(contribution.magnitude_dtype, contribution.magnitude.data(), i))) return kNonFinite;
    }
  }
  if (contribution.rank == 0) return kInvalid;
  if (!std::isfinite(contribution.scale)) return kNonFinite;
  const Outcome left = contribution.left.outcome(recipe.rows, contribution.rank), right = contribution.right.outcome(contribution.rank, recipe.cols);
  if (left == kInvalid || right == kInvalid) return kInvalid;
  return left == kNonFinite || right == kNonFinite ? kNonFinite : kMade;
}

struct Made {
  portllm_tensor *tensor = nullptr;
  std::vector<const Contribution *> contributions;  // those that the core took
  std::vector<int32_t> operands;                    // their dtypes

  Made() = default;
  Made(const Made &) = delete;
  ~Made() { portllm_tensor_free(tensor); }
};

// Makes the tensor, and checks that the core takes and refuses what it must.
inline void make(const Recipe &recipe, Made &made) {
  char message[512];
  expect_outcome(portllm_tensor_create(recipe.dtype, recipe.rows, recipe.cols, &made.tensor, message, sizeof message), recipe.is_tensor() ? kMade : kInvalid, message, "portllm_tensor_create");
  if (!made.tensor) return;
  for (const Contribution &one : recipe.contributions) {
    const portllm_matrix left = one.left.native(), right = one.right.native();
    const Outcome outcome = outcome_of(recipe, one, made.contributions);
    int32_t status = PORTLLM_OK;
    switch (one.kind) {
      case Contribution::kProduct: status = portllm_tensor_add_product(made.tensor, &left, &right, one.rank, one.scale, message, sizeof message); break;
      case Contribution::kDora:
        status = portllm_tensor_add_dora(made.tensor, &left, &right, one.rank, one.scale, one.magnitude.data(), one.magnitude.size(), one.magnitude_dtype, one.axis,
                                         one.weight, message, sizeof message);
        break;
      case Contribution::kDense: status = portllm_tensor_add_dense(made.tensor, one.value_dtype, one.base_dtype, one.scale, message, sizeof message); break;
      case Contribution::kReplace: status = portllm_tensor_add_replace(made.tensor, one.value_dtype, message, sizeof message); break;
    }
    expect_outcome(status, outcome, message, "portllm_tensor_add_*");
    if (status != PORTLLM_OK) continue;
    made.contributions.push_back(&one);
    if (one.kind == Contribution::kDense || one.kind == Contribution::kReplace) made.operands.push_back(one.value_dtype);
    if (one.kind == Contribution::kDense && one.base_dtype != -1) made.operands.push_back(one.base_dtype);
  }
}

// Of all rows, and with the operands' rows: the output of whichever calls `merge` makes, and the figures.
struct Merged {
  std::vector<uint8_t> bytes;
  portllm_figures figures{};

  bool operator==(const Merged &other) const { return bytes == other.bytes && std::memcmp(&figures, &other.figures, sizeof figures) == 0; }
};

// The whole tensor by the scalar path in one thread. Nothing where the core refuses to merge.
inline std::optional<Merged> merged_plainly(const Recipe &recipe, const std::vector<uint8_t> &w, const std::vector<std::vector<uint8_t>> &operands) {
  Made made;
  make(recipe, made);
  if (!made.tensor || made.contributions.empty()) return std::nullopt;
  char message[512];
  if (portllm_tensor_measures(made.tensor)) {
    expect_outcome(portllm_tensor_measure(made.tensor, PORTLLM_SCALAR, 1, 0, recipe.rows, w.data(), w.size(), message, sizeof message), kMade, message, "measure all rows");
  }
  std::vector<portllm_bytes> rows;
  for (const std::vector<uint8_t> &operand : operands) rows.push_back({operand.data(), operand.size()});
  Merged merged{std::vector<uint8_t>(w.size())};
  expect_outcome(portllm_tensor_merge(made.tensor, PORTLLM_SCALAR, 1, 1, 0, recipe.rows, w.data(), w.size(), merged.bytes.data(), merged.bytes.size(), rows.data(), rows.size(), message,
                                      sizeof message), kMade, message, "merge all rows");
  expect_outcome(portllm_tensor_figures(made.tensor, &merged.figures, message, sizeof message), kMade, message, "portllm_tensor_figures");
  return merged;
}

}  // namespace fuzz
