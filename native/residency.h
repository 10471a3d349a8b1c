// Keeps only so many bytes of the routed experts in memory: a pinned set and the most recently
// used others. The rest stays in its file and is read when a layer has chosen it.
//
// The views into the mapped files never change, and neither do the bits: an expert that was
// dropped is read again from the file, at the latest by the kernel that touches it. Neighbours
// share pages; a page goes only when nobody that is kept has a byte in it.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "mapped_file.h"
#include "model_weights.h"

namespace mobilemoe {

// The caller holds the model's lock. Weights and files outlive it.
class ExpertResidency {
 public:
  struct Pin {
    int64_t layer, expert;
  };

  // Since construction. Hits and misses count the distinct experts of each `require`.
  struct Stats {
    int64_t hits = 0, misses = 0, evictions = 0;
    uint64_t bytes_read = 0;     // brought in on misses; from the disk, or from its cache
    double wait_seconds = 0;     // spent on that, evictions included
    uint64_t resident_bytes = 0;  // of experts, now
    uint64_t pinned_bytes = 0;
    uint64_t peak_bytes = 0;      // the largest `resident_bytes`; never above the budget
    uint64_t budget_bytes = 0;
  };

  // Drops all experts from memory, then reads those of `pins`. Bytes count in whole pages, and
  // pages that hold other weights as well do not count. Throws InvalidArgument unless the budget
  // holds all experts of the largest layer (a long prompt may choose every one of them) beside
  // the pinned ones, and for a pin that does not exist.
  ExpertResidency(const ModelWeights& weights, std::vector<FileView> files, uint64_t budget_bytes,
                  std::span<const Pin> pins);

  // Has all `experts` of a layer, which may repeat, in memory afterwards: asks the system for
  // all missing ones at once, then waits for their pages. Drops the least recently used others
  // to make room. Allocates nothing.
  void require(int64_t layer, std::span<const int32_t> experts) noexcept;

  Stats stats() const;

 private:
  // Pages of one file from `first` to before `last`.
  struct Pages {
    size_t file;
    uint64_t first, last;
  };
  struct Expert {
    std::vector<Pages> ranges;
    uint64_t stamp = 0;  // the last `require` that asked for it
    bool resident = false, pinned = false;
    int32_t newer = -1, older = -1;  // neighbours in the list of use; -1: none
  };

  void find_experts(const ModelWeights& weights);
  void add_range(Expert& expert, const uint8_t* begin, uint64_t bytes);
  void add_matrix(Expert& expert, const WeightMatrix& matrix);
  void find_shared_pages();
  uint64_t largest_layer_pages();
  void pin(const Pin& pin, uint64_t limit_pages);

  uint64_t missing_pages(const Expert& expert) const noexcept;
  void count_pages(const Expert& expert) noexcept;
  void bring_in(std::span<const int32_t> experts) noexcept;
  void make_room(const Expert& expert) noexcept;
  void evict(int32_t index) noexcept;
  void push_newest(int32_t index) noexcept;
  void unlink(int32_t index) noexcept;

  template <class Each>
  void for_unused_runs(const Pages& pages, const Each& each) const noexcept;
  void ask_for(const Pages& pages) const noexcept;
  void touch(const Pages& pages) const noexcept;
  void drop(const Pages& pages) const noexcept;
  void trim_around(const Pages& pages) const noexcept;

  uint64_t page_bytes_;
  uint64_t budget_pages_;
  std::vector<FileView> files_;
  std::vector<std::pair<uint64_t, uint64_t>> bytes_;  // of experts, by address; while built
  std::vector<std::vector<uint16_t>> users_;  // per file and page: what is kept and lies in it
  std::vector<Expert> experts_;
  std::vector<int32_t> first_of_layer_;  // index of its expert 0; and one entry for the end
  std::vector<int32_t> missing_;         // room for the experts of one layer
  int32_t newest_ = -1, oldest_ = -1;    // of those resident and not pinned
  uint64_t clock_ = 0;                   // calls of `require`
  uint64_t resident_pages_ = 0, pinned_pages_ = 0, peak_pages_ = 0;
  Stats counted_;
};

}  // namespace mobilemoe
