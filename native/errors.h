// The two ways in which the engine refuses; both become MobileMoEError in Python.
#pragma once

#include <stdexcept>
#include <string>

namespace mobilemoe {

// A model file that is missing, damaged or not the one that its config describes.
// `hint` follows the message on a line of its own; the Python face splits it off again.
class ModelFileError : public std::runtime_error {
 public:
  explicit ModelFileError(const std::string& message, const std::string& hint = "")
      : std::runtime_error(hint.empty() ? message : message + "\nhint: " + hint) {}
};

// A call with values that the model cannot honour (std::invalid_argument: ValueError).
using InvalidArgument = std::invalid_argument;

}  // namespace mobilemoe
