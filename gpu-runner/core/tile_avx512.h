// The 4 x 64 tile on AVX-512, two rows at a time: their 8 accumulators of 16 floats stay in registers over the whole rank,
// and the sums of the two rows before stay in registers beside them, while these are added to W, rounded and written in
// between, so that the processor's other units work beside the multiply-adds. (Four rows would load each factor half as
// often, but their sums would have to go through memory.) Lane for lane the same operations in the same order as
// tile_scalar.cpp.
//
// Included, within target_begin.h, by one file for each way to round to bfloat16.
#pragma once

namespace portllm {
namespace {

#define PORTLLM_INLINE __attribute__((always_inline)) inline
#define PORTLLM_INLINE_LAMBDA __attribute__((always_inline))

constexpr int kVectors = 4;  // 64 columns
using Values = __m512[kVectors];

// A row of 64 elements as stored.
template <int kVectorsStored>
struct Stored {
  static constexpr int kCount = kVectorsStored;
  __m512i at[kVectorsStored];
};

// Keeps GCC from loading a vector anew for each instruction that uses it: there is one load a cycle.
template <class Vector>
inline Vector loaded_once(Vector vector) {
  asm("" : "+v"(vector));
  return vector;
}

template <class Row>
inline Row load(const uint8_t *from) {
  Row row;
  for (int v = 0; v < Row::kCount; v++) row.at[v] = loaded_once(_mm512_loadu_si512(from + v * 64));
  return row;
}

template <class Row>
inline void store(uint8_t *to, const Row &row, bool stream) {
  for (int v = 0; v < Row::kCount; v++) {
    if (stream) _mm512_stream_si512(reinterpret_cast<__m512i *>(to + v * 64), row.at[v]);
    else _mm512_storeu_si512(to + v * 64, row.at[v]);
  }
}

// A format widens a row, and rounds one, saying whether it is plain. A row is plain where all its outputs are finite and,
// unless kZeroIsPlain, none is a zero. What is rounded of other rows is worth nothing: these are few, and left to the format
// WithZeros, or to the plain loops of finish_row_elements.
struct F32 {
  using Element = ElementF32;
  using Row = Stored<4>;
  static constexpr bool kZeroIsPlain = true;
  static inline void widen(const Row &row, Values &values) {
    for (int v = 0; v < kVectors; v++) values[v] = _mm512_castsi512_ps(row.at[v]);
  }
  static inline Row round(const Values &y, bool &plain) {
    constexpr int kNanOrInfinity = 0x99;
    Row row;
    __mmask16 special = 0;
    for (int v = 0; v < kVectors; v++) {
      row.at[v] = _mm512_castps_si512(y[v]);
      special |= _mm512_fpclass_ps_mask(y[v], kNanOrInfinity);
    }
    plain = special == 0;
    return row;
  }
};

struct F16 {
  using Element = ElementF16;
  using Row = Stored<2>;
  static constexpr bool kZeroIsPlain = true;
  static inline void widen(const Row &row, Values &values) {
    for (int h = 0; h < 2; h++) {
      values[2 * h] = _mm512_cvtph_ps(_mm512_castsi512_si256(row.at[h]));
      values[2 * h + 1] = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(row.at[h], 1));
    }
  }
  static inline Row round(const Values &y, bool &plain) {
    Row row;
    for (int h = 0; h < 2; h++) {
      const __m256i low = _mm512_cvtps_ph(y[2 * h], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      const __m256i high = _mm512_cvtps_ph(y[2 * h + 1], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      row.at[h] = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    }
    const __m512i exponent = _mm512_set1_epi16(0x7c00);
    const __m512i largest = _mm512_max_epu16(_mm512_and_si512(row.at[0], exponent), _mm512_and_si512(row.at[1], exponent));
    plain = !_mm512_cmpeq_epi16_mask(largest, exponent);
    return row;
  }
};

struct BF16 {
  using Element = ElementBF16;
  using Row = Stored<2>;
  static constexpr bool kZeroIsPlain = true;
  // One permutation brings each word to the upper half of its element.
  static inline void widen(const Row &row, Values &values) {
    const __m512i low = _mm512_set_epi16(
        15, 0, 14, 0, 13, 0, 12, 0, 11, 0, 10, 0, 9, 0, 8, 0, 7, 0, 6, 0, 5, 0, 4, 0, 3, 0, 2, 0, 1, 0, 0, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    constexpr __mmask32 kUpperHalves = 0xaaaaaaaa;
    for (int h = 0; h < 2; h++) {
      values[2 * h] = _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(kUpperHalves, low, row.at[h]));
      values[2 * h + 1] = _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(kUpperHalves, high, row.at[h]));
    }
  }
  // The integer steps of to_bf16.
  static inline Row round(const Values &y, bool &plain) {
    const __m512i odd_words = _mm512_set_epi16(
        63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27, 25, 23, 21, 19, 17,
        15, 13, 11, 9, 7, 5, 3, 1);
    constexpr uint32_t kOverflow = 0x7f7f8000;
    __m512i rounded[kVectors], largest = _mm512_setzero_si512();
    for (int v = 0; v < kVectors; v++) {
      const __m512i bits = _mm512_castps_si512(y[v]);
      const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
      rounded[v] = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
      largest = _mm512_max_epu32(largest, _mm512_add_epi32(bits, bits));
    }
    plain = !_mm512_cmpge_epu32_mask(largest, _mm512_set1_epi32(static_cast<int>(kOverflow << 1)));
    return {_mm512_permutex2var_epi16(rounded[0], odd_words, rounded[1]), _mm512_permutex2var_epi16(rounded[2], odd_words, rounded[3])};
  }
};

// Adds a row's sums of squares, which have a lane in each element.
inline void add_to_lanes(double *lanes, __m512 sums) {
  const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(sums));
  const __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(sums, 1));
  _mm512_store_pd(lanes, _mm512_add_pd(_mm512_load_pd(lanes), low));
  _mm512_store_pd(lanes + 8, _mm512_add_pd(_mm512_load_pd(lanes + 8), high));
}

template <class Format, bool kFigures>
void finish_special_row(const Tile &tile, uint64_t i, const float *t, const float *given);

// One row of the tile from t on: y = W + t where it is not given, the rounding, the figures.
template <class Format, bool kFigures>
PORTLLM_INLINE void finish_row(const Tile &tile, uint64_t i, const Values &t, const float *given) {
  Values w, y;
  Format::widen(load<typename Format::Row>(tile.w + i * tile.w_stride), w);
  for (int v = 0; v < kVectors; v++) y[v] = given ? _mm512_load_ps(given + v * 16) : _mm512_add_ps(w[v], t[v]);
  bool plain;
  const typename Format::Row row = Format::round(y, plain);
  if (__builtin_expect(!plain, 0)) {
    alignas(64) float row_t[kTileCols];
    for (int v = 0; v < kVectors; v++) _mm512_store_ps(row_t + v * 16, _mm512_add_ps(t[v], _mm512_setzero_ps()));
    return finish_special_row<Format, kFigures>(tile, i, row_t, given);
  }
  store(tile.out + i * tile.out_stride, row, tile.stream);
  if (!kFigures) return;
  Values written;
  Format::widen(row, written);
  __m512 patch = _mm512_setzero_ps(), realised = patch, residual = patch;
  for (int v = 0; v < kVectors; v++) {
    const __m512 difference = _mm512_sub_ps(written[v], w[v]), lost = _mm512_sub_ps(difference, t[v]);
    patch = _mm512_fmadd_ps(t[v], t[v], patch);
    realised = _mm512_fmadd_ps(difference, difference, realised);
    residual = _mm512_fmadd_ps(lost, lost, residual);
  }
  add_to_lanes(tile.lanes[i].patch, patch);
  add_to_lanes(tile.lanes[i].realised, realised);
  add_to_lanes(tile.lanes[i].residual, residual);
}

template <class Format, bool kFigures>
__attribute__((noinline, cold)) void finish_special_row(const Tile &tile, uint64_t i, const float *row_t, const float *given) {
  if constexpr (Format::kZeroIsPlain) {
    finish_row_elements<typename Format::Element>(tile, i, row_t, given);
  } else {
    Values t;
    for (int v = 0; v < kVectors; v++) t[v] = _mm512_load_ps(row_t + v * 16);
    finish_row<typename Format::WithZeros, kFigures>(tile, i, t, given);
  }
}

struct TwoRows {
  Values upper, lower;
};

inline TwoRows both(__m512 value) {
  TwoRows rows;
  for (int v = 0; v < kVectors; v++) rows.upper[v] = rows.lower[v] = value;
  return rows;
}

// t + one product, for two rows of the tile. `between(0)` and `between(1)` are called half-way through the rank and at its end.
template <class Between>
PORTLLM_INLINE TwoRows add_product(const Tile &tile, const PackedProduct &product, uint64_t first_row, TwoRows t, Between between) {
  const float *left = product.left + tile.row_group * product.rank * kTileRows + first_row;
  const float *right = product.right + tile.col_panel * product.rank * kTileCols;
  TwoRows d = both(_mm512_setzero_ps());
  uint64_t k = 0;
  const auto walk_to = [&](uint64_t end) PORTLLM_INLINE_LAMBDA {
    for (; k < end; k++) {
      const __m512 upper = _mm512_set1_ps(left[k * kTileRows]), lower = _mm512_set1_ps(left[k * kTileRows + 1]);
      for (int v = 0; v < kVectors; v++) {
        const __m512 a = loaded_once(_mm512_load_ps(right + k * kTileCols + v * 16));
        d.upper[v] = _mm512_fmadd_ps(upper, a, d.upper[v]);
        d.lower[v] = _mm512_fmadd_ps(lower, a, d.lower[v]);
      }
    }
  };
  walk_to(product.rank / 2);
  between(0);
  walk_to(product.rank);
  between(1);
  const __m512 scale = _mm512_set1_ps(product.scale);
  for (int v = 0; v < kVectors; v++) {
    t.upper[v] = _mm512_add_ps(t.upper[v], _mm512_mul_ps(scale, d.upper[v]));
    t.lower[v] = _mm512_add_ps(t.lower[v], _mm512_mul_ps(scale, d.lower[v]));
  }
  return t;
}

template <class Between>
PORTLLM_INLINE TwoRows add_products(const Tile &tile, uint64_t first_row, TwoRows t, Between between) {
  t = add_product(tile, tile.products[0], first_row, t, between);
  for (uint64_t p = 1; p < tile.product_count; p++) t = add_product(tile, tile.products[p], first_row, t, [](int) {});
  return t;
}

void accumulate(const Tile &tile, bool fresh, TileValues &values) {
  for (uint64_t i = 0; i < kTileRows; i += 2) {
    TwoRows t = both(_mm512_setzero_ps());
    for (int v = 0; v < kVectors && !fresh; v++) {
      t.upper[v] = _mm512_load_ps(values.at[i] + v * 16);
      t.lower[v] = _mm512_load_ps(values.at[i + 1] + v * 16);
    }
    t = add_products(tile, i, t, [](int) {});
    for (int v = 0; v < kVectors; v++) {
      _mm512_store_ps(values.at[i] + v * 16, t.upper[v]);
      _mm512_store_ps(values.at[i + 1] + v * 16, t.lower[v]);
    }
  }
}

template <class Format>
void finish(const Tile &tile, const TileValues &values, const TileValues *y) {
  for (uint64_t i = 0; i < kTileRows; i++) {
    Values t;
    for (int v = 0; v < kVectors; v++) t[v] = _mm512_load_ps(values.at[i] + v * 16);
    if (tile.lanes) finish_row<Format, true>(tile, i, t, y ? y->at[i] : nullptr);
    else finish_row<Format, false>(tile, i, t, y ? y->at[i] : nullptr);
  }
}

template <class Format, bool kFigures>
inline void merge_run(const Tile &first, uint64_t count) {
  constexpr uint64_t kStep = kTileCols * sizeof(typename Format::Element::Storage);
  // What t begins at. Where the sign of a zero does not show, -0: adding to that changes nothing, so it costs nothing.
  const TwoRows zero = both(_mm512_set1_ps(Format::kZeroIsPlain ? 0.0f : -0.0f));
  Tile tile = first;
  const auto finish_rows = [&](uint64_t i, const TwoRows &t) PORTLLM_INLINE_LAMBDA {
    return [&tile, &t, i](int which) PORTLLM_INLINE_LAMBDA { finish_row<Format, kFigures>(tile, i + which, which ? t.lower : t.upper, nullptr); };
  };
  TwoRows upper = add_products(tile, 0, zero, [](int) {});
  for (uint64_t n = 1; n <= count; n++) {
    prefetch(tile, kStep);
    const TwoRows lower = add_products(tile, 2, zero, finish_rows(0, upper));
    tile.col_panel++;
    if (n < count) {
      upper = add_products(tile, 0, zero, finish_rows(2, lower));
    } else {
      finish_rows(2, lower)(0);
      finish_rows(2, lower)(1);
    }
    tile.w += kStep;
    tile.out += kStep;
  }
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
