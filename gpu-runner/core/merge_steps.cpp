// Merging a band of rows where more than products is added, or into a dtype that has no kernels of its own: products come
// from the path's accumulate, all else from its element kernels.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "element_kernels.h"
#include "parallel.h"
#include "status.h"
#include "tensor.h"
#include "tile_sizes.h"

namespace portllm {
namespace {

// One tile's place in the tensor; rows [from, to) of its group are asked for.
struct Place {
  uint64_t group;
  uint64_t panel;
  uint64_t from;
  uint64_t to;
  uint64_t col;
  uint64_t cols;

  uint64_t skipped() const { return from - group * kTileRows; }
  bool whole() const { return to - from == kTileRows && cols == kTileCols; }
};

// Visits the tiles of rows [begin, end) and panels [first_panel, last_panel): groups in order within a block of panels
// whose part of the right factors stays in the cache.
template <class Visit>
void walk(const portllm_tensor &tensor, uint64_t begin, uint64_t end, uint64_t first_panel, uint64_t last_panel, Visit visit) {
  const uint64_t panel_bytes = kTileCols * sizeof(float) * std::max<uint64_t>(1, tensor.total_rank);
  const uint64_t block = std::max<uint64_t>(1, kPanelBlockBytes / panel_bytes);
  for (uint64_t panel_block = first_panel; panel_block < last_panel; panel_block += block) {
    for (uint64_t group = begin / kTileRows; group * kTileRows < end; group++) {
      const uint64_t from = std::max(begin, group * kTileRows), to = std::min(end, (group + 1) * kTileRows);
      for (uint64_t panel = panel_block; panel < std::min(last_panel, panel_block + block); panel++) {
        const uint64_t col = panel * kTileCols;
        visit(Place{group, panel, from, to, col, std::min(kTileCols, tensor.cols - col)});
      }
    }
  }
}

// The magnitude over the norm of a DoRA row or column; NaN, and so an output that counts as non-finite, where there is none.
double dora_factor(float magnitude, double squares) {
  const double norm = std::sqrt(squares);
  if (!(norm > 0) || !std::isfinite(norm)) return std::numeric_limits<double>::quiet_NaN();
  return static_cast<double>(magnitude) / norm;
}

// Rows of one tensor being measured or merged by one thread. Real is the type that W is computed in.
template <class Real>
class StepMerge {
 public:
  StepMerge(portllm_tensor &tensor, const Path &path, const Rows &rows)
      : tensor_(tensor), path_(path), kernels_(kernels_of(path)), rows_(rows) {}

  // Adds the rows' squares to those of each column in [first_panel, last_panel), row after row.
  void measure(uint64_t first_panel, uint64_t last_panel) {
    walk(tensor_, rows_.first, rows_.first + rows_.count, first_panel, last_panel, [&](const Place &place) {
      TileOf<Real> w, u;
      read_w(place, w);
      for (Step &step : tensor_.steps) {
        if (!step.by_columns) continue;
        bracket(place, step, w, u);
        kernels_.add_column_squares(u, place.skipped(), place.skipped() + place.to - place.from, &step.column_squares[place.col]);
      }
    });
  }

  void merge(int32_t kept, bool large) {
    const bool norms = kept == PORTLLM_KEEP_FIGURES, counts = kept != PORTLLM_KEEP_NOTHING;
    uint64_t band_rows = kBandRows;
    uint64_t by_rows = 0;
    for (const Step &step : tensor_.steps) by_rows += step.kind == Step::kDora && !step.by_columns ? 1 : 0;
    if (by_rows) band_rows = std::min(kBandRows, std::max<uint64_t>(4 * kTileRows, kDoraBandBytes / tensor_.row_bytes / kTileRows * kTileRows));
    stream_ = large && rows_.w != rows_.out && reinterpret_cast<uintptr_t>(rows_.out) % 64 == 0 && tensor_.row_bytes % 64 == 0;
    const uint64_t panels = (tensor_.cols + kTileCols - 1) / kTileCols, end = rows_.first + rows_.count;
    for (uint64_t band = rows_.first; band < end;) {
      band_group_ = band / kTileRows;
      const uint64_t band_end = std::min(end, band_group_ * kTileRows + band_rows);
      lanes_.assign(norms ? band_rows : 0, RowLanes{});
      non_finite_.assign(counts ? band_rows : 0, 0);
      row_factors_.resize(by_rows * band_rows);
      double *factors = row_factors_.data();
      for (const Step &step : tensor_.steps) {
        if (step.kind != Step::kDora || step.by_columns) continue;
        row_factors(step, band, band_end, panels, factors);
        factors += band_rows;
      }
      band_rows_ = band_rows;
      walk(tensor_, band, band_end, 0, panels, [&](const Place &place) { merge_tile(place); });
      for (uint64_t i = band; counts && i < band_end; i++) {
        const uint64_t place = i - band_group_ * kTileRows;
        tensor_.figures[i] = row_figures(norms ? &lanes_[place] : nullptr, non_finite_[place]);
      }
      band = band_end;
    }
  }

 private:
  static const ElementKernels<Real> &kernels_of(const Path &path);

  Tile tile_at(const Place &place, const Step &step) const {
    Tile tile{};
    tile.products = tensor_.products.data() + step.first_product;
    tile.product_count = step.product_count;
    tile.row_group = place.group;
    tile.col_panel = place.panel;
    return tile;
  }

  // The tile's W, zero where it reaches beyond the rows asked for or the tensor's columns.
  void read_w(const Place &place, TileOf<Real> &w) const {
    if (!place.whole()) std::memset(&w, 0, sizeof w);
    for (uint64_t i = place.from; i < place.to; i++) {
      const uint8_t *from = rows_.w + (i - rows_.first) * tensor_.row_bytes + place.col * element_bytes(tensor_.dtype);
      kernels_.read(tensor_.dtype, from, place.cols, w.at[i - place.group * kTileRows]);
    }
  }

  // One row of an operand's tile, in float64.
  void read_operand(const Place &place, uint64_t operand, uint64_t row, double *to) const {
    const int32_t dtype = tensor_.operand_dtypes[operand];
    const uint8_t *from = rows_.operands[operand] + (row - rows_.first) * tensor_.operand_row_bytes(operand) + place.col * element_bytes(dtype);
    path_.doubles->read(dtype, from, place.cols, to);
  }

  // W + scale * (left @ right), which DoRA normalises.
  void bracket(const Place &place, const Step &step, const TileOf<Real> &w, TileOf<Real> &u) const {
    TileValues product;
    path_.accumulate(tile_at(place, step), true, product);
    kernels_.bracket(w, product, u);
  }

  void row_factors(const Step &step, uint64_t band, uint64_t band_end, uint64_t panels, double *factors) {
    squares_.assign(rounded_up(band_end - band_group_ * kTileRows, kTileRows) * kLanes, 0.0);
    walk(tensor_, band, band_end, 0, panels, [&](const Place &place) {
      TileOf<Real> w, u;
      read_w(place, w);
      bracket(place, step, w, u);
      kernels_.add_row_squares(u, reinterpret_cast<double(*)[kLanes]>(&squares_[(place.group - band_group_) * kTileRows * kLanes]));
    });
    for (uint64_t i = band; i < band_end; i++) {
      const uint64_t place = i - band_group_ * kTileRows;
      factors[place] = dora_factor(step.magnitude[i], sum_lanes(&squares_[place * kLanes]));
    }
  }

  void merge_tile(const Place &place) {
    TileOf<Real> w, y;
    TileValues t;
    bool fresh = true, given = false;
    read_w(place, w);
    uint64_t factors = (place.group - band_group_) * kTileRows;
    for (const Step &step : tensor_.steps) {
      if (step.kind == Step::kProducts) {
        path_.accumulate(tile_at(place, step), fresh, t);
        fresh = false;
        continue;
      }
      if (fresh) std::memset(&t, 0, sizeof t);
      fresh = false;
      if (step.kind == Step::kDora) {
        TileOf<Real> u;
        bracket(place, step, w, u);
        const double *by_row = step.by_columns ? nullptr : &row_factors_[factors];
        const double *by_column = step.by_columns ? &step.column_factors[place.col] : nullptr;
        given = tensor_.steps.size() == 1 && step.weight == 1;
        if (given) kernels_.normalise(w, u, by_row, by_column, t, y);
        else kernels_.add_normalised(w, u, by_row, by_column, step.weight, t);
        if (!step.by_columns) factors += band_rows_;
      } else if (step.kind == Step::kDense) {
        add_dense(place, step, t);
      } else {
        given = true;
        replace(place, step, w, t, y);
      }
    }
    if (place.cols < kTileCols) {
      for (uint64_t i = 0; i < kTileRows; i++) {
        std::fill(t.at[i] + place.cols, t.at[i] + kTileCols, 0.0f);
        if (given) std::fill(y.at[i] + place.cols, y.at[i] + kTileCols, Real{0});
      }
    }
    finish(place, t, given ? &y : nullptr);
  }

  void add_dense(const Place &place, const Step &step, TileValues &t) const {
    for (uint64_t i = place.from; i < place.to; i++) {
      double value[kTileCols] = {}, base[kTileCols] = {};
      read_operand(place, step.first_operand, i, value);
      if (step.base_dtype != -1) read_operand(place, step.first_operand + 1, i, base);
      kernels_.add_dense(step.scale, value, step.base_dtype != -1 ? base : nullptr, t.at[i - place.group * kTileRows]);
    }
  }

  void replace(const Place &place, const Step &step, const TileOf<Real> &w, TileValues &t, TileOf<Real> &y) const {
    std::memset(&y, 0, sizeof y);
    for (uint64_t i = place.from; i < place.to; i++) {
      double value[kTileCols] = {};
      const uint64_t row = i - place.group * kTileRows;
      read_operand(place, step.first_operand, i, value);
      kernels_.replace(tensor_.dtype, value, w.at[row], t.at[row], y.at[row]);
    }
  }

  void finish_tile(const Tile &tile, const TileValues &t, const TileOf<Real> *y) const;

  // Rounds, writes and counts; an edge on a zero-padded copy, in which rows that are not asked for count nowhere.
  void finish(const Place &place, const TileValues &t, const TileOf<Real> *y) {
    const uint64_t offset = (place.from - rows_.first) * tensor_.row_bytes + place.col * element_bytes(tensor_.dtype);
    RowLanes *lanes = lanes_.empty() ? nullptr : &lanes_[(place.group - band_group_) * kTileRows];
    uint64_t *non_finite = non_finite_.empty() ? nullptr : &non_finite_[(place.group - band_group_) * kTileRows];
    Tile tile{};
    tile.w_stride = tile.out_stride = tensor_.row_bytes;
    tile.w = rows_.w + offset;
    tile.out = rows_.out + offset;
    tile.lanes = lanes;
    tile.non_finite = non_finite;
    tile.stream = stream_;
    if (place.whole()) return finish_tile(tile, t, y);

    alignas(64) uint8_t edge[kTileRows * kTileCols * sizeof(double)] = {};
    RowLanes discarded[kTileRows] = {};
    uint64_t counted[kTileRows] = {};
    const uint64_t row_bytes = kTileCols * element_bytes(tensor_.dtype), used = place.cols * element_bytes(tensor_.dtype);
    const uint64_t rows = place.to - place.from, skipped = place.skipped();
    for (uint64_t i = 0; i < rows; i++) std::memcpy(edge + (skipped + i) * row_bytes, tile.w + i * tensor_.row_bytes, used);
    Tile padded = tile;
    padded.w = padded.out = edge;
    padded.w_stride = padded.out_stride = row_bytes;
    padded.stream = false;
    if (lanes) {
      padded.lanes = discarded;
      std::copy(lanes + skipped, lanes + skipped + rows, discarded + skipped);
    }
    if (non_finite) padded.non_finite = counted;
    finish_tile(padded, t, y);
    if (lanes) std::copy(discarded + skipped, discarded + skipped + rows, lanes + skipped);
    for (uint64_t i = skipped; non_finite && i < skipped + rows; i++) non_finite[i] += counted[i];
    for (uint64_t i = 0; i < rows; i++) std::memcpy(tile.out + i * tensor_.row_bytes, edge + (skipped + i) * row_bytes, used);
  }

  portllm_tensor &tensor_;
  const Path &path_;
  const ElementKernels<Real> &kernels_;
  const Rows &rows_;
  bool stream_ = false;
  uint64_t band_group_ = 0;
  uint64_t band_rows_ = 0;
  std::vector<RowLanes> lanes_;       // of the band's rows
  std::vector<uint64_t> non_finite_;
  std::vector<double> row_factors_;   // [DoRA by rows][band_rows_]
  std::vector<double> squares_;       // [band_rows_][kLanes]
};

template <>
const ElementKernels<float> &StepMerge<float>::kernels_of(const Path &path) { return *path.floats; }

template <>
const ElementKernels<double> &StepMerge<double>::kernels_of(const Path &path) { return *path.doubles; }

template <>
void StepMerge<float>::finish_tile(const Tile &tile, const TileValues &t, const TileOf<float> *y) const {
  if (tensor_.dtype <= PORTLLM_BF16) path_.finish[tensor_.dtype](tile, t, y);
  else kernels_.finish(tensor_.dtype, tile, t, y);
}

template <>
void StepMerge<double>::finish_tile(const Tile &tile, const TileValues &t, const TileOf<double> *y) const {
  kernels_.finish(tensor_.dtype, tile, t, y);
}

}  // namespace
}  // namespace portllm

using namespace portllm;

void portllm_tensor::merge_steps(const Path &path, int32_t kept, bool large, const Rows &asked) {
  if (dtype == PORTLLM_F64) StepMerge<double>(*this, path, asked).merge(kept, large);
  else StepMerge<float>(*this, path, asked).merge(kept, large);
}

void portllm_tensor::measure(const Path &path, uint32_t threads, uint64_t first_row, uint64_t row_count, const uint8_t *w) {
  const std::lock_guard<std::mutex> lock(measure_mutex);
  if (first_row != measured_rows) {
    fail(PORTLLM_INVALID, "rows are measured in order, each once: row %llu is next, not row %llu",
         static_cast<unsigned long long>(measured_rows), static_cast<unsigned long long>(first_row));
  }
  const Rows asked{first_row, row_count, w, nullptr, nullptr};
  const uint64_t panels = (cols + kTileCols - 1) / kTileCols;
  const uint64_t worth = row_count * cols * (total_rank + 8) / kThreadMultiplyAdds;
  const uint64_t shares = std::max<uint64_t>(1, std::min({uint64_t{threads}, panels, worth})), share = (panels + shares - 1) / shares;
  parallel(shares, [&](uint64_t index) {
    const FloatMode mode;
    const uint64_t begin = std::min(panels, index * share), end = std::min(panels, begin + share);
    if (dtype == PORTLLM_F64) StepMerge<double>(*this, path, asked).measure(begin, end);
    else StepMerge<float>(*this, path, asked).measure(begin, end);
  });
  measured_rows += row_count;
  if (measured_rows < rows) return;
  for (Step &step : steps) {
    for (uint64_t j = 0; step.by_columns && j < cols; j++) step.column_factors[j] = dora_factor(step.magnitude[j], step.column_squares[j]);
  }
}
