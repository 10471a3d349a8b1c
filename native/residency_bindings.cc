// mobilemoe.engine._native.Model.limit_experts and .residency.
#include <nanobind/nanobind.h>

#include <optional>

#include "bindings.h"
#include "engine.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace mobilemoe {
namespace {

// `list`: tuples of layer and expert.
void limit_experts(Model& model, uint64_t budget_bytes, const nb::list& list) {
  std::vector<ExpertResidency::Pin> pins;
  for (const nb::handle pair : list) {
    pins.push_back({nb::cast<int64_t>(pair[0]), nb::cast<int64_t>(pair[1])});
  }
  const nb::gil_scoped_release release;
  model.limit_experts(budget_bytes, pins);
}

std::optional<ExpertResidency::Stats> stats_of(const Model& model) {
  const nb::gil_scoped_release release;
  const auto guard = model.lock();
  if (model.residency() == nullptr) return std::nullopt;
  return model.residency()->stats();
}

// None without a limit, else the members of Stats by name.
nb::object residency(const Model& model) {
  const std::optional<ExpertResidency::Stats> stats = stats_of(model);
  if (!stats) return nb::none();
  nb::dict fields;
  fields["hits"] = stats->hits;
  fields["misses"] = stats->misses;
  fields["evictions"] = stats->evictions;
  fields["bytes_read"] = stats->bytes_read;
  fields["wait_seconds"] = stats->wait_seconds;
  fields["resident_bytes"] = stats->resident_bytes;
  fields["pinned_bytes"] = stats->pinned_bytes;
  fields["peak_bytes"] = stats->peak_bytes;
  fields["budget_bytes"] = stats->budget_bytes;
  return fields;
}

}  // namespace

void bind_residency(nb::class_<Model>& model) {
  model.def("limit_experts", &limit_experts, "budget_bytes"_a, "pins"_a)
      .def("residency", &residency);
}

}  // namespace mobilemoe
