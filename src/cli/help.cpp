// Pages are built from the declarations alone; a column holds the flags, the rest is wrapped beside
// it.
#include "cli/help.h"

#include <fmt/format.h>

#include <algorithm>

namespace supersonic::cli {
namespace {

constexpr CommandGroup kGroups[] = {CommandGroup::work, CommandGroup::measure, CommandGroup::tools,
                                    CommandGroup::models, CommandGroup::system};

std::string_view title_of(CommandGroup group) {
  constexpr std::string_view titles[] = {"Train, run, export", "Measure", "Look inside",
                                         "Get and share models", "System"};
  return titles[static_cast<int>(group)];
}

constexpr std::string_view kExitCodes[][2] = {
    {"0", "done"},
    {"1", "failed"},
    {"2", "the command line, a variable or the config is wrong"},
    {"3", "does not fit in memory"},
    {"4", "network or authorisation"},
    {"5", "a file is corrupt, incomplete or of an unsupported kind"},
    {"130", "interrupted; what was reached is saved where the command says so"},
};

// Appends text, wrapped at `width`, with `indent` blanks before every line but the first, which
// starts at column `column`.
void wrap(std::string& out, std::string_view text, std::size_t column, std::size_t indent,
          std::size_t width) {
  bool first = true;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find_first_of(" \n"), text.size());
    const std::string_view word = text.substr(0, end);
    const bool newline = end < text.size() && text[end] == '\n';
    if (!first && column + 1 + word.size() > width) {
      out += '\n', out.append(indent, ' ');
      column = indent, first = true;
    }
    if (!first) out += ' ', ++column;
    out += word, column += word.size(), first = false;
    text.remove_prefix(std::min(end + 1, text.size()));
    if (newline) out += '\n', out.append(indent, ' '), column = indent, first = true;
  }
  out += '\n';
}

}  // namespace

// Reads the private fields of Option and Options for display.
class HelpText {
 public:
  static std::string flag(const Option& o, bool with_letter) {
    std::string out;
    if (with_letter) out = o.letter_ ? fmt::format("-{}, ", o.letter_) : "    ";
    const bool on_by_default = o.kind_ == ValueKind::boolean && o.default_ == "true";
    out += fmt::format("--{}{}", on_by_default ? "[no-]" : "", o.name_);
    if (o.kind_ != ValueKind::boolean && !o.counted_) out += ' ' + placeholder(o);
    return out;
  }
  static std::string placeholder(const Option& o) {
    if (!o.placeholder_.empty()) return o.placeholder_;
    if (!o.choices_.empty()) return fmt::format("{}", fmt::join(o.choices_, "|"));
    return o.kind_ == ValueKind::number ? "N" : o.kind_ == ValueKind::bytes ? "SIZE" : "TEXT";
  }
  static std::string shown_default(const Option& o) {
    if (!o.shown_.empty()) return o.shown_;
    if (o.required_ || o.counted_ || o.flag_only_) return {};
    if (o.kind_ == ValueKind::boolean) return o.default_ == "true" ? "on" : "";
    return o.default_;
  }
  static std::string description(const Option& o) {
    std::string out = o.help_;
    if (!o.placeholder_.empty() && !o.choices_.empty())
      out += fmt::format(": {}", fmt::join(o.choices_, ", "));
    if (o.required_) return out + " [required]";
    const std::string text = shown_default(o);
    return text.empty() ? out : fmt::format("{} [{}]", out, text);
  }
  static std::vector<std::string> groups(const Options& options) {
    std::vector<std::string> out;
    for (const Option& o : options.options_)
      if (std::find(out.begin(), out.end(), o.group_) == out.end()) out.push_back(o.group_);
    return out;
  }
  static void list(std::string& out, const Options& options, std::string_view group,
                   std::size_t width) {
    constexpr std::size_t kColumn = 30;
    for (const Option& o : options.options_) {
      if (o.group_ != group) continue;
      std::string line = "  " + flag(o, true);
      if (line.size() + 2 > kColumn) {
        line += '\n';
        out += line, out.append(kColumn, ' ');
      } else {
        line.append(kColumn - line.size(), ' ');
        out += line;
      }
      wrap(out, description(o), kColumn, kColumn, width);
    }
  }
  static void table(std::string& out, const Options& options, std::string_view group) {
    out += fmt::format("\n| {} | default | |\n| --- | --- | --- |\n", group);
    for (const Option& o : options.options_) {
      if (o.group_ != group) continue;
      std::string name = flag(o, false), help = o.help_;
      if (!o.placeholder_.empty() && !o.choices_.empty())
        help += fmt::format(": {}", fmt::join(o.choices_, ", "));
      if (o.letter_) name = fmt::format("-{}, {}", o.letter_, name);
      const std::string value = shown_default(o);
      out += fmt::format("| `{}` | {} | {} |\n", escape(name),
                         o.required_     ? "required"
                         : value.empty() ? ""
                                         : "`" + escape(value) + "`",
                         escape(help));
    }
  }
  static bool common(std::string_view group) { return group == "Common"; }

 private:
  static std::string escape(std::string text) {
    for (std::size_t i = 0; (i = text.find('|', i)) != std::string::npos; i += 2)
      text.replace(i, 1, "\\|");
    return text;
  }
};

std::string overview() {
  std::string out =
      "supersonic: fine-tune, quantize and run language models on the hardware you own.\n\n"
      "Usage: supersonic COMMAND [options]\n";
  for (CommandGroup group : kGroups) {
    std::string lines;
    for (const Command* c : all_commands())
      if (c->about.group == group) lines += fmt::format("  {:<12}{}\n", c->name, c->about.summary);
    if (!lines.empty()) out += fmt::format("\n{}\n{}", title_of(group), lines);
  }
  out +=
      "\n'supersonic COMMAND --help' shows a command's options, defaults and examples.\n"
      "MODEL is a GGUF file, a Hugging Face folder, or OWNER/NAME of a model that was pulled.\n";
  return out;
}

std::string help_page(const Command& command, const Options& options, std::size_t width) {
  const About& about = command.about;
  std::string out =
      fmt::format("{}.\n\nUsage: supersonic {} {}\n", about.summary, command.name, about.usage);
  if (!about.details.empty()) out += '\n', wrap(out, about.details, 0, 0, width);
  for (const std::string& group : HelpText::groups(options)) {
    out += fmt::format("\n{}\n", group);
    HelpText::list(out, options, group, width);
  }
  out += '\n';
  wrap(out,
       fmt::format("Each option is also a variable (--seq-len: {}) and a key of the -c file; a "
                   "flag wins over a variable, "
                   "a variable over the file.",
                   environment_name("seq-len")),
       0, 0, width);
  if (!about.examples.empty()) {
    out += "\nExamples\n";
    for (std::string_view rest = about.examples; !rest.empty();) {
      const std::size_t end = std::min(rest.find('\n'), rest.size());
      out += fmt::format("  {}\n", rest.substr(0, end));
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }
  return out;
}

std::string markdown_reference() {
  std::string out =
      "# The command line\n\nWritten by `supersonic help --markdown`; change the declarations in "
      "`src/cli/`, not this page.\n\n"
      "A value comes from the first of: flag, environment variable (`--seq-len` is "
      "`SUPERSONIC_SEQ_LEN`), key of the YAML file "
      "given with `-c` (`seq-len` or `seq_len`), the model's `generation_config.json`, the default "
      "below. Results go to stdout, "
      "everything else to stderr. `NO_COLOR` switches colours off.\n\n| exit code | meaning |\n| "
      "--- | --- |\n";
  for (const auto& [code, meaning] : kExitCodes) out += fmt::format("| {} | {} |\n", code, meaning);
  for (CommandGroup group : kGroups) {
    for (const Command* c : all_commands()) {
      if (c->about.group != group) continue;
      out += fmt::format("\n## supersonic {}\n\n{}.\n\n    supersonic {} {}\n", c->name,
                         c->about.summary, c->name, c->about.usage);
      if (!c->about.alias.empty())
        out += fmt::format("\n`supersonic {}` is the same.\n", c->about.alias);
      if (!c->about.details.empty()) out += fmt::format("\n{}\n", c->about.details);
      c->describe(
          [](const Options& o, void* data) {
            for (const std::string& title : HelpText::groups(o))
              if (!HelpText::common(title))
                HelpText::table(*static_cast<std::string*>(data), o, title);
          },
          &out);
      if (!c->about.examples.empty()) {
        std::string examples(c->about.examples);
        for (std::size_t i = 0; (i = examples.find('\n', i)) != std::string::npos; i += 5)
          examples.replace(i, 1, "\n    ");
        out += fmt::format("\nExamples:\n\n    {}\n", examples);
      }
    }
  }
  out += "\n## Options of every command\n";
  if (!all_commands().empty())
    all_commands()[0]->describe(
        [](const Options& o, void* data) {
          HelpText::table(*static_cast<std::string*>(data), o, "Common");
        },
        &out);
  return out;
}

}  // namespace supersonic::cli
