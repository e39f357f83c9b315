// Factors as the kernels read them.
#pragma once

#include "tensor.h"

namespace portllm {

// Copies a factor that lies within its bytes into tiles: [outer / width][rank][width], `outer` being rows of left (of which
// `width` is kTileRows) or columns of right (kTileCols), zero-padded. Refuses NaN and infinity.
AlignedFloats pack(const portllm_matrix &factor, const char *name, uint64_t outer, uint64_t outer_stride, uint64_t rank,
                   uint64_t rank_stride, uint64_t width);

}  // namespace portllm
