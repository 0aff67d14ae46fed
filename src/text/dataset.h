// Training data: files of conversations or text → samples of token ids in which each token knows
// whether it is trained.
//
// Reading is row by row: a row's values live only while it is turned into tokens. The layout
// (messages, ShareGPT, alpaca, prompt/completion, text) is detected from the first row and holds
// for the file; every other row must fit it.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/chat_template.h"
#include "text/encode.h"

namespace supersonic::text {

enum class Layout : std::uint8_t { messages, sharegpt, alpaca, completion, text };
std::string_view layout_name(Layout layout);

// One row of a file, normalised. Values point into the row's heap.
struct Sample {
  enum class Type : std::uint8_t { chat, completion, text } type = Type::chat;
  Value messages, tools = Value::none();
  std::int64_t trained_from = 0;  // chat: assistant messages from this one on are trained
  std::string prompt, answer;     // completion; text stands in `answer`
  std::string where;              // "file:line", for messages
};

struct ReadOptions {
  int max_errors = 10;                          // bad lines listed before reading stops
  std::size_t max_line = std::size_t{1} << 28;  // bytes
};

struct ReadSummary {
  Layout layout = Layout::text;
  std::vector<std::string> columns;  // those that are used
  std::int64_t rows = 0;
};

// Calls `use` with each row of a .json, .jsonl or .txt file. Throws Error(bad_file) that lists up
// to max_errors bad lines, each with file, line, field and remedy; `use` may throw Error too, and
// its message gets the line.
ReadSummary read_rows(const std::string& path, const std::function<void(const Sample&)>& use,
                      const ReadOptions& options = {});

// The files that a data argument names: itself, or train/valid/test.{jsonl,json,txt} of a folder.
// Missing parts are empty.
struct DataFiles {
  std::string train, valid, test;
};
DataFiles find_data_files(const std::string& path);

// Layout of a row by its keys. Throws Error(bad_file) when it fits none.
Layout detect_layout(const Value& row);
Sample normalize_row(const Value& row, Layout layout, Heap& heap);

// ---- rendering

struct RenderOptions {
  const ChatTemplate* chat_template =
      nullptr;  // null: chats are refused, prompt + completion are joined as they are
  std::vector<std::pair<std::string, Value>> variables;
  std::int64_t seq_len = 2048;
  bool train_on_all = false;  // else: on the assistant's answers with their end-of-turn token
};

struct Tokens {
  std::vector<std::int32_t> ids;
  std::vector<std::uint8_t> trained;  // per token
  bool cut = false;                   // longer than seq_len; the rest was dropped
  bool empty_answer = false;          // an assistant message without text or tool call
  bool open_turn = false;             // the last answer is not followed by an end-of-turn token
};

// The text and byte ranges behind a sample, for the example that is shown.
struct Marked {
  std::string text;
  std::vector<TextSpan> spans;
  std::vector<ByteRange> trained;
};
Marked mark_sample(const Sample& sample, const TokenizerView& tokenizer,
                   const RenderOptions& options);

// One Tokens for a chat or completion; as many as needed for a text longer than seq_len. Appends to
// out.
void tokenize_sample(const Sample& sample, const TokenizerView& tokenizer,
                     const RenderOptions& options, std::vector<Tokens>& out);

// Trained parts in green, or between ⟦ and ⟧ without colour.
std::string show_marked(const Marked& marked, bool color);

}  // namespace supersonic::text
