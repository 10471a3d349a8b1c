#include "input.h"

#include <algorithm>

#include "model_weights.h"

namespace mobilemoe::fuzz {
namespace {

constexpr size_t kMaxFiles = 3;

Config smallest() {
  Config config;
  config.vocab_size = 2;
  config.hidden_size = 32;
  config.intermediate_size = 32;
  config.intermediate_size_mlp = 32;
  config.num_hidden_layers = 1;
  config.num_attention_heads = 2;
  config.num_key_value_heads = 1;
  config.head_dim = 16;
  config.num_local_experts = 2;
  config.num_experts_per_tok = 1;
  config.max_position_embeddings = 64;
  return config;
}

std::vector<Variant> make_variants() {
  Config moe = smallest(), interleaved = smallest(), dense = smallest();
  interleaved.num_hidden_layers = 2;
  interleaved.interleave_moe_layer_step = 2;
  interleaved.intermediate_size_mlp = 64;
  dense.num_local_experts = dense.num_experts_per_tok = dense.intermediate_size = 0;
  dense.tie_word_embeddings = false;
  Config bare = moe;
  bare.intermediate_size_mlp = 0;
  std::vector<Variant> all = {{moe, WeightFormat::kInt4},
                              {interleaved, WeightFormat::kInt4},
                              {dense, WeightFormat::kInt4},
                              {bare, WeightFormat::kBf16},
                              {dense, WeightFormat::kBf16}};
  for (const Variant& variant : all) check_config(variant.config);
  return all;
}

int64_t bytes_of(const Tensor& tensor) {
  const std::string& dtype = tensor.dtypes.front();
  int64_t bytes = dtype == "U8" ? 1 : dtype == "F32" ? 4 : 2;
  for (const int64_t size : tensor.shape) bytes *= size;
  return bytes;
}

std::string entry_of(const std::string& name, const Tensor& tensor, int64_t begin) {
  std::string shape;
  for (const int64_t size : tensor.shape) {
    shape += (shape.empty() ? "" : ",") + std::to_string(size);
  }
  return "\"" + name + "\":{\"dtype\":\"" + tensor.dtypes.front() + "\",\"shape\":[" + shape +
         "],\"data_offsets\":[" + std::to_string(begin) + "," +
         std::to_string(begin + bytes_of(tensor)) + "]}";
}

void append_number(std::string& bytes, uint64_t value, int width) {
  for (int i = 0; i < width; ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
}

uint64_t number_at(const uint8_t* data, int width) {
  uint64_t value = 0;
  for (int i = 0; i < width; ++i) value |= uint64_t{data[i]} << (8 * i);
  return value;
}

}  // namespace

const std::vector<Variant>& variants() {
  static const std::vector<Variant> all = make_variants();
  return all;
}

// A byte for the variant, one for the number of files, four for the length of each but the last.
Input decode(const uint8_t* data, size_t size) {
  Input input;
  if (size < 2) return {0, {""}};
  input.variant = data[0] % variants().size();
  const size_t files = 1 + data[1] % kMaxFiles;
  size_t at = 2;
  for (size_t i = 0; i + 1 < files && size - at >= 4; ++i) {
    const size_t length = std::min<size_t>(number_at(data + at, 4), size - at - 4);
    at += 4;
    input.files.emplace_back(reinterpret_cast<const char*>(data) + at, length);
    at += length;
  }
  input.files.emplace_back(reinterpret_cast<const char*>(data) + at, size - at);
  return input;
}

std::string encode(const Input& input) {
  std::string bytes(1, static_cast<char>(input.variant));
  const size_t files = std::min(input.files.size(), kMaxFiles);
  bytes.push_back(static_cast<char>(files - 1));
  for (size_t i = 0; i < files; ++i) {
    if (i + 1 < files) append_number(bytes, input.files[i].size(), 4);
    bytes += input.files[i];
  }
  return bytes;
}

std::string valid_file(const Variant& variant) {
  std::string header;
  int64_t end = 0;
  const TensorTable expected = expected_tensors(variant.config, variant.format);
  for (const auto& [name, tensor] : expected.tensors()) {
    header += (header.empty() ? "{" : ",") + entry_of(name, tensor, end);
    end += bytes_of(tensor);
  }
  header += "}";
  std::string file;
  append_number(file, header.size(), 8);
  file += header;
  for (int64_t i = 0; i < end; ++i) file.push_back(static_cast<char>(i));
  return file;
}

}  // namespace mobilemoe::fuzz
