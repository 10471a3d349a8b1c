#include "mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "errors.h"

namespace mobilemoe {

MappedFile::MappedFile(const std::string& path) : path_(path) {
  // Without O_NONBLOCK a named pipe in place of the file would wait for a writer for ever.
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0) throw ModelFileError(path + ": cannot open: " + std::strerror(errno));
  struct stat status {};
  const bool regular = ::fstat(descriptor_, &status) == 0 && S_ISREG(status.st_mode);
  std::string fault = regular ? "is empty" : "is not a regular file";
  void* map = MAP_FAILED;
  if (regular && status.st_size > 0) {
    size_ = static_cast<size_t>(status.st_size);
    map = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor_, 0);
    if (map == MAP_FAILED) fault = std::string("cannot be mapped: ") + std::strerror(errno);
  }
  if (map == MAP_FAILED) {
    ::close(descriptor_);
    throw ModelFileError(path + ": " + fault);
  }
  data_ = static_cast<const uint8_t*>(map);
}

MappedFile::~MappedFile() {
  ::munmap(const_cast<uint8_t*>(data_), size_);
  ::close(descriptor_);
}

void MappedFile::check_not_truncated() const {
  struct stat status {};
  const bool known = ::fstat(descriptor_, &status) == 0;
  if (!known || static_cast<size_t>(status.st_size) < size_) {
    throw ModelFileError(path_ + ": was truncated while in use",
                         "replace a model file by renaming, never by writing into it");
  }
}

}  // namespace mobilemoe
