#include "safetensors.h"

#include <algorithm>
#include <cstring>

#include "status.h"

namespace portllm {
namespace {

using Number = unsigned long long;

// Up to here JavaScript and everybody else agree about integers.
constexpr uint64_t kMaxInteger = (1ull << 53) - 1;

constexpr StoredDtype kDtypes[] = {
    {"BOOL", 8, -1}, {"U8", 8, -1}, {"I8", 8, -1}, {"F8_E5M2", 8, PORTLLM_F8_E5M2}, {"F8_E4M3", 8, PORTLLM_F8_E4M3},
    {"F8_E8M0", 8, PORTLLM_F8_E8M0}, {"I16", 16, -1}, {"U16", 16, -1}, {"F16", 16, PORTLLM_F16}, {"BF16", 16, PORTLLM_BF16},
    {"I32", 32, -1}, {"U32", 32, -1}, {"F32", 32, PORTLLM_F32}, {"C64", 64, -1}, {"F64", 64, PORTLLM_F64}, {"I64", 64, -1},
    {"U64", 64, -1}, {"F4", 4, -1}, {"F6_E2M3", 6, -1}, {"F6_E3M2", 6, -1},
};

// Of the JSON of a tensor: "a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}
constexpr uint64_t kShortestTensor = 50;

// Code units of the same text in UTF-16, by which the names are measured.
uint64_t utf16_length(std::string_view text) {
  uint64_t length = 0;
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if ((byte & 0xc0) != 0x80) length += byte >= 0xf0 ? 2 : 1;
  }
  return length;
}

// Bytes of the UTF-8 sequence at `at`, or 0 where there is none (overlong, a surrogate, beyond U+10FFFF, cut off).
uint64_t utf8_sequence(const uint8_t *at, const uint8_t *end) {
  const uint8_t first = *at;
  if (first < 0x80) return 1;
  if (first < 0xc2 || first > 0xf4) return 0;
  const uint64_t length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  if (static_cast<uint64_t>(end - at) < length) return 0;
  for (uint64_t i = 1; i < length; i++) {
    if ((at[i] & 0xc0) != 0x80) return 0;
  }
  if ((first == 0xe0 && at[1] < 0xa0) || (first == 0xed && at[1] > 0x9f)) return 0;
  if ((first == 0xf0 && at[1] < 0x90) || (first == 0xf4 && at[1] > 0x8f)) return 0;
  return length;
}

void append_utf8(std::string &text, uint32_t code) {
  if (code < 0x80) {
    text += static_cast<char>(code);
  } else if (code < 0x800) {
    text += static_cast<char>(0xc0 | (code >> 6));
    text += static_cast<char>(0x80 | (code & 63));
  } else if (code < 0x10000) {
    text += static_cast<char>(0xe0 | (code >> 12));
    text += static_cast<char>(0x80 | ((code >> 6) & 63));
    text += static_cast<char>(0x80 | (code & 63));
  } else {
    text += static_cast<char>(0xf0 | (code >> 18));
    text += static_cast<char>(0x80 | ((code >> 12) & 63));
    text += static_cast<char>(0x80 | ((code >> 6) & 63));
    text += static_cast<char>(0x80 | (code & 63));
  }
}

// Reads only what a header may hold, so nothing nests deeper than an array within a tensor.
class HeaderReader {
 public:
  HeaderReader(const uint8_t *json, uint64_t size, Header &header) : json_(json), at_(json), end_(json + size), header_(header) {}

  void read() {
    std::vector<StoredTensor> &tensors = header_.tensors;
    const auto size = static_cast<uint64_t>(end_ - at_);
    bool has_metadata = false;
    // No room that is not used is ever touched, and none has to be copied.
    tensors.reserve(std::min(kTensorCap, size / kShortestTensor));
    header_.names.reserve(size);  // an escape is longer than what it stands for
    if (at_ == end_ || *at_ != '{') fail(PORTLLM_INVALID, "the header must start with {");
    object("the header", [&](const std::string &key) {
      if (key == "__metadata__") {
        if (has_metadata) fail_twice(key);
        has_metadata = true;
        metadata();
        return;
      }
      if (tensors.size() == kTensorCap) fail(PORTLLM_INVALID, "the header names more than %llu tensors", Number{kTensorCap});
      if (key.empty() || utf16_length(key) > kNameCap) fail(PORTLLM_INVALID, "a tensor name must have 1 to %llu characters", Number{kNameCap});
      tensors.push_back(tensor(kept(key)));
    });
    if (space() >= 0) fail_syntax();
    std::vector<std::string_view> names;
    names.reserve(tensors.size());
    for (const StoredTensor &one : tensors) names.push_back(one.name);
    refuse_twice(names);
  }

 private:
  const uint8_t *json_, *at_, *end_;
  Header &header_;
  std::string_view written_;  // the last string, as it is written

  // The key that was read last, to be kept.
  std::string_view kept(const std::string &key) {
    if (written_.size() == key.size()) return written_;
    std::vector<char> &names = header_.names;
    const size_t start = names.size();
    names.insert(names.end(), key.begin(), key.end());
    return {names.data() + start, key.size()};
  }

  void metadata() {
    if (space() == 'n') return word("null");
    std::vector<std::string_view> keys;
    object("__metadata__", [&](const std::string &key) {
      if (keys.size() == kTensorCap) fail(PORTLLM_INVALID, "__metadata__ has more than %llu entries", Number{kTensorCap});
      if (space() != '"') fail_unexpected("every entry of __metadata__", "a string");
      keys.push_back(kept(key));
      string();
    });
    refuse_twice(keys);
  }

  StoredTensor tensor(std::string_view name) {
    StoredTensor read{name, nullptr, header_.dimensions.size(), 0, 0, 0};
    bool has_shape = false;
    std::vector<uint64_t> offsets;
    object("a tensor", [&](const std::string &key) {
      if (key == "dtype") {
        if (read.dtype) fail_twice(key);
        if (space() != '"') fail_unexpected("dtype", "a string");
        const std::string dtype = string();
        for (const StoredDtype &known : kDtypes) {
          if (dtype == known.name) read.dtype = &known;
        }
        if (!read.dtype) fail(PORTLLM_INVALID, "tensor %s: the dtype %s is not known", quoted(read.name).c_str(), quoted(dtype).c_str());
      } else if (key == "shape") {
        if (has_shape) fail_twice(key);
        has_shape = true;
        const std::vector<uint64_t> shape = integers("shape", kDimensionCap);
        header_.dimensions.insert(header_.dimensions.end(), shape.begin(), shape.end());
        read.dimension_count = shape.size();
      } else if (key == "data_offsets") {
        if (!offsets.empty()) fail_twice(key);
        offsets = integers("data_offsets", 2);
        if (offsets.size() != 2 || offsets[0] > offsets[1]) fail(PORTLLM_INVALID, "tensor %s: data_offsets must be [begin, end] with begin <= end", quoted(read.name).c_str());
      } else {
        fail(PORTLLM_INVALID, "tensor %s has the unknown key %s", quoted(read.name).c_str(), quoted(key).c_str());
      }
    });
    if (!read.dtype || !has_shape || offsets.empty()) fail(PORTLLM_INVALID, "tensor %s must have dtype, shape and data_offsets", quoted(read.name).c_str());
    read.begin = offsets[0];
    read.end = offsets[1];
    const uint64_t bytes = tensor_bytes(read);
    if (read.end - read.begin != bytes) {
      fail(PORTLLM_INVALID, "tensor %s takes %llu bytes, data_offsets give %llu", quoted(read.name).c_str(), Number{bytes}, Number{read.end - read.begin});
    }
    return read;
  }

  uint64_t tensor_bytes(const StoredTensor &tensor) const {
    uint64_t elements = 1, bits;
    for (const uint64_t dimension : header_.shape(tensor)) {
      if (__builtin_mul_overflow(elements, dimension, &elements) || elements > kMaxInteger) {
        fail(PORTLLM_INVALID, "tensor %s: the product of its shape passes 2^53", quoted(tensor.name).c_str());
      }
    }
    if (__builtin_mul_overflow(elements, tensor.dtype->bits, &bits) || bits > kMaxInteger) {
      fail(PORTLLM_INVALID, "tensor %s has more than 2^53 bits", quoted(tensor.name).c_str());
    }
    if (bits % 8 != 0) fail(PORTLLM_INVALID, "tensor %s does not fill whole bytes", quoted(tensor.name).c_str());
    return bits / 8;
  }

  template <class ReadValue>
  void object(const char *what, ReadValue read_value) {
    if (space() != '{') fail_unexpected(what, "an object");
    at_++;
    if (space() == '}') {
      at_++;
      return;
    }
    for (;;) {
      if (space() != '"') fail_syntax();
      const std::string key = string();
      if (space() != ':') fail_syntax();
      at_++;
      read_value(key);
      const int next = space();
      if (next != ',' && next != '}') fail_syntax();
      at_++;
      if (next == '}') return;
    }
  }

  std::vector<uint64_t> integers(const char *what, uint64_t cap) {
    std::vector<uint64_t> values;
    if (space() != '[') fail_unexpected(what, "an array of integers from 0 to 2^53-1");
    at_++;
    if (space() == ']') {
      at_++;
      return values;
    }
    for (;;) {
      if (values.size() == cap) fail(PORTLLM_INVALID, "%s has more than %llu numbers", what, Number{cap});
      values.push_back(integer(what));
      const int next = space();
      if (next != ',' && next != ']') fail_unexpected(what, "an array of integers from 0 to 2^53-1");
      at_++;
      if (next == ']') return values;
    }
  }

  uint64_t integer(const char *what) {
    const int first = space();
    const uint8_t *start = at_;
    uint64_t value = 0;
    for (; at_ < end_ && *at_ >= '0' && *at_ <= '9' && value <= kMaxInteger; at_++) value = value * 10 + (*at_ - '0');
    if (at_ == start || value > kMaxInteger || (first == '0' && at_ - start > 1)) {
      fail_unexpected(what, "an array of integers from 0 to 2^53-1");
    }
    return value;
  }

  // The text of a string, its escapes resolved.
  std::string string() {
    const uint8_t *start = at_++;
    std::string text;
    for (;;) {
      if (at_ == end_ || *at_ < 0x20) fail_syntax();
      if (*at_ == '"') {
        written_ = {reinterpret_cast<const char *>(start + 1), static_cast<size_t>(at_ - start - 1)};
        at_++;
        return text;
      }
      if (*at_ == '\\') {
        at_++;
        escape(text, start);
        continue;
      }
      const uint64_t length = utf8_sequence(at_, end_);
      if (length == 0) fail_utf8(start);
      text.append(reinterpret_cast<const char *>(at_), length);
      at_ += length;
    }
  }

  void escape(std::string &text, const uint8_t *start) {
    static constexpr char kFrom[] = "\"\\/bfnrt", kTo[] = "\"\\/\b\f\n\r\t";
    if (at_ == end_) fail_syntax();
    const uint8_t letter = *at_++;
    if (letter != 'u') {
      const auto *found = static_cast<const char *>(std::memchr(kFrom, letter, sizeof kFrom - 1));
      if (!found) fail_syntax();
      text += kTo[found - kFrom];
      return;
    }
    uint32_t code = four_hex();
    if (code >= 0xdc00 && code <= 0xdfff) fail_utf8(start);
    if (code >= 0xd800 && code <= 0xdbff) {
      if (end_ - at_ < 2 || at_[0] != '\\' || at_[1] != 'u') fail_utf8(start);
      at_ += 2;
      const uint32_t low = four_hex();
      if (low < 0xdc00 || low > 0xdfff) fail_utf8(start);
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    append_utf8(text, code);
  }

  uint32_t four_hex() {
    uint32_t code = 0;
    for (int i = 0; i < 4; i++, at_++) {
      if (at_ == end_) fail_syntax();
      const uint8_t c = *at_;
      const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
      if (digit < 0) fail_syntax();
      code = code * 16 + static_cast<uint32_t>(digit);
    }
    return code;
  }

  void word(const char *word) {
    for (; *word; word++, at_++) {
      if (at_ == end_ || *at_ != static_cast<uint8_t>(*word)) fail_syntax();
    }
  }

  // Skips white space; the byte behind it, or -1 at the end.
  int space() {
    while (at_ < end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) at_++;
    return at_ < end_ ? *at_ : -1;
  }

  // By sorting, since names can be chosen to collide in a hash table.
  static void refuse_twice(std::vector<std::string_view> &names) {
    std::sort(names.begin(), names.end());
    const auto same = std::adjacent_find(names.begin(), names.end());
    if (same != names.end()) fail_twice(*same);
  }

  [[noreturn]] static void fail_twice(std::string_view key) {
    fail(PORTLLM_INVALID, "the key %s appears twice in one object of the header", quoted(key).c_str());
  }

  [[noreturn]] void fail_utf8(const uint8_t *start) const {
    fail(PORTLLM_INVALID, "the string at byte %llu of the header is not valid UTF-8", Number(start - json_));
  }

  [[noreturn]] void fail_syntax() const {
    fail(PORTLLM_INVALID, "the header is not valid JSON at its byte %llu", Number(at_ - json_));
  }

  [[noreturn]] void fail_unexpected(const char *what, const char *needed) const {
    if (at_ == end_) fail_syntax();
    fail(PORTLLM_INVALID, "%s must be %s", what, needed);
  }
};

void check_coverage(const std::vector<StoredTensor> &tensors, uint64_t data_length) {
  uint64_t at = 0;
  for (const StoredTensor &tensor : tensors) {
    if (tensor.begin != at) {
      fail(PORTLLM_INVALID, "tensor %s starts at data byte %llu, the one before it ends at %llu", quoted(tensor.name).c_str(), Number{tensor.begin}, Number{at});
    }
    at = tensor.end;
  }
  if (at != data_length) fail(PORTLLM_INVALID, "the tensors end at data byte %llu, the file has %llu", Number{at}, Number{data_length});
}

}  // namespace

namespace {

std::string described(const StoredTensor &tensor, const Shape &shape) {
  std::string text = "{\"name\":\"";
  char number[32];
  for (const char c : tensor.name) {
    if (static_cast<uint8_t>(c) >= 0x20 && c != '"' && c != '\\') {
      text += c;
    } else {
      std::snprintf(number, sizeof number, "\\u%04x", static_cast<unsigned>(static_cast<uint8_t>(c)));
      text += number;
    }
  }
  text += std::string("\",\"dtype\":\"") + tensor.dtype->name + "\",\"shape\":[";
  for (const uint64_t &size : shape) text += (&size == shape.begin() ? "" : ",") + std::to_string(size);
  return text + "],\"begin\":" + std::to_string(tensor.begin) + ",\"end\":" + std::to_string(tensor.end) + '}';
}

}  // namespace

std::string described(const Header &header, uint64_t &next, uint64_t room) {
  std::string text = "[";
  for (; next < header.tensors.size(); next++) {
    const std::string one = described(header.tensors[next], header.shape(header.tensors[next]));
    if (text.size() + 1 + one.size() + 1 > room) break;
    if (text.size() > 1) text += ',';
    text += one;
  }
  return text + ']';
}

std::string quoted(std::string_view name) {
  constexpr uint64_t kShown = 100;
  std::string text = "\"";
  uint64_t end = std::min<uint64_t>(name.size(), kShown);
  while (end < name.size() && (static_cast<uint8_t>(name[end]) & 0xc0) == 0x80) end--;
  for (uint64_t i = 0; i < end; i++) text += static_cast<uint8_t>(name[i]) < 0x20 || name[i] == 0x7f ? '?' : name[i];
  return text + (end < name.size() ? "...\"" : "\"");
}

uint64_t header_length(const uint8_t *bytes, uint64_t size, uint64_t file_size) {
  if (size < 8 || file_size < 8) fail(PORTLLM_INVALID, "a safetensors file has at least 8 bytes, this one has %llu", Number{std::min(size, file_size)});
  uint64_t length = 0;
  for (int i = 7; i >= 0; i--) length = length << 8 | bytes[i];
  if (length > kHeaderCap) fail(PORTLLM_INVALID, "the header claims %llu bytes, the limit is %llu", Number{length}, Number{kHeaderCap});
  if (8 + length > file_size) fail(PORTLLM_INVALID, "the header ends at byte %llu, the file at %llu", Number{8 + length}, Number{file_size});
  return 8 + length;
}

Header read_header(const uint8_t *bytes, uint64_t size, uint64_t file_size) {
  const uint64_t data_offset = header_length(bytes, size, file_size);
  if (size < data_offset) fail(PORTLLM_INVALID, "the header has %llu bytes, %llu are there", Number{data_offset}, Number{size});
  Header header{data_offset, {}, {}, {}};
  HeaderReader(bytes + 8, data_offset - 8, header).read();
  std::sort(header.tensors.begin(), header.tensors.end(), [](const StoredTensor &a, const StoredTensor &b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end != b.end ? a.end < b.end : a.name < b.name;
  });
  check_coverage(header.tensors, file_size - data_offset);
  for (StoredTensor &tensor : header.tensors) {
    tensor.begin += data_offset;
    tensor.end += data_offset;
  }
  return header;
}

}  // namespace portllm
