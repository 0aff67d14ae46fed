// supersonic template MODEL: a conversation as the text that the model sees.
#include <fmt/format.h>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/json_writer.h"
#include "cli/model_options.h"
#include "core/error.h"
#include "text/chat_template.h"
#include "text/model_text.h"

namespace supersonic::cli {
namespace {

constexpr std::size_t kMaxInput = std::size_t{64} << 20;

struct Template {
  std::string model, file, name = "default";
  bool generation_prompt = false, json = false;

  static constexpr About about{.summary = "Render a conversation with the model's chat template",
                               .usage = "MODEL -f messages.json",
                               .details =
                                   "The file holds a list of messages, or an object with messages, "
                                   "tools, add_generation_prompt and any other "
                                   "variable of the template. --json also says which bytes the "
                                   "template wrote: special tokens are taken from these alone.",
                               .examples =
                                   "supersonic template model.gguf -f messages.json\n"
                                   "echo '[{\"role\":\"user\",\"content\":\"Hi\"}]' | supersonic "
                                   "template model.gguf -f - --generation-prompt"};

  void options(Options& o) {
    declare_model(o, model);
    o.add("file", file, "The conversation as JSON; - reads standard input")
        .letter('f')
        .value("FILE")
        .required();
    o.add("generation-prompt", generation_prompt, "Append the beginning of the assistant's turn");
    o.add("name", name, "Which template, where the model has several").value("NAME");
    declare_json(o, json);
  }

  int run(Context&) {
    const text::ModelText source(model);
    const auto chat = source.chat_template(name);
    if (!chat) refuse(source);
    text::Heap heap;
    text::ChatInput input = read_conversation(heap);
    input.bos_token = source.bos_text(), input.eos_token = source.eos_text();
    if (generation_prompt) input.add_generation_prompt = true;
    const text::Rendered rendered = chat->render(input);
    if (!json) return print(rendered.text), 0;
    JsonWriter w;
    w.begin_object().key("text").value(rendered.text).key("spans").begin_array();
    for (const auto& s : rendered.spans)
      w.begin_object()
          .key("begin")
          .value(s.begin)
          .key("end")
          .value(s.end)
          .key("trusted")
          .value(s.trusted)
          .end_object();
    w.end_array().key("generation").begin_array();
    for (const auto& r : rendered.generation)
      w.begin_object().key("begin").value(r.begin).key("end").value(r.end).end_object();
    w.end_array().end_object();
    return print(w.text() + "\n"), 0;
  }

  text::ChatInput read_conversation(text::Heap& heap) const {
    const std::string content = read_input(file, kMaxInput);
    try {
      return text::parse_chat_input(content, heap);
    } catch (const Error& e) {
      fail(e.kind(), "{}: {}", file == "-" ? "standard input" : file, e.what());
    }
  }

  [[noreturn]] void refuse(const text::ModelText& source) const {
    const auto names = source.template_names();
    if (names.empty()) fail(ErrorKind::bad_file, "{}: has no chat template", model);
    fail(ErrorKind::usage, "{}: has no chat template '{}'; it has {}", model, name,
         fmt::join(names, ", "));
  }
};

}  // namespace

COMMAND(template, Template)

}  // namespace supersonic::cli
