// The tile of tile_avx512.h where the processor rounds to bfloat16 by itself (AVX512-BF16: Zen 4, Cooper Lake, Sapphire
// Rapids and later).
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>

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

// One VCVTNE2PS2BF16 in place of eleven operations. It flushes subnormals and keeps the payload of a NaN, so rows where an
// output has the exponent of these, or of a zero, are left to the integer steps.
struct NativeBF16 : BF16 {
  using WithZeros = BF16;
  static constexpr bool kZeroIsPlain = false;
  static inline Row round(const Values &y, bool &plain) {
    Row row;
    __m512i from_lowest[2];  // twice the words, which drops the sign, less that of the lowest normal number
    for (int h = 0; h < 2; h++) {
      row.at[h] = (__m512i)_mm512_cvtne2ps_pbh(y[2 * h + 1], y[2 * h]);
      from_lowest[h] = _mm512_sub_epi16(_mm512_add_epi16(row.at[h], row.at[h]), _mm512_set1_epi16(0x0100));
    }
    plain = !_mm512_cmpge_epu16_mask(_mm512_max_epu16(from_lowest[0], from_lowest[1]), _mm512_set1_epi16(static_cast<short>(0xfe00)));
    return row;
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
