// The safetensors container: which tensor lies where in a mapped file.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "mapped_file.h"

namespace mobilemoe {

struct Tensor {
  std::string dtype;           // as written in the file: "U8", "F16", "BF16", "F32"
  std::vector<int64_t> shape;  // all at least 0
  int64_t begin = 0;           // byte range in the data section
  int64_t end = 0;
  const uint8_t* data = nullptr;
};

using TensorMap = std::map<std::string, Tensor>;

// Reads and checks the header of `file`.
//
// Afterwards every tensor's byte range equals its dtype and shape, ranges neither overlap nor
// leave gaps, and together they cover the file exactly, so `data` up to `end - begin` bytes is
// always inside the map. Throws ModelFileError naming the tensor and what is wrong with it.
TensorMap read_safetensors(const MappedFile& file);

// "[2, 3]"
std::string shape_string(const std::vector<int64_t>& shape);

}  // namespace mobilemoe
