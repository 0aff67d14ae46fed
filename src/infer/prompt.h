// What a person says -> the token ids that a model expects: bare text, or a conversation through
// the model's chat template. Special tokens come from the template alone; what the person wrote
// stays text.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/model_text.h"
#include "text/tokenizer.h"

namespace supersonic::infer {

struct Message {
  std::string role, content;  // role: "system", "user", "assistant"
};
// [{"role": …, "content": …}, …]
std::string messages_to_json(const std::vector<Message>& messages);
// The other way, for conversations of plain text. Throws Error(bad_file); source begins the
// message.
std::vector<Message> messages_from_json(std::string_view json, const std::string& source);

class Prompter {
 public:
  explicit Prompter(const std::string& model);  // throws Error(bad_file)
  ~Prompter();
  const text::Tokenizer& tokenizer() const { return tokenizer_; }
  const text::ModelText& source() const { return source_; }
  bool has_template() const { return template_ != nullptr; }

  // Bare text with the ids that the model expects around it. Throws Error(usage) when nothing is
  // left.
  std::vector<std::int32_t> raw(std::string_view text, bool parse_special = false) const;
  // json: a list of messages, or an object with "messages" (and "tools", and variables of the
  // template); the beginning of the assistant's turn is appended. Throws Error(bad_file), or
  // Error(usage) when the model has no chat template.
  std::vector<std::int32_t> chat(std::string_view json) const;

 private:
  text::ModelText source_;
  text::Tokenizer tokenizer_;
  std::unique_ptr<text::ChatTemplate> template_;
};

}  // namespace supersonic::infer
