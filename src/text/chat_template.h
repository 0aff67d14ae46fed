// A chat template: the Jinja program that a model's authors ship, from a conversation to the text
// that the model sees.
//
// The result says of every byte whether the template or the data wrote it (only the template may
// spell special tokens), which message it came from, and whether it stands in a {% generation %}
// block. Output equals jinja2's with Hugging Face's settings byte for byte; beyond these,
// from_json, list.append and list.pop exist, because shipped templates use them.
#pragma once
#include <cstdint>
#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/encode.h"
#include "text/jinja_value.h"

namespace supersonic::text {

struct ChatInput {
  Value messages;  // list of dicts; role names of a known list count as the template's, all else as
                   // data
  Value tools = Value::none();
  std::vector<std::pair<std::string, Value>> variables;  // enable_thinking, date_string, …
  std::string bos_token, eos_token;  // trusted; an empty one is not defined for the template
  bool add_generation_prompt = false;
  std::time_t now = 0;                 // for strftime_now; 0: the clock
  std::int64_t first = 0, count = -1;  // renders messages [first, first + count) only; -1: all
};

struct ByteRange {
  std::size_t begin, end;
  bool operator==(const ByteRange&) const = default;
};

struct Rendered {
  std::string text;
  std::vector<TextSpan> spans;        // cover the text in order; adjacent ones differ
  std::vector<ByteRange> generation;  // inside {% generation %} blocks
  std::vector<Run> runs;              // which message each byte came from (Mark::source)
};

class ChatTemplate {
 public:
  // name: for messages ("tokenizer.chat_template in model.gguf"). Throws Error(bad_file) with the
  // line.
  ChatTemplate(std::string_view source, std::string name);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  // Throws Error(bad_file) with the template's name and line; raise_exception's text is part of it.
  // Thread-safe.
  Rendered render(const ChatInput& input) const;

  // The template has {% generation %} blocks.
  bool marks_generation() const { return marks_generation_; }

 private:
  struct Program;
  std::unique_ptr<Program> program_;
  bool marks_generation_ = false;
};

// Reads a conversation from JSON: a list of messages, or an object with messages, tools,
// add_generation_prompt and any other variables. Values live in `heap`. Throws Error(bad_file) with
// the byte offset or the field.
ChatInput parse_chat_input(std::string_view json, Heap& heap);

}  // namespace supersonic::text
