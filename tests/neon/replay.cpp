// Runs recorded merges through the core's C interface, for processors that the tests do not run on themselves.
// Usage: replay PATH THREADS < merges > results, in the words of words.h. A merge: dtype, rows, cols, count of contributions,
// these, W, count of operands, these. A result: the output as a blob, then the four figures.
#include "words.h"

namespace {

void add_contribution(portllm_tensor *tensor) {
  const uint64_t kind = word();
  if (kind == 0 || kind == 1) {
    const portllm_matrix left = matrix(), right = matrix();
    const uint64_t rank = word();
    const auto scale = static_cast<float>(real());
    if (kind == 0) return check(portllm_tensor_add_product(tensor, &left, &right, rank, scale, message, sizeof message));
    const portllm_bytes magnitude = blob();
    const uint64_t dtype = word(), axis = word();
    const double weight = real();
    return check(portllm_tensor_add_dora(tensor, &left, &right, rank, scale, magnitude.bytes, magnitude.size, static_cast<int32_t>(dtype), static_cast<int32_t>(axis), weight,
                                         message, sizeof message));
  }
  const auto value = static_cast<int32_t>(word()), base = static_cast<int32_t>(word());
  if (kind == 2) return check(portllm_tensor_add_dense(tensor, value, base, real(), message, sizeof message));
  check(portllm_tensor_add_replace(tensor, value, message, sizeof message));
}

}  // namespace

int main(int, char **arguments) {
  const int32_t path = std::atoi(arguments[1]);
  const auto threads = static_cast<uint32_t>(std::atoi(arguments[2]));
  read_input();
  while (at < input.size()) {
    portllm_tensor *tensor;
    const auto dtype = static_cast<int32_t>(word());
    const uint64_t rows = word(), cols = word();
    check(portllm_tensor_create(dtype, rows, cols, &tensor, message, sizeof message));
    for (uint64_t count = word(); count > 0; count--) add_contribution(tensor);
    const portllm_bytes w = blob();
    std::vector<portllm_bytes> operands;
    for (uint64_t count = word(); count > 0; count--) operands.push_back(blob());
    if (portllm_tensor_measures(tensor)) check(portllm_tensor_measure(tensor, path, threads, 0, rows, w.bytes, w.size, message, sizeof message));
    std::vector<char> out(w.size);
    check(portllm_tensor_merge(tensor, path, threads, PORTLLM_KEEP_FIGURES, 0, rows, w.bytes, w.size, out.data(), out.size(), operands.data(), operands.size(), message, sizeof message));
    portllm_figures figures;
    check(portllm_tensor_figures(tensor, &figures, message, sizeof message));
    portllm_tensor_free(tensor);
    put_blob(out.data(), out.size());
    put(&figures, sizeof figures);
  }
}
