#include "mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "errors.h"

namespace mobilemoe {
namespace {

constexpr const char* kReplaceHint =
    "replace a model file by renaming, never by writing into it; then load the model again";

// Without O_NONBLOCK a named pipe in place of the file would wait for a writer for ever.
int open_for_reading(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) throw ModelFileError(path + ": cannot open: " + std::strerror(errno));
  return descriptor;
}

bool is_regular(int descriptor) {
  struct stat status {};
  return ::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
}

}  // namespace

MappedFile::MappedFile(const std::string& path)
    : ModelFile(path, 0), descriptor_(open_for_reading(path)), opened_(state()) {
  const bool regular = is_regular(descriptor_);
  if (!regular || opened_.size <= 0) {
    ::close(descriptor_);
    throw ModelFileError(path + (regular ? ": is empty" : ": is not a regular file"));
  }
  size_ = static_cast<uint64_t>(opened_.size);
}

MappedFile::~MappedFile() {
  guard_.reset();
  if (map_ != nullptr) ::munmap(map_, size_);
  ::close(descriptor_);
}

std::string MappedFile::read(uint64_t offset, uint64_t count) const {
  std::string bytes(count, '\0');
  for (uint64_t done = 0; done < count;) {
    const ssize_t got = ::pread(descriptor_, bytes.data() + done, count - done,
                                static_cast<off_t>(offset + done));
    if (got == 0) throw ModelFileError(path_ + ": was truncated while in use", kReplaceHint);
    if (got < 0 && errno != EINTR) {
      throw ModelFileError(path_ + ": cannot be read: " + std::strerror(errno));
    }
    if (got > 0) done += static_cast<uint64_t>(got);
  }
  return bytes;
}

const uint8_t* MappedFile::map() {
  void* const map = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor_, 0);
  if (map == MAP_FAILED) {
    throw ModelFileError(path_ + ": cannot be mapped: " + std::strerror(errno));
  }
  map_ = map;
  guard_.emplace(map, size_);
  return static_cast<const uint8_t*>(map);
}

MappedFile::State MappedFile::state() const {
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) return {};
#ifdef __APPLE__
  const timespec& modified = status.st_mtimespec;
#else
  const timespec& modified = status.st_mtim;
#endif
  return {status.st_size, modified.tv_sec, modified.tv_nsec};
}

// Size and time tell what the guard cannot: a file cut where nobody has read since, or within
// its last page, whose rest then reads as zeros without a fault; and bytes written in place.
void MappedFile::check_intact() const {
  const State now = state();
  if (now == opened_ && !guard_->damaged()) return;
  guard_->mark_damaged();
  if (now == opened_) {
    throw ModelFileError(path_ + ": could not be read while in use",
                         "see that its disk is well, then load the model again");
  }
  throw ModelFileError(path_ + (now.size < opened_.size ? ": was truncated while in use"
                                                        : ": was changed while in use"),
                       kReplaceHint);
}

}  // namespace mobilemoe
