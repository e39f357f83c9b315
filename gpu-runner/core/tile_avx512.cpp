// The 4 x 64 tile on AVX-512: 16 accumulators of 16 floats stay in registers over the whole rank, so
// one step of k costs 4 loads, 4 broadcasts and 16 fused multiply-adds. Lane for lane the same
// operations in the same order as tile_scalar.cpp.
#if defined(__x86_64__)
#include <immintrin.h>

#include "float_formats.h"
#include "tile.h"

#define PORTLLM_TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"
#include "target_begin.h"

namespace portllm {
namespace {

constexpr int kVectors = 4;  // 64 columns
constexpr int kNonFiniteClass = 0x01 | 0x08 | 0x10 | 0x80;  // quiet NaN, +inf, -inf, signalling NaN

struct Rounded {
  __m512i bits;   // float32: the output itself; 16-bit: the output in the high (BF16) or low (F16) half
  __m512 written; // the output as float32
};

struct F32 {
  static constexpr int kBytes = 4;
  static inline void load(const uint8_t *w, __m512 (&values)[kVectors]) {
    for (int v = 0; v < kVectors; v++) values[v] = _mm512_loadu_ps(w + v * 64);
  }
  static inline Rounded round(__m512 y) {
    const __mmask16 nan = _mm512_cmp_ps_mask(y, y, _CMP_UNORD_Q);
    const __m512i bits = _mm512_mask_mov_epi32(_mm512_castps_si512(y), nan, _mm512_set1_epi32(kNanF32));
    return {bits, _mm512_castsi512_ps(bits)};
  }
  static inline void store(uint8_t *out, const __m512i (&bits)[kVectors], bool stream) {
    for (int v = 0; v < kVectors; v++) {
      if (stream) _mm512_stream_si512(reinterpret_cast<__m512i *>(out + v * 64), bits[v]);
      else _mm512_storeu_si512(out + v * 64, bits[v]);
    }
  }
};

inline void store_two(uint8_t *out, __m512i first, __m512i second, bool stream) {
  if (stream) {
    _mm512_stream_si512(reinterpret_cast<__m512i *>(out), first);
    _mm512_stream_si512(reinterpret_cast<__m512i *>(out + 64), second);
  } else {
    _mm512_storeu_si512(out, first);
    _mm512_storeu_si512(out + 64, second);
  }
}

struct BF16 {
  static constexpr int kBytes = 2;
  static inline void load(const uint8_t *w, __m512 (&values)[kVectors]) {
    for (int v = 0; v < kVectors; v++) {
      const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(w + v * 32));
      values[v] = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
    }
  }
  // The integer steps of to_bf16. (VCVTNEPS2BF16 is no use: it flushes subnormals.)
  static inline Rounded round(__m512 y) {
    const __mmask16 nan = _mm512_cmp_ps_mask(y, y, _CMP_UNORD_Q);
    const __m512i bits = _mm512_castps_si512(y);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    const __m512i rounded = _mm512_mask_mov_epi32(sum, nan, _mm512_set1_epi32(kNanF32));
    const __m512i high = _mm512_and_si512(rounded, _mm512_set1_epi32(static_cast<int>(0xffff0000u)));
    return {rounded, _mm512_castsi512_ps(high)};
  }
  static inline void store(uint8_t *out, const __m512i (&bits)[kVectors], bool stream) {
    const __m512i odd_words = _mm512_set_epi16(
        63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27, 25, 23, 21, 19, 17,
        15, 13, 11, 9, 7, 5, 3, 1);
    store_two(out, _mm512_permutex2var_epi16(bits[0], odd_words, bits[1]),
              _mm512_permutex2var_epi16(bits[2], odd_words, bits[3]), stream);
  }
};

struct F16 {
  static constexpr int kBytes = 2;
  static inline void load(const uint8_t *w, __m512 (&values)[kVectors]) {
    for (int v = 0; v < kVectors; v++) {
      values[v] = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(w + v * 32)));
    }
  }
  static inline Rounded round(__m512 y) {
    const __mmask16 nan = _mm512_cmp_ps_mask(y, y, _CMP_UNORD_Q);
    const __m256i halves = _mm512_cvtps_ph(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256i rounded = _mm256_mask_mov_epi16(halves, nan, _mm256_set1_epi16(kNanF16));
    return {_mm512_castsi256_si512(rounded), _mm512_cvtph_ps(rounded)};
  }
  static inline void store(uint8_t *out, const __m512i (&bits)[kVectors], bool stream) {
    store_two(out, _mm512_inserti64x4(bits[0], _mm512_castsi512_si256(bits[1]), 1),
              _mm512_inserti64x4(bits[2], _mm512_castsi512_si256(bits[3]), 1), stream);
  }
};

inline void add_squares(__m512d &low, __m512d &high, __m512 values) {
  const __m512d first = _mm512_cvtps_pd(_mm512_castps512_ps256(values));
  const __m512d second = _mm512_cvtps_pd(_mm512_extractf32x8_ps(values, 1));
  low = _mm512_fmadd_pd(first, first, low);
  high = _mm512_fmadd_pd(second, second, high);
}

template <class Format>
void tile_avx512(const Tile &tile) {
  // Rows are pages apart, where the hardware prefetcher starts anew on each: ask for the next four rows now.
  for (uint64_t i = 0; i < kTileRows; i++) {
    const uint8_t *next = tile.w + (kTileRows + i) * tile.w_stride;
    for (uint64_t line = 0; line < kTileCols * Format::kBytes; line += 64) _mm_prefetch(reinterpret_cast<const char *>(next + line), _MM_HINT_T1);
  }
  __m512 t[kTileRows][kVectors];
  alignas(64) float t_kept[kTileRows][kTileCols];
  for (uint64_t p = 0; p < tile.addend_count; p++) {
    const PackedAddend &addend = tile.addends[p];
    const float *left = addend.left + tile.row_group * addend.rank * kTileRows;
    const float *right = addend.right + tile.col_panel * addend.rank * kTileCols;
    __m512 d[kTileRows][kVectors];
    for (uint64_t i = 0; i < kTileRows; i++) {
      for (int v = 0; v < kVectors; v++) d[i][v] = _mm512_setzero_ps();
    }
    for (uint64_t k = 0; k < addend.rank; k++) {
      __m512 a[kVectors];
      for (int v = 0; v < kVectors; v++) a[v] = _mm512_load_ps(right + k * kTileCols + v * 16);
      for (uint64_t i = 0; i < kTileRows; i++) {
        const __m512 b = _mm512_set1_ps(left[k * kTileRows + i]);
        for (int v = 0; v < kVectors; v++) d[i][v] = _mm512_fmadd_ps(b, a[v], d[i][v]);
      }
    }
    const __m512 scale = _mm512_set1_ps(addend.scale);
    const bool last = p + 1 == tile.addend_count;
    for (uint64_t i = 0; i < kTileRows; i++) {
      for (int v = 0; v < kVectors; v++) {
        const __m512 before = p == 0 ? _mm512_setzero_ps() : _mm512_load_ps(&t_kept[i][v * 16]);
        const __m512 sum = _mm512_add_ps(before, _mm512_mul_ps(scale, d[i][v]));
        if (last) t[i][v] = sum;
        else _mm512_store_ps(&t_kept[i][v * 16], sum);
      }
    }
  }

  for (uint64_t i = 0; i < kTileRows; i++) {
    __m512 w[kVectors];
    Format::load(tile.w + i * tile.w_stride, w);
    __m512i bits[kVectors];
    if (!tile.lanes) {
      for (int v = 0; v < kVectors; v++) bits[v] = Format::round(_mm512_add_ps(w[v], t[i][v])).bits;
    } else {
      RowLanes &lanes = tile.lanes[i];
      __m512d patch_low = _mm512_loadu_pd(lanes.patch), patch_high = _mm512_loadu_pd(lanes.patch + 8);
      __m512d real_low = _mm512_loadu_pd(lanes.realised), real_high = _mm512_loadu_pd(lanes.realised + 8);
      for (int v = 0; v < kVectors; v++) {
        const Rounded rounded = Format::round(_mm512_add_ps(w[v], t[i][v]));
        bits[v] = rounded.bits;
        const __mmask16 bad = _mm512_fpclass_ps_mask(rounded.written, kNonFiniteClass);
        const __mmask16 good = static_cast<__mmask16>(~bad);
        lanes.non_finite += static_cast<unsigned>(__builtin_popcount(bad));
        add_squares(patch_low, patch_high, _mm512_maskz_mov_ps(good, t[i][v]));
        add_squares(real_low, real_high, _mm512_maskz_sub_ps(good, rounded.written, w[v]));
      }
      _mm512_storeu_pd(lanes.patch, patch_low);
      _mm512_storeu_pd(lanes.patch + 8, patch_high);
      _mm512_storeu_pd(lanes.realised, real_low);
      _mm512_storeu_pd(lanes.realised + 8, real_high);
    }
    Format::store(tile.out + i * tile.out_stride, bits, tile.stream);
  }
}

double fma_burst() {
  __m512 sums[16];
  for (int v = 0; v < 16; v++) sums[v] = _mm512_setzero_ps();
  const __m512 a = _mm512_set1_ps(1e-3f), b = _mm512_set1_ps(0.5f);
  for (int repeat = 0; repeat < 100000; repeat++) {
    for (int v = 0; v < 16; v++) sums[v] = _mm512_fmadd_ps(a, b, sums[v]);
  }
  __m512 total = sums[0];
  for (int v = 1; v < 16; v++) total = _mm512_add_ps(total, sums[v]);
  volatile float sink = _mm512_cvtss_f32(total);
  (void)sink;
  return 100000.0 * 256;
}

}  // namespace

const Path kAvx512Path = {{tile_avx512<F32>, tile_avx512<F16>, tile_avx512<BF16>}, fma_burst};

}  // namespace portllm
#include "target_end.h"
#endif
