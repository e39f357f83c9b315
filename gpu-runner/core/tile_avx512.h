// The 4 x 64 tile on AVX-512: 16 accumulators of 16 floats stay in registers over the whole rank, so one step of k costs
// 4 loads, 4 broadcasts and 16 fused multiply-adds. A run of tiles is a pipeline: while one tile's rank is walked, the
// rows of the tile before are added to W, rounded and written in between, so that the processor's other units work beside
// the multiply-adds. Lane for lane the same operations in the same order as tile_scalar.cpp.
//
// Included, within target_begin.h, by one file for each way to round to bfloat16.
#pragma once

namespace portllm {
namespace {

#define PORTLLM_INLINE __attribute__((always_inline)) inline
#define PORTLLM_INLINE_LAMBDA __attribute__((always_inline))

constexpr int kVectors = 4;  // 64 columns

inline void store(uint8_t *out, __m512i bits, bool stream) {
  if (stream) _mm512_stream_si512(reinterpret_cast<__m512i *>(out), bits);
  else _mm512_storeu_si512(out, bits);
}

// A format widens sixteen elements of W, and rounds and writes two vectors of y, giving back what was written. An element
// is plain where kLowest <= |y| < kOverflow, as float32 bits: `write_plain` is for rows of these alone, `write` for all
// but NaN. From kOverflow on, NaN among them, the output is not finite.
struct F32 {
  static constexpr uint32_t kBytes = 4, kLowest = 0, kOverflow = 0x7f800000;
  static inline __m512 load(const uint8_t *w) { return _mm512_loadu_ps(w); }
  static inline void write(uint8_t *out, bool stream, const __m512 (&y)[2], __m512 (&written)[2]) {
    for (int v = 0; v < 2; v++) {
      store(out + v * 64, _mm512_castps_si512(y[v]), stream);
      written[v] = y[v];
    }
  }
  static inline void write_plain(uint8_t *out, bool stream, const __m512 (&y)[2], __m512 (&written)[2]) {
    write(out, stream, y, written);
  }
};

struct F16 {
  static constexpr uint32_t kBytes = 2, kLowest = 0, kOverflow = 0x477ff000;
  static inline __m512 load(const uint8_t *w) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(w)));
  }
  static inline void write(uint8_t *out, bool stream, const __m512 (&y)[2], __m512 (&written)[2]) {
    __m256i halves[2];
    for (int v = 0; v < 2; v++) {
      halves[v] = _mm512_cvtps_ph(y[v], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      written[v] = _mm512_cvtph_ps(halves[v]);
    }
    store(out, _mm512_inserti64x4(_mm512_castsi256_si512(halves[0]), halves[1], 1), stream);
  }
  static inline void write_plain(uint8_t *out, bool stream, const __m512 (&y)[2], __m512 (&written)[2]) {
    write(out, stream, y, written);
  }
};

// The integer steps of to_bf16.
struct BF16 {
  static constexpr uint32_t kBytes = 2, kLowest = 0, kOverflow = 0x7f7f8000;
  static inline __m512 load(const uint8_t *w) {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(w));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
  }
  static inline void write(uint8_t *out, bool stream, const __m512 (&y)[2], __m512 (&written)[2]) {
    const __m512i odd_words = _mm512_set_epi16(
        63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27, 25, 23, 21, 19, 17,
        15, 13, 11, 9, 7, 5, 3, 1);
    __m512i rounded[2];
    for (int v = 0; v < 2; v++) {
      const __m512i bits = _mm512_castps_si512(y[v]);
      const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
      rounded[v] = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
      const __m512i high = _mm512_and_si512(rounded[v], _mm512_set1_epi32(static_cast<int>(0xffff0000u)));
      written[v] = _mm512_castsi512_ps(high);
    }
    store(out, _mm512_permutex2var_epi16(rounded[0], odd_words, rounded[1]), stream);
  }
  static inline void write_plain(uint8_t *out, bool stream, const __m512 (&y)[2], __m512 (&written)[2]) {
    write(out, stream, y, written);
  }
};

inline void add_to_lanes(double *lanes, __m512 sums) {
  const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(sums));
  const __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(sums, 1));
  _mm512_storeu_pd(lanes, _mm512_add_pd(_mm512_loadu_pd(lanes), low));
  _mm512_storeu_pd(lanes + 8, _mm512_add_pd(_mm512_loadu_pd(lanes + 8), high));
}

// Sums of squares of one row of the tile, a lane in each element.
struct Squares {
  __m512 patch, realised, residual;
};

inline void add_squares(Squares &sums, __m512 w, __m512 t, __m512 written, __mmask16 counted) {
  const __m512 difference = _mm512_sub_ps(written, w), lost = _mm512_sub_ps(difference, t);
  sums.patch = _mm512_mask3_fmadd_ps(t, t, sums.patch, counted);
  sums.realised = _mm512_mask3_fmadd_ps(difference, difference, sums.realised, counted);
  sums.residual = _mm512_mask3_fmadd_ps(lost, lost, sums.residual, counted);
}

// One row of the tile from t on: y = W + t where it is not given, the rounding, the figures.
template <class Format, bool kFigures>
PORTLLM_INLINE void finish_row(const Tile &tile, uint64_t i, const float *row_t, const float *given) {
  const uint8_t *row_w = tile.w + i * tile.w_stride;
  uint8_t *out = tile.out + i * tile.out_stride;
  __m512 w[kVectors], y[kVectors];
  __m512i largest = _mm512_setzero_si512();
  for (int v = 0; v < kVectors; v++) {
    w[v] = Format::load(row_w + v * 16 * Format::kBytes);
    y[v] = given ? _mm512_load_ps(given + v * 16) : _mm512_add_ps(w[v], _mm512_load_ps(row_t + v * 16));
    const __m512i magnitude = _mm512_and_si512(_mm512_castps_si512(y[v]), _mm512_set1_epi32(0x7fffffff));
    largest = _mm512_max_epu32(largest, Format::kLowest ? _mm512_sub_epi32(magnitude, _mm512_set1_epi32(Format::kLowest)) : magnitude);
  }
  Squares squares = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
  __m512 written[2];
  if (__builtin_expect(!_mm512_cmpge_epu32_mask(largest, _mm512_set1_epi32(Format::kOverflow - Format::kLowest)), 1)) {
    for (int v = 0; v < kVectors; v += 2) {
      Format::write_plain(out + v * 16 * Format::kBytes, tile.stream, {y[v], y[v + 1]}, written);
      if (!kFigures) continue;
      for (int h = 0; h < 2; h++) add_squares(squares, w[v + h], _mm512_load_ps(row_t + (v + h) * 16), written[h], 0xffff);
    }
  } else {
    for (int v = 0; v < kVectors; v += 2) {
      __mmask16 finite[2];
      for (int h = 0; h < 2; h++) {
        const __m512i magnitude = _mm512_and_si512(_mm512_castps_si512(y[v + h]), _mm512_set1_epi32(0x7fffffff));
        finite[h] = _mm512_cmplt_epu32_mask(magnitude, _mm512_set1_epi32(Format::kOverflow));
        const __mmask16 nan = _mm512_cmp_ps_mask(y[v + h], y[v + h], _CMP_UNORD_Q);
        y[v + h] = _mm512_mask_mov_ps(y[v + h], nan, _mm512_castsi512_ps(_mm512_set1_epi32(kNanF32)));
      }
      Format::write(out + v * 16 * Format::kBytes, tile.stream, {y[v], y[v + 1]}, written);
      for (int h = 0; h < 2; h++) {
        if (tile.non_finite) tile.non_finite[i] += static_cast<unsigned>(__builtin_popcount(static_cast<uint16_t>(~finite[h])));
        if (kFigures) add_squares(squares, w[v + h], _mm512_load_ps(row_t + (v + h) * 16), written[h], finite[h]);
      }
    }
  }
  if (kFigures) {
    add_to_lanes(tile.lanes[i].patch, squares.patch);
    add_to_lanes(tile.lanes[i].realised, squares.realised);
    add_to_lanes(tile.lanes[i].residual, squares.residual);
  }
}

// t = t + each product. `between(row)` is called for every row, spread over the first product's rank.
template <class Between>
PORTLLM_INLINE void accumulate_inline(const Tile &tile, bool fresh, TileValues &t, Between between) {
  for (uint64_t p = 0; p < tile.product_count; p++) {
    const PackedProduct &product = tile.products[p];
    const float *left = product.left + tile.row_group * product.rank * kTileRows;
    const float *right = product.right + tile.col_panel * product.rank * kTileCols;
    __m512 d[kTileRows][kVectors];
    for (uint64_t i = 0; i < kTileRows; i++) {
      for (int v = 0; v < kVectors; v++) d[i][v] = _mm512_setzero_ps();
    }
    uint64_t k = 0;
    const auto walk_to = [&](uint64_t end) PORTLLM_INLINE_LAMBDA {
      for (; k < end; k++) {
        __m512 a[kVectors];
        for (int v = 0; v < kVectors; v++) a[v] = _mm512_load_ps(right + k * kTileCols + v * 16);
        for (uint64_t i = 0; i < kTileRows; i++) {
          const __m512 b = _mm512_set1_ps(left[k * kTileRows + i]);
          for (int v = 0; v < kVectors; v++) d[i][v] = _mm512_fmadd_ps(b, a[v], d[i][v]);
        }
      }
    };
    if (p == 0) {
      for (uint64_t i = 0; i < kTileRows; i++) {
        walk_to(product.rank * (i + 1) / kTileRows);
        between(i);
      }
    } else {
      walk_to(product.rank);
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

void accumulate(const Tile &tile, bool fresh, TileValues &t) {
  accumulate_inline(tile, fresh, t, [](uint64_t) {});
}

template <class Format>
void finish(const Tile &tile, const TileValues &t, const TileValues *y) {
  for (uint64_t i = 0; i < kTileRows; i++) {
    if (tile.lanes) finish_row<Format, true>(tile, i, t.at[i], y ? y->at[i] : nullptr);
    else finish_row<Format, false>(tile, i, t.at[i], y ? y->at[i] : nullptr);
  }
}

// Rows are pages apart, where the hardware prefetcher starts anew on each: asks for the next four rows.
// Into L2: rows of 4096 bytes would all fall into the same few sets of L1.
inline void prefetch_next_rows(const Tile &tile, uint64_t bytes) {
  for (uint64_t i = 0; i < kTileRows; i++) {
    const uint8_t *next = tile.w + (kTileRows + i) * tile.w_stride;
    for (uint64_t line = 0; line < bytes; line += 64) _mm_prefetch(reinterpret_cast<const char *>(next + line), _MM_HINT_T1);
  }
}

template <class Format, bool kFigures>
inline void merge_run(const Tile &first, uint64_t count) {
  constexpr uint64_t kStep = kTileCols * Format::kBytes;
  TileValues values[2];
  TileValues *t = &values[0], *t_before = &values[1];
  Tile tile = first, before = first;
  prefetch_next_rows(tile, kStep);
  accumulate_inline(tile, true, *t, [](uint64_t) {});
  for (uint64_t n = 1; n < count; n++) {
    std::swap(t, t_before);
    tile.col_panel++;
    tile.w += kStep;
    prefetch_next_rows(tile, kStep);
    accumulate_inline(tile, true, *t, [&](uint64_t i) PORTLLM_INLINE_LAMBDA {
      finish_row<Format, kFigures>(before, i, t_before->at[i], nullptr);
    });
    before.w += kStep;
    before.out += kStep;
  }
  for (uint64_t i = 0; i < kTileRows; i++) finish_row<Format, kFigures>(before, i, t->at[i], nullptr);
}

template <class Format>
void merge(const Tile &first, uint64_t count) {
  if (first.lanes) merge_run<Format, true>(first, count);
  else merge_run<Format, false>(first, count);
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
}  // namespace portllm
