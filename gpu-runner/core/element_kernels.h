// The work on a tile's elements beside the products: the same text for every path (element_kernels_body.h), without fused
// operations but for the figures', and compiled once for each, so that wide vectors are used where there are.
#pragma once

#include <cstdint>

#include "tile.h"

namespace portllm {

// Real is the type that W is computed in: double for F64, float for all others.
template <class Real>
struct ElementKernels {
  // `count` stored elements, widened; Real is double, or holds every value of the dtype.
  void (*read)(int32_t dtype, const uint8_t *from, uint64_t count, Real *to);
  // u = w + product, which DoRA normalises
  void (*bracket)(const TileOf<Real> &w, const TileValues &product, TileOf<Real> &u);
  // Sums of squares: of each row in its lanes, of each column over rows [first, end) in order.
  void (*add_row_squares)(const TileOf<Real> &u, double (*lanes)[kLanes]);
  void (*add_column_squares)(const TileOf<Real> &u, uint64_t first, uint64_t end, double *squares);
  // DoRA's factors are of the four rows, or of the 64 columns; the others are null. Either y is the normalised bracket, and
  // t its distance from w, or t grows by weight times that distance.
  void (*normalise)(const TileOf<Real> &w, const TileOf<Real> &u, const double *row_factors, const double *column_factors, TileValues &t, TileOf<Real> &y);
  void (*add_normalised)(const TileOf<Real> &w, const TileOf<Real> &u, const double *row_factors, const double *column_factors, double weight, TileValues &t);
  // One row: t += scale * (value - base), or scale * value where base is null.
  void (*add_dense)(double scale, const double *value, const double *base, float *t);
  // One row: y is the value, such that rounding y to the dtype is rounding the value once, and t its distance from w.
  void (*replace)(int32_t dtype, const double *value, const Real *w, float *t, Real *y);
  // As Path's, for the dtypes that it has none for.
  void (*finish)(int32_t dtype, const Tile &tile, const TileValues &t, const TileOf<Real> *y);
};

}  // namespace portllm
