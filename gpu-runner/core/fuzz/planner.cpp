// Fuzz target: a small safetensors file, and segments of it that are sound or not. Sound ones are written as if one by one
// and by the plainest path; of a list with one that is not, nothing is written.
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>

#include "recipe.h"

using namespace fuzz;

namespace {

struct Stored {
  std::string dtype;
  int32_t number;  // of portllm_dtype, -1 where there is none
  std::vector<uint64_t> shape;
  uint64_t begin, end;
};

// A file in memory, closed at the end.
struct File {
  int descriptor;
  File() : descriptor(memfd_create("fuzz", MFD_CLOEXEC)) { expect(descriptor >= 0, "memfd_create"); }
  File(const File &) = delete;
  ~File() { close(descriptor); }

  void write(const std::vector<uint8_t> &bytes) const { expect(pwrite(descriptor, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()), "write a file in memory"); }

  std::vector<uint8_t> read() const {
    struct stat status;
    expect(fstat(descriptor, &status) == 0, "fstat");
    std::vector<uint8_t> bytes(status.st_size);
    expect(pread(descriptor, bytes.data(), bytes.size(), 0) == status.st_size, "read a file in memory");
    return bytes;
  }
};

struct SourceFile {
  File file;
  std::vector<Stored> tensors;
  std::vector<uint8_t> bytes;
  portllm_source *source = nullptr;

  explicit SourceFile(FuzzedDataProvider &in) {
    static constexpr struct { const char *name; int32_t number; uint64_t bytes; } kDtypes[] = {
        {"F32", PORTLLM_F32, 4}, {"F16", PORTLLM_F16, 2}, {"BF16", PORTLLM_BF16, 2}, {"F64", PORTLLM_F64, 8}, {"F8_E4M3", PORTLLM_F8_E4M3, 1},
        {"F8_E5M2", PORTLLM_F8_E5M2, 1}, {"I16", -1, 2}, {"U8", -1, 1}};
    std::string json = "{";
    std::vector<uint8_t> data;
    const auto count = in.ConsumeIntegralInRange<size_t>(0, 4);
    for (size_t t = 0; t < count; t++) {
      const auto &dtype = kDtypes[in.ConsumeIntegralInRange<size_t>(0, 7)];
      Stored stored{dtype.name, dtype.number, {}, data.size(), 0};
      uint64_t elements_count = 1;
      for (size_t dimensions = in.ConsumeIntegralInRange<size_t>(0, 3); dimensions > 0; dimensions--) {
        stored.shape.push_back(in.ConsumeIntegralInRange<uint64_t>(0, 12));
        elements_count *= stored.shape.back();
      }
      const std::vector<uint8_t> values = elements(dtype.number < 0 ? PORTLLM_F8_E5M2 : dtype.number, elements_count * (dtype.number < 0 ? dtype.bytes : 1), kOrdinary, t + count);
      data.insert(data.end(), values.begin(), values.end());
      stored.end = data.size();
      json += (t ? ",\"" : "\"") + std::to_string(t) + "\":{\"dtype\":\"" + dtype.name + "\",\"shape\":[";
      for (size_t i = 0; i < stored.shape.size(); i++) json += (i ? "," : "") + std::to_string(stored.shape[i]);
      json += "],\"data_offsets\":[" + std::to_string(stored.begin) + "," + std::to_string(stored.end) + "]}";
      tensors.push_back(stored);
    }
    json += "}";
    for (int i = 0; i < 8; i++) bytes.push_back(static_cast<uint8_t>(json.size() >> (8 * i)));
    bytes.insert(bytes.end(), json.begin(), json.end());
    for (Stored &stored : tensors) stored.begin += bytes.size(), stored.end += bytes.size();
    bytes.insert(bytes.end(), data.begin(), data.end());
    file.write(bytes);
    char message[512];
    expect_outcome(portllm_source_open(file.descriptor, &source, message, sizeof message), kMade, message, "portllm_source_open");
  }
  ~SourceFile() { portllm_source_free(source); }

  // Whether these are whole rows of one tensor; by trying every tensor, every way to see it as a matrix, and every row.
  bool are_rows(uint64_t offset, uint64_t length, int32_t dtype, uint64_t cols) const {
    for (const Stored &stored : tensors) {
      if (stored.number != dtype || stored.begin == stored.end) continue;
      for (size_t first = 0; first <= stored.shape.size(); first++) {
        if (first == stored.shape.size() && first > 0) continue;
        uint64_t row = portllm::element_bytes(dtype);
        for (size_t i = first; i < stored.shape.size(); i++) row *= stored.shape[i];
        if (row != cols * portllm::element_bytes(dtype)) continue;
        for (uint64_t at = stored.begin; at < stored.end; at += row) {
          if (at == offset && length <= stored.end - at && length % row == 0) return true;
        }
      }
    }
    return false;
  }
};

// A tensor of a file to begin with, or what looks like one.
struct Rows {
  int32_t dtype;
  uint64_t offset, rows, cols;
};

Rows rows_of(FuzzedDataProvider &in, const SourceFile &file, std::optional<std::pair<uint64_t, uint64_t>> shape = std::nullopt) {
  Rows rows{PORTLLM_F32, file.bytes.size(), 1, 1};
  if (!file.tensors.empty()) {
    const Stored &stored = file.tensors[in.ConsumeIntegralInRange<size_t>(0, file.tensors.size() - 1)];
    const size_t first = in.ConsumeIntegralInRange<size_t>(0, stored.shape.size());
    uint64_t count = 1, cols = 1;
    for (size_t i = 0; i < stored.shape.size(); i++) (i < first ? count : cols) *= stored.shape[i];
    const uint64_t skipped = count ? in.ConsumeIntegralInRange<uint64_t>(0, count - 1) : 0;
    rows = {stored.number, stored.begin + skipped * cols * (stored.number < 0 ? 1 : portllm::element_bytes(stored.number)), count ? in.ConsumeIntegralInRange<uint64_t>(1, count - skipped) : 1, cols};
  }
  switch (in.ConsumeIntegral<uint8_t>() % 64) {
    case 1: rows.offset = hostile_number(in); break;
    case 2: rows.offset += in.ConsumeIntegralInRange<int8_t>(-9, 9); break;
    case 3: rows.rows += in.ConsumeIntegralInRange<uint64_t>(0, 3); break;
    case 4: std::swap(rows.rows, rows.cols); break;
    case 5: rows.dtype = in.ConsumeIntegralInRange<int32_t>(0, 5); break;
    case 6: rows.cols = in.ConsumeIntegralInRange<uint64_t>(1, 30); break;
  }
  if (shape) std::tie(rows.rows, rows.cols) = *shape;
  return rows;
}

// An operand where the core is told to find it.
struct Place {
  const SourceFile *file;
  uint64_t offset;
};

struct Planned {
  portllm_segment segment{};
  std::optional<Recipe> recipe;
  std::unique_ptr<Made> made;
  std::vector<Place> operands;
};

Recipe small_recipe(FuzzedDataProvider &in, const Rows &rows, const std::vector<Rows> &operands) {
  Recipe recipe{rows.dtype, rows.rows, rows.cols, {}};
  Contribution one{};
  one.rank = in.ConsumeIntegralInRange<uint64_t>(1, 3);
  one.scale = 0.5;
  const auto matrix = [&](uint64_t m, uint64_t n) { return Matrix{elements(PORTLLM_BF16, m * n, kOrdinary, m + n), 0, n, 1, PORTLLM_BF16}; };
  one.left = matrix(rows.rows, one.rank);
  one.right = matrix(one.rank, rows.cols);
  one.kind = in.ConsumeBool() ? Contribution::kProduct : Contribution::kDora;
  one.axis = in.ConsumeBool() ? PORTLLM_ROWS : PORTLLM_COLUMNS;
  one.weight = 0.5;
  one.magnitude = elements(PORTLLM_F32, one.axis == PORTLLM_ROWS ? rows.rows : rows.cols, kOrdinary, 7);
  if (operands.empty() || in.ConsumeBool()) recipe.contributions.push_back(one);
  for (size_t k = 0; k < operands.size(); k += 2) {
    Contribution dense{};
    dense.kind = Contribution::kDense;
    dense.scale = 0.25;
    dense.value_dtype = operands[k].dtype;
    dense.base_dtype = k + 1 < operands.size() ? operands[k + 1].dtype : -1;
    recipe.contributions.push_back(dense);
  }
  return recipe;
}

Planned planned_of(FuzzedDataProvider &in, const SourceFile &source, const SourceFile &other, uint64_t at, std::vector<Place> &operands) {
  Planned planned;
  planned.segment.kind = in.ConsumeBool() ? PORTLLM_MERGE : PORTLLM_COPY;
  planned.segment.destination_offset = at + in.ConsumeIntegralInRange<uint64_t>(0, 5);
  planned.segment.first_operand = operands.size();
  if (planned.segment.kind == PORTLLM_COPY) {
    planned.segment.source_offset = in.ConsumeIntegralInRange<uint64_t>(0, source.bytes.size());
    planned.segment.length = in.ConsumeIntegralInRange<uint64_t>(0, source.bytes.size() - planned.segment.source_offset);
  } else {
    const Rows rows = rows_of(in, source);
    std::vector<Rows> parts;
    const auto count = in.ConsumeIntegralInRange<size_t>(0, 3);
    for (size_t k = 0; k < count; k++) {
      const SourceFile &file = in.ConsumeBool() ? source : other;
      // Often the rows themselves, since others seldom have their shape.
      const bool same = in.ConsumeIntegral<uint8_t>() < 200;
      parts.push_back(same ? rows : rows_of(in, file, std::pair(rows.rows, rows.cols)));
      planned.operands.push_back({same ? &source : &file, parts.back().offset});
    }
    planned.recipe = small_recipe(in, rows, parts);
    planned.made = std::make_unique<Made>();
    if (rows.rows <= 4096 && rows.cols <= 4096) make(*planned.recipe, *planned.made);
    planned.segment.tensor = planned.made->tensor;
    planned.segment.source_offset = rows.offset;
    planned.segment.length = rows.rows * rows.cols * portllm::element_bytes(rows.dtype);
    operands.insert(operands.end(), planned.operands.begin(), planned.operands.end());
  }
  switch (in.ConsumeIntegral<uint8_t>() % 64) {
    case 1: planned.segment.kind = hostile_number(in); break;
    case 2: planned.segment.source_offset = hostile_number(in); break;
    case 3: planned.segment.destination_offset = hostile_number(in); break;
    case 4: planned.segment.length = hostile_number(in); break;
    case 5: planned.segment.tensor = nullptr; break;
    case 6: planned.segment.first_operand = hostile_number(in); break;
    case 7: planned.segment.first_operand += 1; break;
    case 8: planned.segment.length += in.ConsumeIntegralInRange<int8_t>(-9, 9); break;
    case 9: planned.segment.destination_offset -= in.ConsumeIntegralInRange<uint64_t>(0, planned.segment.destination_offset); break;
  }
  return planned;
}

bool is_sound(const Planned &planned, const SourceFile &source, const std::vector<Place> &operands) {
  using Wide = unsigned __int128;
  const portllm_segment &segment = planned.segment;
  if (segment.kind > PORTLLM_MERGE || segment.length == 0) return false;
  if (static_cast<Wide>(segment.source_offset) + segment.length > source.bytes.size()) return false;
  if (static_cast<Wide>(segment.destination_offset) + segment.length > INT64_MAX) return false;
  if (segment.kind == PORTLLM_COPY) return true;
  if (!planned.recipe || !segment.tensor || planned.made->contributions.empty()) return false;
  const Recipe &recipe = *planned.recipe;
  const std::vector<int32_t> &dtypes = planned.made->operands;
  if (segment.length != recipe.rows * recipe.cols * portllm::element_bytes(recipe.dtype)) return false;
  if (!source.are_rows(segment.source_offset, segment.length, recipe.dtype, recipe.cols)) return false;
  for (size_t k = 0; k < dtypes.size(); k++) {
    if (static_cast<Wide>(segment.first_operand) + k >= operands.size()) return false;
    const Place &place = operands[segment.first_operand + k];
    if (!place.file->are_rows(place.offset, recipe.rows * recipe.cols * portllm::element_bytes(dtypes[k]), dtypes[k], recipe.cols)) return false;
  }
  // No operands begin at most where all of them end.
  return segment.first_operand <= operands.size() - dtypes.size();
}

// What one file is to receive, and what it must hold afterwards if everything is sound.
struct Output {
  const SourceFile *source;
  File destination;
  std::vector<Planned> plan;
  std::vector<portllm_segment> segments;
  std::vector<uint8_t> expected;
  std::vector<std::optional<Merged>> merged;

  bool is_sound(const std::vector<Place> &operands) const {
    uint64_t written = 0;
    for (const Planned &planned : plan) {
      if (!::is_sound(planned, *source, operands) || planned.segment.destination_offset < written) return false;
      written = planned.segment.destination_offset + planned.segment.length;
    }
    return true;
  }

  uint64_t end() const { return plan.empty() ? 0 : plan.back().segment.destination_offset + plan.back().segment.length; }

  // Segment after segment, each as a whole.
  void write_plainly(const std::vector<Place> &operands) {
    const auto range = [](const SourceFile &file, uint64_t offset, uint64_t length) {
      return std::vector<uint8_t>(file.bytes.begin() + offset, file.bytes.begin() + offset + length);
    };
    for (size_t s = 0; s < plan.size(); s++) {
      const portllm_segment &segment = plan[s].segment;
      std::vector<uint8_t> bytes = range(*source, segment.source_offset, segment.length);
      if (segment.kind == PORTLLM_MERGE) {
        const Recipe &recipe = *plan[s].recipe;
        std::vector<std::vector<uint8_t>> rows;
        for (size_t k = 0; k < plan[s].made->operands.size(); k++) {
          const Place &place = operands[segment.first_operand + k];
          rows.push_back(range(*place.file, place.offset, recipe.rows * recipe.cols * portllm::element_bytes(plan[s].made->operands[k])));
        }
        merged[s] = merged_plainly(recipe, bytes, rows);
        bytes = merged[s]->bytes;
      }
      expected.resize(std::max<uint64_t>(expected.size(), segment.destination_offset + segment.length));
      std::copy(bytes.begin(), bytes.end(), expected.begin() + segment.destination_offset);
    }
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  FuzzedDataProvider in(data, size);
  const SourceFile source(in), other(in);
  std::vector<std::unique_ptr<Output>> outputs;
  std::vector<Place> operands;
  const size_t count = in.ConsumeIntegralInRange<size_t>(1, 2);
  for (size_t o = 0; o < count; o++) {
    outputs.push_back(std::make_unique<Output>());
    Output &output = *outputs.back();
    output.source = in.ConsumeBool() ? &source : &other;
    output.destination.write(std::vector<uint8_t>(in.ConsumeIntegralInRange<size_t>(0, 40), 0xee));
    for (size_t segments = in.ConsumeIntegralInRange<size_t>(0, 4); segments > 0; segments--) {
      const uint64_t at = output.end();
      output.plan.push_back(planned_of(in, *output.source, o ? source : other, at, operands));
      output.segments.push_back(output.plan.back().segment);
    }
    output.expected = output.destination.read();
    output.merged.resize(output.plan.size());
  }

  std::vector<portllm_operand> places;
  for (const Place &place : operands) places.push_back({place.file->source, place.offset});
  std::vector<portllm_output> native;
  for (const auto &output : outputs) native.push_back({output->source->source, output->destination.descriptor, output->segments.data(), output->segments.size()});
  bool sound = std::all_of(outputs.begin(), outputs.end(), [&](const auto &output) { return output->is_sound(operands); });
  switch (in.ConsumeIntegral<uint8_t>() % 64) {
    case 1: native.back().destination = in.ConsumeBool() ? -1 : static_cast<int64_t>(1) << 32; sound = false; break;
    case 2: native.back().source = reinterpret_cast<const portllm_source *>(&source); sound = false; break;
    case 3: native.push_back(native.back()); sound = false; break;
    case 4: native.back().destination = native.back().source == source.source ? source.file.descriptor : other.file.descriptor; sound = false; break;
  }
  // A file that would need petabytes of zeros is sound too, but not to be compared.
  for (const auto &output : outputs) {
    if (sound && output->end() > 1 << 20) return 0;
    if (sound) output->write_plainly(operands);
  }

  const auto threads = in.ConsumeIntegralInRange<uint32_t>(1, 4);
  const auto keep = in.ConsumeIntegralInRange<int32_t>(PORTLLM_KEEP_NOTHING, PORTLLM_KEEP_COUNT);
  int32_t path = in.ConsumeIntegralInRange<int32_t>(0, 7);
  while (!portllm_path_supported(path)) path--;
  portllm_control control{};
  char message[512];
  const int32_t status = portllm_write_segments(native.data(), native.size(), places.data(), places.size(), path, threads, keep, &control, message, sizeof message);
  // A file that cannot be asked what it is.
  if (!sound && status == PORTLLM_IO) return 0;
  expect_outcome(status, sound ? kMade : kInvalid, message, "portllm_write_segments");
  uint64_t total = 0;
  for (const auto &output : outputs) {
    expect(output->destination.read() == output->expected, sound ? "the segments where they belong" : "a destination that is as it was");
    for (size_t s = 0; s < output->plan.size(); s++) {
      total += output->segments[s].length;
      portllm_figures figures{};
      if (!output->merged[s]) continue;
      portllm_figures wanted = output->merged[s]->figures;
      if (keep == PORTLLM_KEEP_NOTHING) wanted = {};
      if (keep == PORTLLM_KEEP_COUNT) wanted = {0, 0, 0, wanted.non_finite};
      expect_outcome(portllm_tensor_figures(output->segments[s].tensor, &figures, message, sizeof message), kMade, message, "portllm_tensor_figures");
      expect(std::memcmp(&figures, &wanted, sizeof figures) == 0, "the figures of the tensor as a whole");
    }
  }
  expect(source.file.read() == source.bytes && other.file.read() == other.bytes, "sources that are as they were");
  if (sound) expect(control.bytes_done == total, "a count of the bytes written");
  return 0;
}
