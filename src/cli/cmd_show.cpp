// supersonic show MODEL: what is in a model file, read from its header alone.
#include <fmt/format.h>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/json_writer.h"
#include "cli/model_listing.h"
#include "cli/model_options.h"
#include "core/error.h"

namespace supersonic::cli {
namespace {

std::string scaled(std::uint64_t n) {
  const auto x = static_cast<double>(n);
  if (x >= 1e9) return fmt::format("{:.2f} B", x / 1e9);
  if (x >= 1e6) return fmt::format("{:.1f} M", x / 1e6);
  return fmt::to_string(n);
}

std::string mebibytes(std::uint64_t bytes) {
  return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20));
}

double bits_per_weight(std::uint64_t bytes, std::uint64_t parameters) {
  return parameters ? 8 * static_cast<double>(bytes) / static_cast<double>(parameters) : 0;
}

void print_config(const io::ModelConfig& c) {
  print(fmt::format("  {:<14}{} layers, width {}, feed-forward {}\n", "shape", c.num_hidden_layers,
                    c.hidden_size, c.intermediate_size));
  print(fmt::format("  {:<14}{} heads of {}, {} of keys and values{}\n", "attention",
                    c.num_attention_heads, c.head_dim, c.num_key_value_heads,
                    c.sliding_window ? fmt::format(", window {}", c.sliding_window) : ""));
  std::string rope = fmt::format("rope theta {:.0f}", c.rope_theta);
  if (c.rope_scaling.kind != io::RopeScaling::Kind::none)
    rope +=
        fmt::format(", {} scaling by {}", io::name_of(c.rope_scaling.kind), c.rope_scaling.factor);
  print(fmt::format("  {:<14}{} tokens, {}\n", "context", c.max_position_embeddings, rope));
  if (const std::string special = io::special_features(c); !special.empty())
    print(fmt::format("  {:<14}{}\n", "special", special));
  print(fmt::format("  {:<14}{} tokens, output layer {}\n", "vocabulary", c.vocab_size,
                    c.tie_word_embeddings ? "tied to the embedding" : "of its own"));
}

void write_config(JsonWriter& w, const io::ModelConfig& c) {
  w.begin_object()
      .key("family")
      .value(c.family)
      .key("layers")
      .value(c.num_hidden_layers);
  w.key("hidden_size").value(c.hidden_size).key("intermediate_size").value(c.intermediate_size);
  w.key("heads")
      .value(c.num_attention_heads)
      .key("kv_heads")
      .value(c.num_key_value_heads)
      .key("head_dim")
      .value(c.head_dim);
  w.key("vocab_size").value(c.vocab_size).key("context").value(c.max_position_embeddings);
  w.key("rope_theta")
      .value(c.rope_theta)
      .key("rope_scaling")
      .value(io::name_of(c.rope_scaling.kind));
  w.key("tied_embeddings")
      .value(c.tie_word_embeddings)
      .key("sliding_window")
      .value(c.sliding_window)
      .key("special")
      .value(io::special_features(c))
      .end_object();
}

struct Show {
  std::string model;
  bool tensors = false, metadata = false, chat_template = false, json = false;

  static constexpr About about{
      .summary = "Show what is in a model file: architecture, sizes, types, metadata",
      .usage = "MODEL [--tensors] [--metadata] [--template]",
      .details =
          "Reads the header alone, so it takes no time and no memory, whatever the size of the "
          "model.",
      .examples =
          "supersonic show model.gguf\nsupersonic show model.gguf --tensors\nsupersonic show "
          "./SmolLM2-135M --template > chat.jinja"};

  void options(Options& o) {
    declare_model(o, model);
    o.group("What to show");
    o.add("tensors", tensors, "List every tensor with its shape, type and size");
    o.add("metadata", metadata, "List the metadata");
    o.add("template", chat_template, "Print the chat template's text, and nothing else");
    declare_json(o, json);
  }

  int run(Context&) {
    const ModelListing m = list_model(model);
    if (chat_template && !json) return print_template(m), 0;
    return json ? print_json(m) : print_text(m), 0;
  }

  static void print_template(const ModelListing& m) {
    CHECK_FILE(!m.templates.empty(), "{}: has no chat template", m.path);
    for (const auto& [name, text] : m.templates) {
      if (m.templates.size() > 1) log_info("template '{}'", name);
      print(text), print("\n");
    }
  }

  void print_text(const ModelListing& m) const {
    print(fmt::format("{}\n", m.name.empty() ? m.path : m.name));
    print(fmt::format("  {:<14}{}{}{}\n", "file", m.container, m.architecture.empty() ? "" : ", ",
                      m.architecture));
    if (m.config) print_config(*m.config);
    print(fmt::format("  {:<14}{} in {} tensors, {}, {:.2f} bits each\n", "parameters",
                      scaled(m.parameters()), m.tensors.size(), mebibytes(m.bytes()),
                      bits_per_weight(m.bytes(), m.parameters())));
    print(fmt::format("  {:<14}{}\n", "chat template", m.templates.empty() ? "none" : "yes"));
    print(fmt::format("\n  {:<8}{:>8}{:>14}{:>14}{:>8}\n", "type", "tensors", "parameters", "size",
                      "bits"));
    for (const TypeTotal& t : m.types())
      print(fmt::format("  {:<8}{:>8}{:>14}{:>14}{:>8.2f}\n", t.type, t.tensors,
                        scaled(t.parameters), mebibytes(t.bytes),
                        bits_per_weight(t.bytes, t.parameters)));
    if (metadata) {
      print("\n");
      for (const auto& [key, value] : m.metadata) print(fmt::format("  {} = {}\n", key, value));
    }
    if (tensors) {
      print("\n");
      for (const ListedTensor& t : m.tensors)
        print(fmt::format("  {:<44}{:<8}{:<20}{:>14}\n", t.name, t.type, to_string(t.shape),
                          t.bytes));
    }
    if (!m.config) log_warning("this model cannot run here: {}", m.unsupported);
  }

  void print_json(const ModelListing& m) const {
    JsonWriter w;
    w.begin_object()
        .key("path")
        .value(m.path)
        .key("name")
        .value(m.name)
        .key("container")
        .value(m.container);
    w.key("architecture")
        .value(m.architecture)
        .key("supported")
        .value(m.config.has_value())
        .key("config");
    if (m.config) {
      write_config(w, *m.config);
    } else {
      w.null();
    }
    w.key("parameters")
        .value(m.parameters())
        .key("bytes")
        .value(m.bytes())
        .key("tensor_count")
        .value(m.tensors.size());
    w.key("types").begin_array();
    for (const TypeTotal& t : m.types())
      w.begin_object()
          .key("type")
          .value(t.type)
          .key("tensors")
          .value(t.tensors)
          .key("parameters")
          .value(t.parameters)
          .key("bytes")
          .value(t.bytes)
          .end_object();
    w.end_array();
    if (tensors) {
      w.key("tensors").begin_array();
      for (const ListedTensor& t : m.tensors) {
        w.begin_object()
            .key("name")
            .value(t.name)
            .key("type")
            .value(t.type)
            .key("shape")
            .begin_array();
        for (int i = 0; i < t.shape.rank; ++i) w.value(t.shape[i]);
        w.end_array().key("bytes").value(t.bytes).end_object();
      }
      w.end_array();
    }
    if (metadata) {
      w.key("metadata").begin_object();
      for (const auto& [key, value] : m.metadata) w.key(key).value(value);
      w.end_object();
    }
    if (chat_template) {
      w.key("templates").begin_object();
      for (const auto& [name, text] : m.templates) w.key(name).value(text);
      w.end_object();
    }
    w.end_object();
    print(w.text() + "\n");
  }
};

}  // namespace

COMMAND(show, Show)

}  // namespace supersonic::cli
