// The analysis on AVX-512: eight lanes are one register, and the 4 x 4 blocks keep 16 sums in registers.
#if defined(__x86_64__)
#include <immintrin.h>

#include "analysis_kernels.h"
#include "float_formats.h"
#include "portllm_core.h"

#define PORTLLM_TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"
#include "target_begin.h"

namespace portllm {
namespace {

struct Eight {
  __m512d value;
  static inline Eight all(double value) { return {_mm512_set1_pd(value)}; }
  static inline Eight load(const double *from) { return {_mm512_loadu_pd(from)}; }
  inline void store(double *to) const { _mm512_storeu_pd(to, value); }
  static inline Eight fma(Eight a, Eight b, Eight c) { return {_mm512_fmadd_pd(a.value, b.value, c.value)}; }
};

}  // namespace
}  // namespace portllm

#include "analysis_body.h"

namespace portllm {
const AnalysisKernels kAvx512Analysis = kKernels;
}  // namespace portllm
#include "target_end.h"
#endif
