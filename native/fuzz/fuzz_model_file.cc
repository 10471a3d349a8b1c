// The target: any bytes are read as a model's files. They are refused with one short
// ModelFileError, or every byte of every tensor lies in exactly one place of the files and may be
// touched.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "errors.h"
#include "input.h"
#include "memory_file.h"
#include "model_weights.h"
#include "outcomes.h"

namespace mobilemoe::fuzz {
namespace {

[[noreturn]] void finding(const std::string& what) {
  std::fprintf(stderr, "FINDING: %s\n", what.c_str());
  std::abort();
}

// A file in a block of its own and of its very size, so that a sanitizer sees the first byte
// that is read beyond it.
struct Block {
  explicit Block(const std::string& content) : size(content.size()), bytes(new uint8_t[size]) {
    std::copy(content.begin(), content.end(), bytes.get());
  }
  size_t size;
  std::unique_ptr<uint8_t[]> bytes;
};

// The bytes that the views of a model promise.
class Promises {
 public:
  void add(const WeightMatrix& matrix) {
    if (const auto* int4 = std::get_if<Int4Matrix>(&matrix)) {
      add(int4->qweight, int4->rows * int4->columns / 2);
      add(int4->scale, int4->rows * int4->columns / kGroupSize * 2);
    } else {
      const auto& bf16 = std::get<Bf16Matrix>(matrix);
      add(bf16.bits, bf16.rows * bf16.columns * 2);
    }
  }

  void add(const LayerWeights& layer) {
    for (const WeightMatrix* matrix : {&layer.q, &layer.k, &layer.v, &layer.o}) add(*matrix);
    for (const WeightMatrix& matrix : layer.moe.gate_up_E) add(matrix);
    for (const WeightMatrix& matrix : layer.moe.down_E) add(matrix);
    if (!layer.swiglu.present()) return;
    for (const WeightMatrix* matrix : {&layer.swiglu.gate, &layer.swiglu.up, &layer.swiglu.down}) {
      add(*matrix);
    }
  }

  // Of `data`, `size` bytes, how many are promised; none may be twice, none across its borders.
  size_t inside(const uint8_t* data, size_t size) {
    size_t sum = 0;
    std::sort(ranges_.begin(), ranges_.end());
    for (size_t i = 0; i < ranges_.size(); ++i) {
      const auto [begin, end] = ranges_[i];
      if (begin < data || begin >= data + size) continue;
      if (end > data + size) finding("a matrix across the end of its file");
      if (i > 0 && ranges_[i - 1].second > begin) finding("a byte that two tensors hold");
      sum += static_cast<size_t>(end - begin);
    }
    return sum;
  }

  size_t total() const {
    size_t sum = 0;
    for (const auto& [begin, end] : ranges_) sum += static_cast<size_t>(end - begin);
    return sum;
  }

 private:
  // Touches `size` bytes: one outside the files is for the sanitizer to report.
  void add(const uint8_t* data, int64_t size) {
    if (data == nullptr || size <= 0) finding("a matrix without bytes");
    touched_.assign(data, data + size);
    ranges_.emplace_back(data, data + size);
  }

  std::vector<std::pair<const uint8_t*, const uint8_t*>> ranges_;
  std::vector<uint8_t> touched_;
};

// Bytes of the tensors that are copied, not viewed; routers of BF16 files have two or four each.
std::pair<size_t, size_t> copied_bytes(const ModelWeights& weights) {
  size_t halves = weights.final_norm_D.size(), routers = 0;
  for (const LayerWeights& layer : weights.layers) {
    halves += layer.input_norm_D.size() + layer.post_attention_norm_D.size();
    halves += layer.moe.expert_bias_E.size();
    routers += layer.moe.router_ED.size();
  }
  const size_t least = weights.format == WeightFormat::kBf16 ? 2 : 4;
  return {2 * halves + least * routers, 2 * halves + 4 * routers};
}

size_t header_bytes(const Block& block) {
  uint64_t length = 0;
  for (int i = 0; i < 8; ++i) length |= uint64_t{block.bytes[i]} << (8 * i);
  return 8 + length;
}

void check_accepted(const ModelWeights& weights, const Config& config,
                    const std::vector<Block>& blocks) {
  Promises promises;
  promises.add(weights.embedding_VD);
  if (!config.tie_word_embeddings) promises.add(weights.head_VD);
  for (const LayerWeights& layer : weights.layers) promises.add(layer);
  size_t promised = 0, held = 0;
  for (const Block& block : blocks) {
    const size_t header = header_bytes(block);
    promised += promises.inside(block.bytes.get() + header, block.size - header);
    held += block.size - header;
  }
  if (promised != promises.total()) finding("a matrix outside the data of the files");
  const auto [least, most] = copied_bytes(weights);
  if (held < promised + least || held > promised + most) finding("bytes that no tensor holds");
}

void check_refusal(const std::string& message) {
  if (message.size() > 700) finding("a refusal of " + std::to_string(message.size()) + " bytes");
  for (const char c : message) {
    if ((c < 0x20 || c > 0x7E) && c != '\n') finding("a refusal that is not printable");
  }
}

}  // namespace

std::string run(const uint8_t* data, size_t size) {
  const Input input = decode(data, size);
  const Variant& variant = variants()[input.variant];
  std::vector<Block> blocks;
  std::vector<MemoryFile> files;
  for (const std::string& content : input.files) blocks.emplace_back(content);
  for (const Block& block : blocks) {
    files.emplace_back("file", std::span<const uint8_t>(block.bytes.get(), block.size));
  }
  std::vector<ModelFile*> all;
  for (MemoryFile& file : files) all.push_back(&file);
  try {
    check_accepted(read_model_weights(all, variant.config, variant.format), variant.config, blocks);
  } catch (const ModelFileError& error) {
    check_refusal(error.what());
    return error.what();
  }
  return "accepted";
}

}  // namespace mobilemoe::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  mobilemoe::fuzz::run(data, size);
  return 0;
}
