#include "source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <utility>

#include "handles.h"
#include "status.h"
#include "tensor.h"

namespace portllm {
namespace {

using Number = unsigned long long;

struct stat status_of(int file, const char *what) {
  struct stat status;
  if (fstat(file, &status) != 0) fail(PORTLLM_IO, "%s: %s", what, std::strerror(errno));
  if (!S_ISREG(status.st_mode)) fail(PORTLLM_INVALID, "%s is not a regular file", what);
  return status;
}

uint64_t size_of(int file) { return static_cast<uint64_t>(status_of(file, "the source").st_size); }

std::vector<uint8_t> header_bytes_of(int file) {
  const uint64_t size = size_of(file);
  uint8_t first[8] = {};
  read_exactly(file, first, std::min<uint64_t>(size, sizeof first), 0, "its header");
  std::vector<uint8_t> bytes(header_length(first, size, size));
  read_exactly(file, bytes.data(), bytes.size(), 0, "its header");
  return bytes;
}

// Whether `cols` is the product of the shape's last dimensions: one row of the tensor as some matrix.
bool is_row_of(uint64_t cols, const Shape &shape) {
  uint64_t product = 1;
  for (uint64_t left = shape.count; left > 0; left--) {
    product *= shape.sizes[left - 1];
    if (product == cols) return true;
  }
  return cols == 1 && shape.count == 0;
}

// The tensor that holds the bytes [begin, end) of the file, which are not none.
const StoredTensor *tensor_with(const Header &header, uint64_t begin, uint64_t end) {
  const auto after = std::upper_bound(header.tensors.begin(), header.tensors.end(), begin,
                                      [](uint64_t at, const StoredTensor &tensor) { return at < tensor.begin; });
  if (after == header.tensors.begin()) return nullptr;
  // Of those that begin there, empty ones come first.
  const StoredTensor &tensor = *(after - 1);
  return end <= tensor.end ? &tensor : nullptr;
}

// Rows of `cols` elements of one tensor: the bytes [begin, begin + length) of a source, of which `user` speaks.
void check_rows(const Header &header, uint64_t begin, uint64_t length, int32_t dtype, uint64_t cols, const std::string &user) {
  uint64_t end;
  const StoredTensor *stored = __builtin_add_overflow(begin, length, &end) ? nullptr : tensor_with(header, begin, end);
  if (!stored) fail(PORTLLM_INVALID, "%s takes %llu bytes from byte %llu of its source, which are not of one tensor", user.c_str(), Number{length}, Number{begin});
  const std::string name = quoted(stored->name);
  if (stored->dtype->dtype != dtype) fail(PORTLLM_INVALID, "%s takes the tensor %s with another dtype than its %s", user.c_str(), name.c_str(), stored->dtype->name);
  if (!is_row_of(cols, header.shape(*stored)) || (begin - stored->begin) % (cols * element_bytes(dtype)) != 0) {
    fail(PORTLLM_INVALID, "%s takes rows of %llu elements from byte %llu of the tensor %s, which does not consist of such rows", user.c_str(), Number{cols},
         Number{begin - stored->begin}, name.c_str());
  }
}

void check_merge(const Header &header, const portllm_segment &segment, portllm_tensor &tensor, uint64_t index, const portllm_operand *operands,
                 const std::vector<std::shared_ptr<portllm_source>> &sources) {
  const Number at = index;
  const std::lock_guard<std::mutex> adding(tensor.adding);
  if (tensor.steps.empty()) fail(PORTLLM_INVALID, "nothing is added to the tensor of segment %llu", at);
  if (tensor.row_bytes * tensor.rows != segment.length) {
    fail(PORTLLM_INVALID, "segment %llu has %llu bytes, its tensor has %llu", at, Number{segment.length}, Number{tensor.row_bytes * tensor.rows});
  }
  const std::string user = "segment " + std::to_string(index);
  check_rows(header, segment.source_offset, segment.length, tensor.dtype, tensor.cols, user);
  const uint64_t count = tensor.operand_dtypes.size();
  if (count > sources.size() || segment.first_operand > sources.size() - count) {
    fail(PORTLLM_INVALID, "segment %llu has %llu operands, but place %llu of %llu is where they begin", at, Number{count}, Number{segment.first_operand}, Number{sources.size()});
  }
  for (uint64_t k = 0; k < count; k++) {
    const uint64_t place = segment.first_operand + k;
    check_rows(sources[place]->header, operands[place].offset, tensor.operand_row_bytes(k) * tensor.rows, tensor.operand_dtypes[k], tensor.cols,
               "operand " + std::to_string(k) + " of " + user);
  }
  tensor.sealed = true;
}

using FileId = std::pair<dev_t, ino_t>;

FileId id_of(int file, const char *what) {
  const struct stat status = status_of(file, what);
  return {status.st_dev, status.st_ino};
}

void check_segments(CheckedOutputs &checked, const portllm_source &source, const portllm_output &output, const portllm_operand *operands) {
  const std::vector<StoredTensor> &tensors = source.header.tensors;
  const uint64_t size = tensors.empty() ? source.header.data_offset : tensors.back().end;
  uint64_t written = 0;
  for (uint64_t index = 0; index < output.count; index++) {
    const portllm_segment &segment = output.segments[index];
    const Number at = index;
    uint64_t end, destination_end;
    if (segment.kind > PORTLLM_MERGE) fail(PORTLLM_INVALID, "segment %llu is of unknown kind", at);
    if (segment.length == 0) fail(PORTLLM_INVALID, "segment %llu is empty", at);
    if (__builtin_add_overflow(segment.destination_offset, segment.length, &destination_end) || destination_end > INT64_MAX) {
      fail(PORTLLM_INVALID, "segment %llu lies outside any file", at);
    }
    if (segment.destination_offset < written) fail(PORTLLM_INVALID, "segment %llu overlaps the one before it, or comes before it", at);
    written = destination_end;
    if (__builtin_add_overflow(segment.source_offset, segment.length, &end) || end > size) {
      fail(PORTLLM_INVALID, "segment %llu takes %llu bytes from byte %llu of the source, which has %llu", at, Number{segment.length}, Number{segment.source_offset}, Number{size});
    }
    if (segment.kind != PORTLLM_MERGE) continue;
    checked.tensors.push_back(Handles<portllm_tensor>::get(segment.tensor, "tensor of a segment"));
    check_merge(source.header, segment, *checked.tensors.back(), index, operands, checked.operands);
  }
}

}  // namespace

int read_fully(int file, uint8_t *to, uint64_t size, uint64_t offset) {
  while (size) {
    const ssize_t got = pread(file, to, size, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return got < 0 ? errno : -1;
    to += got;
    size -= static_cast<uint64_t>(got);
    offset += static_cast<uint64_t>(got);
  }
  return 0;
}

void read_exactly(int file, uint8_t *to, uint64_t size, uint64_t offset, const char *what) {
  const int error = read_fully(file, to, size, offset);
  if (error > 0) fail(PORTLLM_IO, "reading %s: %s", what, std::strerror(error));
  if (error < 0) fail(PORTLLM_IO, "the file ended while %s was read", what);
}

CheckedOutputs check_outputs(const portllm_output *outputs, uint64_t count, const portllm_operand *operands, uint64_t operand_count) {
  CheckedOutputs checked;
  std::set<FileId> read, written;
  for (uint64_t k = 0; k < operand_count; k++) {
    checked.operands.push_back(Handles<portllm_source>::get(operands[k].source, "source of an operand"));
    read.insert(id_of(checked.operands.back()->file, "the source of an operand"));
  }
  for (uint64_t o = 0; o < count; o++) {
    checked.sources.push_back(Handles<portllm_source>::get(outputs[o].source, "source"));
    read.insert(id_of(checked.sources.back()->file, "the source"));
  }
  for (uint64_t o = 0; o < count; o++) {
    if (!outputs[o].segments && outputs[o].count) fail(PORTLLM_INVALID, "the segments of an output are null");
    const int64_t file = outputs[o].destination;
    const FileId destination = id_of(file < 0 || file > INT32_MAX ? -1 : static_cast<int>(file), "the destination");
    if (read.count(destination)) fail(PORTLLM_INVALID, "a source and the destination are the same file");
    if (!written.insert(destination).second) fail(PORTLLM_INVALID, "two destinations are the same file");
    check_segments(checked, *checked.sources[o], outputs[o], operands);
  }
  return checked;
}

}  // namespace portllm

using namespace portllm;

portllm_source::portllm_source(int from)
    : file(-1), header_bytes(header_bytes_of(from)), header(read_header(header_bytes.data(), header_bytes.size(), size_of(from))) {
  file = fcntl(from, F_DUPFD_CLOEXEC, 0);
  if (file < 0) fail(PORTLLM_IO, "opening the source: %s", std::strerror(errno));
}

portllm_source::~portllm_source() {
  if (file >= 0) close(file);
}

extern "C" int32_t portllm_read_header(const void *bytes, uint64_t size, uint64_t file_size, uint64_t first, char *json, uint64_t json_size,
                                       portllm_header_part *part, char *message, size_t message_size) {
  return guarded(message, message_size, [&] {
    if (!bytes || !part || !json) fail(PORTLLM_INVALID, "an argument is null");
    const Header header = read_header(static_cast<const uint8_t *>(bytes), size, file_size);
    uint64_t next = first;
    const std::string text = described(header, next, json_size);
    if (text.size() > json_size || (next == first && first < header.tensors.size())) {
      fail(PORTLLM_INVALID, "%llu bytes have no room for tensor %llu of the header", Number{json_size}, Number{first});
    }
    std::memcpy(json, text.data(), text.size());
    *part = {header.tensors.size(), next, text.size()};
  });
}

extern "C" int32_t portllm_source_open(int32_t file, portllm_source **source, char *message, size_t message_size) {
  return guarded(message, message_size, [&] {
    if (!source) fail(PORTLLM_INVALID, "the place for the source is null");
    *source = nullptr;
    *source = Handles<portllm_source>::add(std::make_shared<portllm_source>(file));
  });
}

extern "C" void portllm_source_free(portllm_source *source) { Handles<portllm_source>::remove(source); }
