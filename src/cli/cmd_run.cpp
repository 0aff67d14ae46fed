// supersonic run MODEL [PROMPT]: one answer to one prompt, or one to each line of a file.
#include <fmt/core.h>
#include <unistd.h>

#include "cli/console.h"
#include "cli/generate_options.h"
#include "cli/json_writer.h"
#include "cli/progress.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "io/json.h"

namespace supersonic::cli {
namespace {

constexpr std::size_t kMaxInput = std::size_t{64} << 20, kMaxPrompts = std::size_t{1} << 30;

void write_result(JsonWriter& w, const infer::Generation& g) {
  w.key("text").value(g.text).key("tokens").value(g.ids.size());
  w.key("prompt_tokens")
      .value(g.prompt_tokens)
      .key("finish_reason")
      .value(infer::name_of(g.finish));
}

struct Run : GenerateSettings {
  std::string prompt, system, prompts;
  bool raw = false, parse_special = false, json = false;

  static constexpr About about{
      .summary = "Answer a prompt",
      .usage = "MODEL [PROMPT | - | --prompts FILE]",
      .details =
          "The prompt goes through the model's chat template; --raw continues it as bare text. "
          "Without a prompt, or with -, it is "
          "read from standard input. The answer is streamed to standard output. --prompts answers "
          "each line of a JSONL file, "
          "{\"messages\": [...]} or {\"prompt\": \"...\"}, with one line of JSON.",
      .examples =
          "supersonic run model.gguf \"Why is the sky blue?\"\ncat notes.txt | supersonic run "
          "model.gguf --system \"Summarise.\"\n"
          "supersonic run model.gguf --raw --temp 0 -n 32 \"The capital of France is\"\n"
          "supersonic run model.gguf --adapter out/ --prompts questions.jsonl > answers.jsonl",
      .group = CommandGroup::work};

  void options(Options& o) {
    declare_model(o);
    o.positional("prompt", prompt, "The prompt; - reads standard input")
        .letter('p')
        .value("PROMPT");
    o.add("prompts", prompts, "Answer each line of a JSONL file").value("FILE");
    o.add("system", system, "System message").value("TEXT");
    o.add("raw", raw, "Continue the bare text, without the chat template");
    o.add("parse-special", parse_special,
          "With --raw: special tokens that are spelt in the prompt become their ids");
    GenerateSettings::options(o);
    o.group("Output");
    declare_json(o, json);
  }

  int run(Context& context) {
    const bool many = context.options.given("prompts");
    if (many && !prompt.empty())
      fail(ErrorKind::usage, "run: give a prompt or --prompts, not both");
    if (raw && !system.empty())
      fail(ErrorKind::usage, "run: --system belongs to a chat, and --raw has none");
    if (parse_special && !raw)
      fail(ErrorKind::usage,
           "run: --parse-special belongs to --raw: in a chat, what the person writes stays text");
    const std::string text = many ? std::string() : prompt_text();
    Engine engine(*this, context.options);
    InterruptGuard guard("\n");
    const int code = many ? answer_file(engine) : answer_one(engine, text);
    flush_output();
    return guard.complete(code);
  }

  std::string prompt_text() const {
    if (!prompt.empty() && prompt != "-") return prompt;
    if (prompt.empty() && isatty(STDIN_FILENO))
      fail(ErrorKind::usage,
           "run: a prompt is missing: give it after the model, or pipe it in; 'supersonic chat' "
           "talks");
    std::string text = read_input("-", kMaxInput);
    while (!raw && !text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
    if (text.empty()) fail(ErrorKind::usage, "run: standard input has no prompt");
    return text;
  }

  std::vector<std::int32_t> ids_of(const Engine& engine, const std::string& text) const {
    if (raw) return engine.prompter().raw(text, parse_special);
    std::vector<infer::Message> messages;
    if (!system.empty()) messages.push_back({"system", system});
    messages.push_back({"user", text});
    return engine.prompter().chat(infer::messages_to_json(messages));
  }

  int answer_one(Engine& engine, const std::string& text) {
    const auto show = [](std::string_view piece) {
      print(piece);
      flush_output();
    };
    const auto ids = ids_of(engine, text);
    const infer::Generation g = json ? engine.answer(ids) : engine.answer(ids, show);
    if (json) {
      JsonWriter w;
      w.begin_object();
      write_result(w, g);
      w.key("timings").begin_object().key("load_seconds").value(engine.load_seconds());
      w.key("prompt_seconds")
          .value(g.prompt_seconds)
          .key("prompt_tokens_per_second")
          .value(g.prompt_rate());
      w.key("decode_seconds")
          .value(g.decode_seconds)
          .key("tokens_per_second")
          .value(g.decode_rate());
      w.key("peak_bytes").value(engine.taken_bytes());
      print(w.end_object().end_object().text());
    }
    print("\n");
    flush_output();
    log_detail("loaded in {:.0f} ms; {}", 1e3 * engine.load_seconds(), timings_text(g));
    return g.finish == infer::Finish::interrupted ? static_cast<int>(ErrorKind::interrupted) : 0;
  }

  std::vector<std::int32_t> ids_of_line(const Engine& engine, const std::string& line,
                                        const std::string& where) const {
    const auto document = io::JsonDocument::attempt(line);
    const io::JsonView row = document.root();
    if (const auto prompt = row.find("prompt").text()) return ids_of(engine, *prompt);
    CHECK_FILE(row.contains("messages"), "{}: needs \"messages\" or \"prompt\" in a JSON object",
               where);
    CHECK_FILE(!raw, "{}: --raw continues text: the line must have \"prompt\"", where);
    try {
      return engine.prompter().chat(line);
    } catch (const Error& e) {
      fail(e.kind(), "{}: {}", where, e.what());
    }
  }

  int answer_file(Engine& engine) {
    std::vector<std::vector<std::int32_t>> all;
    const std::string text = read_input(prompts, kMaxPrompts);
    std::size_t number = 0, longest = 0;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = std::min(text.find('\n', at), text.size());
      const std::string line = text.substr(at, end - at);
      at = end + 1, ++number;
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      all.push_back(ids_of_line(engine, line, fmt::format("{}:{}", prompts, number)));
      longest = std::max(longest, all.back().size());
    }
    CHECK_FILE(!all.empty(), "{}: has no prompts", prompts);
    engine.reserve(static_cast<std::int64_t>(longest));
    Progress progress("answers", "prompt", all.size());
    for (std::size_t i = 0; i < all.size(); ++i) {
      const infer::Generation g = engine.answer(all[i]);
      if (g.finish == infer::Finish::interrupted) check_interrupt();
      JsonWriter w;
      w.begin_object();
      write_result(w, g);
      progress.clear();
      print(w.end_object().text() + "\n");
      flush_output();
      progress.update(i + 1);
    }
    progress.finish();
    return 0;
  }
};

}  // namespace

COMMAND(run, Run)

}  // namespace supersonic::cli
