// The 4 x 64 tile on NEON: four strips of 4 x 16, whose 16 accumulators of 4 floats stay in registers over the whole rank,
// so one step of k costs 5 loads and 16 fused multiply-adds, which take their factor from the left as a lane. Lane for lane
// the same operations in the same order as tile_scalar.cpp.
#if defined(__aarch64__)
#include <arm_neon.h>

#include "element_kernels.h"
#include "elements.h"
#include "float_formats.h"
#include "tile.h"

#include "element_kernels_body.h"

namespace portllm {
namespace {

constexpr int kVectors = 4;  // of 4 floats: a strip
constexpr uint64_t kStripCols = 16;

using Strip = float32x4_t[kTileRows][kVectors];

inline float32x4_t without_nan_payload(float32x4_t y) {
  return vbslq_f32(vceqq_f32(y, y), y, vreinterpretq_f32_u32(vdupq_n_u32(kNanF32)));
}

// Four floats of W, and back: `round` gives the output as float32, `store` writes its four elements.
struct F32 {
  static constexpr uint64_t kBytes = 4;
  static inline float32x4_t load(const uint8_t *w) { return vreinterpretq_f32_u8(vld1q_u8(w)); }
  static inline float32x4_t round(float32x4_t y) { return without_nan_payload(y); }
  static inline void store(uint8_t *out, float32x4_t written) { vst1q_u8(out, vreinterpretq_u8_f32(written)); }
};

struct BF16 {
  static constexpr uint64_t kBytes = 2;
  static inline float32x4_t load(const uint8_t *w) { return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(w)), 16)); }
  // The integer steps of to_bf16.
  static inline float32x4_t round(float32x4_t y) {
    const uint32x4_t bits = vreinterpretq_u32_f32(y);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t sum = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
    const uint32x4_t high = vandq_u32(sum, vdupq_n_u32(0xffff0000u));
    return vreinterpretq_f32_u32(vbslq_u32(vceqq_f32(y, y), high, vdupq_n_u32(kNanF32)));
  }
  static inline void store(uint8_t *out, float32x4_t written) {
    vst1_u8(out, vreinterpret_u8_u16(vshrn_n_u32(vreinterpretq_u32_f32(written), 16)));
  }
};

struct F16 {
  static constexpr uint64_t kBytes = 2;
  static inline float32x4_t load(const uint8_t *w) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(w))); }
  static inline float32x4_t round(float32x4_t y) { return vcvt_f32_f16(vcvt_f16_f32(without_nan_payload(y))); }
  // Exact: `written` is a float16 value already.
  static inline void store(uint8_t *out, float32x4_t written) { vst1_u8(out, vreinterpret_u8_f16(vcvt_f16_f32(written))); }
};

// Sums of squares of one row of the tile in float32; vector v holds lanes 4v to 4v + 3.
struct RowSquares {
  float32x4_t patch[kVectors], realised[kVectors], residual[kVectors];
};

inline void clear(RowSquares &sums) {
  for (int v = 0; v < kVectors; v++) sums.patch[v] = sums.realised[v] = sums.residual[v] = vdupq_n_f32(0);
}

inline float32x4_t add_square(float32x4_t sum, float32x4_t value, uint32x4_t bad) {
  const float32x4_t counted = vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(value), bad));
  return vfmaq_f32(sum, counted, counted);
}

// t = t + each product, over one strip.
inline void accumulate_strip(const Tile &tile, uint64_t strip, Strip &t) {
  for (uint64_t p = 0; p < tile.product_count; p++) {
    const PackedProduct &product = tile.products[p];
    const float *left = product.left + tile.row_group * product.rank * kTileRows;
    const float *right = product.right + tile.col_panel * product.rank * kTileCols + strip;
    Strip d;
    for (uint64_t i = 0; i < kTileRows; i++) {
      for (int v = 0; v < kVectors; v++) d[i][v] = vdupq_n_f32(0);
    }
    for (uint64_t k = 0; k < product.rank; k++) {
      const float32x4_t b = vld1q_f32(left + k * kTileRows);
      for (int v = 0; v < kVectors; v++) {
        const float32x4_t a = vld1q_f32(right + k * kTileCols + v * 4);
        d[0][v] = vfmaq_laneq_f32(d[0][v], a, b, 0);
        d[1][v] = vfmaq_laneq_f32(d[1][v], a, b, 1);
        d[2][v] = vfmaq_laneq_f32(d[2][v], a, b, 2);
        d[3][v] = vfmaq_laneq_f32(d[3][v], a, b, 3);
      }
    }
    const float32x4_t scale = vdupq_n_f32(product.scale);
    for (uint64_t i = 0; i < kTileRows; i++) {
      for (int v = 0; v < kVectors; v++) t[i][v] = vaddq_f32(t[i][v], vmulq_f32(scale, d[i][v]));
    }
  }
}

// One row of a strip from t on: y = W + t where it is not given, the rounding, the figures.
template <class Format>
inline void finish_row(const Tile &tile, uint64_t row, uint64_t strip, const float32x4_t (&t)[kVectors], const TileValues *given, RowSquares &sums) {
  const uint8_t *row_w = tile.w + row * tile.w_stride + strip * Format::kBytes;
  uint8_t *out = tile.out + row * tile.out_stride + strip * Format::kBytes;
  for (int v = 0; v < kVectors; v++) {
    const float32x4_t w = Format::load(row_w + v * 4 * Format::kBytes);
    const float32x4_t written = Format::round(given ? vld1q_f32(given->at[row] + strip + v * 4) : vaddq_f32(w, t[v]));
    Format::store(out + v * 4 * Format::kBytes, written);
    if (!tile.non_finite && !tile.lanes) continue;
    const uint32x4_t exponent = vdupq_n_u32(0x7f800000u);
    const uint32x4_t bad = vceqq_u32(vandq_u32(vreinterpretq_u32_f32(written), exponent), exponent);
    if (tile.non_finite) tile.non_finite[row] += vaddvq_u32(vshrq_n_u32(bad, 31));
    if (!tile.lanes) continue;
    const float32x4_t difference = vsubq_f32(written, w);
    sums.patch[v] = add_square(sums.patch[v], t[v], bad);
    sums.realised[v] = add_square(sums.realised[v], difference, bad);
    sums.residual[v] = add_square(sums.residual[v], vsubq_f32(difference, t[v]), bad);
  }
}

inline void add_to_lanes(double *lanes, const float32x4_t (&sums)[kVectors]) {
  for (int v = 0; v < kVectors; v++) {
    double *to = lanes + v * 4;
    vst1q_f64(to, vaddq_f64(vld1q_f64(to), vcvt_f64_f32(vget_low_f32(sums[v]))));
    vst1q_f64(to + 2, vaddq_f64(vld1q_f64(to + 2), vcvt_high_f64_f32(sums[v])));
  }
}

inline void add_to_lanes(const Tile &tile, const RowSquares (&sums)[kTileRows]) {
  if (!tile.lanes) return;
  for (uint64_t i = 0; i < kTileRows; i++) {
    add_to_lanes(tile.lanes[i].patch, sums[i].patch);
    add_to_lanes(tile.lanes[i].realised, sums[i].realised);
    add_to_lanes(tile.lanes[i].residual, sums[i].residual);
  }
}

void accumulate(const Tile &tile, bool fresh, TileValues &values) {
  for (uint64_t strip = 0; strip < kTileCols; strip += kStripCols) {
    Strip t;
    for (uint64_t i = 0; i < kTileRows; i++) {
      for (int v = 0; v < kVectors; v++) t[i][v] = fresh ? vdupq_n_f32(0) : vld1q_f32(values.at[i] + strip + v * 4);
    }
    accumulate_strip(tile, strip, t);
    for (uint64_t i = 0; i < kTileRows; i++) {
      for (int v = 0; v < kVectors; v++) vst1q_f32(values.at[i] + strip + v * 4, t[i][v]);
    }
  }
}

template <class Format>
void finish(const Tile &tile, const TileValues &values, const TileValues *given) {
  RowSquares sums[kTileRows];
  for (RowSquares &row : sums) clear(row);
  for (uint64_t strip = 0; strip < kTileCols; strip += kStripCols) {
    for (uint64_t i = 0; i < kTileRows; i++) {
      float32x4_t t[kVectors];
      for (int v = 0; v < kVectors; v++) t[v] = vld1q_f32(values.at[i] + strip + v * 4);
      finish_row<Format>(tile, i, strip, t, given, sums[i]);
    }
  }
  add_to_lanes(tile, sums);
}

// Strip by strip, so that t never leaves the registers.
template <class Format>
void merge(const Tile &first, uint64_t count) {
  constexpr uint64_t kStep = kTileCols * Format::kBytes;
  Tile tile = first;
  for (uint64_t n = 0; n < count; n++) {
    RowSquares sums[kTileRows];
    if (tile.lanes) {
      for (RowSquares &row : sums) clear(row);
    }
    // Rows are pages apart, where the hardware prefetcher starts anew on each: ask for the next four rows.
    for (uint64_t i = 0; i < kTileRows; i++) {
      for (uint64_t line = 0; line < kStep; line += 64) __builtin_prefetch(tile.w + (kTileRows + i) * tile.w_stride + line, 0, 2);
    }
    for (uint64_t strip = 0; strip < kTileCols; strip += kStripCols) {
      Strip t;
      for (uint64_t i = 0; i < kTileRows; i++) {
        for (int v = 0; v < kVectors; v++) t[i][v] = vdupq_n_f32(0);
      }
      accumulate_strip(tile, strip, t);
      for (uint64_t i = 0; i < kTileRows; i++) finish_row<Format>(tile, i, strip, t[i], nullptr, sums[i]);
    }
    add_to_lanes(tile, sums);
    tile.col_panel++;
    tile.w += kStep;
    tile.out += kStep;
  }
}

double fma_burst() {
  float32x4_t sums[16];
  for (int v = 0; v < 16; v++) sums[v] = vdupq_n_f32(0);
  const float32x4_t a = vdupq_n_f32(1e-3f), b = vdupq_n_f32(0.5f);
  for (int repeat = 0; repeat < 100000; repeat++) {
    for (int v = 0; v < 16; v++) sums[v] = vfmaq_f32(sums[v], a, b);
  }
  float32x4_t total = sums[0];
  for (int v = 1; v < 16; v++) total = vaddq_f32(total, sums[v]);
  volatile float sink = vaddvq_f32(total);
  (void)sink;
  return 100000.0 * 64;
}

}  // namespace

const Path kNeonPath = {
    accumulate,
    {finish<F32>, finish<F16>, finish<BF16>},
    {merge<F32>, merge<F16>, merge<BF16>},
    &kFloatKernels,
    &kDoubleKernels,
    fma_burst,
};

}  // namespace portllm
#endif
