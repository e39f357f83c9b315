// The same for PiSSA's and OLoRA's factors. Usage: replay-initial THREADS < bases > results. A base: method, dtype, rows, cols,
// rank, W. A result: the left factor as a blob, then the right one.
#include "words.h"

int main(int, char **arguments) {
  const auto threads = static_cast<uint32_t>(std::atoi(arguments[1]));
  read_input();
  while (at < input.size()) {
    const auto method = static_cast<int32_t>(word()), dtype = static_cast<int32_t>(word());
    const uint64_t rows = word(), cols = word(), rank = word();
    const portllm_bytes base = blob();
    std::vector<float> left(rows * rank), right(rank * cols);
    check(portllm_initial_factors(method, base.bytes, base.size, dtype, rows, cols, rank, threads, left.data(), left.size(), right.data(), right.size(), message, sizeof message));
    put_blob(left.data(), 4 * left.size());
    put_blob(right.data(), 4 * right.size());
  }
}
