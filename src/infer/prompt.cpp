#include "infer/prompt.h"

#include "core/error.h"
#include "io/json_tree.h"
#include "text/chat_template.h"

namespace supersonic::infer {

std::string messages_to_json(const std::vector<Message>& messages) {
  io::JsonTree list = io::JsonTree::array();
  for (const Message& m : messages)
    list.push_back(io::JsonTree::object({{"content", m.content}, {"role", m.role}}));
  return list.dump(-1, io::JsonTree::Utf8::replace);
}

std::vector<Message> messages_from_json(std::string_view json, const std::string& source) {
  const auto document = io::JsonDocument::attempt(json);
  const io::JsonView all = document.root();
  const io::JsonView list = all.contains("messages") ? all.find("messages") : all;
  CHECK_FILE(list.is_array(),
             "{}: is not a conversation: a JSON list of {{\"role\", \"content\"}} was expected",
             source);
  std::vector<Message> out;
  for (const io::JsonView& m : list.items()) {
    const auto role = m.find("role").text(), content = m.find("content").text();
    CHECK_FILE(role && content, "{}: message {} has no \"role\" and \"content\" of plain text",
               source, out.size() + 1);
    out.push_back({*role, *content});
  }
  return out;
}

Prompter::Prompter(const std::string& model)
    : source_(model), tokenizer_(source_.tokenizer()), template_(source_.chat_template()) {}
Prompter::~Prompter() = default;

std::vector<std::int32_t> Prompter::raw(std::string_view text, bool parse_special) const {
  auto ids = tokenizer_.encode(text, {.add_special = true, .parse_special = parse_special});
  if (ids.empty() && tokenizer_.bos() >= 0) ids.push_back(tokenizer_.bos());
  if (ids.empty()) fail(ErrorKind::usage, "the prompt is empty");
  return ids;
}

std::vector<std::int32_t> Prompter::chat(std::string_view json) const {
  if (!template_)
    fail(ErrorKind::usage,
         "{}: has no chat template: use --raw, and write the prompt as this model expects it",
         source_.path());
  text::Heap heap;
  text::ChatInput input = text::parse_chat_input(json, heap);
  input.bos_token = source_.bos_text(), input.eos_token = source_.eos_text();
  input.add_generation_prompt = true;
  const text::Rendered rendered = template_->render(input);
  auto ids = tokenizer_.encode_spans(rendered.text, rendered.spans);
  if (ids.empty()) fail(ErrorKind::usage, "the chat template made nothing of the conversation");
  return ids;
}

}  // namespace supersonic::infer
