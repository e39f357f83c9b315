// Runs recorded merges through the core's C interface, for processors that the tests do not run on themselves.
// Usage: replay PATH THREADS < merges > results. Words are 64-bit little-endian; a blob is its length, then its bytes up to a
// multiple of 8. A merge: dtype, rows, cols, count of contributions, these, W, count of operands, these. A result: the
// output as a blob, then the four figures. recording.ts writes and reads them.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "portllm_core.h"

namespace {

std::string input;
size_t at = 0;
char message[512];

void check(int32_t status) {
  if (status == PORTLLM_OK) return;
  std::fprintf(stderr, "status %d: %s\n", status, message);
  std::exit(1);
}

uint64_t word() {
  uint64_t value;
  if (at + 8 > input.size()) std::exit(2);
  std::memcpy(&value, input.data() + at, 8);
  at += 8;
  return value;
}

double real() {
  const uint64_t bits = word();
  double value;
  std::memcpy(&value, &bits, 8);
  return value;
}

portllm_bytes blob() {
  const uint64_t size = word();
  if (at + size > input.size()) std::exit(2);
  const portllm_bytes bytes{input.data() + at, size};
  at += (size + 7) / 8 * 8;
  return bytes;
}

portllm_matrix matrix() {
  const portllm_bytes bytes = blob();
  const uint64_t dtype = word(), offset = word(), row_stride = word(), col_stride = word();
  return {bytes.bytes, bytes.size, offset, row_stride, col_stride, static_cast<int32_t>(dtype)};
}

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

void put(const void *bytes, size_t size) { std::fwrite(bytes, 1, size, stdout); }

}  // namespace

int main(int, char **arguments) {
  const int32_t path = std::atoi(arguments[1]);
  const auto threads = static_cast<uint32_t>(std::atoi(arguments[2]));
  char buffer[65536];
  while (const size_t got = std::fread(buffer, 1, sizeof buffer, stdin)) input.append(buffer, got);
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
    const uint64_t size = out.size();
    out.resize((size + 7) / 8 * 8);
    put(&size, 8);
    put(out.data(), out.size());
    put(&figures, sizeof figures);
  }
}
