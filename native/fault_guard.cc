#include "fault_guard.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <mutex>
#include <string>

#include "errors.h"

namespace mobilemoe {
namespace {

// A table of fixed size and plain atomics: a signal handler may neither lock nor allocate.
struct Slot {
  std::atomic<bool> taken{false};
  std::atomic<uintptr_t> begin{0};  // 0: not guarded (yet, or any more)
  std::atomic<uintptr_t> end{0};
  std::atomic<bool> damaged{false};
};

constexpr size_t kSlots = 4096;
constexpr size_t kPreviousKept = 16;

Slot slots[kSlots];
std::atomic<size_t> slots_used{0};  // the handler looks at this many
std::atomic<uintptr_t> page_size{0};

// What stood in front before us. Each new one gets its own place, so that a handler that runs
// at this moment reads a whole one.
struct sigaction previous_kept[kPreviousKept];
std::atomic<const struct sigaction*> previous{nullptr};
std::mutex arming;

// Non-zero while this thread is inside the previous handler. `initial-exec`: no allocation at
// the first use in a thread, which may be inside the handler.
#if defined(__ELF__)
__attribute__((tls_model("initial-exec")))
#endif
thread_local int inside_previous = 0;

bool cover_with_zeros(uintptr_t address, uintptr_t end) {
  const uintptr_t page = page_size.load(std::memory_order_relaxed);
  const uintptr_t first = address - address % page;
  void* const map = ::mmap(reinterpret_cast<void*>(first), end - first, PROT_READ,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  return map != MAP_FAILED;
}

bool repair(uintptr_t address) {
  const size_t used = slots_used.load(std::memory_order_acquire);
  for (size_t i = 0; i < used; ++i) {
    Slot& slot = slots[i];
    const uintptr_t begin = slot.begin.load(std::memory_order_acquire);
    const uintptr_t end = slot.end.load(std::memory_order_acquire);
    if (begin == 0 || address < begin || address >= end) continue;
    if (slot.begin.load(std::memory_order_acquire) != begin) continue;  // just given to another
    slot.damaged.store(true, std::memory_order_release);
    return cover_with_zeros(address, end);
  }
  return false;
}

// The end that the process would have met without us: a fault comes again when we return, a
// sent signal must be sent again.
void die_by_default(const siginfo_t* info) {
  struct sigaction standard {};
  standard.sa_handler = SIG_DFL;
  ::sigaction(SIGBUS, &standard, nullptr);
  if (info->si_code <= 0) ::raise(SIGBUS);
}

void call_previous(int signal, siginfo_t* info, void* context) {
  const struct sigaction* const action = previous.load(std::memory_order_acquire);
  const bool function = action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN;
  // A handler that fails or raises again, like Python's faulthandler, must not come back to
  // itself through us.
  if (inside_previous > 0 || !function) {
    const bool ignored = action->sa_handler == SIG_IGN && info->si_code <= 0;
    if (inside_previous > 0 || !ignored) die_by_default(info);
    return;
  }
  ++inside_previous;
  if (action->sa_flags & SA_SIGINFO) {
    action->sa_sigaction(signal, info, context);
  } else {
    action->sa_handler(signal);
  }
  --inside_previous;
}

void on_bus_error(int signal, siginfo_t* info, void* context) {
  const int error = errno;
  const bool fault = info->si_code > 0;  // not sent by kill or raise
  if (!fault || !repair(reinterpret_cast<uintptr_t>(info->si_addr))) {
    call_previous(signal, info, context);
  }
  errno = error;
}

bool is_ours(const struct sigaction& action) {
  return (action.sa_flags & SA_SIGINFO) != 0 && action.sa_sigaction == on_bus_error;
}

void keep_previous(const struct sigaction& action) {
  static size_t count = 0;
  struct sigaction& place = previous_kept[count++ % kPreviousKept];
  place = action;
  previous.store(&place, std::memory_order_release);
}

size_t take_slot() {
  for (size_t i = 0; i < kSlots; ++i) {
    bool taken = false;
    if (!slots[i].taken.compare_exchange_strong(taken, true)) continue;
    size_t used = slots_used.load();
    while (used < i + 1 && !slots_used.compare_exchange_weak(used, i + 1)) {
    }
    return i;
  }
  throw ModelFileError("more than " + std::to_string(kSlots) + " model files are in use",
                       "let go of models that are no longer needed");
}

}  // namespace

void arm_fault_guard() {
  struct sigaction current {};
  ::sigaction(SIGBUS, nullptr, &current);
  if (is_ours(current)) return;
  const std::scoped_lock lock(arming);
  ::sigaction(SIGBUS, nullptr, &current);
  if (is_ours(current)) return;
  page_size.store(static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE)), std::memory_order_relaxed);
  keep_previous(current);
  struct sigaction ours {};
  ours.sa_sigaction = on_bus_error;
  // SA_NODEFER: a previous handler may count on being interrupted by the signal it raises.
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  ::sigaction(SIGBUS, &ours, nullptr);
}

GuardedRange::GuardedRange(const void* begin, size_t size) : slot_(take_slot()) {
  arm_fault_guard();
  const auto address = reinterpret_cast<uintptr_t>(begin);
  slots[slot_].damaged.store(false);
  slots[slot_].end.store(address + size);
  slots[slot_].begin.store(address, std::memory_order_release);
}

GuardedRange::~GuardedRange() {
  slots[slot_].begin.store(0);
  slots[slot_].taken.store(false, std::memory_order_release);
}

bool GuardedRange::damaged() const { return slots[slot_].damaged.load(std::memory_order_acquire); }

void GuardedRange::mark_damaged() const {
  slots[slot_].damaged.store(true, std::memory_order_release);
}

}  // namespace mobilemoe
