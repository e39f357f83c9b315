// Included by each path's file, within target_begin.h where it has one, after element_kernels.h and elements.h: plain loops
// over a tile that the compiler turns into the path's vectors. The build forbids contraction and reassociation.
namespace portllm {
namespace {

inline float add_square(float sum, float value) { return __builtin_fmaf(value, value, sum); }
inline double add_square(double sum, double value) { return sum + value * value; }
inline bool is_finite(float value) { return __builtin_fabsf(value) <= 3.40282346638528859812e38f; }
inline bool is_finite(double value) { return __builtin_fabs(value) <= 1.79769313486231570815e308; }

template <class Real>
void read(int32_t dtype, const uint8_t *from, uint64_t count, Real *to) {
  read_elements(dtype, from, count, to);
}

template <class Real>
void bracket(const TileOf<Real> &w, const TileValues &product, TileOf<Real> &u) {
  for (uint64_t i = 0; i < kTileRows; i++) {
    for (uint64_t j = 0; j < kTileCols; j++) u.at[i][j] = w.at[i][j] + static_cast<Real>(product.at[i][j]);
  }
}

// Exact for float32, so that it does not matter whether a processor fuses it into the sum.
template <class Real>
inline double square(Real u) {
  return static_cast<double>(u) * static_cast<double>(u);
}

template <class Real>
void add_row_squares(const TileOf<Real> &u, double (*lanes)[kLanes]) {
  for (uint64_t i = 0; i < kTileRows; i++) {
    double sums[kLanes];
    for (uint64_t l = 0; l < kLanes; l++) sums[l] = lanes[i][l];
    for (uint64_t j = 0; j < kTileCols; j += kLanes) {
      for (uint64_t l = 0; l < kLanes; l++) sums[l] = sums[l] + square(u.at[i][j + l]);
    }
    for (uint64_t l = 0; l < kLanes; l++) lanes[i][l] = sums[l];
  }
}

template <class Real>
void add_column_squares(const TileOf<Real> &u, uint64_t first, uint64_t end, double *squares) {
  for (uint64_t i = first; i < end; i++) {
    for (uint64_t j = 0; j < kTileCols; j++) squares[j] = squares[j] + square(u.at[i][j]);
  }
}

template <class Real>
inline void factors_of_row(uint64_t i, const double *row_factors, const double *column_factors, Real *factors) {
  for (uint64_t j = 0; j < kTileCols; j++) factors[j] = static_cast<Real>(row_factors ? row_factors[i] : column_factors[j]);
}

template <class Real>
void normalise(const TileOf<Real> &w, const TileOf<Real> &u, const double *row_factors, const double *column_factors, TileValues &t, TileOf<Real> &y) {
  for (uint64_t i = 0; i < kTileRows; i++) {
    Real factors[kTileCols];
    factors_of_row(i, row_factors, column_factors, factors);
    for (uint64_t j = 0; j < kTileCols; j++) {
      y.at[i][j] = factors[j] * u.at[i][j];
      t.at[i][j] = static_cast<float>(y.at[i][j] - w.at[i][j]);
    }
  }
}

template <class Real>
void add_normalised(const TileOf<Real> &w, const TileOf<Real> &u, const double *row_factors, const double *column_factors, double weight, TileValues &t) {
  for (uint64_t i = 0; i < kTileRows; i++) {
    Real factors[kTileCols];
    factors_of_row(i, row_factors, column_factors, factors);
    for (uint64_t j = 0; j < kTileCols; j++) {
      const Real added = factors[j] * u.at[i][j] - w.at[i][j];
      t.at[i][j] = t.at[i][j] + static_cast<float>(weight * static_cast<double>(added));
    }
  }
}

void add_dense(double scale, const double *value, const double *base, float *t) {
  double difference[kTileCols];
  for (uint64_t j = 0; j < kTileCols; j++) difference[j] = base ? value[j] - base[j] : value[j];
  for (uint64_t j = 0; j < kTileCols; j++) t[j] = t[j] + static_cast<float>(scale * difference[j]);
}

template <class Real>
void replace(int32_t dtype, const double *value, const Real *w, float *t, Real *y) {
  for (uint64_t j = 0; j < kTileCols; j++) t[j] = static_cast<float>(value[j] - static_cast<double>(w[j]));
  if (dtype == PORTLLM_F32 || dtype == PORTLLM_F64) {
    for (uint64_t j = 0; j < kTileCols; j++) y[j] = static_cast<Real>(value[j]);
  } else {
    for (uint64_t j = 0; j < kTileCols; j++) y[j] = static_cast<Real>(to_odd(value[j]));
  }
}

// Sums of squares of one row of a tile, by lanes.
template <class Real>
struct SquareSums {
  Real patch[kLanes], realised[kLanes], residual[kLanes];
};

inline void add_to_lanes(RowLanes &lanes, const SquareSums<float> &sums) {
  for (uint64_t l = 0; l < kLanes; l++) {
    lanes.patch[l] += static_cast<double>(sums.patch[l]);
    lanes.realised[l] += static_cast<double>(sums.realised[l]);
    lanes.residual[l] += static_cast<double>(sums.residual[l]);
  }
}

inline void add_to_lanes(RowLanes &lanes, const SquareSums<double> &sums) {
  for (uint64_t l = 0; l < kLanes; l++) {
    lanes.patch[l] += sums.patch[l];
    lanes.realised[l] += sums.realised[l];
    lanes.residual[l] += sums.residual[l];
  }
}

// The end of kCount columns of a row, from a multiple of kLanes on: y = W + t where it is not given, its rounding, and the
// figures, of which either may be null.
template <class Element, uint64_t kCount>
void finish_columns(const uint8_t *from, uint8_t *out, const float *t, const typename Element::Real *given, uint64_t *non_finite,
                    SquareSums<typename Element::Real> *sums) {
  using Real = typename Element::Real;
  using Storage = typename Element::Storage;
  Storage stored[kCount], rounded[kCount];
  Real w[kCount], added[kCount], difference[kCount];
  uint32_t bad[kCount];
  __builtin_memcpy(stored, from, sizeof stored);
  for (uint64_t j = 0; j < kCount; j++) {
    w[j] = Element::load(stored[j]);
    added[j] = t[j];
  }
  if (given) {
    for (uint64_t j = 0; j < kCount; j++) rounded[j] = Element::round(given[j]);
  } else {
    for (uint64_t j = 0; j < kCount; j++) rounded[j] = Element::round(w[j] + added[j]);
  }
  __builtin_memcpy(out, rounded, sizeof rounded);
  if (non_finite) {
    uint32_t count = 0;
    for (uint64_t j = 0; j < kCount; j++) count += is_finite(Element::load(rounded[j])) ? 0u : 1u;
    *non_finite += count;
  }
  if (!sums) return;
  for (uint64_t j = 0; j < kCount; j++) {
    const Real written = Element::load(rounded[j]);
    bad[j] = is_finite(written) ? 0 : 1;
    difference[j] = written - w[j];
  }
  for (uint64_t j = 0; j < kCount; j += kLanes) {
    for (uint64_t l = 0; l < kLanes; l++) {
      const Real lost = difference[j + l] - added[j + l];
      sums->patch[l] = add_square(sums->patch[l], bad[j + l] ? Real{0} : added[j + l]);
      sums->realised[l] = add_square(sums->realised[l], bad[j + l] ? Real{0} : difference[j + l]);
      sums->residual[l] = add_square(sums->residual[l], bad[j + l] ? Real{0} : lost);
    }
  }
}

template <class Element>
void finish_row_elements(const Tile &tile, uint64_t i, const float *t, const typename Element::Real *given) {
  SquareSums<typename Element::Real> sums = {};
  finish_columns<Element, kTileCols>(tile.w + i * tile.w_stride, tile.out + i * tile.out_stride, t, given,
                                     tile.non_finite ? &tile.non_finite[i] : nullptr, tile.lanes ? &sums : nullptr);
  if (tile.lanes) add_to_lanes(tile.lanes[i], sums);
}

// The end of a tile.
template <class Element>
void finish_elements(const Tile &tile, const TileValues &t, const TileOf<typename Element::Real> *given) {
  for (uint64_t i = 0; i < kTileRows; i++) finish_row_elements<Element>(tile, i, t.at[i], given ? given->at[i] : nullptr);
}

void finish_f8(int32_t dtype, const Tile &tile, const TileValues &t, const TileValues *y) {
  if (dtype == PORTLLM_F8_E4M3) finish_elements<ElementF8E4M3>(tile, t, y);
  else finish_elements<ElementF8E5M2>(tile, t, y);
}

void finish_f64(int32_t, const Tile &tile, const TileValues &t, const TileOf<double> *y) { finish_elements<ElementF64>(tile, t, y); }

constexpr ElementKernels<float> kFloatKernels = {
    read<float>, bracket<float>, add_row_squares<float>, add_column_squares<float>, normalise<float>,
    add_normalised<float>, add_dense, replace<float>, finish_f8,
};
constexpr ElementKernels<double> kDoubleKernels = {
    read<double>, bracket<double>, add_row_squares<double>, add_column_squares<double>, normalise<double>,
    add_normalised<double>, add_dense, replace<double>, finish_f64,
};

}  // namespace
}  // namespace portllm
