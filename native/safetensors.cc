#include "safetensors.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "json_cursor.h"

namespace mobilemoe {
namespace {

constexpr uint64_t kPrefixBytes = 8;                // little-endian length of the header
constexpr uint64_t kMaxHeaderBytes = 100'000'000;   // the format's own cap
// The longest header: twice its entries (a name and this much), and metadata of this size. The
// Python reader has the same numbers (mobilemoe/checkpoint/header.py).
constexpr uint64_t kEntryBytes = 160, kMetadataBytes = 1 << 20;
constexpr size_t kMaxDimensions = 8;
constexpr size_t kMaxString = 256;                  // names, keys and dtypes are far shorter
constexpr const char* kConfigHint = "does config.json belong to this file?";

uint64_t read_header_length(const ModelFile& file, uint64_t limit) {
  if (file.size() < kPrefixBytes) {
    throw ModelFileError(file.path() + ": " + std::to_string(file.size()) +
                         " bytes are too short for a safetensors file");
  }
  uint64_t length = 0;
  const std::string prefix = file.read(0, kPrefixBytes);
  for (size_t i = 0; i < kPrefixBytes; ++i) {
    length |= uint64_t{static_cast<uint8_t>(prefix[i])} << (8 * i);
  }
  const uint64_t available = file.size() - kPrefixBytes;
  if (length > limit || length > available) {
    throw ModelFileError(file.path() + ": header length is " + std::to_string(length) +
                             "; allowed: at most " + std::to_string(std::min(available, limit)) +
                             " bytes",
                         "it is damaged, belongs to another config, or has metadata of over a "
                         "megabyte");
  }
  return length;
}

// A tensor as a header describes it.
struct FoundTensor {
  std::string dtype;
  Shape shape;
  int64_t begin = 0;
  int64_t end = 0;
};

std::string shape_string(const Shape& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + "]";
}

Shape read_shape(JsonCursor& json) {
  Shape shape;
  json.expect('[');
  if (json.accept(']')) return shape;
  do {
    if (shape.size() == kMaxDimensions) json.fail("a shape with more than 8 dimensions");
    shape.push_back(json.integer());
  } while (json.accept(','));
  json.expect(']');
  return shape;
}

void read_field(JsonCursor& json, const std::string& key, FoundTensor& tensor, unsigned& seen) {
  const unsigned bit = key == "dtype" ? 1u : key == "shape" ? 2u : key == "data_offsets" ? 4u : 0u;
  if (bit == 0 || (seen & bit) != 0) {
    json.fail("unexpected key '" + printable(key) + "' in a tensor");
  }
  seen |= bit;
  if (bit == 1) tensor.dtype = json.string(kMaxString);
  if (bit == 2) tensor.shape = read_shape(json);
  if (bit == 4) {
    json.expect('[');
    tensor.begin = json.integer();
    json.expect(',');
    tensor.end = json.integer();
    json.expect(']');
  }
}

FoundTensor read_tensor(JsonCursor& json) {
  FoundTensor tensor;
  unsigned seen = 0;
  json.expect('{');
  do {
    const std::string key = json.string(kMaxString);
    json.expect(':');
    read_field(json, key, tensor, seen);
  } while (json.accept(','));
  json.expect('}');
  if (seen != 7) json.fail("a tensor needs dtype, shape and data_offsets");
  return tensor;
}

void skip_metadata(JsonCursor& json) {
  json.expect('{');
  if (json.accept('}')) return;
  do {
    json.skip_string();
    json.expect(':');
    json.skip_string();
  } while (json.accept(','));
  json.expect('}');
}

// Calls `read_entry(name)` for every tensor, with `json` before its object.
void read_header(JsonCursor& json, const auto& read_entry) {
  bool has_metadata = false;
  json.expect('{');
  if (json.accept('}')) return json.end();
  do {
    const std::string name = json.string(kMaxString);
    const bool is_metadata = name == "__metadata__";
    if (is_metadata && has_metadata) json.fail("__metadata__ twice");
    has_metadata |= is_metadata;
    if (!is_metadata) {
      read_entry(name);
    } else {
      json.expect(':');
      skip_metadata(json);
    }
  } while (json.accept(','));
  json.expect('}');
  json.end();
}

int64_t dtype_bytes(const std::string& dtype) {
  return dtype == "U8" ? 1 : dtype == "F16" || dtype == "BF16" ? 2 : 4;
}

// Bytes that dtype and shape ask for; -1 when the product overflows.
int64_t bytes_of(const std::string& dtype, const Shape& shape) {
  int64_t bytes = dtype_bytes(dtype);
  for (const int64_t size : shape) {
    if (size != 0 && bytes > std::numeric_limits<int64_t>::max() / size) return -1;
    bytes *= size;
  }
  return bytes;
}

std::string listed(const std::vector<std::string>& dtypes) {
  std::string out;
  for (const std::string& dtype : dtypes) out += (out.empty() ? "" : " or ") + dtype;
  return out;
}

void check_found(const std::string& name, const Tensor& expected, const FoundTensor& found,
                 const std::string& path) {
  const bool known = std::ranges::find(expected.dtypes, found.dtype) != expected.dtypes.end();
  if (!known || found.shape != expected.shape) {
    throw ModelFileError(path + ": tensor " + name + " is " + printable(found.dtype) + " " +
                             shape_string(found.shape) + "; expected " + listed(expected.dtypes) +
                             " " + shape_string(expected.shape),
                         kConfigHint);
  }
  const int64_t bytes = bytes_of(found.dtype, found.shape);
  if (bytes < 0 || found.end < found.begin || found.end - found.begin != bytes) {
    throw ModelFileError(path + ": tensor " + name + " has data_offsets [" +
                         std::to_string(found.begin) + ", " + std::to_string(found.end) +
                         "], which do not fit dtype " + found.dtype + " and shape " +
                         shape_string(found.shape));
  }
}

// `tensors`: pairs of name and Tensor, in any order.
void check_cover(auto& tensors, uint64_t data_bytes, const std::string& path) {
  std::sort(tensors.begin(), tensors.end(), [](const auto* a, const auto* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  int64_t covered = 0;
  for (const auto* tensor : tensors) {
    const int64_t begin = tensor->second.begin;
    if (begin != covered) {
      const std::string fault = begin < covered ? "overlaps" : "leaves a gap after";
      throw ModelFileError(path + ": tensor " + tensor->first + " begins at " +
                           std::to_string(begin) + " and " + fault +
                           " the tensor before it, which ends at " + std::to_string(covered));
    }
    covered = tensor->second.end;
  }
  if (static_cast<uint64_t>(covered) != data_bytes) {
    throw ModelFileError(path + ": tensors cover " + std::to_string(covered) +
                             " bytes, the file holds " + std::to_string(data_bytes),
                         "the file is truncated or damaged: fetch or write it again");
  }
}

}  // namespace

UnknownTensor::UnknownTensor(const std::string& file_path, const std::string& tensor)
    : ModelFileError(file_path + ": tensor " + printable(tensor) + " is unknown", kConfigHint),
      path(file_path),
      name(tensor) {}

void TensorTable::expect(const std::string& name, std::vector<std::string> dtypes,
                         const Shape& shape) {
  Tensor& tensor = tensors_[name];
  tensor.dtypes = std::move(dtypes);
  tensor.shape = shape;
}

uint64_t TensorTable::add(const ModelFile& file) {
  const uint64_t header_bytes = read_header_length(file, header_limit());
  const uint64_t data_offset = kPrefixBytes + header_bytes;
  const std::string header = file.read(kPrefixBytes, header_bytes);
  JsonCursor json(header, file.path());
  std::vector<const Entry*> entries;
  paths_.push_back(file.path());
  read_header(json, [&](const std::string& name) {
    Entry& entry = claim(name, json);
    Tensor& tensor = entry.second;
    json.expect(':');
    const FoundTensor found = read_tensor(json);
    check_found(name, tensor, found, file.path());
    tensor.dtype = found.dtype;
    tensor.begin = found.begin;
    tensor.end = found.end;
    tensor.file = static_cast<int>(paths_.size()) - 1;
    entries.push_back(&entry);
  });
  check_cover(entries, file.size() - data_offset, file.path());
  return data_offset;
}

uint64_t TensorTable::header_limit() const {
  uint64_t entries = 0;
  for (const auto& [name, tensor] : tensors_) entries += name.size() + kEntryBytes;
  return std::min(kMaxHeaderBytes, 2 * entries + kMetadataBytes);
}

// The entry for a name that the file being read may hold.
TensorTable::Entry& TensorTable::claim(const std::string& name, const JsonCursor& json) {
  const std::string& path = paths_.back();
  const auto entry = tensors_.find(name);
  if (entry == tensors_.end()) throw UnknownTensor(path, name);
  const int file = entry->second.file;
  if (file == static_cast<int>(paths_.size()) - 1) json.fail("tensor '" + name + "' twice");
  if (file >= 0) {
    throw ModelFileError(path + ": tensor " + name + " is also in " +
                             paths_[static_cast<size_t>(file)],
                         "the files of a model share no tensor: fetch or write them again");
  }
  return *entry;
}

void TensorTable::check_complete() const {
  for (const auto& [name, tensor] : tensors_) {
    if (tensor.file >= 0) continue;
    const std::string others =
        paths_.size() > 1 ? " and " + std::to_string(paths_.size() - 1) + " more" : "";
    throw ModelFileError(paths_.front() + others + ": tensor " + name + " is missing",
                         kConfigHint);
  }
}

}  // namespace mobilemoe
