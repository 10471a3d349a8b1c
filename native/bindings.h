// Shared by the binding files.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <initializer_list>
#include <memory>
#include <vector>

#include "config.h"
#include "weight_formats.h"

namespace mobilemoe {

// From the fields of a mobilemoe.config.ModelConfig.
Config config_from(const nanobind::dict& fields);
// "int4" or "bf16"; throws InvalidArgument for others.
WeightFormat weight_format_from(const std::string& name);

// A numpy array of `shape` that owns `values`.
template <class T>
nanobind::object to_numpy(std::vector<T>&& values, std::initializer_list<int64_t> shape) {
  namespace nb = nanobind;
  auto owned = std::make_unique<std::vector<T>>(std::move(values));
  T* data = owned->data();
  nb::capsule owner(owned.get(), [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  owned.release();
  std::vector<size_t> sizes(shape.begin(), shape.end());
  return nb::cast(nb::ndarray<nb::numpy, T>(data, sizes.size(), sizes.data(), owner));
}

}  // namespace mobilemoe
