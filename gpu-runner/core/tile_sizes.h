// How much is worked on at once. No output depends on it. PORTLLM_SMALL_TILES is for the fuzz targets, whose small
// inputs are then many tiles, bands, pieces and threads.
#pragma once

#include <cstdint>

namespace portllm {

#if defined(PORTLLM_SMALL_TILES)
constexpr uint64_t kPanelBlockBytes = 1024;
constexpr uint64_t kBandRows = 8;
constexpr uint64_t kDoraBandBytes = 1024;
constexpr uint64_t kLargeBytes = 256;
constexpr uint64_t kThreadMultiplyAdds = 256;
constexpr uint64_t kTileBytes = 512;
constexpr uint64_t kCopyBytes = 100;
constexpr uint64_t kBlockBytes = 16;
constexpr uint64_t kReadBytes = 64;
#else
// rank x panel of packed `right` that is walked before the next rows: half of a common 1 MiB L2 cache.
constexpr uint64_t kPanelBlockBytes = 512 * 1024;
// Rows whose lanes are kept where there are several blocks of panels: 100 KiB.
constexpr uint64_t kBandRows = 256;
// DoRA reads a band's rows twice: few enough of them that the second time is from the cache.
constexpr uint64_t kDoraBandBytes = 256 * 1024;
// Where a merge's output is larger than this it will leave the caches anyway: store around them, and fetch ahead.
constexpr uint64_t kLargeBytes = 16u << 20;
// Below this much work per thread, starting it costs more than it saves.
constexpr uint64_t kThreadMultiplyAdds = 2u << 20;
// Of a file: rows merged, and bytes copied, by one thread at a time.
constexpr uint64_t kTileBytes = 1u << 20;
constexpr uint64_t kCopyBytes = 8u << 20;
// Clones are of whole blocks of the file system, which have this size, or divide it, nearly everywhere.
constexpr uint64_t kBlockBytes = 4096;
// Read from a file and merged before the next are read: what was read is still in the nearest cache.
constexpr uint64_t kReadBytes = 128 * 1024;
#endif

// Longest row of a tensor, in bytes: every thread holds one at least, whatever the size of a tile.
constexpr uint64_t kRowCap = 32u << 20;

// Working in more threads than this helps nobody.
constexpr uint32_t kThreadCap = 1024;

}  // namespace portllm
