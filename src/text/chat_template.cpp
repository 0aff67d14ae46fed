// Copies a conversation with marks into one rendering, runs the program, and turns marks into
// spans.
#include "text/chat_template.h"

#include <algorithm>

#include "core/error.h"
#include "text/jinja_eval.h"
#include "text/jinja_json.h"

namespace supersonic::text {

struct ChatTemplate::Program {
  jinja::Tree tree;
};

static bool has_generation(const std::vector<jinja::NodePtr>& body) {
  return std::any_of(body.begin(), body.end(), [](const jinja::NodePtr& n) {
    return n->kind == jinja::N::generation || has_generation(n->body) || has_generation(n->orelse);
  });
}

ChatTemplate::ChatTemplate(std::string_view source, std::string name)
    : program_(std::make_unique<Program>(Program{jinja::parse(source, name)})),
      marks_generation_(has_generation(program_->tree.body)) {}
ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

// A role that every template knows is the caller's word: "<|" + role + "|>" may become a special
// token.
static bool is_known_role(const Value& v) {
  static constexpr std::string_view roles[] = {"system",   "user",        "assistant",
                                               "tool",     "developer",   "model",
                                               "function", "observation", "ipython"};
  return v.is(Kind::string) &&
         std::find(std::begin(roles), std::end(roles), v.bytes()) != std::end(roles);
}

// A deep copy in which every byte has this origin.
static Value marked(const Value& v, Mark mark, Heap& heap, bool message = false) {
  switch (v.kind()) {
    case Kind::string:
      return Value::string(v.bytes(), mark);
    case Kind::boolean:
      return Value::boolean(v.as_bool(), mark);
    case Kind::integer:
      return Value::integer(v.as_int(), mark);
    case Kind::real:
      return Value::real(v.as_real(), mark);
    case Kind::list: {
      List* list = heap.list(v.as_list().flavor);
      list->frozen = true;
      for (const Value& item : v.as_list().items) list->items.push_back(marked(item, mark, heap));
      return Value::list(list);
    }
    case Kind::dict: {
      Dict* dict = heap.dict();
      for (const auto& [key, value] : v.as_dict().items) {
        const bool role =
            message && key.is(Kind::string) && key.bytes() == "role" && is_known_role(value);
        dict->set(marked(key, mark, heap), marked(value, role ? Mark{} : mark, heap));
      }
      return Value::dict(dict);
    }
    default:
      return v;
  }
}

static Value marked_messages(const ChatInput& input, Heap& heap) {
  CHECK_FILE(input.messages.is(Kind::list), "a conversation must be a list of messages");
  const auto& items = input.messages.as_list().items;
  const auto size = static_cast<std::int64_t>(items.size());
  const std::int64_t first = std::clamp<std::int64_t>(input.first, 0, size);
  const std::int64_t last = input.count < 0 ? size : std::min(size, first + input.count);
  List* out = heap.list();
  out->frozen = true;
  for (std::int64_t i = first; i < last; ++i) {
    const Value& message = items[static_cast<std::size_t>(i)];
    CHECK_FILE(message.is(Kind::dict),
               "message {} is a {}; it must be an object with role and content", i + 1,
               type_name(message));
    out->items.push_back(marked(message, {static_cast<std::uint32_t>(i + 1)}, heap, true));
  }
  return Value::list(out);
}

Rendered ChatTemplate::render(const ChatInput& input) const {
  Heap heap;
  std::vector<std::pair<std::string, Value>> variables;
  variables.emplace_back("messages", marked_messages(input, heap));
  variables.emplace_back("tools", marked(input.tools, {kFromData}, heap));
  variables.emplace_back("documents", Value::none());
  variables.emplace_back("add_generation_prompt", Value::boolean(input.add_generation_prompt));
  if (!input.bos_token.empty()) variables.emplace_back("bos_token", Value::string(input.bos_token));
  if (!input.eos_token.empty()) variables.emplace_back("eos_token", Value::string(input.eos_token));
  for (const auto& [name, value] : input.variables)
    variables.emplace_back(name, marked(value, {kFromData}, heap));
  jinja::Evaluator evaluator(program_->tree, {}, input.now ? input.now : std::time(nullptr));
  Text text = evaluator.render(variables);
  Rendered out;
  std::size_t at = 0;
  for (const Run& run : text.runs) {
    const bool trusted = run.mark.source == kFromTemplate;
    if (!out.spans.empty() && out.spans.back().trusted == trusted) {
      out.spans.back().end = run.end;
    } else {
      out.spans.push_back({at, run.end, trusted});
    }
    if (run.mark.generation) {
      if (!out.generation.empty() && out.generation.back().end == at) {
        out.generation.back().end = run.end;
      } else {
        out.generation.push_back({at, run.end});
      }
    }
    at = run.end;
  }
  out.text = std::move(text.bytes);
  out.runs = std::move(text.runs);
  return out;
}

ChatInput parse_chat_input(std::string_view json, Heap& heap) {
  const Value root = parse_json(json, heap);
  ChatInput input;
  if (root.is(Kind::list)) {
    input.messages = root;
    return input;
  }
  CHECK_FILE(root.is(Kind::dict),
             "a conversation must be a list of messages or an object with 'messages'");
  for (const auto& [key, value] : root.as_dict().items) {
    const std::string& name = key.bytes();
    if (name == "messages") {
      input.messages = value;
    } else if (name == "tools") {
      input.tools = value;
    } else if (name == "add_generation_prompt") {
      input.add_generation_prompt = truthy(value);
    } else if ((name == "bos_token" || name == "eos_token") && value.is(Kind::string)) {
      (name == "bos_token" ? input.bos_token : input.eos_token) = value.bytes();
    } else {
      input.variables.emplace_back(name, value);
    }
  }
  CHECK_FILE(input.messages.is(Kind::list), "'messages' must be a list");
  return input;
}

}  // namespace supersonic::text
