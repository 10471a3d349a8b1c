// The safetensors container: a length, a JSON header, the tensors. Here a set of files is held
// against the tensors that a model needs, and refused at the first thing that does not fit.
#pragma once

#include <bit>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "errors.h"
#include "json_cursor.h"
#include "model_file.h"

namespace mobilemoe {

static_assert(std::endian::native == std::endian::little,
              "the file's numbers are little-endian and used where they lie");

using Shape = std::vector<int64_t>;

// A tensor that the model needs, and where it was found.
struct Tensor {
  std::vector<std::string> dtypes;  // that the model can read: of U8, F16, BF16, F32
  Shape shape;
  std::string dtype;  // that it has
  int64_t begin = 0;  // byte range in the data section of its file
  int64_t end = 0;
  int file = -1;      // index in order of `add`; -1: not found
};

// A file holds a tensor that the model does not have.
class UnknownTensor : public ModelFileError {
 public:
  UnknownTensor(const std::string& path, const std::string& name);

  const std::string path, name;
};

// The memory it takes depends on the tensors expected, never on what the files say.
class TensorTable {
 public:
  void expect(const std::string& name, std::vector<std::string> dtypes, const Shape& shape);

  // Reads and checks the header of `file`. Afterwards its tensors are all expected ones, of the
  // expected dtype and shape, in no other file, and their ranges cover its data section exactly:
  // without overlap, gap or rest. Returns the offset of the data section. Throws ModelFileError
  // that names file, tensor and fault; for an unexpected name, UnknownTensor.
  uint64_t add(const ModelFile& file);
  // Throws ModelFileError for an expected tensor that was in none of the files.
  void check_complete() const;
  // The expected ones by name.
  const std::map<std::string, Tensor>& tensors() const { return tensors_; }
  // Of an expected name.
  const Tensor& at(const std::string& name) const { return tensors_.at(name); }

 private:
  using Entry = std::map<std::string, Tensor>::value_type;

  // Bytes of JSON that describing all expected tensors may take.
  uint64_t header_limit() const;
  Entry& claim(const std::string& name, const JsonCursor& json);

  std::map<std::string, Tensor> tensors_;
  std::vector<std::string> paths_;  // of the files added
};

}  // namespace mobilemoe
