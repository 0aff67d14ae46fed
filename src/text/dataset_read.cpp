// Files → rows. JSON Lines are read line by line; a .json file holds one list of rows, a .txt file
// is one row of text.
#include <filesystem>
#include <fstream>
#include <iterator>

#include "core/error.h"
#include "text/dataset.h"
#include "text/jinja_json.h"
#include "text/unicode.h"

namespace supersonic::text {
namespace {

// Throws Error(bad_file) without a place where the text is not UTF-8: a tokenizer would repair it,
// and the model would learn replacement characters.
void check_encoding(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(text.substr(at));
    if (step.kind != Utf8Step::valid)
      fail(ErrorKind::bad_file,
           "byte {} (0x{:02X}) is not UTF-8: save the file in that encoding, for example with "
           "iconv -f WINDOWS-1252 -t UTF-8",
           at + 1, static_cast<unsigned char>(text[at]));
    at += step.bytes;
  }
}

class RowReader {
 public:
  RowReader(std::string path, const std::function<void(const Sample&)>& use,
            const ReadOptions& options)
      : path_(std::move(path)), use_(use), options_(options), in_(path_, std::ios::binary) {
    CHECK_FILE(in_.good(), "{}: cannot be opened", path_);
  }

  ReadSummary run() {
    const std::string ending = std::filesystem::path(path_).extension().string();
    if (ending == ".txt" || ending == ".md") {
      read_text();
    } else if (starts_with_list()) {
      read_list();
    } else {
      read_lines();
    }
    if (!errors_.empty()) refuse();
    CHECK_FILE(summary_.rows > 0, "{}: no rows; expected JSON Lines, a JSON list, or text", path_);
    return summary_;
  }

 private:
  void refuse() {
    std::string all;
    for (const std::string& e : errors_) all += (all.empty() ? "" : "\n") + e;
    throw Error(all, ErrorKind::bad_file);
  }

  void bad(const std::string& where, const std::string& what) {
    errors_.push_back(where + ": " + what);
    if (static_cast<int>(errors_.size()) >= options_.max_errors) refuse();
  }

  bool starts_with_list() {
    char c = 0;
    while (in_.get(c) && (c == ' ' || c == '\n' || c == '\r' || c == '\t' || c == '\xEF' ||
                          c == '\xBB' || c == '\xBF')) {
    }
    in_.clear();
    in_.seekg(0);
    return c == '[';
  }

  std::string read_all() {
    std::string all{std::istreambuf_iterator<char>(in_), {}};
    CHECK_FILE(!in_.bad(), "{}: reading failed", path_);
    if (all.starts_with("\xEF\xBB\xBF")) all.erase(0, 3);
    try {
      check_encoding(all);
    } catch (const Error& error) {
      throw Error(fmt::format("{}: {}", path_, error.what()), error.kind());
    }
    return all;
  }

  void read_text() {
    Heap heap;
    Dict* row = heap.dict();
    row->set(Value::string("text"), Value::string(read_all()));
    use(Value::dict(row), heap, path_);
  }

  void read_list() {
    Heap heap;
    const std::string all = read_all();
    Value root;
    try {
      root = parse_json(all, heap);
    } catch (const Error& error) {
      fail(ErrorKind::bad_file, "{}: {}; a file that starts with '[' must be one JSON list of rows",
           path_, error.what());
    }
    std::int64_t n = 0;
    for (const Value& row : root.as_list().items) {
      Heap local;
      use(row, local, fmt::format("{}: row {}", path_, ++n));
    }
  }

  // A line into line_; false at the end. Longer ones than max_line are refused before they fill the
  // memory.
  bool next_line() {
    line_.clear();
    std::streambuf& buffer = *in_.rdbuf();
    for (int c = buffer.sbumpc(); c != EOF; c = buffer.sbumpc()) {
      if (c == '\n') return true;
      line_ += static_cast<char>(c);
      CHECK_FILE(line_.size() <= options_.max_line, "{}:{}: the line is over {} bytes", path_,
                 number_ + 1, options_.max_line);
    }
    return !line_.empty();
  }

  void read_lines() {
    while (next_line()) {
      ++number_;
      std::string_view line = line_;
      if (number_ == 1 && line.starts_with("\xEF\xBB\xBF")) line.remove_prefix(3);
      if (line.find_first_not_of(" \t\r") == line.npos) continue;
      const std::string where = fmt::format("{}:{}", path_, number_);
      Heap heap;
      Value row;
      try {
        check_encoding(line);
      } catch (const Error& error) {
        bad(where, error.what());
        continue;
      }
      try {
        row = parse_json(line, heap);
      } catch (const Error& error) {
        bad(where,
            fmt::format("not valid JSON {}; each line must be one JSON object", error.what()));
        continue;
      }
      use(row, heap, where);
    }
  }

  void use(const Value& row, Heap& heap, const std::string& where) {
    try {
      if (summary_.rows == 0 && !known_) {
        summary_.layout = detect_layout(row);
        known_ = true;
        for (const auto& [key, value] : row.as_dict().items) {
          static constexpr std::string_view used[] = {
              "messages", "conversations", "system", "tools",      "instruction", "input",
              "output",   "history",       "prompt", "completion", "text"};
          for (std::string_view name : used)
            if (key.bytes() == name) summary_.columns.push_back(key.bytes());
        }
      }
      Sample sample = normalize_row(row, summary_.layout, heap);
      sample.where = where;
      use_(sample);
      ++summary_.rows;
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::bad_file) throw;
      bad(where, error.what());
    }
  }

  const std::string path_;
  const std::function<void(const Sample&)>& use_;
  const ReadOptions& options_;
  std::ifstream in_;
  std::string line_;
  std::int64_t number_ = 0;
  bool known_ = false;
  ReadSummary summary_;
  std::vector<std::string> errors_;
};

}  // namespace

ReadSummary read_rows(const std::string& path, const std::function<void(const Sample&)>& use,
                      const ReadOptions& options) {
  return RowReader(path, use, options).run();
}

DataFiles find_data_files(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code ec;
  if (!fs::is_directory(path, ec)) {
    CHECK_FILE(fs::exists(path, ec), "{}: no such file or folder", path);
    CHECK_FILE(fs::is_regular_file(path, ec),
               "{}: is neither a file nor a folder: copy its content "
               "to a file",
               path);
    return {path, "", ""};
  }
  const auto part = [&](std::string_view name) -> std::string {
    for (std::string_view ending : {".jsonl", ".json", ".txt"}) {
      const fs::path file = fs::path(path) / fmt::format("{}{}", name, ending);
      if (fs::is_regular_file(file, ec)) return file.string();
    }
    return "";
  };
  DataFiles files{part("train"), part("valid"), part("test")};
  CHECK_FILE(!files.train.empty(), "{}: the folder has no train.jsonl, train.json or train.txt",
             path);
  return files;
}

}  // namespace supersonic::text
