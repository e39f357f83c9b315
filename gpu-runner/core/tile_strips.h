// The 4 x 64 tile in four strips of 4 x 16, for paths whose registers hold the sums of one strip: all but its
// multiply-adds. Lane for lane the same operations in the same order as tile_scalar.cpp.
//
// Included by tile_avx2.cpp and tile_neon.cpp after their vectors, formats and add_product. A format gives 16 elements of
// W as float32, and back; what `round` gives counts only where every |y| is below kOverflow, as float32 bits, from which
// on outputs are not finite. Rows with others are few, and left to the plain loops of finish_columns.
#pragma once

namespace portllm {
namespace {

static_assert(kStripCols == kLanes, "an element's column in its strip is its lane");

template <class Format>
__attribute__((noinline, cold)) void finish_special_columns(const uint8_t *w, uint8_t *out, const float *t, const float *given,
                                                            uint64_t *non_finite, SquareSums<float> *sums) {
  finish_columns<typename Format::Element, kStripCols>(w, out, t, given, non_finite, sums);
}

inline void add_squares(float *sums, const Values &values) {
  for (int v = 0; v < kVectors; v++) store(sums + v * kWidth, fused(values[v], values[v], load(sums + v * kWidth)));
}

// One row of a strip from t on: y = W + t where it is not given, the rounding, the figures where `sums` is not null.
template <class Format>
inline void finish_strip_row(const Tile &tile, uint64_t i, uint64_t strip, const Values &t, const TileValues *given, SquareSums<float> *sums) {
  constexpr uint64_t kBytes = sizeof(typename Format::Element::Storage);
  const uint8_t *from = tile.w + i * tile.w_stride + strip * kBytes;
  uint8_t *out = tile.out + i * tile.out_stride + strip * kBytes;
  Values w, y;
  Format::widen(Format::load_row(from), w);
  for (int v = 0; v < kVectors; v++) y[v] = given ? load(given->at[i] + strip + v * kWidth) : w[v] + t[v];
  if (__builtin_expect(!all_below(y, Format::kOverflow), 0)) {
    float row_t[kStripCols];
    for (int v = 0; v < kVectors; v++) store(row_t + v * kWidth, t[v]);
    return finish_special_columns<Format>(from, out, row_t, given ? given->at[i] + strip : nullptr,
                                          tile.non_finite ? &tile.non_finite[i] : nullptr, sums);
  }
  const typename Format::Row row = Format::round(y);
  Format::store_row(out, row);
  if (!sums) return;
  Values written, difference, lost;
  Format::widen(row, written);
  for (int v = 0; v < kVectors; v++) {
    difference[v] = written[v] - w[v];
    lost[v] = difference[v] - t[v];
  }
  add_squares(sums->patch, t);
  add_squares(sums->realised, difference);
  add_squares(sums->residual, lost);
}

void accumulate(const Tile &tile, bool fresh, TileValues &values) {
  for (uint64_t strip = 0; strip < kTileCols; strip += kStripCols) {
    Strip t;
    for (uint64_t i = 0; i < kTileRows; i++) {
      for (int v = 0; v < kVectors; v++) t[i][v] = fresh ? zero() : load(values.at[i] + strip + v * kWidth);
    }
    for (uint64_t p = 0; p < tile.product_count; p++) add_product(tile, tile.products[p], strip, t);
    for (uint64_t i = 0; i < kTileRows; i++) {
      for (int v = 0; v < kVectors; v++) store(values.at[i] + strip + v * kWidth, t[i][v]);
    }
  }
}

template <class Format>
void finish(const Tile &tile, const TileValues &values, const TileValues *given) {
  for (uint64_t i = 0; i < kTileRows; i++) {
    SquareSums<float> sums = {};
    for (uint64_t strip = 0; strip < kTileCols; strip += kStripCols) {
      Values t;
      for (int v = 0; v < kVectors; v++) t[v] = load(values.at[i] + strip + v * kWidth);
      finish_strip_row<Format>(tile, i, strip, t, given, tile.lanes ? &sums : nullptr);
    }
    if (tile.lanes) add_to_lanes(tile.lanes[i], sums);
  }
}

// Strip by strip, so that t never leaves the registers.
template <class Format, bool kFigures>
inline void merge_run(const Tile &first, uint64_t count) {
  constexpr uint64_t kStep = kTileCols * sizeof(typename Format::Element::Storage);
  Tile tile = first;
  for (uint64_t n = 0; n < count; n++) {
    SquareSums<float> sums[kTileRows];
    if (kFigures) std::memset(sums, 0, sizeof sums);
    prefetch(tile, kStep);
    for (uint64_t strip = 0; strip < kTileCols; strip += kStripCols) {
      Strip t;
      for (uint64_t i = 0; i < kTileRows; i++) {
        for (int v = 0; v < kVectors; v++) t[i][v] = zero();
      }
      for (uint64_t p = 0; p < tile.product_count; p++) add_product(tile, tile.products[p], strip, t);
      for (uint64_t i = 0; i < kTileRows; i++) finish_strip_row<Format>(tile, i, strip, t[i], nullptr, kFigures ? &sums[i] : nullptr);
    }
    for (uint64_t i = 0; kFigures && i < kTileRows; i++) add_to_lanes(tile.lanes[i], sums[i]);
    tile.col_panel++;
    tile.w += kStep;
    tile.out += kStep;
  }
}

template <class Format>
void merge(const Tile &first, uint64_t count) {
  if (first.lanes) merge_run<Format, true>(first, count);
  else merge_run<Format, false>(first, count);
}

}  // namespace
}  // namespace portllm
