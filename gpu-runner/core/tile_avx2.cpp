// The 4 x 64 tile on AVX2 with FMA and F16C: four strips of 4 x 16, whose 8 accumulators are as many
// fused multiply-adds as the processor keeps in flight (2 pipes x 4 cycles). Lane for lane the same
// operations in the same order as tile_scalar.cpp.
#if defined(__x86_64__)
#include <immintrin.h>

#include "element_kernels.h"
#include "elements.h"
#include "float_formats.h"
#include "tile.h"

#define PORTLLM_TARGET "avx2,fma,f16c"
#include "target_begin.h"

#include "element_kernels_body.h"

namespace portllm {
namespace {

constexpr int kStripCols = 16;

// Eight floats of W, and back: `round` returns the output as float32, `store` writes its 8 elements.
struct F32 {
  static constexpr int kBytes = 4;
  static inline __m256 load(const uint8_t *w) { return _mm256_loadu_ps(reinterpret_cast<const float *>(w)); }
  static inline __m256 round(__m256 y) {
    const __m256 nan = _mm256_cmp_ps(y, y, _CMP_UNORD_Q);
    return _mm256_blendv_ps(y, _mm256_castsi256_ps(_mm256_set1_epi32(kNanF32)), nan);
  }
  static inline void store(uint8_t *out, __m256 written) {
    _mm256_storeu_ps(reinterpret_cast<float *>(out), written);
  }
};

struct BF16 {
  static constexpr int kBytes = 2;
  static inline __m256 load(const uint8_t *w) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i *>(w));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
  }
  static inline __m256 round(__m256 y) {
    const __m256 nan = _mm256_cmp_ps(y, y, _CMP_UNORD_Q);
    const __m256i bits = _mm256_castps_si256(y);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i high = _mm256_and_si256(sum, _mm256_set1_epi32(static_cast<int>(0xffff0000u)));
    return _mm256_blendv_ps(_mm256_castsi256_ps(high), _mm256_castsi256_ps(_mm256_set1_epi32(kNanF32)), nan);
  }
  static inline void store(uint8_t *out, __m256 written) {
    const __m256i words = _mm256_srli_epi32(_mm256_castps_si256(written), 16);
    const __m128i halves =
        _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i *>(out), halves);
  }
};

struct F16 {
  static constexpr int kBytes = 2;
  static inline __m256 load(const uint8_t *w) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(w)));
  }
  static inline __m256 round(__m256 y) {
    const __m256 nan = _mm256_cmp_ps(y, y, _CMP_UNORD_Q);
    const __m256 canonical = _mm256_blendv_ps(y, _mm256_castsi256_ps(_mm256_set1_epi32(kNanF32)), nan);
    return _mm256_cvtph_ps(_mm256_cvtps_ph(canonical, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  // Exact: `written` is a float16 value already.
  static inline void store(uint8_t *out, __m256 written) {
    _mm_storeu_si128(reinterpret_cast<__m128i *>(out),
                     _mm256_cvtps_ph(written, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
};

// Sums of squares of the tile's four rows in float32, one per lane.
struct TileSums {
  float patch[kTileRows][kLanes];
  float realised[kTileRows][kLanes];
  float residual[kTileRows][kLanes];
};

inline void add_squares(float *sums, __m256 values) {
  _mm256_storeu_ps(sums, _mm256_fmadd_ps(values, values, _mm256_loadu_ps(sums)));
}

using Strip = __m256[kTileRows][2];

// t = t + each product, over one strip.
inline void accumulate_strip(const Tile &tile, uint64_t strip, Strip &t) {
  for (uint64_t p = 0; p < tile.product_count; p++) {
    const PackedProduct &product = tile.products[p];
    const float *left = product.left + tile.row_group * product.rank * kTileRows;
    const float *right = product.right + tile.col_panel * product.rank * kTileCols + strip;
    Strip d;
    for (uint64_t i = 0; i < kTileRows; i++) d[i][0] = d[i][1] = _mm256_setzero_ps();
    for (uint64_t k = 0; k < product.rank; k++) {
      const __m256 a0 = _mm256_load_ps(right + k * kTileCols);
      const __m256 a1 = _mm256_load_ps(right + k * kTileCols + 8);
      for (uint64_t i = 0; i < kTileRows; i++) {
        const __m256 b = _mm256_broadcast_ss(left + k * kTileRows + i);
        d[i][0] = _mm256_fmadd_ps(b, a0, d[i][0]);
        d[i][1] = _mm256_fmadd_ps(b, a1, d[i][1]);
      }
    }
    const __m256 scale = _mm256_set1_ps(product.scale);
    for (uint64_t i = 0; i < kTileRows; i++) {
      t[i][0] = _mm256_add_ps(t[i][0], _mm256_mul_ps(scale, d[i][0]));
      t[i][1] = _mm256_add_ps(t[i][1], _mm256_mul_ps(scale, d[i][1]));
    }
  }
}

template <class Format>
void finish_eight(const Tile &tile, TileSums &sums, uint64_t row, uint64_t col, __m256 t, const TileValues *given) {
  const __m256 w = Format::load(tile.w + row * tile.w_stride + col * Format::kBytes);
  const __m256 written = Format::round(given ? _mm256_load_ps(given->at[row] + col) : _mm256_add_ps(w, t));
  Format::store(tile.out + row * tile.out_stride + col * Format::kBytes, written);
  if (!tile.non_finite && !tile.lanes) return;
  const __m256i exponent = _mm256_set1_epi32(0x7f800000);
  const __m256 bad = _mm256_castsi256_ps(
      _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_castps_si256(written), exponent), exponent));
  if (tile.non_finite) tile.non_finite[row] += static_cast<unsigned>(__builtin_popcount(static_cast<unsigned>(_mm256_movemask_ps(bad))));
  if (!tile.lanes) return;
  const __m256 difference = _mm256_sub_ps(written, w);
  add_squares(sums.patch[row] + col % kLanes, _mm256_andnot_ps(bad, t));
  add_squares(sums.realised[row] + col % kLanes, _mm256_andnot_ps(bad, difference));
  add_squares(sums.residual[row] + col % kLanes, _mm256_andnot_ps(bad, _mm256_sub_ps(difference, t)));
}

template <class Format>
inline void finish_strip(const Tile &tile, TileSums &sums, uint64_t strip, const Strip &t, const TileValues *given) {
  for (uint64_t i = 0; i < kTileRows; i++) {
    finish_eight<Format>(tile, sums, i, strip, t[i][0], given);
    finish_eight<Format>(tile, sums, i, strip + 8, t[i][1], given);
  }
}

void add_to_lanes(const Tile &tile, const TileSums &sums) {
  if (!tile.lanes) return;
  for (uint64_t i = 0; i < kTileRows; i++) {
    for (uint64_t l = 0; l < kLanes; l++) {
      tile.lanes[i].patch[l] += static_cast<double>(sums.patch[i][l]);
      tile.lanes[i].realised[l] += static_cast<double>(sums.realised[i][l]);
      tile.lanes[i].residual[l] += static_cast<double>(sums.residual[i][l]);
    }
  }
}

void accumulate(const Tile &tile, bool fresh, TileValues &values) {
  for (uint64_t strip = 0; strip < kTileCols; strip += kStripCols) {
    Strip t;
    for (uint64_t i = 0; i < kTileRows; i++) {
      t[i][0] = fresh ? _mm256_setzero_ps() : _mm256_load_ps(values.at[i] + strip);
      t[i][1] = fresh ? _mm256_setzero_ps() : _mm256_load_ps(values.at[i] + strip + 8);
    }
    accumulate_strip(tile, strip, t);
    for (uint64_t i = 0; i < kTileRows; i++) {
      _mm256_store_ps(values.at[i] + strip, t[i][0]);
      _mm256_store_ps(values.at[i] + strip + 8, t[i][1]);
    }
  }
}

template <class Format>
void finish(const Tile &tile, const TileValues &values, const TileValues *given) {
  TileSums sums = {};
  for (uint64_t strip = 0; strip < kTileCols; strip += kStripCols) {
    Strip t;
    for (uint64_t i = 0; i < kTileRows; i++) {
      t[i][0] = _mm256_load_ps(values.at[i] + strip);
      t[i][1] = _mm256_load_ps(values.at[i] + strip + 8);
    }
    finish_strip<Format>(tile, sums, strip, t, given);
  }
  add_to_lanes(tile, sums);
}

// Strip by strip, so that t never leaves the registers.
template <class Format>
void merge(const Tile &first, uint64_t count) {
  Tile tile = first;
  for (uint64_t n = 0; n < count; n++) {
    TileSums sums = {};
    for (uint64_t strip = 0; strip < kTileCols; strip += kStripCols) {
      Strip t;
      for (uint64_t i = 0; i < kTileRows; i++) t[i][0] = t[i][1] = _mm256_setzero_ps();
      accumulate_strip(tile, strip, t);
      finish_strip<Format>(tile, sums, strip, t, nullptr);
    }
    add_to_lanes(tile, sums);
    tile.col_panel++;
    tile.w += kTileCols * Format::kBytes;
    tile.out += kTileCols * Format::kBytes;
  }
}

double fma_burst() {
  __m256 sums[8];
  for (int v = 0; v < 8; v++) sums[v] = _mm256_setzero_ps();
  const __m256 a = _mm256_set1_ps(1e-3f), b = _mm256_set1_ps(0.5f);
  for (int repeat = 0; repeat < 100000; repeat++) {
    for (int v = 0; v < 8; v++) sums[v] = _mm256_fmadd_ps(a, b, sums[v]);
  }
  __m256 total = sums[0];
  for (int v = 1; v < 8; v++) total = _mm256_add_ps(total, sums[v]);
  volatile float sink = _mm256_cvtss_f32(total);
  (void)sink;
  return 100000.0 * 64;
}

}  // namespace

const Path kAvx2Path = {
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
