#include "safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "errors.h"
#include "json_cursor.h"

namespace mobilemoe {
namespace {

constexpr uint64_t kPrefixBytes = 8;                // little-endian length of the header
constexpr uint64_t kMaxHeaderBytes = 100'000'000;   // the format's own cap
constexpr size_t kMaxDimensions = 8;

uint64_t read_header_length(const MappedFile& file) {
  if (file.size() < kPrefixBytes) {
    throw ModelFileError(file.path() + ": " + std::to_string(file.size()) +
                         " bytes are too short for a safetensors file");
  }
  uint64_t length = 0;
  for (uint64_t i = 0; i < kPrefixBytes; ++i) length |= uint64_t{file.data()[i]} << (8 * i);
  const uint64_t available = file.size() - kPrefixBytes;
  if (length > kMaxHeaderBytes || length > available) {
    throw ModelFileError(file.path() + ": header length is " + std::to_string(length) +
                         "; allowed: at most " +
                         std::to_string(std::min(available, kMaxHeaderBytes)) + " bytes");
  }
  return length;
}

int64_t dtype_bytes(const std::string& dtype) {
  if (dtype == "U8" || dtype == "I8" || dtype == "BOOL") return 1;
  if (dtype == "F16" || dtype == "BF16" || dtype == "I16" || dtype == "U16") return 2;
  if (dtype == "F32" || dtype == "I32" || dtype == "U32") return 4;
  if (dtype == "F64" || dtype == "I64" || dtype == "U64") return 8;
  return 0;
}

std::vector<int64_t> read_shape(JsonCursor& json) {
  std::vector<int64_t> shape;
  json.expect('[');
  if (json.accept(']')) return shape;
  do {
    if (shape.size() == kMaxDimensions) json.fail("a shape with more than 8 dimensions");
    shape.push_back(json.integer());
  } while (json.accept(','));
  json.expect(']');
  return shape;
}

void read_field(JsonCursor& json, const std::string& key, Tensor& tensor, unsigned& seen) {
  const unsigned bit = key == "dtype" ? 1u : key == "shape" ? 2u : key == "data_offsets" ? 4u : 0u;
  if (bit == 0 || (seen & bit) != 0) {
    json.fail("unexpected key '" + printable(key) + "' in a tensor");
  }
  seen |= bit;
  if (bit == 1) tensor.dtype = json.string();
  if (bit == 2) tensor.shape = read_shape(json);
  if (bit == 4) {
    json.expect('[');
    tensor.begin = json.integer();
    json.expect(',');
    tensor.end = json.integer();
    json.expect(']');
  }
}

Tensor read_tensor(JsonCursor& json) {
  Tensor tensor;
  unsigned seen = 0;
  json.expect('{');
  do {
    const std::string key = json.string();
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
    json.string();
    json.expect(':');
    json.string();
  } while (json.accept(','));
  json.expect('}');
}

TensorMap parse_header(std::string_view text, const std::string& path) {
  JsonCursor json(text, path);
  TensorMap tensors;
  bool has_metadata = false;
  json.expect('{');
  if (json.accept('}')) return tensors;
  do {
    const std::string name = json.string();
    json.expect(':');
    if (name == "__metadata__") {
      if (has_metadata) json.fail("__metadata__ twice");
      has_metadata = true;
      skip_metadata(json);
    } else if (!tensors.emplace(name, read_tensor(json)).second) {
      json.fail("tensor '" + printable(name) + "' twice");
    }
  } while (json.accept(','));
  json.expect('}');
  json.end();
  return tensors;
}

// Bytes that dtype and shape ask for; -1 when the dtype is unknown or the product overflows.
int64_t expected_bytes(const Tensor& tensor) {
  int64_t bytes = dtype_bytes(tensor.dtype);
  if (bytes == 0) return -1;
  for (const int64_t size : tensor.shape) {
    if (size != 0 && bytes > std::numeric_limits<int64_t>::max() / size) return -1;
    bytes *= size;
  }
  return bytes;
}

void check_bytes(const std::string& name, const Tensor& tensor, const std::string& path) {
  const int64_t expected = expected_bytes(tensor);
  if (expected < 0 || tensor.end < tensor.begin || tensor.end - tensor.begin != expected) {
    throw ModelFileError(path + ": tensor " + printable(name) + " has data_offsets [" +
                         std::to_string(tensor.begin) + ", " + std::to_string(tensor.end) +
                         "], which do not fit dtype " + printable(tensor.dtype) + " and shape " +
                         shape_string(tensor.shape));
  }
}

using Entry = TensorMap::value_type;

void check_cover(TensorMap& tensors, const MappedFile& file, int64_t data_bytes) {
  std::vector<Entry*> order;
  for (Entry& entry : tensors) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](const Entry* a, const Entry* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  int64_t covered = 0;
  for (const Entry* entry : order) {
    const int64_t begin = entry->second.begin;
    if (begin != covered) {
      const std::string fault = begin < covered ? "overlaps" : "leaves a gap after";
      throw ModelFileError(file.path() + ": tensor " + printable(entry->first) + " begins at " +
                           std::to_string(begin) + " and " + fault +
                           " the tensor before it, which ends at " + std::to_string(covered));
    }
    covered = entry->second.end;
  }
  if (covered != data_bytes) {
    throw ModelFileError(file.path() + ": tensors cover " + std::to_string(covered) +
                             " bytes, the file holds " + std::to_string(data_bytes),
                         "the file is truncated or damaged: fetch or write it again");
  }
}

}  // namespace

std::string shape_string(const std::vector<int64_t>& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + "]";
}

TensorMap read_safetensors(const MappedFile& file) {
  const uint64_t header_bytes = read_header_length(file);
  const auto* text = reinterpret_cast<const char*>(file.data() + kPrefixBytes);
  TensorMap tensors = parse_header({text, header_bytes}, file.path());
  const uint8_t* data = file.data() + kPrefixBytes + header_bytes;
  for (auto& [name, tensor] : tensors) check_bytes(name, tensor, file.path());
  check_cover(tensors, file, static_cast<int64_t>(file.size() - kPrefixBytes - header_bytes));
  for (auto& [name, tensor] : tensors) tensor.data = data + tensor.begin;
  return tensors;
}

}  // namespace mobilemoe
