// A file that shrinks while it is mapped, or whose disk fails, answers the next read of its
// memory with a bus error, and a bus error ends the process. This guard ends only the call.
//
// One SIGBUS handler serves the process. A fault inside a guarded range puts pages of zeros
// over the rest of the range, so that whoever computes goes on, and marks the range as damaged,
// so that the result is thrown away. Any other SIGBUS goes to the handler that was there before.
#pragma once

#include <cstddef>

namespace mobilemoe {

// Puts the handler in front, again if somebody has put another one there since.
void arm_fault_guard();

// Guards `size` mapped bytes from the page that starts at `begin` on, until destroyed. The
// range must stay mapped that long, and nobody may read it afterwards.
class GuardedRange {
 public:
  // Throws ModelFileError when the process guards thousands of ranges already.
  GuardedRange(const void* begin, size_t size);
  ~GuardedRange();
  GuardedRange(const GuardedRange&) = delete;
  GuardedRange& operator=(const GuardedRange&) = delete;

  // Whether any read of the range met zeros in place of the file, or `mark_damaged` was called.
  bool damaged() const;
  void mark_damaged() const;

 private:
  size_t slot_;
};

}  // namespace mobilemoe
