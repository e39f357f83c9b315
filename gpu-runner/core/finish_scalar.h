// The end of a tile in plain C++, for every dtype: y, its rounding, and the figures.
#pragma once

#include <cmath>

#include "elements.h"
#include "tile.h"

namespace portllm {

inline float add_square(float sum, float value) { return std::fma(value, value, sum); }
inline double add_square(double sum, double value) { return sum + value * value; }

// Writes y rounded, y being W + t where none is given, and the figures of t and of what was written.
template <class Element>
void finish_scalar(const Tile &tile, const TileValues &t, const TileOf<typename Element::Real> *given) {
  using Real = typename Element::Real;
  for (uint64_t i = 0; i < kTileRows; i++) {
    const uint8_t *w_row = tile.w + i * tile.w_stride;
    uint8_t *out_row = tile.out + i * tile.out_stride;
    Real patch[kLanes] = {}, realised[kLanes] = {}, residual[kLanes] = {};
    for (uint64_t j = 0; j < kTileCols; j++) {
      typename Element::Storage stored;
      std::memcpy(&stored, w_row + j * sizeof stored, sizeof stored);
      const Real w = Element::load(stored);
      const Real added = t.at[i][j];
      const Real y = given ? given->at[i][j] : w + added;
      const typename Element::Storage rounded = Element::round(y);
      std::memcpy(out_row + j * sizeof rounded, &rounded, sizeof rounded);
      const Real written = Element::load(rounded);
      if (!std::isfinite(written)) {
        if (tile.non_finite) tile.non_finite[i]++;
        continue;
      }
      const uint64_t lane = j % kLanes;
      const Real difference = written - w;
      patch[lane] = add_square(patch[lane], added);
      realised[lane] = add_square(realised[lane], difference);
      residual[lane] = add_square(residual[lane], difference - added);
    }
    if (!tile.lanes) continue;
    for (uint64_t l = 0; l < kLanes; l++) {
      tile.lanes[i].patch[l] += static_cast<double>(patch[l]);
      tile.lanes[i].realised[l] += static_cast<double>(realised[l]);
      tile.lanes[i].residual[l] += static_cast<double>(residual[l]);
    }
  }
}

}  // namespace portllm
