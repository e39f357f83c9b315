// The tile of tile_avx512.h where the processor rounds to bfloat16 by itself (AVX512-BF16: Zen 4, Cooper Lake, Sapphire
// Rapids and later).
#if defined(__x86_64__)
#include <immintrin.h>

#include <utility>

#include "element_kernels.h"
#include "elements.h"
#include "float_formats.h"
#include "tile.h"

#define PORTLLM_TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma"
#include "target_begin.h"

#include "element_kernels_body.h"

#include "tile_avx512.h"

namespace portllm {
namespace {

// One VCVTNE2PS2BF16 in place of nine operations. It flushes subnormals and keeps the payload of a NaN, so rows that
// hold either, or a zero, are left to the integer steps.
struct NativeBF16 : BF16 {
  static constexpr uint32_t kLowest = 0x00800000;
  static inline void write_plain(uint8_t *out, bool stream, const __m512 (&y)[2], __m512 (&written)[2]) {
    const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh(y[1], y[0]);
    store(out, halves, stream);
    written[0] = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(halves)), 16));
    written[1] = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(halves, 1)), 16));
  }
};

}  // namespace

const Path kAvx512Bf16Path = {
    accumulate,
    {finish<F32>, finish<F16>, finish<NativeBF16>},
    {merge<F32>, merge<F16>, merge<NativeBF16>},
    &kFloatKernels,
    &kDoubleKernels,
    fma_burst,
};

}  // namespace portllm
#include "target_end.h"
#endif
