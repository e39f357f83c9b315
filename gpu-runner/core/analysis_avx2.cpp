// The analysis on AVX2 with FMA: eight lanes are two registers.
#if defined(__x86_64__)
#include <immintrin.h>

#include "analysis_kernels.h"
#include "float_formats.h"
#include "portllm_core.h"

#define PORTLLM_TARGET "avx2,fma,f16c"
#include "target_begin.h"

namespace portllm {
namespace {

struct Eight {
  __m256d low, high;
  static inline Eight all(double value) { return {_mm256_set1_pd(value), _mm256_set1_pd(value)}; }
  static inline Eight load(const double *from) { return {_mm256_loadu_pd(from), _mm256_loadu_pd(from + 4)}; }
  inline void store(double *to) const {
    _mm256_storeu_pd(to, low);
    _mm256_storeu_pd(to + 4, high);
  }
  static inline Eight fma(Eight a, Eight b, Eight c) {
    return {_mm256_fmadd_pd(a.low, b.low, c.low), _mm256_fmadd_pd(a.high, b.high, c.high)};
  }
};

}  // namespace
}  // namespace portllm

#include "analysis_body.h"

namespace portllm {
const AnalysisKernels kAvx2Analysis = kKernels;
}  // namespace portllm
#include "target_end.h"
#endif
