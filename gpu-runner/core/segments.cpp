// Writing a merged file: pread → kernel → pwrite in tiles that stay in the L2 cache. Buffered tiles beat
// mmap, whose page faults cost more than the copies and whose pages count as resident memory.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__linux__)
#include <linux/fs.h>
#include <sys/ioctl.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "handles.h"
#include "parallel.h"
#include "source.h"
#include "status.h"
#include "tensor.h"
#include "tile_sizes.h"

namespace portllm {
namespace {

struct IoFailure {
  const char *what;
  int error;
};

void read_all(int file, uint8_t *to, uint64_t size, uint64_t offset) {
  while (size) {
    const ssize_t got = pread(file, to, size, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw IoFailure{"reading the source", errno};
    if (got == 0) throw IoFailure{"the source ends before the tensor does", EIO};
    to += got;
    size -= static_cast<uint64_t>(got);
    offset += static_cast<uint64_t>(got);
  }
}

void write_all(int file, const uint8_t *from, uint64_t size, uint64_t offset) {
  while (size) {
    const ssize_t put = pwrite(file, from, size, static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) throw IoFailure{"writing the destination", errno};
    from += put;
    size -= static_cast<uint64_t>(put);
    offset += static_cast<uint64_t>(put);
  }
}

void copy_range(int source, uint64_t source_offset, int destination, uint64_t destination_offset, uint64_t size,
                uint8_t *buffer, uint64_t buffer_size) {
#if defined(__linux__)
  while (size) {
    loff_t from = static_cast<loff_t>(source_offset), to = static_cast<loff_t>(destination_offset);
    const ssize_t copied = copy_file_range(source, &from, destination, &to, size, 0);
    if (copied < 0 && errno == EINTR) continue;
    if (copied == 0) throw IoFailure{"the source ends before the range does", EIO};
    if (copied < 0) {
      if (errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP || errno == EPERM) break;
      throw IoFailure{"copying into the destination", errno};
    }
    source_offset += static_cast<uint64_t>(copied);
    destination_offset += static_cast<uint64_t>(copied);
    size -= static_cast<uint64_t>(copied);
  }
#endif
  // Between file systems, or where the kernel cannot copy by itself.
  while (size) {
    const uint64_t piece = std::min(size, buffer_size);
    read_all(source, buffer, piece, source_offset);
    write_all(destination, buffer, piece, destination_offset);
    source_offset += piece;
    destination_offset += piece;
    size -= piece;
  }
}

uint64_t rows_per_tile(const portllm_tensor &tensor) {
  const uint64_t rows = kTileBytes / tensor.row_bytes / kTileRows * kTileRows;
  return std::min(tensor.rows, std::max(rows, std::max<uint64_t>(1, std::min(kTileRows, kTileBytes / tensor.row_bytes))));
}

uint64_t pieces_of(const portllm_segment &segment) {
  if (segment.kind == PORTLLM_COPY) return (segment.length + kCopyBytes - 1) / kCopyBytes;
  const uint64_t rows = rows_per_tile(*segment.tensor);
  return (segment.tensor->rows + rows - 1) / rows;
}

// Rows of an operand are read behind those of W in a thread's buffer; this is where they all are, for merge_rows.
struct RowBuffer {
  std::vector<const uint8_t *> operands;

  static uint64_t bytes(const portllm_tensor &tensor) {
    uint64_t row = tensor.row_bytes;
    for (uint64_t k = 0; k < tensor.operand_dtypes.size(); k++) row += tensor.operand_row_bytes(k);
    return row * rows_per_tile(tensor);
  }

  // `places` is where each operand begins, in a source that is open.
  void read(const portllm_tensor &tensor, const portllm_operand *places, uint64_t row, uint64_t row_count, uint8_t *to) {
    operands.clear();
    for (uint64_t k = 0; k < tensor.operand_dtypes.size(); k++) {
      const uint64_t row_bytes = tensor.operand_row_bytes(k);
      read_all(places[k].source->file, to, row_count * row_bytes, places[k].offset + row * row_bytes);
      operands.push_back(to);
      to += row_count * row_bytes;
    }
  }
};

// The first pass over a tensor whose columns are measured.
void measure(portllm_tensor &tensor, const Path &path, uint32_t threads, int source, uint64_t offset, const portllm_control &control) {
  const uint64_t rows = rows_per_tile(tensor);
  std::vector<uint8_t> buffer(rows * tensor.row_bytes);
  for (uint64_t row = 0; row < tensor.rows; row += rows) {
    if (__atomic_load_n(&control.cancel, __ATOMIC_RELAXED)) fail(PORTLLM_CANCELLED, "cancelled");
    const uint64_t row_count = std::min(rows, tensor.rows - row);
    read_all(source, buffer.data(), row_count * tensor.row_bytes, offset + row * tensor.row_bytes);
    tensor.measure(path, threads, row, row_count, buffer.data());
  }
}

}  // namespace
}  // namespace portllm

using namespace portllm;

extern "C" int32_t portllm_write_segments(const portllm_source *source_handle, int32_t destination, const portllm_segment *segments,
                                          uint64_t count, const portllm_operand *operands, uint64_t operand_count, int32_t path,
                                          uint32_t threads, portllm_control *control, char *message, size_t message_size) {
  return guarded(message, message_size, [&] {
    const auto source = Handles<portllm_source>::get(source_handle, "source");
    if (!control || (!segments && count) || (!operands && operand_count)) fail(PORTLLM_INVALID, "an argument is null");
    if (threads == 0 || threads > kThreadCap) fail(PORTLLM_INVALID, "%u threads: 1 to %u are possible", threads, kThreadCap);
    const Path &kernels = path_of(path);
    const CheckedSegments checked = check_segments(*source, destination, segments, count, operands, operand_count);
    std::vector<uint64_t> first_piece(count + 1, 0);
    uint64_t buffer_size = kTileBytes;
    for (uint64_t s = 0; s < count; s++) {
      first_piece[s + 1] = first_piece[s] + pieces_of(segments[s]);
    }
    std::atomic<uint64_t> next{0};
    std::atomic<bool> stop{false};
    const auto work = [&](uint64_t) {
      void *memory = nullptr;
      if (posix_memalign(&memory, 4096, buffer_size)) throw std::bad_alloc();
      const std::unique_ptr<void, void (*)(void *)> owner(memory, std::free);
      auto *buffer = static_cast<uint8_t *>(memory);
      RowBuffer row_buffer;
      while (!stop) {
        if (__atomic_load_n(&control->cancel, __ATOMIC_RELAXED)) fail(PORTLLM_CANCELLED, "cancelled");
        const uint64_t piece = next.fetch_add(1);
        if (piece >= first_piece[count]) return;
        const uint64_t s = static_cast<uint64_t>(std::upper_bound(first_piece.begin(), first_piece.end(), piece) - first_piece.begin()) - 1;
        const portllm_segment &segment = segments[s];
        const uint64_t within = piece - first_piece[s];
        uint64_t size;
        if (segment.kind == PORTLLM_COPY) {
          const uint64_t offset = within * kCopyBytes;
          size = std::min(kCopyBytes, segment.length - offset);
          copy_range(source->file, segment.source_offset + offset, destination, segment.destination_offset + offset, size, buffer, buffer_size);
        } else {
          portllm_tensor &tensor = *segment.tensor;
          const uint64_t rows = rows_per_tile(tensor), row = within * rows;
          const uint64_t row_count = std::min(rows, tensor.rows - row), offset = row * tensor.row_bytes;
          size = row_count * tensor.row_bytes;
          read_all(source->file, buffer, size, segment.source_offset + offset);
          row_buffer.read(tensor, operands + segment.first_operand, row, row_count, buffer + size);
          tensor.merge_rows(kernels, true, false, {row, row_count, buffer, buffer, row_buffer.operands.data()});
          write_all(destination, buffer, size, segment.destination_offset + offset);
        }
        __atomic_fetch_add(&control->bytes_done, size, __ATOMIC_RELAXED);
      }
    };
    try {
      for (uint64_t s = 0; s < count; s++) {
        if (segments[s].kind != PORTLLM_MERGE) continue;
        portllm_tensor &tensor = *segments[s].tensor;
        const std::lock_guard<std::mutex> adding(tensor.adding);
        if (tensor.measures()) measure(tensor, kernels, threads, source->file, segments[s].source_offset, *control);
        tensor.seal();
        tensor.keep_figures();
        buffer_size = std::max(buffer_size, RowBuffer::bytes(tensor));
      }
      parallel(std::max<uint64_t>(1, std::min<uint64_t>(threads, first_piece[count])), [&](uint64_t index) {
        try {
          work(index);
        } catch (...) {
          stop = true;
          throw;
        }
      });
    } catch (const IoFailure &failure) {
      control->error_number = static_cast<uint64_t>(failure.error);
      fail(PORTLLM_IO, "%s: %s", failure.what, std::strerror(failure.error));
    }
  });
}

extern "C" int32_t portllm_clone_file(int32_t source, int32_t destination) {
#if defined(FICLONE)
  return ioctl(destination, FICLONE, source) == 0 ? 1 : 0;
#else
  (void)source, (void)destination;
  return 0;
#endif
}
