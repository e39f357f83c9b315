// A second reading of a safetensors header, for the fuzz targets alone: any JSON first, its meaning afterwards, and every
// pair of tensors compared with every other. Slow, and unlike safetensors.cpp wherever there is another way.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace plain {

struct Refused {};

struct Json {
  char kind = 'z';  // o(bject), a(rray), s(tring), n(umber), w(ord)
  std::u32string text;
  std::vector<std::pair<std::u32string, Json>> members;
  std::vector<Json> items;
};

inline void require(bool sound) {
  if (!sound) throw Refused{};
}

// Code points; by the value that the bits give, not by ranges of bytes.
inline std::u32string decoded(const std::string &bytes) {
  std::u32string text;
  for (size_t i = 0; i < bytes.size();) {
    const auto first = static_cast<uint8_t>(bytes[i]);
    int more = 0;
    uint32_t value = first, least = 0;
    if (first >= 0x80) {
      require(first >= 0xc0 && first < 0xf8);
      more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
      value = first & (0x3f >> more);
      least = more == 3 ? 0x10000 : more == 2 ? 0x800 : 0x80;
    }
    for (int k = 1; k <= more; k++) {
      require(i + k < bytes.size() && static_cast<uint8_t>(bytes[i + k]) >> 6 == 2);
      value = value << 6 | (static_cast<uint8_t>(bytes[i + k]) & 0x3f);
    }
    require(value >= least && value <= 0x10ffff && !(value >= 0xd800 && value <= 0xdfff));
    text += static_cast<char32_t>(value);
    i += 1 + more;
  }
  return text;
}

class Parser {
 public:
  explicit Parser(std::u32string text) : text_(std::move(text)) {}

  Json whole() {
    Json value = any(0);
    skip();
    require(at_ == text_.size());
    return value;
  }

 private:
  std::u32string text_;
  size_t at_ = 0;

  char32_t here() const { return at_ < text_.size() ? text_[at_] : U'\0'; }
  void skip() {
    while (here() == U' ' || here() == U'\t' || here() == U'\n' || here() == U'\r') at_++;
  }
  bool take(char32_t c) {
    if (here() != c) return false;
    at_++;
    return true;
  }
  void word(const char32_t *letters) {
    for (; *letters; letters++) require(take(*letters));
  }
  static bool is_digit(char32_t c) { return c >= U'0' && c <= U'9'; }

  Json any(int depth) {
    require(depth < 100);
    skip();
    Json value;
    if (take(U'{')) {
      value.kind = 'o';
      for (skip(); !take(U'}'); skip()) {
        if (!value.members.empty()) require(take(U','));
        skip();
        std::u32string key = string();
        skip();
        require(take(U':'));
        value.members.emplace_back(std::move(key), any(depth + 1));
      }
    } else if (take(U'[')) {
      value.kind = 'a';
      for (skip(); !take(U']'); skip()) {
        if (!value.items.empty()) require(take(U','));
        value.items.push_back(any(depth + 1));
      }
    } else if (here() == U'"') {
      value.kind = 's';
      value.text = string();
    } else if (here() == U'-' || is_digit(here())) {
      value.kind = 'n';
      value.text = number();
    } else {
      value.kind = 'w';
      value.text = std::u32string(1, here());
      if (here() == U't') word(U"true");
      else if (here() == U'f') word(U"false");
      else word(U"null");
    }
    return value;
  }

  std::u32string number() {
    const size_t start = at_;
    take(U'-');
    require(is_digit(here()));
    if (!take(U'0')) while (is_digit(here())) at_++;
    if (take(U'.')) {
      require(is_digit(here()));
      while (is_digit(here())) at_++;
    }
    if (here() == U'e' || here() == U'E') {
      at_++;
      if (here() == U'+' || here() == U'-') at_++;
      require(is_digit(here()));
      while (is_digit(here())) at_++;
    }
    return text_.substr(start, at_ - start);
  }

  // Escapes give UTF-16 code units, pairs of which are joined at the end.
  std::u32string string() {
    require(take(U'"'));
    std::u32string units;
    while (!take(U'"')) {
      require(at_ < text_.size() && here() >= 0x20);
      if (!take(U'\\')) {
        units += text_[at_++];
        continue;
      }
      static const std::map<char32_t, char32_t> letters = {{U'"', U'"'}, {U'\\', U'\\'}, {U'/', U'/'}, {U'b', U'\b'}, {U'f', U'\f'}, {U'n', U'\n'}, {U'r', U'\r'}, {U't', U'\t'}};
      if (take(U'u')) {
        std::string hex;
        for (int i = 0; i < 4; i++) {
          const char32_t c = here();
          require(is_digit(c) || (c >= U'a' && c <= U'f') || (c >= U'A' && c <= U'F'));
          hex += static_cast<char>(c);
          at_++;
        }
        units += static_cast<char32_t>(std::stoul(hex, nullptr, 16));
      } else {
        const auto letter = letters.find(here());
        require(letter != letters.end());
        units += letter->second;
        at_++;
      }
    }
    std::u32string joined;
    for (size_t i = 0; i < units.size(); i++) {
      if (units[i] < 0xd800 || units[i] > 0xdfff) {
        joined += units[i];
        continue;
      }
      require(units[i] < 0xdc00 && i + 1 < units.size() && units[i + 1] >= 0xdc00 && units[i + 1] <= 0xdfff);
      joined += static_cast<char32_t>(0x10000 + (units[i] - 0xd800) * 0x400 + (units[i + 1] - 0xdc00));
      i++;
    }
    return joined;
  }
};

struct Tensor {
  std::u32string name;
  std::string dtype;
  std::vector<uint64_t> shape;
  uint64_t begin, end;

  bool operator<(const Tensor &other) const { return name < other.name; }
  bool operator==(const Tensor &other) const {
    return name == other.name && dtype == other.dtype && shape == other.shape && begin == other.begin && end == other.end;
  }
};

inline uint64_t count(const Json &value) {
  require(value.kind == 'n' && value.text.size() <= 16);
  uint64_t number = 0;
  for (const char32_t c : value.text) {
    require(c >= U'0' && c <= U'9');
    number = number * 10 + (c - U'0');
  }
  require(number < 1ull << 53);
  return number;
}

inline std::vector<uint64_t> counts(const Json &value) {
  require(value.kind == 'a');
  std::vector<uint64_t> numbers;
  for (const Json &item : value.items) numbers.push_back(count(item));
  return numbers;
}

inline void no_key_twice(const Json &value) {
  std::set<std::u32string> keys;
  for (const auto &member : value.members) {
    require(keys.insert(member.first).second);
    no_key_twice(member.second);
  }
  for (const Json &item : value.items) no_key_twice(item);
}

inline Tensor tensor_of(const std::u32string &name, const Json &value) {
  static const std::map<std::string, unsigned> bits = {
      {"BOOL", 8}, {"U8", 8}, {"I8", 8}, {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"I16", 16}, {"U16", 16}, {"F16", 16}, {"BF16", 16},
      {"I32", 32}, {"U32", 32}, {"F32", 32}, {"C64", 64}, {"F64", 64}, {"I64", 64}, {"U64", 64}, {"F4", 4}, {"F6_E2M3", 6}, {"F6_E3M2", 6}};
  size_t units = 0;
  for (const char32_t c : name) units += c > 0xffff ? 2 : 1;
  require(units >= 1 && units <= 1024 && value.kind == 'o' && value.members.size() == 3);
  std::map<std::u32string, const Json *> members;
  for (const auto &member : value.members) members[member.first] = &member.second;
  require(members.count(U"dtype") && members.count(U"shape") && members.count(U"data_offsets"));
  const Json &dtype = *members[U"dtype"];
  Tensor tensor{name, {}, counts(*members[U"shape"]), 0, 0};
  require(dtype.kind == 's');
  for (const char32_t c : dtype.text) tensor.dtype += c < 0x80 ? static_cast<char>(c) : '?';
  require(bits.count(tensor.dtype) && tensor.shape.size() <= 16);
  const std::vector<uint64_t> offsets = counts(*members[U"data_offsets"]);
  require(offsets.size() == 2 && offsets[0] <= offsets[1]);
  tensor.begin = offsets[0];
  tensor.end = offsets[1];
  unsigned __int128 product = 1;
  for (const uint64_t size : tensor.shape) {
    product *= size;
    require(product < static_cast<unsigned __int128>(1) << 53);
  }
  product *= bits.at(tensor.dtype);
  require(product < static_cast<unsigned __int128>(1) << 53 && product == static_cast<unsigned __int128>(8) * (tensor.end - tensor.begin));
  return tensor;
}

// In the order of the names, offsets from the start of the file; nothing where the header is to be refused.
inline std::optional<std::vector<Tensor>> read(const uint8_t *bytes, uint64_t size, uint64_t file_size) try {
  require(size >= 8 && file_size >= 8);
  uint64_t length = 0;
  for (int i = 0; i < 8; i++) length += static_cast<uint64_t>(bytes[i]) << (8 * i);
  require(length <= 16 << 20 && length + 8 <= size && length + 8 <= file_size);
  const std::string json(reinterpret_cast<const char *>(bytes) + 8, length);
  require(!json.empty() && json[0] == '{');
  const Json root = Parser(decoded(json)).whole();
  no_key_twice(root);
  std::vector<Tensor> tensors;
  for (const auto &[name, value] : root.members) {
    if (name != U"__metadata__") {
      tensors.push_back(tensor_of(name, value));
    } else if (value.kind != 'w' || value.text != U"n") {
      require(value.kind == 'o');
      for (const auto &entry : value.members) require(entry.second.kind == 's');
    }
  }
  const uint64_t data = file_size - 8 - length;
  unsigned __int128 sum = 0;
  for (const Tensor &one : tensors) {
    require(one.end <= data);
    sum += one.end - one.begin;
    for (const Tensor &other : tensors) {
      if (&one == &other) continue;
      require(one.end <= other.begin || other.end <= one.begin);
    }
  }
  require(sum == data);
  for (Tensor &one : tensors) {
    one.begin += 8 + length;
    one.end += 8 + length;
  }
  std::sort(tensors.begin(), tensors.end());
  return tensors;
} catch (const Refused &) {
  return std::nullopt;
}

}  // namespace plain
