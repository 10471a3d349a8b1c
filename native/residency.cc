#include "residency.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <string>

#include "errors.h"

namespace mobilemoe {
namespace {

// Linux maps what its cache holds of so many bytes around a page that is touched.
constexpr uint64_t kFaultAround = 64 * 1024;

uint64_t rounded_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

ExpertResidency::ExpertResidency(const ModelWeights& weights, std::vector<FileView> files,
                                 uint64_t budget_bytes, std::span<const Pin> pins)
    : page_bytes_(static_cast<uint64_t>(::sysconf(_SC_PAGESIZE))),
      budget_pages_(budget_bytes / page_bytes_),
      files_(std::move(files)) {
  find_experts(weights);
  find_shared_pages();
  const uint64_t layer_pages = largest_layer_pages();
  if (budget_pages_ < layer_pages) {
    throw InvalidArgument("resident is " + std::to_string(budget_bytes) + " bytes; allowed: at "
                          "least " + std::to_string(layer_pages * page_bytes_) +
                          ", the routed experts of one layer");
  }
  for (size_t file = 0; file < files_.size(); ++file) {
    const Pages whole{file, 0, users_[file].size()};
    for_unused_runs(whole, [&](const Pages& run) { drop(run); });
  }
  for (const Pin& one : pins) pin(one, budget_pages_ - layer_pages);
}

void ExpertResidency::find_experts(const ModelWeights& weights) {
  for (const FileView& file : files_) users_.emplace_back(rounded_up(file.size, page_bytes_) /
                                                          page_bytes_, uint16_t{1});
  size_t most = 0;
  for (const LayerWeights& layer : weights.layers) {
    first_of_layer_.push_back(static_cast<int32_t>(experts_.size()));
    for (size_t e = 0; e < layer.moe.gate_up_E.size(); ++e) {
      Expert expert;
      add_matrix(expert, layer.moe.gate_up_E[e]);
      add_matrix(expert, layer.moe.down_E[e]);
      experts_.push_back(std::move(expert));
    }
    most = std::max(most, layer.moe.gate_up_E.size());
  }
  first_of_layer_.push_back(static_cast<int32_t>(experts_.size()));
  missing_.resize(most);
}

void ExpertResidency::add_matrix(Expert& expert, const WeightMatrix& matrix) {
  const auto elements = static_cast<uint64_t>(rows_of(matrix) * columns_of(matrix));
  if (const auto* bf16 = std::get_if<Bf16Matrix>(&matrix)) {
    add_range(expert, bf16->bits, 2 * elements);
    return;
  }
  const auto& int4 = std::get<Int4Matrix>(matrix);
  add_range(expert, int4.qweight, elements / 2);
  add_range(expert, int4.scale, 2 * elements / kGroupSize);
}

void ExpertResidency::add_range(Expert& expert, const uint8_t* begin, uint64_t bytes) {
  for (size_t i = 0; i < files_.size(); ++i) {
    if (begin < files_[i].data || begin >= files_[i].data + files_[i].size) continue;
    const auto offset = static_cast<uint64_t>(begin - files_[i].data);
    expert.ranges.push_back(
        {i, offset / page_bytes_, rounded_up(offset + bytes, page_bytes_) / page_bytes_});
    const auto address = reinterpret_cast<uintptr_t>(begin);
    bytes_.emplace_back(address, address + bytes);
    return;
  }
  throw InvalidArgument("an expert lies in none of the model's files");
}

// A page that holds nothing but experts has no user as yet; every other one has one for ever.
void ExpertResidency::find_shared_pages() {
  std::sort(bytes_.begin(), bytes_.end());
  for (size_t i = 0; i < bytes_.size();) {
    const uint64_t begin = bytes_[i].first;
    uint64_t end = bytes_[i].second;
    for (++i; i < bytes_.size() && bytes_[i].first <= end; ++i) end = bytes_[i].second;
    for (size_t file = 0; file < files_.size(); ++file) {
      const auto start = reinterpret_cast<uintptr_t>(files_[file].data);
      if (begin < start || end > start + files_[file].size) continue;
      const uint64_t first = rounded_up(begin - start, page_bytes_) / page_bytes_;
      const uint64_t last = (end - start) / page_bytes_;
      for (uint64_t page = first; page < last; ++page) users_[file][page] = 0;
    }
  }
  bytes_ = {};
}

uint64_t ExpertResidency::largest_layer_pages() {
  uint64_t most = 0;
  for (size_t layer = 0; layer + 1 < first_of_layer_.size(); ++layer) {
    const auto users = users_;
    for (int32_t i = first_of_layer_[layer]; i < first_of_layer_[layer + 1]; ++i) {
      count_pages(experts_[static_cast<size_t>(i)]);
    }
    most = std::max(most, resident_pages_);
    users_ = users;
    resident_pages_ = 0;
  }
  peak_pages_ = 0;
  return most;
}

void ExpertResidency::pin(const Pin& pin, uint64_t limit_pages) {
  const auto layers = static_cast<int64_t>(first_of_layer_.size()) - 1;
  if (pin.layer < 0 || pin.layer >= layers) {
    throw InvalidArgument("a pinned layer is " + std::to_string(pin.layer) + "; allowed: 0 to " +
                          std::to_string(layers - 1));
  }
  const int32_t first = first_of_layer_[static_cast<size_t>(pin.layer)];
  const int32_t count = first_of_layer_[static_cast<size_t>(pin.layer) + 1] - first;
  if (pin.expert < 0 || pin.expert >= count) {
    throw InvalidArgument("a pinned expert of layer " + std::to_string(pin.layer) + " is " +
                          std::to_string(pin.expert) + "; allowed: 0 to below " +
                          std::to_string(count));
  }
  Expert& expert = experts_[static_cast<size_t>(first + pin.expert)];
  if (expert.pinned) return;
  if (resident_pages_ + missing_pages(expert) > limit_pages) {
    throw InvalidArgument("the pinned experts take more than the budget leaves beside one layer, " +
                          std::to_string(limit_pages * page_bytes_) + " bytes");
  }
  count_pages(expert);
  expert.resident = expert.pinned = true;
  for (const Pages& pages : expert.ranges) ask_for(pages);
  for (const Pages& pages : expert.ranges) touch(pages);
  for (const Pages& pages : expert.ranges) trim_around(pages);
  pinned_pages_ = resident_pages_;
}

void ExpertResidency::require(int64_t layer, std::span<const int32_t> experts) noexcept {
  ++clock_;
  size_t missing = 0;
  const int32_t first = first_of_layer_[static_cast<size_t>(layer)];
  for (const int32_t id : experts) {
    const int32_t index = first + id;
    Expert& expert = experts_[static_cast<size_t>(index)];
    if (std::exchange(expert.stamp, clock_) == clock_) continue;
    if (!expert.resident) {
      missing_[missing++] = index;
      continue;
    }
    ++counted_.hits;
    if (expert.pinned) continue;
    unlink(index);
    push_newest(index);
  }
  if (missing > 0) bring_in(std::span(missing_).first(missing));
}

void ExpertResidency::bring_in(std::span<const int32_t> experts) noexcept {
  const auto started = std::chrono::steady_clock::now();
  for (const int32_t index : experts) {
    Expert& expert = experts_[static_cast<size_t>(index)];
    make_room(expert);
    counted_.bytes_read += missing_pages(expert) * page_bytes_;
    count_pages(expert);
    expert.resident = true;
    push_newest(index);
    for (const Pages& pages : expert.ranges) ask_for(pages);
  }
  for (const int32_t index : experts) {
    for (const Pages& pages : experts_[static_cast<size_t>(index)].ranges) touch(pages);
  }
  for (const int32_t index : experts) {
    for (const Pages& pages : experts_[static_cast<size_t>(index)].ranges) trim_around(pages);
  }
  counted_.misses += static_cast<int64_t>(experts.size());
  const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - started;
  counted_.wait_seconds += waited.count();
}

// What this layer has chosen stays: with the pinned experts it fits, as the constructor checked.
void ExpertResidency::make_room(const Expert& expert) noexcept {
  while (resident_pages_ + missing_pages(expert) > budget_pages_ && oldest_ >= 0 &&
         experts_[static_cast<size_t>(oldest_)].stamp != clock_) {
    evict(oldest_);
  }
}

void ExpertResidency::evict(int32_t index) noexcept {
  Expert& expert = experts_[static_cast<size_t>(index)];
  unlink(index);
  expert.resident = false;
  for (const Pages& pages : expert.ranges) {
    for (uint64_t page = pages.first; page < pages.last; ++page) {
      if (--users_[pages.file][page] == 0) --resident_pages_;
    }
    for_unused_runs(pages, [&](const Pages& run) { drop(run); });
  }
  ++counted_.evictions;
}

uint64_t ExpertResidency::missing_pages(const Expert& expert) const noexcept {
  uint64_t missing = 0;
  for (const Pages& pages : expert.ranges) {
    const auto begin = users_[pages.file].begin();
    missing += static_cast<uint64_t>(std::count(begin + static_cast<int64_t>(pages.first),
                                                begin + static_cast<int64_t>(pages.last), 0));
  }
  return missing;
}

void ExpertResidency::count_pages(const Expert& expert) noexcept {
  for (const Pages& pages : expert.ranges) {
    for (uint64_t page = pages.first; page < pages.last; ++page) {
      if (users_[pages.file][page]++ == 0) ++resident_pages_;
    }
  }
  peak_pages_ = std::max(peak_pages_, resident_pages_);
}

void ExpertResidency::push_newest(int32_t index) noexcept {
  Expert& expert = experts_[static_cast<size_t>(index)];
  expert.newer = -1;
  expert.older = newest_;
  (newest_ < 0 ? oldest_ : experts_[static_cast<size_t>(newest_)].newer) = index;
  newest_ = index;
}

void ExpertResidency::unlink(int32_t index) noexcept {
  const Expert& expert = experts_[static_cast<size_t>(index)];
  const int32_t newer = expert.newer, older = expert.older;
  (newer < 0 ? newest_ : experts_[static_cast<size_t>(newer)].older) = older;
  (older < 0 ? oldest_ : experts_[static_cast<size_t>(older)].newer) = newer;
}

template <class Each>
void ExpertResidency::for_unused_runs(const Pages& pages, const Each& each) const noexcept {
  const std::vector<uint16_t>& users = users_[pages.file];
  for (uint64_t page = pages.first; page < pages.last;) {
    uint64_t end = page;
    while (end < pages.last && users[end] == 0) ++end;
    if (end > page) each(Pages{pages.file, page, end});
    page = end + 1;
  }
}

// What follows are hints: where the system refuses one, pages come and go later or not at all,
// and nothing else changes.

namespace {

void advise(const FileView& file, uint64_t offset, uint64_t bytes, int advice) {
  ::madvise(const_cast<uint8_t*>(file.data) + offset, bytes, advice);
}

}  // namespace

void ExpertResidency::ask_for(const Pages& pages) const noexcept {
  advise(files_[pages.file], pages.first * page_bytes_, (pages.last - pages.first) * page_bytes_,
         MADV_WILLNEED);
}

// Waits for every page. A file that was cut meanwhile is the fault guard's concern.
void ExpertResidency::touch(const Pages& pages) const noexcept {
  const volatile uint8_t* bytes = files_[pages.file].data;
  for (uint64_t page = pages.first; page < pages.last; ++page) {
    static_cast<void>(bytes[page * page_bytes_]);
  }
}

// From the process, and from the system's cache, if no other process uses the file.
void ExpertResidency::drop(const Pages& pages) const noexcept {
  const FileView& file = files_[pages.file];
  const uint64_t offset = pages.first * page_bytes_;
  const uint64_t bytes = (pages.last - pages.first) * page_bytes_;
  advise(file, offset, bytes, MADV_DONTNEED);
#ifdef POSIX_FADV_DONTNEED
  ::posix_fadvise(file.descriptor, static_cast<off_t>(offset), static_cast<off_t>(bytes),
                  POSIX_FADV_DONTNEED);
#endif
}

// Touching has mapped more than was touched, where the system's cache held it.
void ExpertResidency::trim_around(const Pages& pages) const noexcept {
  const uint64_t around = std::max<uint64_t>(1, kFaultAround / page_bytes_);
  const auto end = static_cast<uint64_t>(users_[pages.file].size());
  const auto unmap = [&](const Pages& run) {
    advise(files_[run.file], run.first * page_bytes_, (run.last - run.first) * page_bytes_,
           MADV_DONTNEED);
  };
  for_unused_runs({pages.file, pages.first / around * around, pages.first}, unmap);
  for_unused_runs({pages.file, pages.last, std::min(end, rounded_up(pages.last, around))}, unmap);
}

ExpertResidency::Stats ExpertResidency::stats() const {
  Stats stats = counted_;
  stats.resident_bytes = resident_pages_ * page_bytes_;
  stats.pinned_bytes = pinned_pages_ * page_bytes_;
  stats.peak_bytes = peak_pages_ * page_bytes_;
  stats.budget_bytes = budget_pages_ * page_bytes_;
  return stats;
}

}  // namespace mobilemoe
