// Merging a band of rows where only products are added: which tile comes when, and what happens at the edges.
#include <algorithm>
#include <cstring>

#include "tensor.h"
#include "tile_sizes.h"

using namespace portllm;

void portllm_tensor::merge_band(const Path &path, int32_t kept, bool large, const Rows &asked) {
  const auto [first_row, row_count, w, out, operands] = asked;
  const auto kernel = path.merge[dtype];
  const uint64_t element = element_bytes(dtype);
  const uint64_t panels = (cols + kTileCols - 1) / kTileCols;
  const uint64_t panel_bytes = kTileCols * sizeof(float) * total_rank;
  const uint64_t block = std::max<uint64_t>(1, kPanelBlockBytes / panel_bytes);
  const uint64_t band_rows = block < panels ? kBandRows : kTileRows;
  const bool stream = large && w != out && reinterpret_cast<uintptr_t>(out) % 64 == 0 && row_bytes % 64 == 0;
  const bool norms = kept == PORTLLM_KEEP_FIGURES, counts = kept != PORTLLM_KEEP_NOTHING;
  std::vector<RowLanes> lanes(norms ? band_rows + kTileRows : 0);
  std::vector<uint64_t> non_finite(counts ? band_rows + kTileRows : 0);
  alignas(64) uint8_t edge[kTileRows * kTileCols * 4];

  for (uint64_t band = first_row; band < first_row + row_count;) {
    const uint64_t band_group = band / kTileRows;
    const uint64_t band_end = std::min(first_row + row_count, (band_group * kTileRows) + band_rows);
    std::fill(lanes.begin(), lanes.end(), RowLanes{});
    std::fill(non_finite.begin(), non_finite.end(), 0);

    for (uint64_t panel_block = 0; panel_block < panels; panel_block += block) {
      const uint64_t panel_end = std::min(panels, panel_block + block);
      for (uint64_t group = band_group; group * kTileRows < band_end; group++) {
        const uint64_t from = std::max(band, group * kTileRows);
        const uint64_t to = std::min(band_end, (group + 1) * kTileRows);
        const uint64_t place = (group - band_group) * kTileRows;
        Tile tile{products.data(), products.size(), group, 0, nullptr, row_bytes, nullptr, row_bytes,
                  norms ? &lanes[place] : nullptr, counts ? &non_finite[place] : nullptr, large, stream};
        for (uint64_t panel = panel_block; panel < panel_end;) {
          tile.col_panel = panel;
          const uint64_t col = panel * kTileCols;
          const uint64_t tile_cols = std::min(kTileCols, cols - col);
          const uint64_t offset = (from - first_row) * row_bytes + col * element;
          const uint64_t whole = to - from == kTileRows ? std::min(panel_end, cols / kTileCols) - panel : 0;
          if (whole > 0) {
            tile.w = w + offset;
            tile.out = out + offset;
            kernel(tile, whole);
            panel += whole;
          } else {
            // An edge: the same kernel on a zero-padded copy. Padding yields zeros, which no figure sees.
            Tile padded = tile;
            padded.w = padded.out = edge;
            padded.w_stride = padded.out_stride = kTileCols * element;
            padded.large = padded.stream = false;
            RowLanes lanes_outside[kTileRows] = {};
            uint64_t count_outside[kTileRows] = {};
            std::memset(edge, 0, sizeof edge);
            const uint64_t skipped = from - group * kTileRows;
            for (uint64_t i = from; i < to; i++) {
              std::memcpy(edge + (i - group * kTileRows) * padded.w_stride, w + offset + (i - from) * row_bytes, tile_cols * element);
            }
            // Rows of the group that are not asked for have W = 0 here; their figures go nowhere.
            if (norms) {
              std::copy_n(tile.lanes + skipped, to - from, lanes_outside + skipped);
              padded.lanes = lanes_outside;
            }
            if (counts) padded.non_finite = count_outside;
            kernel(padded, 1);
            if (norms) std::copy_n(lanes_outside + skipped, to - from, tile.lanes + skipped);
            for (uint64_t i = skipped; counts && i < skipped + to - from; i++) tile.non_finite[i] += count_outside[i];
            for (uint64_t i = from; i < to; i++) {
              std::memcpy(out + offset + (i - from) * row_bytes, edge + (i - group * kTileRows) * padded.w_stride, tile_cols * element);
            }
            panel++;
          }
        }
      }
    }
    for (uint64_t i = band; counts && i < band_end; i++) {
      const uint64_t place = i - band_group * kTileRows;
      figures[i] = row_figures(norms ? &lanes[place] : nullptr, non_finite[place]);
    }
    band = band_end;
  }
}
