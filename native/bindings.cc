// The Python module mobilemoe.engine._native; its types are declared in _native.pyi.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include "bindings.h"
#include "engine.h"
#include "errors.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace mobilemoe {

void bind_ceilings(nb::module_& module);
void bind_residency(nb::class_<Model>& model);
void bind_testing(nb::module_& module);

Config config_from(const nb::dict& fields) {
  Config config;
  const auto read = [&](const char* name, auto& value) {
    value = nb::cast<std::decay_t<decltype(value)>>(fields[name]);
  };
  read("vocab_size", config.vocab_size);
  read("hidden_size", config.hidden_size);
  read("intermediate_size", config.intermediate_size);
  read("intermediate_size_mlp", config.intermediate_size_mlp);
  read("num_hidden_layers", config.num_hidden_layers);
  read("num_attention_heads", config.num_attention_heads);
  read("num_key_value_heads", config.num_key_value_heads);
  read("head_dim", config.head_dim);
  read("num_local_experts", config.num_local_experts);
  read("num_experts_per_tok", config.num_experts_per_tok);
  read("interleave_moe_layer_step", config.interleave_moe_layer_step);
  read("max_position_embeddings", config.max_position_embeddings);
  read("rms_norm_eps", config.rms_norm_eps);
  read("rope_theta", config.rope_theta);
  read("rope_scaling_factor", config.rope_scaling_factor);
  read("rope_original_max_position_embeddings", config.rope_original_max_position_embeddings);
  read("routed_scaling_factor", config.routed_scaling_factor);
  read("tie_word_embeddings", config.tie_word_embeddings);
  return config;
}

std::vector<std::string> strings_from(const nb::list& list) {
  std::vector<std::string> strings;
  for (const nb::handle item : list) {
    Py_ssize_t size = 0;
    const char* text = PyUnicode_AsUTF8AndSize(item.ptr(), &size);
    if (text == nullptr) throw nb::python_error();
    strings.emplace_back(text, static_cast<size_t>(size));
  }
  return strings;
}

std::shared_ptr<const Model> share(nb::handle_t<Model> model) {
  const auto release = [object = model.inc_ref().ptr()](const Model*) noexcept {
    const nb::gil_scoped_acquire acquire;
    Py_DECREF(object);
  };
  return {nb::inst_ptr<Model>(model), release};
}

WeightFormat weight_format_from(const std::string& name) {
  if (name == "int4") return WeightFormat::kInt4;
  if (name == "bf16") return WeightFormat::kBf16;
  throw InvalidArgument("weight_format is '" + name + "'; allowed: int4, bf16");
}

namespace {

using Ids = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void open_model(Model* self, const nb::list& list, const nb::dict& fields, int threads,
                const std::string& kernel, const std::string& weight_format) {
  const Config config = config_from(fields);
  const std::vector<std::string> paths = strings_from(list);
  const nb::gil_scoped_release release;
  new (self) Model(paths, config, threads, kernel, weight_format_from(weight_format));
}

// The ids, copied while the GIL still protects their array.
std::vector<int32_t> copy_ids(const Ids& ids) { return {ids.data(), ids.data() + ids.size()}; }

// Lets Ctrl-C end a long prompt.
void poll_signals() {
  const nb::gil_scoped_acquire acquire;
  if (PyErr_CheckSignals() != 0) throw nb::python_error();
}

using Append = void (Session::*)(std::span<const int32_t>, std::vector<float>&,
                                 const Session::Poll&);

// The array for the logits is there before anything is computed: a call that ends for want of
// memory must leave the session as it was. Too many ids are refused before memory is taken.
nb::object append_to(Session& session, Append append, const Ids& array,
                     std::initializer_list<int64_t> shape) {
  const std::vector<int32_t> ids = copy_ids(array);
  const bool fits = static_cast<int64_t>(ids.size()) <= session.context() - session.position();
  size_t size = 1;
  for (const int64_t n : shape) size *= static_cast<size_t>(n);
  NumpyVector<float> logits(fits ? size : 0);
  nb::object result;
  if (fits) result = logits.share(shape);
  {
    const nb::gil_scoped_release release;
    (session.*append)(ids, logits.values(), poll_signals);
  }
  return fits ? result : logits.share(shape);  // not fitting throws, unless somebody rewound it
}

nb::object append(Session& session, const Ids& ids) {
  return append_to(session, &Session::append, ids, {session.model().config().vocab_size});
}

nb::object append_all(Session& session, const Ids& ids) {
  const auto tokens = static_cast<int64_t>(ids.size());
  return append_to(session, &Session::append_all, ids,
                   {tokens, session.model().config().vocab_size});
}

nb::object routing(const Session& session) {
  std::vector<int32_t> flat;
  {
    const nb::gil_scoped_release release;
    flat = session.routing();
  }
  const Config& config = session.model().config();
  int64_t layers = 0;
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) layers += config.is_moe_layer(i);
  const int64_t row = layers * config.num_experts_per_tok;
  const int64_t tokens = row == 0 ? 0 : static_cast<int64_t>(flat.size()) / row;
  return to_numpy(std::move(flat), {layers, tokens, config.num_experts_per_tok});
}

}  // namespace
}  // namespace mobilemoe

NB_MODULE(_native, module) {
  using namespace mobilemoe;
  module.doc() = "The native inference engine of mobilemoe.";
  module.attr("compiler") = MOBILEMOE_COMPILER;
  nb::exception<ModelFileError>(module, "ModelFileError");
  nb::class_<Model> model(module, "Model");
  model.def("__init__", &open_model, "paths"_a, "config"_a, "threads"_a, "kernel"_a,
            "weight_format"_a)
      .def_prop_ro("threads", [](const Model& model) { return model.pool().threads(); })
      .def_prop_ro("instruction_set", [](const Model& model) { return model.kernels().name; });
  bind_residency(model);
  nb::class_<Session>(module, "Session")
      .def("__init__",
           [](Session* self, nb::handle_t<Model> model, int64_t context, bool int8,
              const char* kv) {
             new (self) Session(share(model), context,
                                int8 ? ActivationFormat::kInt8 : ActivationFormat::kFp32,
                                kv_format_from(kv));
           },
           "model"_a, "context"_a, "int8"_a, "kv"_a)
      .def("append", &append, "ids"_a)
      .def("append_all", &append_all, "ids"_a)
      .def("rewind", &Session::rewind, "position"_a, nb::call_guard<nb::gil_scoped_release>())
      .def("routing", &routing)
      .def_prop_ro("position", &Session::position)
      .def_prop_ro("context", &Session::context);
  module.def("instruction_set", [](const std::string& kernel) {
    return choose_kernels(kernel).name;
  }, "kernel"_a = "auto");
  nb::module_ ceilings = module.def_submodule("ceilings", "What the machine can do at most.");
  bind_ceilings(ceilings);
  nb::module_ testing = module.def_submodule("testing", "Single functions, for tests.");
  bind_testing(testing);
}
