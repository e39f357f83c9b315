// Which kernels this processor can run, and the floating-point mode that they run in.
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

#include "status.h"
#include "tensor.h"

namespace portllm {
namespace {

#if defined(__x86_64__)
// Older clangs do not know the feature by name.
bool has_f16c() {
  unsigned a, b, c = 0, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

bool path_supported(int32_t path) {
  if (path == PORTLLM_SCALAR) return true;
  if (path == PORTLLM_CUDA) return cuda_running();
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (path == PORTLLM_AVX2) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  }
  if (path == PORTLLM_AVX512) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  }
  if (path == PORTLLM_AVX512_BF16) return path_supported(PORTLLM_AVX512) && __builtin_cpu_supports("avx512bf16");
#elif defined(__aarch64__)
  if (path == PORTLLM_NEON) return true;
#endif
  return false;
}

}  // namespace

const Path &path_of(int32_t path) {
  if (path == PORTLLM_CUDA) fail(PORTLLM_UNSUPPORTED, "the CUDA path cannot merge this tensor: it merges products, into rows of at most %llu bytes",
                                  static_cast<unsigned long long>(kCudaSlotBytes));
  if (!path_supported(path)) {
    fail(PORTLLM_UNSUPPORTED, "path %d is unknown, or this processor cannot run it", path);
  }
#if defined(__x86_64__)
  if (path == PORTLLM_AVX2) return kAvx2Path;
  if (path == PORTLLM_AVX512) return kAvx512Path;
  if (path == PORTLLM_AVX512_BF16) return kAvx512Bf16Path;
#elif defined(__aarch64__)
  if (path == PORTLLM_NEON) return kNeonPath;
#endif
  return kScalarPath;
}

const Path &processor_path() {
  for (const int32_t path : {PORTLLM_NEON, PORTLLM_AVX512_BF16, PORTLLM_AVX512, PORTLLM_AVX2}) {
    if (path_supported(path)) return path_of(path);
  }
  return kScalarPath;
}

#if defined(__x86_64__)
FloatMode::FloatMode() : saved_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
FloatMode::~FloatMode() { _mm_setcsr(saved_); }
#elif defined(__aarch64__)
FloatMode::FloatMode() {
  asm volatile("mrs %0, fpcr" : "=r"(saved_));
  asm volatile("msr fpcr, %0" : : "r"(uint64_t{0}));
}
FloatMode::~FloatMode() { asm volatile("msr fpcr, %0" : : "r"(saved_)); }
#else
FloatMode::FloatMode() = default;  // threads start with the IEEE default mode
FloatMode::~FloatMode() = default;
#endif

}  // namespace portllm

extern "C" {

int32_t portllm_path_supported(int32_t path) { return portllm::path_supported(path) ? 1 : 0; }

const char *portllm_version(void) { return "2 lora-f32/1 dora-f32/1 absolute-diff/1 pissa-f64/1 olora-f64/1"; }

}  // extern "C"
