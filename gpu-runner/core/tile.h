// The unit of work that every path computes: 4 rows x 64 columns of one tensor, of which AVX-512 takes two rows at a time,
// AVX2 and NEON 16 columns. 64 columns are the block over which the figures are summed in float32.
#pragma once

#include <cstdint>

namespace portllm {

constexpr uint64_t kTileRows = 4;
constexpr uint64_t kTileCols = 64;
// Row figures are summed in lanes, column mod 16, so that the order of summation is the same on every path.
constexpr uint64_t kLanes = 16;

// One product `scale * left @ right`, packed so that a tile reads both factors front to back.
struct PackedProduct {
  const float *left;   // [rows / 4][rank][4], zero-padded
  const float *right;  // [cols / 64][rank][64], zero-padded
  uint64_t rank;
  float scale;
};

// Over one row, of the elements with a finite output: sums of squares, one per lane. A tile's four squares of a lane are
// summed in float32, and tiles in float64.
struct alignas(64) RowLanes {
  double patch[kLanes];
  double realised[kLanes];
  double residual[kLanes];
};

// A number for every element of a tile: t, the sum of the contributions, or y, what is to be rounded.
template <class Real>
struct alignas(64) TileOf {
  Real at[kTileRows][kTileCols];
};
using TileValues = TileOf<float>;

struct Tile {
  const PackedProduct *products;
  uint64_t product_count;
  uint64_t row_group;   // index of the four rows
  uint64_t col_panel;   // index of the 64 columns
  const uint8_t *w;     // first element of the tile; never padded past 4 x 64
  uint64_t w_stride;    // bytes from row to row
  uint8_t *out;
  uint64_t out_stride;
  RowLanes *lanes;      // four rows, or null where no norms are wanted
  uint64_t *non_finite; // four rows' counts of the other elements, or null
  bool large;           // the rows come from memory, and leave the caches again
  bool stream;          // and the output is other memory than W, and 64-byte aligned
};

// Asks for what the next tiles need, `bytes` of each row. Rows are pages apart, where the hardware prefetcher starts anew on
// each: W of the tile after the next below comes out of memory, into L2, while eight rows are computed. From there, where
// the packed factors have not washed it out as they would from L1, it comes to L1 four tiles ahead. And a page of the output
// is touched before stores have to wait until its address is found.
//
// Inlined, for GCC takes a function that only asks for one without effect, and leaves its calls out.
__attribute__((always_inline)) inline void prefetch(const Tile &tile, uint64_t bytes) {
  constexpr int kRead = 0, kToL2 = 2, kToL1 = 3;
  constexpr uintptr_t kPage = 4096;
  if (!tile.large) return;
  for (uint64_t i = 0; i < kTileRows; i++) {
    const uint8_t *right = tile.w + i * tile.w_stride + 4 * bytes, *below = tile.w + (2 * kTileRows + i) * tile.w_stride;
    for (uint64_t line = 0; line < bytes; line += 64) {
      __builtin_prefetch(below + line, kRead, kToL2);
      __builtin_prefetch(right + line, kRead, kToL1);
    }
    const auto out = reinterpret_cast<uintptr_t>(tile.out + (kTileRows + i) * tile.out_stride);
    if (tile.stream) __builtin_prefetch(reinterpret_cast<const void *>(out / kPage * kPage), kRead, kToL1);
  }
}

template <class Real>
struct ElementKernels;

// Kernels of one path. Arrays are indexed by portllm_dtype: F32, F16, BF16.
struct Path {
  // t = t + each product of the tile (at least one), in order; with `fresh`, t is +0 before.
  void (*accumulate)(const Tile &, bool fresh, TileValues &t);
  // Writes y rounded, y being W + t where it is null, and the figures of t and of what was written.
  void (*finish[3])(const Tile &, const TileValues &t, const TileValues *y);
  // The two in one for `count` tiles side by side, for tensors to which only products are added.
  void (*merge[3])(const Tile &first, uint64_t count);
  // Everything else (element_kernels.h).
  const ElementKernels<float> *floats;
  const ElementKernels<double> *doubles;
  double (*fma_burst)();  // runs a fixed number of fused multiply-adds and returns that number
};

extern const Path kScalarPath;
#if defined(__x86_64__)
extern const Path kAvx2Path;
extern const Path kAvx512Path;
extern const Path kAvx512Bf16Path;
#elif defined(__aarch64__)
extern const Path kNeonPath;
#endif

}  // namespace portllm
