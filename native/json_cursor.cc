#include "json_cursor.h"

#include <limits>

#include "errors.h"

namespace mobilemoe {
namespace {

constexpr size_t kMaxCharacter = 4;  // bytes of one character in UTF-8

size_t encode_utf8(uint32_t code, char* out) {
  if (code < 0x80) {
    out[0] = static_cast<char>(code);
    return 1;
  }
  const size_t tail = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  const uint32_t lead = tail == 1 ? 0xC0 : tail == 2 ? 0xE0 : 0xF0;
  for (size_t i = 0; i <= tail; ++i) {
    const uint32_t bits = code >> (6 * (tail - i));
    out[i] = static_cast<char>(i == 0 ? lead | bits : 0x80 | (bits & 0x3F));
  }
  return tail + 1;
}

}  // namespace

void JsonCursor::fail(const std::string& what) const {
  throw ModelFileError(origin_ + ": bad JSON at byte " + std::to_string(at_) + ": " + what);
}

void JsonCursor::skip_space() {
  constexpr std::string_view space = " \t\n\r";
  while (at_ < text_.size() && space.find(text_[at_]) != std::string_view::npos) ++at_;
}

bool JsonCursor::accept(char token) {
  skip_space();
  if (at_ >= text_.size() || text_[at_] != token) return false;
  ++at_;
  return true;
}

void JsonCursor::expect(char token) {
  if (!accept(token)) fail(std::string("expected '") + token + "'");
}

void JsonCursor::end() {
  skip_space();
  if (at_ != text_.size()) fail("expected the end of the header");
}

uint8_t JsonCursor::next_byte() {
  if (at_ >= text_.size()) fail("the header ends inside a string");
  return static_cast<uint8_t>(text_[at_++]);
}

std::string JsonCursor::string(size_t max_bytes) {
  expect('"');
  std::string out;
  char bytes[kMaxCharacter];
  for (uint8_t c = next_byte(); c != '"'; c = next_byte()) {
    out.append(bytes, character(c, bytes));
    if (out.size() > max_bytes) {
      fail("a string of more than " + std::to_string(max_bytes) + " bytes");
    }
  }
  return out;
}

void JsonCursor::skip_string() {
  expect('"');
  char bytes[kMaxCharacter];
  for (uint8_t c = next_byte(); c != '"'; c = next_byte()) character(c, bytes);
}

size_t JsonCursor::character(uint8_t first, char* out) {
  if (first < 0x20) fail("control character in a string");
  if (first == '\\') return escape(out);
  if (first >= 0x80) return multibyte(first, out);
  out[0] = static_cast<char>(first);
  return 1;
}

// The longest, shortest and surrogate forms that UTF-8 forbids show in the code that results.
size_t JsonCursor::multibyte(uint8_t lead, char* out) {
  const size_t tail = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
  uint32_t code = lead & (0x3Fu >> tail);
  for (size_t i = 0; i < tail; ++i) {
    const uint8_t next = next_byte();
    if ((next & 0xC0) != 0x80) fail("a string that is not UTF-8");
    code = code << 6 | (next & 0x3Fu);
  }
  const uint32_t lowest = tail == 1 ? 0x80 : tail == 2 ? 0x800 : 0x10000;
  const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
  const bool valid = lead >= 0xC0 && lead < 0xF8 && code >= lowest && code <= 0x10FFFF;
  if (!valid || surrogate) fail("a string that is not UTF-8");
  return encode_utf8(code, out);
}

size_t JsonCursor::escape(char* out) {
  constexpr std::string_view names = "\"\\/bfnrt";
  constexpr std::string_view values = "\"\\/\b\f\n\r\t";
  const auto name = static_cast<char>(next_byte());
  if (const size_t index = names.find(name); index != std::string_view::npos) {
    out[0] = values[index];
    return 1;
  }
  if (name != 'u') fail("unknown escape in a string");
  uint32_t code = hex4();
  if (code >= 0xD800 && code < 0xDC00) {
    if (next_byte() != '\\' || next_byte() != 'u') fail("half of a surrogate pair");
    const uint32_t low = hex4();
    if (low < 0xDC00 || low > 0xDFFF) fail("half of a surrogate pair");
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
  } else if (code >= 0xDC00 && code <= 0xDFFF) {
    fail("half of a surrogate pair");
  }
  return encode_utf8(code, out);
}

uint32_t JsonCursor::hex4() {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) {
    const uint8_t c = next_byte();
    const bool digit = c >= '0' && c <= '9';
    const bool lower = c >= 'a' && c <= 'f';
    const bool upper = c >= 'A' && c <= 'F';
    if (!digit && !lower && !upper) fail("bad \\u escape");
    const uint32_t base = digit ? '0' : lower ? 'a' - 10 : 'A' - 10;
    value = value * 16 + (c - base);
  }
  return value;
}

int64_t JsonCursor::integer() {
  skip_space();
  const size_t first = at_;
  int64_t value = 0;
  for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
    const int digit = text_[at_] - '0';
    if (value > (std::numeric_limits<int64_t>::max() - digit) / 10) fail("integer too large");
    value = value * 10 + digit;
  }
  if (at_ == first) fail("expected a non-negative integer");
  if (text_[first] == '0' && at_ - first > 1) fail("leading zero in an integer");
  return value;
}

std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, 120)) out.push_back(c >= 0x20 && c < 0x7F ? c : '?');
  return text.size() > 120 ? out + "..." : out;
}

}  // namespace mobilemoe
