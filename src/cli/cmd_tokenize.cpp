// supersonic tokenize MODEL: text to token ids and back, by the model's own tokenizer.
#include <fmt/core.h>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/json_writer.h"
#include "cli/model_options.h"
#include "core/error.h"
#include "text/model_text.h"
#include "text/tokenizer.h"

namespace supersonic::cli {
namespace {

constexpr std::size_t kMaxInput = std::size_t{1} << 30;

struct Tokenize {
  std::string model, text, file;
  std::vector<std::string> ids;
  bool special = true, parse_special = false, json = false;

  static constexpr About about{
      .summary = "Show how a text becomes token ids, or which text ids stand for",
      .usage = "MODEL (--text TEXT | --file FILE | --ids IDS)",
      .details =
          "A special token that is spelt in the text is plain text, unless --parse-special is "
          "given.",
      .examples =
          "supersonic tokenize model.gguf --text \"Hello world\"\nsupersonic tokenize model.gguf "
          "--file notes.txt --json\n"
          "supersonic tokenize model.gguf --ids 19556,905"};

  void options(Options& o) {
    declare_model(o, model);
    o.group("Input");
    o.add("text", text, "The text").letter('t');
    o.add("file", file, "A file with the text; - reads standard input").letter('f').value("FILE");
    o.add("ids", ids, "Ids to decode, separated by commas").value("IDS").commas();
    o.group("Options");
    o.add("special", special, "Add the ids that the model expects around a text (BOS)");
    o.add("parse-special", parse_special,
          "Turn special tokens that are spelt in the text into their ids");
    declare_json(o, json);
  }

  int run(Context& context) {
    const int inputs = context.options.given("text") + context.options.given("file") +
                       context.options.given("ids");
    if (inputs != 1) fail(ErrorKind::usage, "tokenize: give one of --text, --file and --ids");
    const text::Tokenizer tokenizer = text::ModelText(model).tokenizer();
    return context.options.given("ids") ? decode(tokenizer) : encode(tokenizer), 0;
  }

  void encode(const text::Tokenizer& tokenizer) const {
    const std::string input = file.empty() ? text : read_input(file, kMaxInput);
    const auto tokens =
        tokenizer.encode(input, {.add_special = special, .parse_special = parse_special});
    if (json) {
      JsonWriter w;
      w.begin_array();
      for (std::int32_t id : tokens) w.value(id);
      w.end_array();
      return print(w.text() + "\n");
    }
    for (std::int32_t id : tokens) {
      JsonWriter piece;  // quoted, so that blanks and line ends can be seen
      piece.value(tokenizer.piece(id));
      print(fmt::format("{:>8}  {}\n", id, piece.text()));
    }
    log_info("{} tokens, {} bytes", tokens.size(), input.size());
  }

  void decode(const text::Tokenizer& tokenizer) const {
    std::vector<std::int32_t> tokens;
    for (const std::string& word : ids) {
      int id = 0;
      if (word.empty()) continue;
      if (!parse_value(word, id) || id < 0 || id >= tokenizer.vocab_size())
        fail(ErrorKind::usage, "tokenize: '{}' is no token id of this model (0 to {})", word,
             tokenizer.vocab_size() - 1);
      tokens.push_back(id);
    }
    const std::string out = tokenizer.decode(tokens, !special);
    if (!json) return print(out + "\n");
    JsonWriter w;
    w.value(out);
    print(w.text() + "\n");
  }
};

}  // namespace

COMMAND(tokenize, Tokenize)

}  // namespace supersonic::cli
