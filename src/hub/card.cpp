// Nothing here is guessed: a line stands in a card where a file says so.
#include "hub/card.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <vector>

#include <fmt/format.h>

#include "core/error.h"
#include "hub/cache.h"
#include "hub/listing.h"
#include "hub/name.h"
#include "io/gguf.h"
#include "io/json.h"
#include "io/json_tree.h"

namespace supersonic::hub {
namespace {

namespace fs = std::filesystem;

bool there(const CardRequest& r, const char* name) {
  std::error_code error;
  return r.file.empty() && fs::is_regular_file(fs::path(r.folder) / name, error);
}
std::string inside(const CardRequest& r, const char* name) {
  return (fs::path(r.folder) / name).string();
}

bool is_adapter(const CardRequest& r) { return there(r, "adapter_config.json"); }

// Plain scalars of YAML need no quotes where only these characters are in them.
std::string yaml(const std::string& text) {
  const bool plain =
      !text.empty() &&
      text.find_first_not_of(
          "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./") == text.npos;
  return plain ? text : io::json_quoted(text, io::JsonTree::Utf8::replace);
}

std::string text_field(const io::JsonDocument& document, const char* key) {
  return document.root().find(key).text().value_or("");
}

std::string named_in_files(const CardRequest& r) {
  if (!r.file.empty()) {
    const io::GgufFile file = io::GgufFile::open(r.file);
    const std::string url(file.get_string("general.base_model.0.repo_url", ""));
    const std::size_t host = url.find("huggingface.co/");
    return host == url.npos ? "" : url.substr(host + 15);
  }
  if (is_adapter(r))
    return text_field(io::JsonDocument::read(inside(r, "adapter_config.json")),
                      "base_model_name_or_path");
  if (!there(r, "config.json")) return {};
  return text_field(io::JsonDocument::read(inside(r, "config.json")), "_name_or_path");
}

// "license: apache-2.0" of the base model's card, where that lies in the cache.
std::string inherited_license(const CardRequest& r, const std::string& base) {
  const auto name = parse_name(base);
  if (!name || r.cache.empty()) return {};
  Settings settings;
  settings.cache = r.cache;
  const Cache cache(settings);
  const auto commit = cache.commit_of(base, "main");
  if (!commit) return {};
  std::ifstream in(fs::path(cache.snapshot(base, *commit)) / "README.md");
  std::string line;
  if (!std::getline(in, line) || line != "---") return {};
  while (std::getline(in, line) && line != "---")
    if (line.starts_with("license:")) {
      const std::size_t at = line.find_first_not_of(" \"'", 8);
      return at == line.npos ? "" : line.substr(at, line.find_last_not_of(" \"'\r") - at + 1);
    }
  return {};
}

struct Losses {
  std::optional<double> first, last, eval_first, eval_last;
  std::int64_t steps = 0;
};

// First and last values of the run's log; lines that are none are passed over, since this is prose.
Losses read_losses(const CardRequest& r) {
  Losses out;
  if (!there(r, "train_log.jsonl")) return out;
  std::ifstream in(inside(r, "train_log.jsonl"));
  for (std::string line; std::getline(in, line);) {
    const auto document = io::JsonDocument::attempt(line);
    const io::JsonView row = document.root();
    const auto take = [&](const char* key, std::optional<double>& first,
                          std::optional<double>& last) {
      const auto value = row.find(key).number();
      if (!value) return;
      last = value;
      if (!first) first = last;
    };
    take("loss", out.first, out.last);
    take("eval_loss", out.eval_first, out.eval_last);
    const io::JsonView step = row.find("step");
    if (step.is_integer()) out.steps = std::max(out.steps, step.integer().value_or(0));
  }
  return out;
}

std::string front_matter(const CardRequest& r, const std::string& base) {
  std::string out = "---\n";
  const std::string license = r.license.empty() ? inherited_license(r, base) : r.license;
  if (!license.empty()) out += "license: " + yaml(license) + "\n";
  if (!base.empty())
    out += fmt::format("base_model: {}\nbase_model_relation: {}\n", yaml(base),
                       is_adapter(r)     ? "adapter"
                       : !r.file.empty() ? "quantized"
                                         : "finetune");
  out += is_adapter(r)    ? "library_name: peft\n"
         : r.file.empty() ? "library_name: transformers\n"
                          : "";
  out += "pipeline_tag: text-generation\ntags:\n- supersonic\n";
  if (is_adapter(r)) out += "- lora\n";
  if (!r.file.empty()) out += "- gguf\n";
  return out + "---\n\n";
}

std::string adapter_section(const CardRequest& r) {
  const auto document = io::JsonDocument::read(inside(r, "adapter_config.json"));
  const io::JsonView config = document.root();
  std::string out = "## Adapter\n\n| | |\n| --- | --- |\n";
  for (const auto& [key, title] : {std::pair{"r", "rank"}, {"lora_alpha", "alpha"}})
    if (const io::JsonView value = config.find(key); value.is_number())
      out += fmt::format("| {} | {} |\n", title, value.dump());
  std::vector<std::string> names;
  for (const char* key : {"target_modules", "target_parameters"})
    for (const io::JsonView& item : config.find(key).items())
      if (const auto name = item.text()) names.push_back(printable(*name, 80));
  if (!names.empty()) out += fmt::format("| layers | {} |\n", fmt::join(names, ", "));
  return out + "\n";
}

std::string training_section(const CardRequest& r) {
  const Losses l = read_losses(r);
  if (!l.last) return {};
  std::string out = fmt::format(
      "## Training\n\n| | first | last |\n| --- | --- | --- |\n| loss | {:.3f} | {:.3f} |\n",
      *l.first, *l.last);
  if (l.eval_last)
    out += fmt::format("| held-out loss | {:.3f} | {:.3f} |\n", *l.eval_first, *l.eval_last);
  return out + fmt::format("\n{} steps, with Supersonic.\n\n", l.steps);
}

std::string usage_section(const CardRequest& r, const std::string& base) {
  if (!is_adapter(r))
    return fmt::format("## Use\n\n```\nsupersonic pull {0}\nsupersonic run {0} \"Hello\"\n```\n",
                       r.repo);
  const std::string model = base.empty() ? "MODEL" : base;
  return fmt::format(
      "## Use\n\n```\nsupersonic pull {0}\nsupersonic pull {1}\nsupersonic run {0} --adapter {1} "
      "\"Hello\"\n```\n\n"
      "```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
      "model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(\"{0}\"), "
      "\"{1}\")\n```\n",
      model, r.repo);
}

}  // namespace

std::string base_model_of(const CardRequest& r) {
  if (!r.base_model.empty()) return r.base_model;
  const std::string named = named_in_files(r);
  const auto name = parse_name(named);
  return name && name->choice.empty() && !name->revision_given && !named.ends_with(".gguf")
             ? name->repo()
             : "";
}

std::string make_card(const CardRequest& r) {
  const std::string base = base_model_of(r);
  std::string out = front_matter(r, base) + "# " + r.repo.substr(r.repo.find('/') + 1) + "\n\n";
  const std::string of =
      base.empty() ? "" : fmt::format(" of [{0}](https://huggingface.co/{0})", base);
  if (is_adapter(r)) {
    out += "A LoRA adapter" + of + ".\n\n" + adapter_section(r);
  } else if (!r.file.empty()) {
    const std::string type = gguf_type(fs::path(r.file).filename().string());
    out += fmt::format("A GGUF file{}{}.\n\n", type.empty() ? "" : " (" + type + ")", of);
  } else {
    out += base.empty() ? "A language model.\n\n" : "A fine-tuned version" + of + ".\n\n";
  }
  return out + training_section(r) + usage_section(r, base);
}

}  // namespace supersonic::hub
