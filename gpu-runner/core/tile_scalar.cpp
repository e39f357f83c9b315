// Rule lora-f32/1 in plain C++: the specification that the other paths must equal bit for bit.
// The build forbids contraction (-ffp-contract=off), so only std::fma fuses.
#include <cmath>

#include "float_formats.h"
#include "tile.h"

namespace portllm {
namespace {

struct F32 {
  using Storage = uint32_t;
  static float load(Storage bits) { return float_of(bits); }
  static Storage round(float value) { return value != value ? kNanF32 : bits_of(value); }
};

struct F16 {
  using Storage = uint16_t;
  static float load(Storage bits) { return from_f16(bits); }
  static Storage round(float value) { return to_f16(value); }
};

struct BF16 {
  using Storage = uint16_t;
  static float load(Storage bits) { return from_bf16(bits); }
  static Storage round(float value) { return to_bf16(value); }
};

void accumulate(const Tile &tile, bool fresh, TileValues &t) {
  for (uint64_t i = 0; i < kTileRows; i++) {
    float *row = t.at[i];
    if (fresh) std::memset(row, 0, sizeof t.at[i]);
    for (uint64_t p = 0; p < tile.product_count; p++) {
      const PackedProduct &product = tile.products[p];
      const float *left = product.left + tile.row_group * product.rank * kTileRows + i;
      const float *right = product.right + tile.col_panel * product.rank * kTileCols;
      float d[kTileCols] = {};
      for (uint64_t k = 0; k < product.rank; k++) {
        for (uint64_t j = 0; j < kTileCols; j++) {
          d[j] = std::fma(left[k * kTileRows], right[k * kTileCols + j], d[j]);
        }
      }
      for (uint64_t j = 0; j < kTileCols; j++) {
        const float scaled = product.scale * d[j];
        row[j] = row[j] + scaled;
      }
    }
  }
}

template <class Format>
void finish(const Tile &tile, const TileValues &t, const TileValues *given) {
  for (uint64_t i = 0; i < kTileRows; i++) {
    const uint8_t *w_row = tile.w + i * tile.w_stride;
    uint8_t *out_row = tile.out + i * tile.out_stride;
    float patch[kLanes] = {}, realised[kLanes] = {}, residual[kLanes] = {};
    for (uint64_t j = 0; j < kTileCols; j++) {
      typename Format::Storage stored;
      std::memcpy(&stored, w_row + j * sizeof stored, sizeof stored);
      const float w = Format::load(stored);
      const float y = given ? given->at[i][j] : w + t.at[i][j];
      const typename Format::Storage rounded = Format::round(y);
      std::memcpy(out_row + j * sizeof rounded, &rounded, sizeof rounded);
      if (!tile.lanes) continue;
      const float written = Format::load(rounded);
      if (!std::isfinite(written)) {
        tile.lanes[i].non_finite++;
        continue;
      }
      const uint64_t lane = j % kLanes;
      const float added = t.at[i][j], difference = written - w, lost = difference - added;
      patch[lane] = std::fma(added, added, patch[lane]);
      realised[lane] = std::fma(difference, difference, realised[lane]);
      residual[lane] = std::fma(lost, lost, residual[lane]);
    }
    if (!tile.lanes) continue;
    for (uint64_t l = 0; l < kLanes; l++) {
      tile.lanes[i].patch[l] += static_cast<double>(patch[l]);
      tile.lanes[i].realised[l] += static_cast<double>(realised[l]);
      tile.lanes[i].residual[l] += static_cast<double>(residual[l]);
    }
  }
}

template <class Format>
void merge(const Tile &first, uint64_t count) {
  TileValues t;
  Tile tile = first;
  for (uint64_t n = 0; n < count; n++) {
    accumulate(tile, true, t);
    finish<Format>(tile, t, nullptr);
    tile.col_panel++;
    tile.w += kTileCols * sizeof(typename Format::Storage);
    tile.out += kTileCols * sizeof(typename Format::Storage);
  }
}

double fma_burst() {
  float sums[kTileCols] = {};
  for (int repeat = 0; repeat < 10000; repeat++) {
    for (uint64_t j = 0; j < kTileCols; j++) sums[j] = std::fma(1e-3f, 0.5f, sums[j]);
  }
  volatile float sink = sums[0];
  (void)sink;
  return 10000.0 * kTileCols;
}

}  // namespace

const Path kScalarPath = {
    accumulate,
    {finish<F32>, finish<F16>, finish<BF16>},
    {merge<F32>, merge<F16>, merge<BF16>},
    fma_burst,
};

}  // namespace portllm
