// The 4 x 64 tile on AVX2 with FMA and F16C: the 8 accumulators of a strip of 4 x 16 are as many fused multiply-adds as
// the processor keeps in flight (2 pipes x 4 cycles).
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>

#include "element_kernels.h"
#include "elements.h"
#include "float_formats.h"
#include "tile.h"

#define PORTLLM_TARGET "avx2,fma,f16c"
#include "target_begin.h"

#include "element_kernels_body.h"

namespace portllm {
namespace {

constexpr uint64_t kStripCols = 16;
constexpr uint64_t kWidth = 8;
constexpr int kVectors = kStripCols / kWidth;
using Vector = __m256;
using Values = Vector[kVectors];
using Strip = Values[kTileRows];

inline Vector zero() { return _mm256_setzero_ps(); }
inline Vector load(const float *from) { return _mm256_loadu_ps(from); }
inline void store(float *to, Vector values) { _mm256_storeu_ps(to, values); }
inline Vector fused(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }

inline bool all_below(const Values &y, uint32_t bits) {
  __m256i largest = _mm256_setzero_si256();
  for (int v = 0; v < kVectors; v++) {
    largest = _mm256_max_epu32(largest, _mm256_and_si256(_mm256_castps_si256(y[v]), _mm256_set1_epi32(0x7fffffff)));
  }
  return _mm256_movemask_epi8(_mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(bits)), largest)) == -1;
}

struct F32 {
  using Element = ElementF32;
  static constexpr uint32_t kOverflow = 0x7f800000;
  struct Row {
    Vector at[kVectors];
  };
  static inline Row load_row(const uint8_t *from) {
    const auto *floats = reinterpret_cast<const float *>(from);
    return {load(floats), load(floats + kWidth)};
  }
  static inline void store_row(uint8_t *to, const Row &row) {
    store(reinterpret_cast<float *>(to), row.at[0]);
    store(reinterpret_cast<float *>(to) + kWidth, row.at[1]);
  }
  static inline void widen(const Row &row, Values &values) {
    for (int v = 0; v < kVectors; v++) values[v] = row.at[v];
  }
  static inline Row round(const Values &y) { return {y[0], y[1]}; }
};

// Sixteen elements of two bytes.
struct Halves {
  using Row = __m256i;
  static inline Row load_row(const uint8_t *from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(from)); }
  static inline void store_row(uint8_t *to, Row row) { _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), row); }
};

struct BF16 : Halves {
  using Element = ElementBF16;
  static constexpr uint32_t kOverflow = 0x7f7f8000;
  // Unpacking and packing work within 128 bits: the middle quarters change places for it.
  static constexpr int kSwapMiddle = 0xd8;
  static inline void widen(Row row, Values &values) {
    const __m256i swapped = _mm256_permute4x64_epi64(row, kSwapMiddle);
    values[0] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(_mm256_setzero_si256(), swapped));
    values[1] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(_mm256_setzero_si256(), swapped));
  }
  // The integer steps of to_bf16.
  static inline Row round(const Values &y) {
    __m256i words[kVectors];
    for (int v = 0; v < kVectors; v++) {
      const __m256i bits = _mm256_castps_si256(y[v]);
      const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
      words[v] = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd), 16);
    }
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(words[0], words[1]), kSwapMiddle);
  }
};

struct F16 : Halves {
  using Element = ElementF16;
  static constexpr uint32_t kOverflow = 0x477ff000;
  static inline void widen(Row row, Values &values) {
    values[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(row));
    values[1] = _mm256_cvtph_ps(_mm256_extracti128_si256(row, 1));
  }
  static inline Row round(const Values &y) {
    const __m128i low = _mm256_cvtps_ph(y[0], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m128i high = _mm256_cvtps_ph(y[1], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return _mm256_set_m128i(high, low);
  }
};

// t + one product, over one strip.
inline void add_product(const Tile &tile, const PackedProduct &product, uint64_t strip, Strip &t) {
  const float *left = product.left + tile.row_group * product.rank * kTileRows;
  const float *right = product.right + tile.col_panel * product.rank * kTileCols + strip;
  Strip d;
  for (uint64_t i = 0; i < kTileRows; i++) d[i][0] = d[i][1] = zero();
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

}  // namespace
}  // namespace portllm

#include "tile_strips.h"

namespace portllm {
namespace {

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
