// mobilemoe.engine._native.testing.LayerProbe: one layer's parts on given arrays.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "bindings.h"
#include "layer_probe.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace mobilemoe {
namespace {

using Rows = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

// Calls `compute(rows)` without the GIL, on rows copied while it still protects their array.
auto without_gil(const Rows& x, const auto& compute) {
  const std::vector<float> values(x.data(), x.data() + x.size());
  const LayerProbe::Rows rows{values.data(), static_cast<int64_t>(x.shape(0)),
                              static_cast<int64_t>(x.shape(1))};
  const nb::gil_scoped_release release;
  return compute(rows);
}

nb::object attention(LayerProbe& probe, int64_t layer, const Rows& x) {
  std::vector<float> y_TD = without_gil(x, [&](const LayerProbe::Rows& rows) {
    return probe.attention(layer, rows);
  });
  return to_numpy(std::move(y_TD), {static_cast<int64_t>(x.shape(0)),
                                    static_cast<int64_t>(x.shape(1))});
}

nb::tuple feed_forward(LayerProbe& probe, int64_t layer, const Rows& x) {
  LayerProbe::FeedForwardOutput out = without_gil(x, [&](const LayerProbe::Rows& rows) {
    return probe.feed_forward(layer, rows);
  });
  const Config& config = probe.model().config();
  const auto T = static_cast<int64_t>(x.shape(0));
  const bool routes = config.is_moe_layer(layer);
  const int64_t E = routes ? config.num_local_experts : 0;
  const int64_t K = routes ? config.num_experts_per_tok : 0;
  return nb::make_tuple(to_numpy(std::move(out.y_TD), {T, config.hidden_size}),
                        to_numpy(std::move(out.router_logits_TE), {T, E}),
                        to_numpy(std::move(out.topk_ids_TK), {T, K}));
}

nb::object head(LayerProbe& probe, const Rows& x) {
  std::vector<float> logits_TV = without_gil(x, [&](const LayerProbe::Rows& rows) {
    return probe.head(rows);
  });
  return to_numpy(std::move(logits_TV),
                  {static_cast<int64_t>(x.shape(0)), probe.model().config().vocab_size});
}

}  // namespace

void bind_probe(nb::module_& module) {
  nb::class_<LayerProbe>(module, "LayerProbe")
      .def("__init__",
           [](LayerProbe* self, nb::handle_t<Model> model, int64_t tokens, bool int8,
              const char* kv) {
             new (self) LayerProbe(share(model), tokens,
                                   int8 ? ActivationFormat::kInt8 : ActivationFormat::kFp32,
                                   kv_format_from(kv));
           },
           "model"_a, "tokens"_a, "int8"_a, "kv"_a)
      .def("attention", &attention, "layer"_a, "x_TD"_a)
      .def("feed_forward", &feed_forward, "layer"_a, "x_TD"_a)
      .def("head", &head, "x_TD"_a);
}

}  // namespace mobilemoe
