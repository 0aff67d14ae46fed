// supersonic chat MODEL: a conversation. Each turn renders the whole conversation and feeds only
// what the cache does not hold yet.
#include <fmt/core.h>

#include "cli/console.h"
#include "cli/generate_options.h"
#include "cli/line_reader.h"
#include "cli/model_reference.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "io/output_file.h"

namespace supersonic::cli {
namespace {

constexpr std::size_t kMaxFile = std::size_t{64} << 20;
constexpr std::string_view kQuotes = "\"\"\"";
constexpr std::string_view kHelp =
    "/system TEXT   set the system message (without TEXT: remove it)\n"
    "/regen         answer the last message again\n"
    "/save FILE     write the conversation as JSON\n"
    "/load FILE     go on with a saved one\n"
    "/stats         tokens, speed and context of the last answer\n"
    "/clear         forget the conversation\n"
    "/exit          leave; so does the end of the input\n"
    "\"\"\"            begins and ends a message of several lines\n"
    "Ctrl-C ends an answer; at the prompt it leaves.\n";

struct Chat : GenerateSettings {
  std::string system;
  static constexpr About about{.summary = "Talk with a model",
                               .usage = "MODEL",
                               .details =
                                   "Reads a message a line and streams the answer; /help lists "
                                   "what else can be said. Works in a pipe, too.",
                               .examples =
                                   "supersonic chat model.gguf\nsupersonic chat model.gguf "
                                   "--adapter out/ --system \"Answer in one sentence.\"",
                               .group = CommandGroup::work};

  void options(Options& o) {
    declare_model(o);
    o.add("system", system, "System message").value("TEXT");
    GenerateSettings::options(o);
  }
  int run(Context& context);
};

class Conversation {
 public:
  Conversation(Engine& engine, const std::string& system, std::uint64_t seed)
      : engine_(engine), seed_(seed) {
    set_system(system);
  }

  // False when the person wants to leave.
  bool take(const std::string& line) {
    if (line.empty()) return true;
    if (line[0] == '/') return command(line);
    messages_.push_back({"user", line});
    answer();
    return true;
  }

 private:
  bool command(const std::string& line) {
    const std::size_t blank = std::min(line.find(' '), line.size());
    const std::string name = line.substr(0, blank),
                      rest = blank < line.size() ? line.substr(blank + 1) : "";
    if (name == "/exit" || name == "/quit" || name == "/bye") return false;
    if (name == "/help")
      print(kHelp);
    else if (name == "/system")
      set_system(rest);
    else if (name == "/clear")
      clear();
    else if (name == "/regen")
      regenerate();
    else if (name == "/stats")
      stats();
    else if (name == "/save")
      save(rest);
    else if (name == "/load")
      load(rest);
    else
      log_text(Level::warning, fmt::format("there is no {}; /help lists what there is", name));
    return true;
  }

  bool has_system() const { return !messages_.empty() && messages_[0].role == "system"; }

  void set_system(const std::string& text) {
    if (has_system()) messages_.erase(messages_.begin());
    if (!text.empty()) messages_.insert(messages_.begin(), {"system", text});
  }

  void clear() { messages_.resize(has_system() ? 1 : 0); }

  void regenerate() {
    if (!messages_.empty() && messages_.back().role == "assistant") messages_.pop_back();
    if (messages_.empty() || messages_.back().role != "user")
      return log_text(Level::warning, "there is nothing to answer yet");
    engine_.options().sampling.seed = seed_ + ++regenerated_;
    answer();
    engine_.options().sampling.seed = seed_;
  }

  // What cannot be answered is taken back, so that the conversation goes on.
  void answer() {
    try {
      const InterruptGuard guard("");
      last_ = engine_.answer(
          engine_.prompter().chat(infer::messages_to_json(messages_)),
          [](std::string_view piece) {
            print(piece);
            flush_output();
          },
          true);
      messages_.push_back({"assistant", last_.text});
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::usage && e.kind() != ErrorKind::bad_file) throw;
      messages_.pop_back();
      log_text(Level::error, e.what());
    }
    print("\n");
    flush_output();
    clear_interrupt();
    if (engine_.capacity() && engine_.held() >= engine_.capacity())
      log_warning(
          "the context of {} tokens is full: /clear forgets the conversation, --ctx makes room for "
          "more",
          engine_.capacity());
    log_detail("{}", timings_text(last_));
  }

  void stats() const {
    print(fmt::format("{}; {} of {} tokens in the context\n", timings_text(last_), engine_.held(),
                      engine_.capacity()));
  }

  void save(const std::string& path) const {
    if (path.empty()) return log_text(Level::warning, "/save needs a file name");
    guarded([&] {
      io::write_file(path, infer::messages_to_json(messages_) + "\n");
      log_info("{}: {} messages", path, messages_.size());
    });
  }

  void load(const std::string& path) {
    if (path.empty()) return log_text(Level::warning, "/load needs a file name");
    guarded([&] {
      messages_ = infer::messages_from_json(read_input(path, kMaxFile), path);
      log_info("{}: {} messages", path, messages_.size());
    });
  }

  template <class Action>
  static void guarded(Action action) {
    try {
      action();
    } catch (const Error& e) {
      log_text(Level::error, e.what());
    }
  }

  Engine& engine_;
  std::vector<infer::Message> messages_;
  infer::Generation last_;
  std::uint64_t seed_, regenerated_ = 0;
};

// One message: a line, or what stands between two """.
std::optional<std::string> read_message() {
  auto line = read_line(">>> ");
  if (!line || !line->starts_with(kQuotes)) return line;
  std::string text = line->substr(kQuotes.size());
  while (!text.ends_with(kQuotes)) {
    line = read_line("... ");
    if (!line) return text;
    text += "\n" + *line;
  }
  return text.substr(0, text.size() - kQuotes.size());
}

int Chat::run(Context& context) {
  Engine engine(*this, context.options);
  if (!engine.prompter().has_template())
    fail(ErrorKind::usage, "{}: has no chat template: 'supersonic run --raw' continues text",
         model);
  const std::string name = cached_name(model);
  if (input_is_terminal())
    log_info("{}; /help lists what can be said, /exit leaves", name.empty() ? model : name);
  Conversation conversation(engine, system, sampling.seed);
  while (const auto message = read_message())
    if (!conversation.take(*message)) break;
  return interrupted() ? static_cast<int>(ErrorKind::interrupted) : 0;
}

}  // namespace

COMMAND(chat, Chat)

}  // namespace supersonic::cli
