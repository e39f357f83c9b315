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

struct Rounded {
  __m512i bits;    // float32: the output itself; 16-bit: the output in the high (BF16) or low (F16) half
  __m512 written;  // the output as float32
};

// `round` is for anything but NaN. Magnitudes from kOverflow on, NaN among them, do not give a finite output.
struct F32 {
  static constexpr int kBytes = 4;
  static constexpr int kOverflow = 0x7f800000;
  static inline void load(const uint8_t *w, __m512 (&values)[kVectors]) {
    for (int v = 0; v < kVectors; v++) values[v] = _mm512_loadu_ps(w + v * 64);
  }
  static inline Rounded round(__m512 y) { return {_mm512_castps_si512(y), y}; }
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
  static constexpr int kOverflow = 0x7f7f8000;
  static inline void load(const uint8_t *w, __m512 (&values)[kVectors]) {
    for (int v = 0; v < kVectors; v++) {
      const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(w + v * 32));
      values[v] = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
    }
  }
  // The integer steps of to_bf16. (VCVTNEPS2BF16 is no use: it flushes subnormals.)
  static inline Rounded round(__m512 y) {
    const __m512i bits = _mm512_castps_si512(y);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
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
  static constexpr int kOverflow = 0x477ff000;
  static inline void load(const uint8_t *w, __m512 (&values)[kVectors]) {
    for (int v = 0; v < kVectors; v++) {
      values[v] = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(w + v * 32)));
    }
  }
  static inline Rounded round(__m512 y) {
    const __m256i rounded = _mm512_cvtps_ph(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return {_mm512_castsi256_si512(rounded), _mm512_cvtph_ps(rounded)};
  }
  static inline void store(uint8_t *out, const __m512i (&bits)[kVectors], bool stream) {
    store_two(out, _mm512_inserti64x4(bits[0], _mm512_castsi512_si256(bits[1]), 1),
              _mm512_inserti64x4(bits[2], _mm512_castsi512_si256(bits[3]), 1), stream);
  }
};

inline void add_to_lanes(double *lanes, __m512 sums) {
  const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(sums));
  const __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(sums, 1));
  _mm512_storeu_pd(lanes, _mm512_add_pd(_mm512_loadu_pd(lanes), low));
  _mm512_storeu_pd(lanes + 8, _mm512_add_pd(_mm512_loadu_pd(lanes + 8), high));
}

// One row of the tile from t on: y = W + t where it is not given, the rounding, the figures.
template <class Format>
inline void finish_row(const Tile &tile, uint64_t i, const float *row_t, const float *given) {
  __m512 t[kVectors], w[kVectors], y[kVectors];
  for (int v = 0; v < kVectors; v++) t[v] = _mm512_load_ps(row_t + v * 16);
  Format::load(tile.w + i * tile.w_stride, w);
  __mmask16 bad[kVectors];
  for (int v = 0; v < kVectors; v++) {
    y[v] = given ? _mm512_load_ps(given + v * 16) : _mm512_add_ps(w[v], t[v]);
    const __m512i magnitude = _mm512_and_si512(_mm512_castps_si512(y[v]), _mm512_set1_epi32(0x7fffffff));
    bad[v] = _mm512_cmpge_epi32_mask(magnitude, _mm512_set1_epi32(Format::kOverflow));
  }
  const bool all_finite = !(bad[0] | bad[1] | bad[2] | bad[3]);
  if (__builtin_expect(!all_finite, 0)) {
    for (int v = 0; v < kVectors; v++) {
      const __mmask16 nan = _mm512_cmp_ps_mask(y[v], y[v], _CMP_UNORD_Q);
      y[v] = _mm512_mask_mov_ps(y[v], nan, _mm512_castsi512_ps(_mm512_set1_epi32(kNanF32)));
    }
  }
  __m512i bits[kVectors];
  __m512 patch = _mm512_setzero_ps(), realised = _mm512_setzero_ps(), residual = _mm512_setzero_ps();
  for (int v = 0; v < kVectors; v++) {
    const Rounded rounded = Format::round(y[v]);
    bits[v] = rounded.bits;
    if (!tile.lanes) continue;
    __m512 added = t[v], difference = _mm512_sub_ps(rounded.written, w[v]), lost = _mm512_sub_ps(difference, added);
    if (__builtin_expect(!all_finite, 0)) {
      tile.lanes[i].non_finite += static_cast<unsigned>(__builtin_popcount(bad[v]));
      added = _mm512_mask_mov_ps(added, bad[v], _mm512_setzero_ps());
      difference = _mm512_mask_mov_ps(difference, bad[v], _mm512_setzero_ps());
      lost = _mm512_mask_mov_ps(lost, bad[v], _mm512_setzero_ps());
    }
    patch = _mm512_fmadd_ps(added, added, patch);
    realised = _mm512_fmadd_ps(difference, difference, realised);
    residual = _mm512_fmadd_ps(lost, lost, residual);
  }
  if (tile.lanes) {
    add_to_lanes(tile.lanes[i].patch, patch);
    add_to_lanes(tile.lanes[i].realised, realised);
    add_to_lanes(tile.lanes[i].residual, residual);
  }
  Format::store(tile.out + i * tile.out_stride, bits, tile.stream);
}

inline void accumulate_inline(const Tile &tile, bool fresh, TileValues &t) {
  for (uint64_t p = 0; p < tile.product_count; p++) {
    const PackedProduct &product = tile.products[p];
    const float *left = product.left + tile.row_group * product.rank * kTileRows;
    const float *right = product.right + tile.col_panel * product.rank * kTileCols;
    __m512 d[kTileRows][kVectors];
    for (uint64_t i = 0; i < kTileRows; i++) {
      for (int v = 0; v < kVectors; v++) d[i][v] = _mm512_setzero_ps();
    }
    for (uint64_t k = 0; k < product.rank; k++) {
      __m512 a[kVectors];
      for (int v = 0; v < kVectors; v++) a[v] = _mm512_load_ps(right + k * kTileCols + v * 16);
      for (uint64_t i = 0; i < kTileRows; i++) {
        const __m512 b = _mm512_set1_ps(left[k * kTileRows + i]);
        for (int v = 0; v < kVectors; v++) d[i][v] = _mm512_fmadd_ps(b, a[v], d[i][v]);
      }
    }
    const __m512 scale = _mm512_set1_ps(product.scale);
    for (uint64_t i = 0; i < kTileRows; i++) {
      for (int v = 0; v < kVectors; v++) {
        const __m512 before = fresh && p == 0 ? _mm512_setzero_ps() : _mm512_load_ps(&t.at[i][v * 16]);
        _mm512_store_ps(&t.at[i][v * 16], _mm512_add_ps(before, _mm512_mul_ps(scale, d[i][v])));
      }
    }
  }
}

void accumulate(const Tile &tile, bool fresh, TileValues &t) { accumulate_inline(tile, fresh, t); }

template <class Format>
void finish(const Tile &tile, const TileValues &t, const TileValues *y) {
  for (uint64_t i = 0; i < kTileRows; i++) finish_row<Format>(tile, i, t.at[i], y ? y->at[i] : nullptr);
}

template <class Format>
void merge(const Tile &tile) {
  // Rows are pages apart, where the hardware prefetcher starts anew on each: ask for the next four rows now.
  // Into L2: rows of 4096 bytes would all fall into the same few sets of L1.
  for (uint64_t i = 0; i < kTileRows; i++) {
    const uint8_t *next = tile.w + (kTileRows + i) * tile.w_stride;
    for (uint64_t line = 0; line < kTileCols * Format::kBytes; line += 64) {
      _mm_prefetch(reinterpret_cast<const char *>(next + line), _MM_HINT_T1);
    }
  }
  TileValues t;
  accumulate_inline(tile, true, t);
  for (uint64_t i = 0; i < kTileRows; i++) finish_row<Format>(tile, i, t.at[i], nullptr);
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

const Path kAvx512Path = {
    accumulate,
    {finish<F32>, finish<F16>, finish<BF16>},
    {merge<F32>, merge<F16>, merge<BF16>},
    fma_burst,
};

}  // namespace portllm
#include "target_end.h"
#endif
