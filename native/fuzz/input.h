// What the fuzzer's bytes mean: a model, and the files that are said to hold its weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "config.h"
#include "weight_formats.h"

namespace mobilemoe::fuzz {

struct Variant {
  Config config;
  WeightFormat format = WeightFormat::kInt4;
};

// The smallest models that hold every kind of tensor, in both formats.
const std::vector<Variant>& variants();

struct Input {
  size_t variant = 0;              // index into variants()
  std::vector<std::string> files;  // at least one
};

// Any bytes are an input; `encode` gives bytes that decode to the same one.
Input decode(const uint8_t* data, size_t size);
std::string encode(const Input& input);

// One file that holds exactly what `variant` needs.
std::string valid_file(const Variant& variant);

}  // namespace mobilemoe::fuzz
