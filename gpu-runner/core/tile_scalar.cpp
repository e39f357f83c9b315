// Rule lora-f32/1 in plain C++: the specification that the other paths must equal bit for bit.
// The build forbids contraction (-ffp-contract=off), so only std::fma fuses.
#include <cmath>
#include <cstring>

#include "element_kernels.h"
#include "elements.h"
#include "tile.h"

#include "element_kernels_body.h"

namespace portllm {
namespace {

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

template <class Element>
void merge(const Tile &first, uint64_t count) {
  TileValues t;
  Tile tile = first;
  for (uint64_t n = 0; n < count; n++) {
    accumulate(tile, true, t);
    finish_elements<Element>(tile, t, nullptr);
    tile.col_panel++;
    tile.w += kTileCols * sizeof(typename Element::Storage);
    tile.out += kTileCols * sizeof(typename Element::Storage);
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
    {finish_elements<ElementF32>, finish_elements<ElementF16>, finish_elements<ElementBF16>},
    {merge<ElementF32>, merge<ElementF16>, merge<ElementBF16>},
    &kFloatKernels,
    &kDoubleKernels,
    fma_burst,
};

}  // namespace portllm
