// Which layout a row has, and what it becomes: a conversation, a prompt with its completion, or
// text.
#include <algorithm>

#include "core/error.h"
#include "text/dataset.h"
#include "text/jinja_json.h"

namespace supersonic::text {
namespace {

const Value* field(const Value& row, std::string_view name) {
  const Value* v = row.as_dict().find(name);
  return v && !v->is(Kind::none) ? v : nullptr;
}

const std::string& text_field(const Value& row, std::string_view name) {
  const Value* v = field(row, name);
  CHECK_FILE(v, "the field '{}' is missing", name);
  CHECK_FILE(v->is(Kind::string), "the field '{}' is a {}; it must be a string", name,
             type_name(*v));
  return v->bytes();
}

std::string optional_text(const Value& row, std::string_view name) {
  return field(row, name) ? text_field(row, name) : std::string();
}

void add_message(Heap& heap, List& list, std::string_view role, const Value& content) {
  Dict* m = heap.dict();
  m->set(Value::string("role"), Value::string(role));
  m->set(Value::string("content"), content);
  list.items.push_back(Value::dict(m));
}

void check_messages(const Value& messages, std::string_view name) {
  CHECK_FILE(messages.is(Kind::list), "the field '{}' is a {}; it must be a list of messages", name,
             type_name(messages));
  const auto& items = messages.as_list().items;
  CHECK_FILE(!items.empty(), "the field '{}' is empty; a conversation needs messages", name);
  for (std::size_t i = 0; i < items.size(); ++i) {
    CHECK_FILE(items[i].is(Kind::dict),
               "{}[{}] is a {}; it must be an object with role and content", name, i,
               type_name(items[i]));
    const Value* role = items[i].as_dict().find("role");
    CHECK_FILE(role && role->is(Kind::string),
               "{}[{}].role is missing or no string; use system, user, assistant or tool", name, i);
    const Value* content = items[i].as_dict().find("content");
    const bool calls = items[i].as_dict().find("tool_calls") != nullptr;
    CHECK_FILE(content || calls, "{}[{}].content is missing", name, i);
    CHECK_FILE(
        !content || content->is(Kind::string) || content->is(Kind::none) || content->is(Kind::list),
        "{}[{}].content is a {}; it must be a string", name, i, type_name(*content));
  }
}

Value read_tools(const Value& row, Heap& heap) {
  const Value* tools = field(row, "tools");
  if (!tools) return Value::none();
  if (!tools->is(Kind::string)) {
    CHECK_FILE(tools->is(Kind::list), "the field 'tools' is a {}; it must be a list",
               type_name(*tools));
    return tools->as_list().items.empty() ? Value::none() : *tools;
  }
  if (tools->bytes().empty()) return Value::none();
  try {
    return parse_json(tools->bytes(), heap);
  } catch (const Error& error) {
    fail(ErrorKind::bad_file, "the field 'tools' is not valid JSON {}", error.what());
  }
}

std::string_view sharegpt_role(const std::string& from, std::size_t i) {
  static constexpr std::pair<std::string_view, std::string_view> roles[] = {
      {"human", "user"},
      {"user", "user"},
      {"gpt", "assistant"},
      {"assistant", "assistant"},
      {"chatgpt", "assistant"},
      {"bing", "assistant"},
      {"bard", "assistant"},
      {"model", "assistant"},
      {"function_call", "assistant"},
      {"system", "system"},
      {"observation", "tool"},
      {"tool", "tool"},
      {"function", "tool"},
      {"function_response", "tool"}};
  for (const auto& [name, role] : roles)
    if (from == name) return role;
  fail(ErrorKind::bad_file,
       "conversations[{}].from is '{}'; use human, gpt, system, function_call or observation", i,
       from);
}

Sample from_sharegpt(const Value& row, Heap& heap) {
  const Value& turns = *row.as_dict().find("conversations");
  CHECK_FILE(turns.is(Kind::list), "the field 'conversations' is a {}; it must be a list",
             type_name(turns));
  CHECK_FILE(!turns.as_list().items.empty(), "the field 'conversations' is empty");
  List* list = heap.list();
  const std::string system = optional_text(row, "system");
  if (!system.empty()) add_message(heap, *list, "system", Value::string(system));
  std::size_t i = 0;
  for (const Value& turn : turns.as_list().items) {
    CHECK_FILE(turn.is(Kind::dict),
               "conversations[{}] is a {}; it must be an object with from and value", i,
               type_name(turn));
    const Value *from = field(turn, "from"), *value = field(turn, "value");
    if (!from) from = field(turn, "role");
    if (!value) value = field(turn, "content");
    CHECK_FILE(from && from->is(Kind::string), "conversations[{}].from is missing or no string", i);
    CHECK_FILE(value && value->is(Kind::string), "conversations[{}].value is missing or no string",
               i);
    add_message(heap, *list, sharegpt_role(from->bytes(), i), *value);
    ++i;
  }
  Sample s;
  s.messages = Value::list(list);
  s.tools = read_tools(row, heap);
  return s;
}

Sample from_alpaca(const Value& row, Heap& heap) {
  List* list = heap.list();
  const std::string system = optional_text(row, "system"), input = optional_text(row, "input");
  if (!system.empty()) add_message(heap, *list, "system", Value::string(system));
  if (const Value* history = field(row, "history")) {
    CHECK_FILE(history->is(Kind::list),
               "the field 'history' must be a list of [question, answer] pairs");
    for (const Value& pair : history->as_list().items) {
      const bool good = pair.is(Kind::list) && pair.as_list().items.size() == 2 &&
                        pair.as_list().items[0].is(Kind::string) &&
                        pair.as_list().items[1].is(Kind::string);
      CHECK_FILE(good, "the field 'history' must be a list of [question, answer] pairs");
      add_message(heap, *list, "user", pair.as_list().items[0]);
      add_message(heap, *list, "assistant", pair.as_list().items[1]);
    }
  }
  std::string prompt = text_field(row, "instruction");
  if (!input.empty()) prompt += "\n\n" + input;
  add_message(heap, *list, "user", Value::string(prompt));
  add_message(heap, *list, "assistant", Value::string(text_field(row, "output")));
  Sample s;
  s.messages = Value::list(list);
  return s;
}

Sample from_completion(const Value& row, Heap& heap) {
  const Value *prompt = field(row, "prompt"), *completion = field(row, "completion");
  CHECK_FILE(prompt, "the field 'prompt' is missing");
  CHECK_FILE(completion, "the field 'completion' is missing");
  Sample s;
  if (prompt->is(Kind::list) || completion->is(Kind::list)) {
    check_messages(*prompt, "prompt");
    check_messages(*completion, "completion");
    List* list = heap.list();
    list->items = prompt->as_list().items;
    s.trained_from = static_cast<std::int64_t>(list->items.size());
    list->items.insert(list->items.end(), completion->as_list().items.begin(),
                       completion->as_list().items.end());
    s.messages = Value::list(list);
    s.tools = read_tools(row, heap);
    return s;
  }
  s.type = Sample::Type::completion;
  s.prompt = text_field(row, "prompt");
  s.answer = text_field(row, "completion");
  List* list = heap.list();
  add_message(heap, *list, "user", *prompt);
  add_message(heap, *list, "assistant", *completion);
  s.messages = Value::list(list);
  return s;
}

}  // namespace

std::string_view layout_name(Layout layout) {
  static constexpr std::string_view names[] = {"messages", "ShareGPT", "alpaca",
                                               "prompt/completion", "text"};
  return names[static_cast<int>(layout)];
}

Layout detect_layout(const Value& row) {
  CHECK_FILE(row.is(Kind::dict), "the row is a {}; it must be a JSON object", type_name(row));
  const Dict& d = row.as_dict();
  if (d.find("messages")) return Layout::messages;
  if (d.find("conversations")) return Layout::sharegpt;
  if (d.find("instruction") && d.find("output")) return Layout::alpaca;
  if (d.find("prompt") && d.find("completion")) return Layout::completion;
  if (d.find("text")) return Layout::text;
  std::string keys;
  for (const auto& [key, value] : d.items) {
    if (keys.size() > 200) break;
    keys += (keys.empty() ? "" : ", ") + key.bytes();
  }
  fail(ErrorKind::bad_file,
       "no known layout; its keys are: {}. Use messages, conversations, instruction + output, "
       "prompt + completion, or text",
       keys);
}

Sample normalize_row(const Value& row, Layout layout, Heap& heap) {
  CHECK_FILE(row.is(Kind::dict), "the row is a {}; it must be a JSON object", type_name(row));
  static constexpr std::string_view key[] = {"messages", "conversations", "instruction", "prompt",
                                             "text"};
  CHECK_FILE(row.as_dict().find(key[static_cast<int>(layout)]),
             "the field '{}' is missing; earlier rows have the {} layout",
             key[static_cast<int>(layout)], layout_name(layout));
  switch (layout) {
    case Layout::sharegpt:
      return from_sharegpt(row, heap);
    case Layout::alpaca:
      return from_alpaca(row, heap);
    case Layout::completion:
      return from_completion(row, heap);
    case Layout::text: {
      Sample s;
      s.type = Sample::Type::text;
      s.answer = text_field(row, "text");
      return s;
    }
    case Layout::messages:
      break;
  }
  Sample s;
  s.messages = *row.as_dict().find("messages");
  check_messages(s.messages, "messages");
  s.tools = read_tools(row, heap);
  return s;
}

}  // namespace supersonic::text
