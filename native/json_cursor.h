// A strict JSON reader for one known document: the safetensors header.
//
// It builds no tree: the caller asks for what must come next, and anything else is an error
// with its byte offset. Nothing recurses and every string is bounded, so no input can exhaust
// the stack or the memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace mobilemoe {

class JsonCursor {
 public:
  // `origin` names the document in error messages.
  JsonCursor(std::string_view text, std::string origin)
      : text_(text), origin_(std::move(origin)) {}

  // Skips white space, then requires `token`.
  void expect(char token);
  // Skips white space, then consumes `token` if it comes next.
  bool accept(char token);
  // A string with its escapes resolved, as UTF-8; at most `max_bytes` of it.
  std::string string(size_t max_bytes);
  // A string of any length, checked like every other and forgotten.
  void skip_string();
  // An integer from 0 to 2^63 - 1, without sign, fraction or exponent.
  int64_t integer();
  // Requires that only white space is left.
  void end();
  // Throws ModelFileError with `what` and the current offset.
  [[noreturn]] void fail(const std::string& what) const;

 private:
  void skip_space();
  uint8_t next_byte();
  // One character of a string whose first byte is `first`, escape or not, as UTF-8 of at most
  // 4 bytes at `out`; returns their number.
  size_t character(uint8_t first, char* out);
  size_t escape(char* out);
  size_t multibyte(uint8_t lead, char* out);
  uint32_t hex4();

  std::string_view text_;
  std::string origin_;
  size_t at_ = 0;
};

// `text` with every byte outside printable ASCII replaced by '?', at most 120 bytes: safe to
// put into an error message.
std::string printable(std::string_view text);

}  // namespace mobilemoe
