// A model file on disk: opened, read, then mapped read-only as a whole.
#pragma once

#include <optional>

#include "fault_guard.h"
#include "model_file.h"

namespace mobilemoe {

// The bytes of a file in memory, from the start of a page on, and its descriptor.
struct FileView {
  const uint8_t* data;
  uint64_t size;
  int descriptor;
};

// A file that is written into while it is in use is damaged, and stays so. A file that is
// replaced by renaming another one over it is not: the old bytes live as long as their map.
class MappedFile final : public ModelFile {
 public:
  // Opens `path`. Throws ModelFileError when it cannot, or when the file is empty or not a
  // regular one.
  explicit MappedFile(const std::string& path);
  ~MappedFile() override;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::string read(uint64_t offset, uint64_t count) const override;
  const uint8_t* map() override;
  void check_intact() const override;
  // After `map`.
  FileView view() const { return {static_cast<const uint8_t*>(map_), size_, descriptor_}; }

 private:
  // What changes with the file's bytes.
  struct State {
    int64_t size = -1;  // -1: unknown
    int64_t modified_s = 0, modified_ns = 0;
    bool operator==(const State&) const = default;
  };
  State state() const;

  int descriptor_;
  State opened_;
  void* map_ = nullptr;
  std::optional<GuardedRange> guard_;
};

}  // namespace mobilemoe
