// Preloaded by test_engine_allocation.py: lets the n-th allocation of watched code fail.
//
// Allocations count while armed, when the code that calls malloc lies in a watched range: the
// engine's module, and the C++ library, which allocates in its name. Everything else, Python
// included, gets its memory as ever. For glibc, whose own functions do the work.
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>

extern "C" {
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* block, size_t size);
void* __libc_memalign(size_t alignment, size_t size);
}

namespace {

constexpr int kRanges = 16;
uintptr_t begins[kRanges], ends[kRanges];
std::atomic<int> ranges{0};
std::atomic<bool> armed{false};
std::atomic<long> counted{0};
long failing = 0;
bool onward = false;

bool watched(const void* caller) {
  const auto address = reinterpret_cast<uintptr_t>(caller);
  const int count = ranges.load(std::memory_order_acquire);
  for (int i = 0; i < count; ++i) {
    if (address >= begins[i] && address < ends[i]) return true;
  }
  return false;
}

bool fails(const void* caller) {
  if (!armed.load(std::memory_order_acquire) || !watched(caller)) return false;
  const long number = ++counted;
  if (number != failing && !(onward && number > failing)) return false;
  errno = ENOMEM;
  return true;
}

}  // namespace

extern "C" {

void watch(uintptr_t begin, uintptr_t end) {
  const int i = ranges.load();
  begins[i] = begin;
  ends[i] = end;
  ranges.store(i + 1, std::memory_order_release);
}

// The n-th allocation from now on fails, from 1; with `and_later` all that follow fail as well.
void arm(long n, int and_later) {
  counted = 0;
  failing = n;
  onward = and_later != 0;
  armed.store(true, std::memory_order_release);
}

// Returns how many allocations were counted.
long disarm() {
  armed.store(false, std::memory_order_release);
  return counted;
}

void* malloc(size_t size) {
  return fails(__builtin_return_address(0)) ? nullptr : __libc_malloc(size);
}

void* calloc(size_t count, size_t size) {
  return fails(__builtin_return_address(0)) ? nullptr : __libc_calloc(count, size);
}

void* realloc(void* block, size_t size) {
  return fails(__builtin_return_address(0)) ? nullptr : __libc_realloc(block, size);
}

void* aligned_alloc(size_t alignment, size_t size) {
  return fails(__builtin_return_address(0)) ? nullptr : __libc_memalign(alignment, size);
}

void* memalign(size_t alignment, size_t size) {
  return fails(__builtin_return_address(0)) ? nullptr : __libc_memalign(alignment, size);
}

int posix_memalign(void** block, size_t alignment, size_t size) {
  *block = fails(__builtin_return_address(0)) ? nullptr : __libc_memalign(alignment, size);
  return *block == nullptr ? ENOMEM : 0;
}

}  // extern "C"
