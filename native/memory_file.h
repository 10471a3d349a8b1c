// A model file that is bytes in memory: for tests and fuzzers.
#pragma once

#include <span>

#include "model_file.h"

namespace mobilemoe {

class MemoryFile final : public ModelFile {
 public:
  // `bytes` must outlive the file.
  MemoryFile(std::string path, std::span<const uint8_t> bytes)
      : ModelFile(std::move(path), bytes.size()), bytes_(bytes) {}

  std::string read(uint64_t offset, uint64_t count) const override {
    return {reinterpret_cast<const char*>(bytes_.data()) + offset, count};
  }
  const uint8_t* map() override { return bytes_.data(); }
  void check_intact() const override {}

 private:
  std::span<const uint8_t> bytes_;
};

}  // namespace mobilemoe
