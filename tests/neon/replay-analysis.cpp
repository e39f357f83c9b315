// The same for recorded analyses. Usage: replay-analysis PATH THREADS TILE < analyses > results, TILE being how many rows
// come at a time. An analysis: dtypes of base and target, rows, cols, count of products, these (left, right, rank, scale),
// count of sampled rows, these, their bytes, W, W'. A result: the sums as a blob, then the matches as one.
#include "portllm_analysis.h"
#include "words.h"

int main(int, char **arguments) {
  const int32_t path = std::atoi(arguments[1]);
  const auto threads = static_cast<uint32_t>(std::atoi(arguments[2]));
  const auto tile = static_cast<uint64_t>(std::atoi(arguments[3]));
  read_input();
  while (at < input.size()) {
    portllm_analysis *analysis;
    const auto base_dtype = static_cast<int32_t>(word()), target_dtype = static_cast<int32_t>(word());
    const uint64_t rows = word(), cols = word();
    check(portllm_analysis_create(base_dtype, target_dtype, rows, cols, &analysis, message, sizeof message));
    for (uint64_t count = word(); count > 0; count--) {
      const portllm_matrix left = matrix(), right = matrix();
      const uint64_t rank = word();
      check(portllm_analysis_add(analysis, &left, &right, rank, real(), message, sizeof message));
    }
    std::vector<uint64_t> sampled(word());
    for (uint64_t &row : sampled) row = word();
    const portllm_bytes sample = blob();
    if (!sampled.empty()) check(portllm_analysis_sample(analysis, sampled.data(), sampled.size(), sample.bytes, sample.size, message, sizeof message));
    const portllm_bytes base = blob(), target = blob();
    for (uint64_t row = 0; row < rows; row += tile) {
      const uint64_t count = rows - row < tile ? rows - row : tile, base_row = base.size / rows, target_row = target.size / rows;
      check(portllm_analysis_rows(analysis, path, threads, row, count, static_cast<const char *>(base.bytes) + row * base_row, count * base_row,
                                  static_cast<const char *>(target.bytes) + row * target_row, count * target_row, message, sizeof message));
    }
    portllm_analysis_sums sums;
    check(portllm_analysis_finish(analysis, path, &sums, message, sizeof message));
    std::vector<portllm_row_match> matches(sampled.size());
    check(portllm_analysis_matches(analysis, matches.data(), matches.size(), message, sizeof message));
    portllm_analysis_free(analysis);
    put_blob(&sums, sizeof sums);
    put_blob(matches.data(), matches.size() * sizeof(portllm_row_match));
  }
}
