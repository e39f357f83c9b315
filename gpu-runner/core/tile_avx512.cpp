// The tile of tile_avx512.h where the processor cannot round to bfloat16 by itself.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>

#include "element_kernels.h"
#include "elements.h"
#include "float_formats.h"
#include "tile.h"

#define PORTLLM_TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"
#include "target_begin.h"

#include "element_kernels_body.h"

#include "tile_avx512.h"

namespace portllm {

const Path kAvx512Path = {
    accumulate,
    {finish<F32>, finish<F16>, finish<BF16>},
    {merge<F32>, merge<F16>, merge<BF16>},
    &kFloatKernels,
    &kDoubleKernels,
    fma_burst,
};

}  // namespace portllm
#include "target_end.h"
#endif
