// The two sides of the kernel's roofline, measured for bench/: memory copy and fused multiply-adds.
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <chrono>
#include <cstring>

#include "parallel.h"
#include "tensor.h"

using namespace portllm;

extern "C" {

void portllm_copy_memory(void *out, const void *in, uint64_t bytes, uint32_t threads) {
  if (!out || !in || !threads) return;
  const uint64_t share = (bytes / threads + 4095) / 4096 * 4096;
  parallel(threads, [&](uint64_t index) {
    const uint64_t begin = std::min(bytes, index * share), end = index + 1 == threads ? bytes : std::min(bytes, begin + share);
    std::memcpy(static_cast<uint8_t *>(out) + begin, static_cast<const uint8_t *>(in) + begin, end - begin);
  });
}

double portllm_fma_rate(int32_t path, uint32_t threads) {
  if (!threads || !portllm_path_supported(path)) return 0;
  const Path &kernels = path_of(path);
  std::vector<double> rates(threads, 0.0);
  parallel(threads, [&](uint64_t index) {
    const auto start = std::chrono::steady_clock::now();
    double done = 0, seconds = 0;
    while (seconds < 0.05) {
      done += kernels.fma_burst();
      seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
    rates[index] = done / seconds;
  });
  double total = 0;
  for (const double rate : rates) total += rate;
  return total;
}

}  // extern "C"
