// Shared by the binding files.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "config.h"
#include "engine.h"
#include "weight_formats.h"

namespace mobilemoe {

// From the fields of a mobilemoe.config.ModelConfig.
Config config_from(const nanobind::dict& fields);
// nanobind's casters of strings, vectors and shared pointers end the process when memory runs out.
// Bound functions take Python objects instead and convert them in their own bodies, where
// std::bad_alloc may be thrown.
std::vector<std::string> strings_from(const nanobind::list& list);
// Keeps the Python object alive.
std::shared_ptr<const Model> share(nanobind::handle_t<Model> model);
// "int4" or "bf16"; throws InvalidArgument for others.
WeightFormat weight_format_from(const std::string& name);

// Values that numpy arrays share; they live as long as the last of these.
template <class T>
class NumpyVector {
 public:
  explicit NumpyVector(size_t size) : NumpyVector(std::vector<T>(size)) {}
  explicit NumpyVector(std::vector<T>&& values) {
    auto owned = std::make_unique<std::vector<T>>(std::move(values));
    owner_ = nanobind::capsule(owned.get(), [](void* p) noexcept {
      delete static_cast<std::vector<T>*>(p);
    });
    values_ = owned.release();
  }

  std::vector<T>& values() { return *values_; }
  // An array of `shape`; the vector must not change its size any more.
  nanobind::object share(std::initializer_list<int64_t> shape) {
    const std::vector<size_t> sizes(shape.begin(), shape.end());
    return nanobind::cast(nanobind::ndarray<nanobind::numpy, T>(values_->data(), sizes.size(),
                                                                sizes.data(), owner_));
  }

 private:
  std::vector<T>* values_ = nullptr;  // the capsule's
  nanobind::capsule owner_;
};

// A numpy array of `shape` that owns `values`.
template <class T>
nanobind::object to_numpy(std::vector<T>&& values, std::initializer_list<int64_t> shape) {
  return NumpyVector<T>(std::move(values)).share(shape);
}

}  // namespace mobilemoe
