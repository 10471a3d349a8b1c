// mobilemoe.engine._native.testing: single kernels and functions on given arrays, so that
// Python can compare them with a naive twin.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <limits>

#include "bindings.h"
#include "elementwise.h"
#include "errors.h"
#include "kernels.h"
#include "memory_file.h"
#include "model_weights.h"
#include "products.h"
#include "router.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace mobilemoe {

void bind_cache(nb::module_& module);
void bind_probe(nb::module_& module);

namespace {

template <class T, size_t N>
using Array = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

int64_t dim(const auto& array, size_t axis) { return static_cast<int64_t>(array.shape(axis)); }

// qweight U8 [rows, columns / 2] and scale, the bits of F16 as U16 [rows, columns / 32].
Int4Matrix matrix_of(const Array<uint8_t, 2>& qweight, const Array<uint16_t, 2>& scale) {
  const int64_t rows = dim(qweight, 0), columns = 2 * dim(qweight, 1);
  const bool fits = columns % kGroupSize == 0 && dim(scale, 0) == rows &&
                    dim(scale, 1) * kGroupSize == columns;
  if (!fits) throw InvalidArgument("qweight and scale do not describe one INT4 matrix");
  return {qweight.data(), reinterpret_cast<const uint8_t*>(scale.data()), rows, columns};
}

// The bits of BF16 as bytes [rows, 2 * columns]: bytes, so that they may lie unaligned.
Bf16Matrix matrix_of(const Array<uint8_t, 2>& bits) {
  if (dim(bits, 1) % (2 * kGroupSize) != 0) {
    throw InvalidArgument("bits must be BF16 with a multiple of 32 columns");
  }
  return {bits.data(), dim(bits, 0), dim(bits, 1) / 2};
}

void require_width(int64_t width, int64_t expected) {
  if (width != expected) throw InvalidArgument("x has the wrong width for the matrix");
}

ActivationFormat format_of(bool int8) {
  return int8 ? ActivationFormat::kInt8 : ActivationFormat::kFp32;
}

// y [T, O] = x [T, I] w^T, w [O, I].
nb::object linear_product(const WeightMatrix& w, const Array<float, 2>& x, bool int8,
                          const std::string& kernel, int threads) {
  const int64_t tokens = dim(x, 0), rows = rows_of(w), columns = columns_of(w);
  require_width(dim(x, 1), columns);
  const Kernels& kernels = choose_kernels(kernel);
  ThreadPool pool(std::clamp(threads, 1, 64));
  ActivationBuffer buffer(format_of(int8), tokens, columns);
  for (int64_t t = 0; t < tokens; ++t) {
    buffer.prepare(kernels, x.data(), tokens, t, 0, buffer.blocks());
  }
  std::vector<float> y(static_cast<size_t>(tokens * rows));
  const Product product[] = {LinearProduct{&w, buffer.view(x.data(), tokens), y.data()}};
  pool.run([&](const Team& team) { multiply(team, kernels, product); });
  return to_numpy(std::move(y), {tokens, rows});
}

// y [S, O] = x [S, I] w, w [I, O].
nb::object expert_product(const WeightMatrix& w, const Array<float, 2>& x, bool int8,
                          const std::string& kernel, int threads) {
  const int64_t slots = dim(x, 0), rows = rows_of(w), columns = columns_of(w);
  require_width(dim(x, 1), rows);
  if (rows % kGroupSize != 0) throw InvalidArgument("inputs must be a multiple of 32");
  const Kernels& kernels = choose_kernels(kernel);
  ThreadPool pool(std::clamp(threads, 1, 64));
  ScaledBuffer scaled(format_of(int8), slots, rows);
  std::vector<const float*> inputs;
  std::vector<int32_t> indices;
  for (int64_t s = 0; s < slots; ++s) {
    inputs.push_back(x.data() + s * rows);
    indices.push_back(static_cast<int32_t>(s));
    scaled.prepare(kernels, inputs.back(), s, 0, rows / kGroupSize);
  }
  const ExpertInput input{format_of(int8), inputs.data(), scaled.view(), indices.data(), slots};
  std::vector<float> y(static_cast<size_t>(slots * columns));
  const Product product[] = {ExpertProduct{&w, input, y.data()}};
  pool.run([&](const Team& team) { multiply(team, kernels, product); });
  return to_numpy(std::move(y), {slots, columns});
}

nb::object linear(const Array<uint8_t, 2>& qweight, const Array<uint16_t, 2>& scale,
                  const Array<float, 2>& x, bool int8, const std::string& kernel, int threads) {
  return linear_product(matrix_of(qweight, scale), x, int8, kernel, threads);
}

nb::object expert(const Array<uint8_t, 2>& qweight, const Array<uint16_t, 2>& scale,
                  const Array<float, 2>& x, bool int8, const std::string& kernel, int threads) {
  return expert_product(matrix_of(qweight, scale), x, int8, kernel, threads);
}

nb::object linear_bf16(const Array<uint8_t, 2>& bits, const Array<float, 2>& x,
                       const std::string& kernel, int threads) {
  return linear_product(matrix_of(bits), x, false, kernel, threads);
}

nb::object expert_bf16(const Array<uint8_t, 2>& bits, const Array<float, 2>& x,
                       const std::string& kernel, int threads) {
  return expert_product(matrix_of(bits), x, false, kernel, threads);
}

// The columns of groups begin to end of y [S, O], the others NaN; x[s] is row rows[s] of the
// ScaledRows values [T, I] and scales [T, I / 32].
nb::object expert_int8(const Array<uint8_t, 2>& qweight, const Array<uint16_t, 2>& scale,
                       const Array<float, 2>& values, const Array<float, 2>& scales,
                       const Array<int32_t, 1>& rows, int64_t begin, int64_t end,
                       const std::string& kernel) {
  const Int4Matrix w = matrix_of(qweight, scale);
  const int64_t slots = dim(rows, 0), tokens = dim(values, 0);
  require_width(dim(values, 1), w.rows);
  const bool known = std::all_of(rows.data(), rows.data() + slots,
                                 [tokens](int32_t row) { return row >= 0 && row < tokens; });
  const bool fits = w.rows % kGroupSize == 0 && dim(scales, 0) == tokens &&
                    dim(scales, 1) * kGroupSize == w.rows && slots >= 1 && 0 <= begin &&
                    begin < end && end * kGroupSize <= w.columns;
  if (!known || !fits) throw InvalidArgument("bad expert shapes");
  std::vector<float> y(static_cast<size_t>(slots * w.columns),
                       std::numeric_limits<float>::quiet_NaN());
  const ScaledRows x{values.data(), scales.data(), w.rows};
  choose_kernels(kernel).expert_int8(w, x, rows.data(), slots, begin, end, y.data());
  return to_numpy(std::move(y), {slots, w.columns});
}

// (values [I], scales [I / 32]) of one row.
nb::tuple scale_row(const Array<float, 1>& x, const std::string& kernel) {
  const int64_t width = dim(x, 0), blocks = width / kGroupSize;
  if (width % kGroupSize != 0) throw InvalidArgument("width must be a multiple of 32");
  std::vector<float> values(static_cast<size_t>(width)), scales(static_cast<size_t>(blocks));
  choose_kernels(kernel).scale_row(x.data(), width, values.data(), scales.data());
  return nb::make_tuple(to_numpy(std::move(values), {width}), to_numpy(std::move(scales), {blocks}));
}

// silu(gate) * up, written over a copy of the gate if `in_place`.
nb::object silu_multiply(const Array<float, 1>& gate, const Array<float, 1>& up,
                         const std::string& kernel, bool in_place) {
  const int64_t width = dim(gate, 0);
  if (dim(up, 0) != width) throw InvalidArgument("gate and up must have one width");
  std::vector<float> out(gate.data(), gate.data() + width);
  const float* source = in_place ? out.data() : gate.data();
  choose_kernels(kernel).silu_multiply(source, up.data(), width, out.data());
  return to_numpy(std::move(out), {width});
}

// (values int8 [I], scales [I / 32], sums [I / 32]) of one row; with `with_rest` also rest [I].
nb::tuple quantize(const Array<float, 1>& x, const std::string& kernel, bool with_rest) {
  const int64_t width = dim(x, 0), blocks = width / kGroupSize;
  if (width % kGroupSize != 0) throw InvalidArgument("width must be a multiple of 32");
  std::vector<int8_t> values(static_cast<size_t>(width));
  std::vector<float> scales(static_cast<size_t>(blocks));
  std::vector<int32_t> sums(static_cast<size_t>(blocks));
  std::vector<float> rest(static_cast<size_t>(with_rest ? width : 0));
  choose_kernels(kernel).quantize_row(x.data(), width, values.data(), scales.data(), sums.data(),
                                      with_rest ? rest.data() : nullptr);
  const auto parts = nb::make_tuple(to_numpy(std::move(values), {width}),
                                    to_numpy(std::move(scales), {blocks}),
                                    to_numpy(std::move(sums), {blocks}));
  if (!with_rest) return parts;
  return nb::tuple(parts + nb::make_tuple(to_numpy(std::move(rest), {width})));
}

// (topk_ids [K], topk_weights [K]) of one token.
nb::tuple route_token(const Array<float, 1>& logits, const Array<float, 1>& bias, int64_t k,
                      double scaling) {
  const int64_t experts = dim(logits, 0);
  if (dim(bias, 0) != experts || k < 1 || k > experts) throw InvalidArgument("bad router shapes");
  std::vector<float> scores(static_cast<size_t>(experts));
  std::vector<int32_t> ids(static_cast<size_t>(k));
  std::vector<float> weights(static_cast<size_t>(k));
  route(logits.data(), bias.data(), experts, k, scaling, scores.data(), ids.data(),
        weights.data());
  return nb::make_tuple(to_numpy(std::move(ids), {k}), to_numpy(std::move(weights), {k}));
}

// (offsets [E + 1], token [T K], slot [T K])
nb::tuple dispatch_tokens(const Array<int32_t, 2>& topk_ids, int64_t experts) {
  const int64_t tokens = dim(topk_ids, 0), k = dim(topk_ids, 1);
  for (int64_t i = 0; i < tokens * k; ++i) {
    if (topk_ids.data()[i] < 0 || topk_ids.data()[i] >= experts) {
      throw InvalidArgument("expert id out of range");
    }
  }
  Dispatch result;
  dispatch(topk_ids.data(), tokens, k, experts, result);
  return nb::make_tuple(to_numpy(std::move(result.offsets), {experts + 1}),
                        to_numpy(std::move(result.token), {tokens * k}),
                        to_numpy(std::move(result.slot), {tokens * k}));
}

// out [d] of one query over keys and values [N, d].
nb::object attend(const Array<float, 1>& q, const Array<float, 2>& k, const Array<float, 2>& v,
                  float factor, const std::string& kernel) {
  const int64_t positions = dim(k, 0), d = dim(q, 0);
  if (positions < 1 || dim(k, 1) != d || dim(v, 0) != positions || dim(v, 1) != d) {
    throw InvalidArgument("bad attention shapes");
  }
  const Kernels& kernels = choose_kernels(kernel);
  std::vector<float> scores(static_cast<size_t>(positions)), out(static_cast<size_t>(d));
  kernels.attention_scores(q.data(), k.data(), positions, d, factor, scores.data());
  softmax(scores.data(), positions);
  kernels.attention_values(scores.data(), v.data(), positions, d, out.data());
  return to_numpy(std::move(out), {d});
}

nb::object exponential(const Array<float, 1>& x) {
  std::vector<float> out(x.data(), x.data() + x.size());
  for (float& value : out) value = exp_fp32(value);
  return to_numpy(std::move(out), {dim(x, 0)});
}

// Reads the weights of a model whose files hold `contents`; the paths in its errors are "file 0",
// "file 1" and so on.
void read_model(const std::vector<nb::bytes>& contents, const nb::dict& fields,
                const std::string& weight_format) {
  const Config config = config_from(fields);
  check_config(config);
  std::vector<MemoryFile> files;
  for (const nb::bytes& bytes : contents) {
    const auto* data = static_cast<const uint8_t*>(bytes.data());
    files.emplace_back("file " + std::to_string(files.size()), std::span(data, bytes.size()));
  }
  std::vector<ModelFile*> all;
  for (MemoryFile& file : files) all.push_back(&file);
  const nb::gil_scoped_release release;
  read_model_weights(all, config, weight_format_from(weight_format));
}

}  // namespace

void bind_testing(nb::module_& module) {
  module.def("linear", &linear, "qweight"_a, "scale"_a, "x"_a, "int8"_a, "kernel"_a,
             "threads"_a = 1);
  module.def("expert", &expert, "qweight"_a, "scale"_a, "x"_a, "int8"_a, "kernel"_a,
             "threads"_a = 1);
  module.def("linear_bf16", &linear_bf16, "bits"_a, "x"_a, "kernel"_a, "threads"_a = 1);
  module.def("expert_bf16", &expert_bf16, "bits"_a, "x"_a, "kernel"_a, "threads"_a = 1);
  module.def("expert_int8", &expert_int8, "qweight"_a, "scale"_a, "values"_a, "scales"_a,
             "rows"_a, "begin"_a, "end"_a, "kernel"_a);
  module.def("scale_row", &scale_row, "x"_a, "kernel"_a);
  module.def("silu_multiply", &silu_multiply, "gate"_a, "up"_a, "kernel"_a, "in_place"_a = false);
  module.def("quantize", &quantize, "x"_a, "kernel"_a, "with_rest"_a = false);
  module.def("route", &route_token, "logits"_a, "bias"_a, "k"_a, "scaling"_a);
  module.def("dispatch", &dispatch_tokens, "topk_ids"_a, "experts"_a);
  module.def("attend", &attend, "q"_a, "k"_a, "v"_a, "factor"_a, "kernel"_a);
  module.def("exp", &exponential, "x"_a);
  module.def("read_model", &read_model, "contents"_a, "config"_a, "weight_format"_a);
  bind_cache(module);
  bind_probe(module);
}

}  // namespace mobilemoe
