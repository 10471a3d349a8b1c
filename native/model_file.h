// One file of a model, wherever its bytes are.
#pragma once

#include <cstdint>
#include <string>

namespace mobilemoe {

class ModelFile {
 public:
  virtual ~ModelFile() = default;

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }

  // A copy of `count` bytes from `offset` on, all inside `size()`. Throws ModelFileError when
  // they cannot be read.
  virtual std::string read(uint64_t offset, uint64_t count) const = 0;
  // All `size()` bytes as memory, valid as long as this object. Call it once; throws
  // ModelFileError.
  virtual const uint8_t* map() = 0;
  // Throws ModelFileError when the memory may not hold what the file held when it was opened.
  virtual void check_intact() const = 0;

 protected:
  ModelFile(std::string path, uint64_t size) : path_(std::move(path)), size_(size) {}

  std::string path_;
  uint64_t size_;
};

}  // namespace mobilemoe
