#include "json_cursor.h"

#include <limits>

#include "errors.h"

namespace mobilemoe {
namespace {

void append_utf8(uint32_t code, std::string& out) {
  if (code < 0x80) {
    out.push_back(static_cast<char>(code));
    return;
  }
  const int tail = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  const uint32_t lead = tail == 1 ? 0xC0 : tail == 2 ? 0xE0 : 0xF0;
  out.push_back(static_cast<char>(lead | (code >> (6 * tail))));
  for (int i = tail - 1; i >= 0; --i) {
    out.push_back(static_cast<char>(0x80 | ((code >> (6 * i)) & 0x3F)));
  }
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

char JsonCursor::next_char() {
  if (at_ >= text_.size()) fail("the header ends inside a string");
  return text_[at_++];
}

std::string JsonCursor::string() {
  expect('"');
  std::string out;
  for (char c = next_char(); c != '"'; c = next_char()) {
    if (static_cast<unsigned char>(c) < 0x20) fail("control character in a string");
    if (c == '\\') {
      append_escape(out);
    } else {
      out.push_back(c);
    }
  }
  return out;
}

void JsonCursor::append_escape(std::string& out) {
  constexpr std::string_view names = "\"\\/bfnrt";
  constexpr std::string_view values = "\"\\/\b\f\n\r\t";
  const char c = next_char();
  if (const size_t index = names.find(c); index != std::string_view::npos) {
    out.push_back(values[index]);
    return;
  }
  if (c != 'u') fail("unknown escape in a string");
  uint32_t code = hex4();
  if (code >= 0xD800 && code < 0xDC00) {
    if (next_char() != '\\' || next_char() != 'u') fail("half of a surrogate pair");
    const uint32_t low = hex4();
    if (low < 0xDC00 || low > 0xDFFF) fail("half of a surrogate pair");
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
  } else if (code >= 0xDC00 && code <= 0xDFFF) {
    fail("half of a surrogate pair");
  }
  append_utf8(code, out);
}

uint32_t JsonCursor::hex4() {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) {
    const char c = next_char();
    const bool digit = c >= '0' && c <= '9';
    const bool lower = c >= 'a' && c <= 'f';
    const bool upper = c >= 'A' && c <= 'F';
    if (!digit && !lower && !upper) fail("bad \\u escape");
    const int base = digit ? '0' : lower ? 'a' - 10 : 'A' - 10;
    value = value * 16 + static_cast<uint32_t>(c - base);
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
