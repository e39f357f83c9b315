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
#include <chrono>
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
  uint64_t output = 0;
};

void read_all(int file, uint8_t *to, uint64_t size, uint64_t offset) {
  const int error = read_fully(file, to, size, offset);
  if (error > 0) throw IoFailure{"reading the source", error};
  if (error < 0) throw IoFailure{"the source ends before the tensor does", EIO};
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

// Shares the source's blocks where the file system can; false where it cannot.
bool clone_range(int source, uint64_t source_offset, int destination, uint64_t destination_offset, uint64_t size) {
#if defined(FICLONERANGE)
  file_clone_range range{source, source_offset, size, destination_offset};
  int status;
  do status = ioctl(destination, FICLONERANGE, &range);
  while (status < 0 && errno == EINTR);
  if (status == 0) return true;
  if (errno == ENOSPC || errno == EDQUOT || errno == EIO) throw IoFailure{"cloning into the destination", errno};
#else
  (void)source, (void)destination, (void)source_offset, (void)destination_offset, (void)size;
#endif
  return false;
}

// Whether the file holds no data there, so that it reads as zeros.
bool is_hole(int file, uint64_t offset, uint64_t size) {
#if defined(SEEK_DATA)
  const off_t data = lseek(file, static_cast<off_t>(offset), SEEK_DATA);
  return data < 0 ? errno == ENXIO : static_cast<uint64_t>(data) >= offset + size;
#else
  (void)file, (void)offset, (void)size;
  return false;
#endif
}

// Nothing is read as zeros behind the end of a file, whatever lseek says of what is there.
bool reaches(int file, uint64_t end) {
  struct stat status;
  if (fstat(file, &status) != 0) throw IoFailure{"reading the source", errno};
  return static_cast<uint64_t>(status.st_size) >= end;
}

void copy_bytes(int source, uint64_t source_offset, int destination, uint64_t destination_offset, uint64_t size,
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

// Leaves a hole a hole. Clones the whole blocks of the range while `clones` says that this works for the file; copies the rest. Gives the
// bytes that were cloned.
uint64_t copy_range(int source, uint64_t source_offset, int destination, uint64_t destination_offset, uint64_t size,
                    std::atomic<bool> &clones, uint8_t *buffer, uint64_t buffer_size) {
  if (is_hole(source, source_offset, size) && reaches(source, source_offset + size) && is_hole(destination, destination_offset, size)) return 0;
  const uint64_t head = std::min(size, (kBlockBytes - source_offset % kBlockBytes) % kBlockBytes);
  const uint64_t blocks = (size - head) / kBlockBytes * kBlockBytes, tail = head + blocks;
  if (blocks == 0 || !clones || source_offset % kBlockBytes != destination_offset % kBlockBytes ||
      !clone_range(source, source_offset + head, destination, destination_offset + head, blocks)) {
    if (blocks) clones = false;
    copy_bytes(source, source_offset, destination, destination_offset, size, buffer, buffer_size);
    return 0;
  }
  copy_bytes(source, source_offset, destination, destination_offset, head, buffer, buffer_size);
  copy_bytes(source, source_offset + tail, destination, destination_offset + tail, size - tail, buffer, buffer_size);
  return blocks;
}

uint64_t rows_per_tile(const portllm_tensor &tensor) {
  const uint64_t rows = kTileBytes / tensor.row_bytes / kTileRows * kTileRows;
  return std::min(tensor.rows, std::max(rows, std::max<uint64_t>(1, std::min(kTileRows, kTileBytes / tensor.row_bytes))));
}

// Whether a tensor is merged by a GPU, in slots of its rows, rather than by the processor in tiles.
bool on_gpu(const portllm_tensor &tensor, int32_t path) { return path == PORTLLM_CUDA && cuda_rows(tensor) > 0; }

struct Piece {
  size_t output;
  const portllm_segment *segment;
  uint64_t offset;  // within the segment
  uint64_t size;
};

// Hands out the outputs' pieces. A file system lets one thread write into a file at a time, so each piece is of the
// output that the fewest threads are at; of these, the one with the most to do.
class Pieces {
 public:
  Pieces(const portllm_output *outputs, uint64_t count, int32_t path) : outputs_(outputs), path_(path), places_(count) {
    for (uint64_t o = 0; o < count; o++) {
      for (uint64_t s = 0; s < outputs[o].count; s++) places_[o].remaining += outputs[o].segments[s].length;
    }
  }

  bool take(Piece &piece) {
    const std::lock_guard<std::mutex> lock(mutex_);
    size_t best = places_.size();
    for (size_t o = 0; o < places_.size(); o++) {
      if (!places_[o].remaining) continue;
      if (best == places_.size() || places_[o].threads < places_[best].threads ||
          (places_[o].threads == places_[best].threads && places_[o].remaining > places_[best].remaining)) {
        best = o;
      }
    }
    if (best == places_.size()) return false;
    Place &place = places_[best];
    const portllm_segment &segment = outputs_[best].segments[place.segment];
    // Copies are cut between blocks, so that only a segment's ends are not whole ones.
    const uint64_t most = segment.kind == PORTLLM_COPY ? kCopyBytes - (segment.destination_offset + place.offset) % kBlockBytes
                                                       : rows_per_piece(*segment.tensor) * segment.tensor->row_bytes;
    piece = {best, &segment, place.offset, std::min(most, segment.length - place.offset)};
    place.threads++;
    place.remaining -= piece.size;
    place.offset += piece.size;
    if (place.offset == segment.length) {
      place.segment++;
      place.offset = 0;
    }
    return true;
  }

  void give_back(const Piece &piece) {
    const std::lock_guard<std::mutex> lock(mutex_);
    places_[piece.output].threads--;
  }

 private:
  struct Place {
    uint64_t segment = 0, offset = 0, remaining = 0, threads = 0;
  };
  uint64_t rows_per_piece(const portllm_tensor &tensor) const { return on_gpu(tensor, path_) ? cuda_rows(tensor) : rows_per_tile(tensor); }

  const portllm_output *outputs_;
  int32_t path_;
  std::vector<Place> places_;
  std::mutex mutex_;
};

// Adds the nanoseconds since its start, or since the last lap, to one of the control's counters.
class Stopwatch {
 public:
  void lap(uint64_t &counter) {
    const Clock::time_point now = Clock::now();
    __atomic_fetch_add(&counter, static_cast<uint64_t>(std::chrono::nanoseconds(now - last_).count()), __ATOMIC_RELAXED);
    last_ = now;
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point last_ = Clock::now();
};

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

extern "C" int32_t portllm_write_segments(const portllm_output *outputs, uint64_t count, const portllm_operand *operands,
                                          uint64_t operand_count, int32_t path, uint32_t threads, int32_t figures,
                                          portllm_control *control, char *message, size_t message_size) {
  return guarded(message, message_size, [&] {
    if (!control || (!outputs && count) || (!operands && operand_count)) fail(PORTLLM_INVALID, "an argument is null");
    if (threads == 0 || threads > kThreadCap) fail(PORTLLM_INVALID, "%u threads: 1 to %u are possible", threads, kThreadCap);
    check_kept(figures);
    const std::shared_ptr<CudaHelper> gpu = path == PORTLLM_CUDA ? cuda_helper() : nullptr;
    const Path &kernels = gpu ? processor_path() : path_of(path);
    if (gpu) threads = std::max(threads, cuda_lanes(*gpu));
    const CheckedOutputs checked = check_outputs(outputs, count, operands, operand_count);
    uint64_t buffer_size = kTileBytes, bytes = 0;
    std::atomic<bool> stop{false};
    Pieces pieces(outputs, count, path);
    std::vector<std::atomic<bool>> clones(count);
    for (std::atomic<bool> &one : clones) one = true;
    const auto work = [&](uint64_t) {
      void *memory = nullptr;
      if (posix_memalign(&memory, 4096, buffer_size)) throw std::bad_alloc();
      const std::unique_ptr<void, void (*)(void *)> owner(memory, std::free);
      auto *buffer = static_cast<uint8_t *>(memory);
      RowBuffer row_buffer;
      for (Piece piece; !stop && pieces.take(piece); pieces.give_back(piece)) {
        if (__atomic_load_n(&control->cancel, __ATOMIC_RELAXED)) fail(PORTLLM_CANCELLED, "cancelled");
        const portllm_segment &segment = *piece.segment;
        const int source = checked.sources[piece.output]->file, destination = static_cast<int>(outputs[piece.output].destination);
        const uint64_t from = segment.source_offset + piece.offset, to = segment.destination_offset + piece.offset;
        Stopwatch watch;
        try {
          if (segment.kind == PORTLLM_COPY) {
            const uint64_t cloned = copy_range(source, from, destination, to, piece.size, clones[piece.output], buffer, buffer_size);
            __atomic_fetch_add(&control->bytes_cloned, cloned, __ATOMIC_RELAXED);
            watch.lap(control->copy_ns);
          } else if (on_gpu(*segment.tensor, path)) {
            portllm_tensor &tensor = *segment.tensor;
            CudaLane lane(gpu, tensor);
            read_all(source, lane.memory(), piece.size, from);
            watch.lap(control->read_ns);
            lane.merge(figures, piece.offset / tensor.row_bytes, piece.size / tensor.row_bytes);
            watch.lap(control->kernel_ns);
            write_all(destination, lane.memory(), piece.size, to);
            watch.lap(control->write_ns);
          } else {
            portllm_tensor &tensor = *segment.tensor;
            const uint64_t row = piece.offset / tensor.row_bytes, row_count = piece.size / tensor.row_bytes;
            read_all(source, buffer, piece.size, from);
            row_buffer.read(tensor, operands + segment.first_operand, row, row_count, buffer + piece.size);
            watch.lap(control->read_ns);
            tensor.merge_rows(kernels, figures, false, {row, row_count, buffer, buffer, row_buffer.operands.data()});
            watch.lap(control->kernel_ns);
            write_all(destination, buffer, piece.size, to);
            watch.lap(control->write_ns);
          }
        } catch (IoFailure &failure) {
          failure.output = piece.output;
          throw;
        }
        __atomic_fetch_add(&control->bytes_done, piece.size, __ATOMIC_RELAXED);
      }
    };
    try {
      for (uint64_t o = 0; o < count; o++) {
        for (uint64_t s = 0; s < outputs[o].count; s++) {
          const portllm_segment &segment = outputs[o].segments[s];
          bytes += segment.length;
          if (segment.kind != PORTLLM_MERGE) continue;
          portllm_tensor &tensor = *segment.tensor;
          const std::lock_guard<std::mutex> adding(tensor.adding);
          if (tensor.measures()) measure(tensor, kernels, threads, checked.sources[o]->file, segment.source_offset, *control);
          tensor.seal();
          if (figures) tensor.keep_figures();
          buffer_size = std::max(buffer_size, RowBuffer::bytes(tensor));
        }
      }
      parallel(std::max<uint64_t>(1, std::min<uint64_t>(threads, bytes / kTileBytes + count)), [&](uint64_t index) {
        try {
          work(index);
        } catch (...) {
          stop = true;
          throw;
        }
      });
    } catch (const IoFailure &failure) {
      control->error_number = static_cast<uint64_t>(failure.error);
      control->error_output = failure.output;
      fail(PORTLLM_IO, "%s: %s", failure.what, std::strerror(failure.error));
    }
  });
}
