#include "parts.h"

namespace mobilemoe::fuzz {
namespace {

constexpr size_t kPrefix = 8;
constexpr const char* kOffsetsKey = "\"data_offsets\":[";

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Tells what stands in strings from what stands between them.
class Scanner {
 public:
  // Returns whether `c` is neither in a string nor one of its quotes.
  bool feed(char c) {
    const bool was_inside = inside_;
    if (was_inside) {
      inside_ = escaped_ || c != '"';
      escaped_ = !escaped_ && c == '\\';
    } else {
      inside_ = c == '"';
    }
    return !was_inside && !inside_;
  }
  bool inside() const { return inside_; }

 private:
  bool inside_ = false, escaped_ = false;
};

// Fills `members` from the object that begins at `text`; returns where it ends, 0 if nowhere.
size_t split_members(const std::string& text, std::vector<std::string>& members) {
  Scanner scanner;
  int depth = 0;
  size_t first = 1;
  for (size_t i = 0; i < text.size(); ++i) {
    if (!scanner.feed(text[i])) continue;
    depth += (text[i] == '{' || text[i] == '[') - (text[i] == '}' || text[i] == ']');
    const bool end = depth == 0;
    if (end || (depth == 1 && text[i] == ',')) {
      if (!end || i > first || !members.empty()) members.push_back(text.substr(first, i - first));
      first = i + 1;
    }
    if (end) return i + 1;
  }
  return 0;
}

uint64_t length_of(const std::string& file) {
  uint64_t length = 0;
  for (size_t i = 0; i < kPrefix; ++i) length |= uint64_t{static_cast<uint8_t>(file[i])} << (8 * i);
  return length;
}

uint64_t number_in(const std::string& text, Range range) {
  uint64_t value = 0;
  for (size_t i = range.begin; i < range.end; ++i) {
    value = value * 10 + static_cast<uint64_t>(text[i] - '0');
  }
  return value;
}

// The two numbers of a member's data_offsets, of at most 18 digits.
std::optional<std::pair<Range, Range>> offset_ranges(const std::string& member) {
  const size_t key = member.find(kOffsetsKey);
  if (key == std::string::npos) return std::nullopt;
  std::vector<Range> found;
  for (const Range& range : numbers_of(member)) {
    if (range.begin >= key && range.end - range.begin <= 18) found.push_back(range);
  }
  if (found.size() < 2) return std::nullopt;
  return std::pair(found[0], found[1]);
}

}  // namespace

std::optional<Parts> take_apart(const std::string& file) {
  if (file.size() < kPrefix) return std::nullopt;
  const uint64_t length = length_of(file);
  if (length > file.size() - kPrefix) return std::nullopt;
  const std::string header = file.substr(kPrefix, length);
  Parts parts;
  if (header.empty() || header[0] != '{') return std::nullopt;
  const size_t end = split_members(header, parts.members);
  if (end == 0) return std::nullopt;
  parts.rest = header.substr(end);
  parts.data = file.substr(kPrefix + length);
  return parts;
}

std::string put_together(const Parts& parts) {
  std::string header = "{";
  for (size_t i = 0; i < parts.members.size(); ++i) header += (i ? "," : "") + parts.members[i];
  header += "}" + parts.rest;
  const uint64_t length = parts.length.value_or(header.size());
  std::string file;
  for (size_t i = 0; i < kPrefix; ++i) file.push_back(static_cast<char>(length >> (8 * i)));
  return file + header + parts.data;
}

std::vector<Range> numbers_of(const std::string& member) {
  std::vector<Range> found;
  Scanner scanner;
  for (size_t i = 0; i < member.size(); ++i) {
    if (!scanner.feed(member[i]) || !is_digit(member[i])) continue;
    if (found.empty() || found.back().end != i) found.push_back({i, i});
    found.back().end = i + 1;
  }
  return found;
}

std::vector<Range> strings_of(const std::string& member) {
  std::vector<Range> found;
  Scanner scanner;
  for (size_t i = 0; i < member.size(); ++i) {
    const bool was_inside = scanner.inside();
    scanner.feed(member[i]);
    if (!was_inside && scanner.inside()) found.push_back({i + 1, i + 1});
    if (was_inside && !scanner.inside()) found.back().end = i;
  }
  return found;
}

std::optional<Offsets> offsets_of(const std::string& member) {
  const auto ranges = offset_ranges(member);
  if (!ranges) return std::nullopt;
  return Offsets(number_in(member, ranges->first), number_in(member, ranges->second));
}

void set_offsets(std::string& member, Offsets offsets) {
  const auto ranges = offset_ranges(member);
  if (!ranges) return;
  const auto [begin, end] = *ranges;
  member.replace(end.begin, end.end - end.begin, std::to_string(offsets.second));
  member.replace(begin.begin, begin.end - begin.begin, std::to_string(offsets.first));
}

}  // namespace mobilemoe::fuzz
