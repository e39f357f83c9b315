// Fuzz target: any tensor with any contributions, of any sizes, strides and dtypes. What is sound is taken and what is not
// refused; merging gives the same bits and figures on every path, in any parts, with any threads; products alone give what
// docs/numerics.md says.
#include "recipe.h"

using namespace fuzz;

namespace {

// Rule lora-f32/1, element by element.
std::vector<uint8_t> by_the_rule(const Recipe &recipe, const std::vector<const Contribution *> &products, const std::vector<uint8_t> &w) {
  std::vector<uint8_t> out(w.size());
  for (uint64_t i = 0; i < recipe.rows; i++) {
    for (uint64_t j = 0; j < recipe.cols; j++) {
      float t = 0;
      for (const Contribution *product : products) {
        float d = 0;
        for (uint64_t k = 0; k < product->rank; k++) d = std::fmaf(product->left.at(i, k), product->right.at(k, j), d);
        const float q = product->scale * d;
        t = t + q;
      }
      const uint64_t at = i * recipe.cols + j;
      const float y = static_cast<float>(value_at(recipe.dtype, w.data(), at)) + t;
      if (recipe.dtype == PORTLLM_F32) {
        const uint32_t bits = portllm::ElementF32::round(y);
        std::memcpy(&out[4 * at], &bits, 4);
      } else {
        const uint16_t bits = recipe.dtype == PORTLLM_F16 ? portllm::ElementF16::round(y) : portllm::ElementBF16::round(y);
        std::memcpy(&out[2 * at], &bits, 2);
      }
    }
  }
  return out;
}

// Runs of rows that make up the tensor, in some order.
std::vector<std::pair<uint64_t, uint64_t>> parts_of(FuzzedDataProvider &in, uint64_t rows) {
  std::vector<std::pair<uint64_t, uint64_t>> parts;
  for (uint64_t at = 0; at < rows;) {
    const uint64_t count = in.ConsumeIntegralInRange<uint64_t>(1, rows - at);
    parts.insert(parts.begin() + in.ConsumeIntegralInRange<size_t>(0, parts.size()), {at, count});
    at += count;
  }
  return parts;
}

Merged merge_in_parts(FuzzedDataProvider &in, const Recipe &recipe, int32_t path, const std::vector<uint8_t> &w, const std::vector<std::vector<uint8_t>> &operands) {
  Made made;
  make(recipe, made);
  char message[512];
  const uint64_t row_bytes = w.size() / recipe.rows;
  const auto rows_of = [&](const std::vector<uint8_t> &all, uint64_t first, uint64_t count) {
    const uint64_t size = all.size() / recipe.rows;
    return std::vector<uint8_t>(all.begin() + first * size, all.begin() + (first + count) * size);
  };
  const auto threads = in.ConsumeIntegralInRange<uint32_t>(1, 3);
  if (portllm_tensor_measures(made.tensor)) {
    for (uint64_t at = 0; at < recipe.rows;) {
      const uint64_t count = in.ConsumeIntegralInRange<uint64_t>(1, recipe.rows - at);
      const std::vector<uint8_t> rows = rows_of(w, at, count);
      expect_outcome(portllm_tensor_measure(made.tensor, path, threads, at, count, rows.data(), rows.size(), message, sizeof message), kMade, message, "measure");
      at += count;
    }
  }
  Merged merged{std::vector<uint8_t>(w.size())};
  for (const auto &[first, count] : parts_of(in, recipe.rows)) {
    std::vector<uint8_t> from = rows_of(w, first, count), apart(from.size());
    std::vector<std::vector<uint8_t>> parts;
    std::vector<portllm_bytes> native;
    for (const std::vector<uint8_t> &operand : operands) parts.push_back(rows_of(operand, first, count));
    for (const std::vector<uint8_t> &part : parts) native.push_back({part.data(), part.size()});
    std::vector<uint8_t> &to = in.ConsumeBool() ? from : apart;
    expect_outcome(portllm_tensor_merge(made.tensor, path, threads, 1, first, count, from.data(), from.size(), to.data(), to.size(), native.data(), native.size(), message,
                                        sizeof message), kMade, message, "merge rows");
    std::copy(to.begin(), to.end(), merged.bytes.begin() + first * row_bytes);
  }
  expect_outcome(portllm_tensor_figures(made.tensor, &merged.figures, message, sizeof message), kMade, message, "portllm_tensor_figures");
  return merged;
}

// Calls whose numbers do not agree with each other must be refused.
void merge_wrongly(FuzzedDataProvider &in, const Recipe &recipe, const std::vector<uint8_t> &w, const std::vector<std::vector<uint8_t>> &operands) {
  Made made;
  make(recipe, made);
  char message[512];
  const auto first = size_of(in, recipe.rows), count = size_of(in, recipe.rows);
  const bool is_within = count != 0 && first <= recipe.rows && count <= recipe.rows - first;
  std::vector<portllm_bytes> native;
  for (const std::vector<uint8_t> &operand : operands) native.push_back({operand.data(), operand.size()});
  const uint64_t row_bytes = w.size() / recipe.rows;
  std::vector<uint8_t> out(in.ConsumeIntegralInRange<uint64_t>(0, w.size()));
  if (is_within && out.size() == count * row_bytes && w.size() == out.size()) return;
  expect(portllm_tensor_merge(made.tensor, PORTLLM_SCALAR, 1, 1, first, count, w.data(), w.size(), out.data(), out.size(), native.data(), native.size(), message, sizeof message) ==
             PORTLLM_INVALID, "refuse rows that do not agree with their bytes");
  if (!operands.empty()) {
    const uint64_t size = native[0].size;
    native[0].size -= 1 + in.ConsumeIntegralInRange<uint64_t>(0, size - 1);
    out.resize(w.size());
    expect(portllm_tensor_merge(made.tensor, PORTLLM_SCALAR, 1, 1, 0, recipe.rows, w.data(), w.size(), out.data(), out.size(), native.data(), native.size(), message, sizeof message) ==
               PORTLLM_INVALID, "refuse operands that do not agree with the rows");
  }
  if (portllm_tensor_measures(made.tensor)) {
    Made fresh;
    make(recipe, fresh);
    const std::vector<uint8_t> row(w.begin(), w.begin() + row_bytes);
    const auto measure = [&](uint64_t at) { return portllm_tensor_measure(fresh.tensor, PORTLLM_SCALAR, 1, at, 1, row.data(), row.size(), message, sizeof message); };
    out.resize(row_bytes);
    expect(recipe.rows == 1 || measure(1) == PORTLLM_INVALID, "refuse to measure the second row first");
    for (uint64_t at = 0; at < recipe.rows; at++) {
      native.clear();
      for (const std::vector<uint8_t> &operand : operands) native.push_back({operand.data(), operand.size() / recipe.rows});
      expect(portllm_tensor_merge(fresh.tensor, PORTLLM_SCALAR, 1, 1, 0, 1, row.data(), row.size(), out.data(), out.size(), native.data(), native.size(), message, sizeof message) ==
                 PORTLLM_INVALID, "refuse to merge before all rows are measured");
      expect(measure(at) == PORTLLM_OK && measure(at) == PORTLLM_INVALID, "measure each row once");
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  FuzzedDataProvider in(data, size);
  const Recipe recipe = recipe_of(in, 21, 150, 3);
  Made made;
  make(recipe, made);
  // With sizes that only a refusal survives, there is no more to do.
  if (!made.tensor || made.contributions.empty() || recipe.rows > 64 || recipe.cols > 256) return 0;
  const uint64_t count = recipe.rows * recipe.cols;
  const std::vector<uint8_t> w = elements(recipe.dtype, count, content_of(in), in.ConsumeIntegral<uint16_t>());
  std::vector<std::vector<uint8_t>> operands;
  for (const int32_t dtype : made.operands) operands.push_back(elements(dtype, count, content_of(in), in.ConsumeIntegral<uint16_t>()));

  const std::optional<Merged> plainly = merged_plainly(recipe, w, operands);
  expect(plainly.has_value(), "merge what was taken");
  const bool are_products = std::all_of(made.contributions.begin(), made.contributions.end(), [](const Contribution *one) { return one->kind == Contribution::kProduct; });
  if (are_products && recipe.dtype <= PORTLLM_BF16) expect(plainly->bytes == by_the_rule(recipe, made.contributions, w), "lora-f32/1");
  for (int32_t path = PORTLLM_SCALAR; path <= PORTLLM_AVX512; path++) {
    if (portllm_path_supported(path)) expect(merge_in_parts(in, recipe, path, w, operands) == *plainly, "the same bits and figures on every path");
  }
  merge_wrongly(in, recipe, w, operands);
  return 0;
}
