// The 4 x 64 tile on NEON: the 16 accumulators of a strip of 4 x 16 stay in registers over the whole rank, so one step of k
// costs 5 loads and 16 fused multiply-adds, which take their factor from the left as a lane.
#if defined(__aarch64__)
#include <arm_neon.h>

#include <cstring>

#include "element_kernels.h"
#include "elements.h"
#include "float_formats.h"
#include "tile.h"

#include "element_kernels_body.h"

namespace portllm {
namespace {

constexpr uint64_t kStripCols = 16;
constexpr uint64_t kWidth = 4;
constexpr int kVectors = kStripCols / kWidth;
using Vector = float32x4_t;
using Values = Vector[kVectors];
using Strip = Values[kTileRows];

inline Vector zero() { return vdupq_n_f32(0); }
inline Vector load(const float *from) { return vld1q_f32(from); }
inline void store(float *to, Vector values) { vst1q_f32(to, values); }
inline Vector fused(Vector a, Vector b, Vector c) { return vfmaq_f32(c, a, b); }

inline bool all_below(const Values &y, uint32_t bits) {
  uint32x4_t largest = vdupq_n_u32(0);
  for (int v = 0; v < kVectors; v++) largest = vmaxq_u32(largest, vandq_u32(vreinterpretq_u32_f32(y[v]), vdupq_n_u32(0x7fffffff)));
  return vmaxvq_u32(largest) < bits;
}

struct F32 {
  using Element = ElementF32;
  static constexpr uint32_t kOverflow = 0x7f800000;
  struct Row {
    Vector at[kVectors];
  };
  static inline Row load_row(const uint8_t *from) {
    Row row;
    for (int v = 0; v < kVectors; v++) row.at[v] = vreinterpretq_f32_u8(vld1q_u8(from + v * 16));
    return row;
  }
  static inline void store_row(uint8_t *to, const Row &row) {
    for (int v = 0; v < kVectors; v++) vst1q_u8(to + v * 16, vreinterpretq_u8_f32(row.at[v]));
  }
  static inline void widen(const Row &row, Values &values) {
    for (int v = 0; v < kVectors; v++) values[v] = row.at[v];
  }
  static inline Row round(const Values &y) { return {y[0], y[1], y[2], y[3]}; }
};

// Sixteen elements of two bytes.
struct Halves {
  struct Row {
    uint16x4_t at[kVectors];
  };
  static inline Row load_row(const uint8_t *from) {
    Row row;
    for (int v = 0; v < kVectors; v++) row.at[v] = vreinterpret_u16_u8(vld1_u8(from + v * 8));
    return row;
  }
  static inline void store_row(uint8_t *to, const Row &row) {
    for (int v = 0; v < kVectors; v++) vst1_u8(to + v * 8, vreinterpret_u8_u16(row.at[v]));
  }
};

struct BF16 : Halves {
  using Element = ElementBF16;
  static constexpr uint32_t kOverflow = 0x7f7f8000;
  static inline void widen(const Row &row, Values &values) {
    for (int v = 0; v < kVectors; v++) values[v] = vreinterpretq_f32_u32(vshll_n_u16(row.at[v], 16));
  }
  // The integer steps of to_bf16.
  static inline Row round(const Values &y) {
    Row row;
    for (int v = 0; v < kVectors; v++) {
      const uint32x4_t bits = vreinterpretq_u32_f32(y[v]);
      const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
      row.at[v] = vshrn_n_u32(vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd), 16);
    }
    return row;
  }
};

struct F16 : Halves {
  using Element = ElementF16;
  static constexpr uint32_t kOverflow = 0x477ff000;
  static inline void widen(const Row &row, Values &values) {
    for (int v = 0; v < kVectors; v++) values[v] = vcvt_f32_f16(vreinterpret_f16_u16(row.at[v]));
  }
  static inline Row round(const Values &y) {
    Row row;
    for (int v = 0; v < kVectors; v++) row.at[v] = vreinterpret_u16_f16(vcvt_f16_f32(y[v]));
    return row;
  }
};

// t + one product, over one strip.
inline void add_product(const Tile &tile, const PackedProduct &product, uint64_t strip, Strip &t) {
  const float *left = product.left + tile.row_group * product.rank * kTileRows;
  const float *right = product.right + tile.col_panel * product.rank * kTileCols + strip;
  Strip d;
  for (uint64_t i = 0; i < kTileRows; i++) {
    for (int v = 0; v < kVectors; v++) d[i][v] = zero();
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

}  // namespace
}  // namespace portllm

#include "tile_strips.h"

namespace portllm {
namespace {

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
