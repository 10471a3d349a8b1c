// A model file taken apart for mutation, as text: unlike the reader, nothing here minds nonsense.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace mobilemoe::fuzz {

struct Parts {
  std::vector<std::string> members;  // of the header's object: "name":{...}
  std::string rest;                  // of the header, after the object
  std::string data;
  std::optional<uint64_t> length;    // written in place of the header's own
};

// Absent when the file does not begin with a length and an object.
std::optional<Parts> take_apart(const std::string& file);
std::string put_together(const Parts& parts);

// A stretch of a member's text.
struct Range {
  size_t begin = 0, end = 0;
};

std::vector<Range> numbers_of(const std::string& member);  // outside strings
std::vector<Range> strings_of(const std::string& member);  // without their quotes

using Offsets = std::pair<uint64_t, uint64_t>;

// The data_offsets of a member, when it has two numbers there that fit.
std::optional<Offsets> offsets_of(const std::string& member);
// Writes them into a member that has some.
void set_offsets(std::string& member, Offsets offsets);

}  // namespace mobilemoe::fuzz
