// Which files make up a model. A folder of safetensors is preferred to GGUF files, since those are
// made from it; among GGUF files about 4 bits, then better ones. Names decide: the hub has no field
// that says what a file is.
#include <algorithm>
#include <array>
#include <map>

#include "core/error.h"
#include "core/nearest.h"
#include "hub/listing.h"
#include "hub/name.h"

namespace supersonic::hub {
namespace {

// Types by which a GGUF file is chosen where nobody says which, best first.
constexpr std::array<std::string_view, 21> kPreferred = {
    "Q4_K_M", "Q4_K_S", "Q4_K",      "Q4_K_L", "Q4_1",   "Q4_0", "IQ4_XS",
    "IQ4_NL", "MXFP4",  "MXFP4_MOE", "Q5_K_M", "Q5_K_S", "Q5_K", "Q5_1",
    "Q5_0",   "Q6_K",   "Q8_0",      "Q3_K_M", "BF16",   "F16",  "F32"};

constexpr std::array<std::string_view, 20> kSideFiles = {"config.json",
                                                         "generation_config.json",
                                                         "tokenizer.json",
                                                         "tokenizer_config.json",
                                                         "special_tokens_map.json",
                                                         "added_tokens.json",
                                                         "vocab.json",
                                                         "vocab.txt",
                                                         "merges.txt",
                                                         "tokenizer.model",
                                                         "spiece.model",
                                                         "tekken.json",
                                                         "chat_template.jinja",
                                                         "chat_template.json",
                                                         "preprocessor_config.json",
                                                         "README.md",
                                                         "LICENSE",
                                                         "LICENSE.txt",
                                                         "LICENSE.md",
                                                         "NOTICE"};

std::string upper(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  return out;
}

std::string_view base_name(std::string_view path) { return path.substr(path.rfind('/') + 1); }
bool at_top(std::string_view path) { return path.find('/') == path.npos; }
bool digit(char c) { return c >= '0' && c <= '9'; }
bool word_end(std::string_view text, std::size_t at) {
  if (at >= text.size()) return true;
  const char c = text[at];
  return !(digit(c) || (c >= 'A' && c <= 'Z') || c == '_');
}

// The number of characters of a type at the start of the text ("Q4_K_M", "IQ2_XXS", "BF16"); 0:
// none.
std::size_t type_length(std::string_view text) {
  for (const std::string_view plain : {"BF16", "F16", "F32", "F64", "MXFP4_MOE", "MXFP4", "NVFP4"})
    if (text.starts_with(plain) && word_end(text, plain.size())) return plain.size();
  std::size_t i = text.starts_with("IQ") || text.starts_with("TQ") ? 2
                  : text.starts_with("Q")                          ? 1
                                                                   : 0;
  if (i == 0 || i >= text.size() || !digit(text[i])) return 0;
  while (i < text.size() && digit(text[i])) ++i;
  if (i + 1 >= text.size() || text[i] != '_') return 0;
  while (!word_end(text, i)) ++i;
  return i;
}

// "-00001-of-00003" at the end of a name without its extension: part and number of parts.
struct Part {
  int index = 0, count = 0;
};
Part part_of(std::string_view stem) {
  constexpr std::size_t kLength = 15;  // of "-00001-of-00003"
  if (stem.size() <= kLength) return {};
  const std::string_view s = stem.substr(stem.size() - kLength);
  if (s[0] != '-' || s.substr(6, 4) != "-of-") return {};
  Part out;
  for (std::size_t i = 1; i < 6; ++i) {
    if (!digit(s[i]) || !digit(s[i + 9])) return {};
    out.index = out.index * 10 + (s[i] - '0');
    out.count = out.count * 10 + (s[i + 9] - '0');
  }
  return out.index >= 1 && out.index <= out.count ? out : Part{};
}

std::uint64_t sum(const std::vector<RepoFile>& files) {
  std::uint64_t n = 0;
  for (const RepoFile& f : files) n += f.size;
  return n;
}

std::string described(const GgufModel& m) { return m.type.empty() ? m.files[0].path : m.type; }

std::size_t rank(const GgufModel& m) {
  return static_cast<std::size_t>(std::find(kPreferred.begin(), kPreferred.end(), m.type) -
                                  kPreferred.begin());
}

// What NAME:… can be for each of the models: the type where only one has it, else the file.
std::vector<std::string> words_for(const std::vector<GgufModel>& models) {
  std::map<std::string, int> count;
  for (const GgufModel& m : models) ++count[m.type];
  std::vector<std::string> out;
  for (const GgufModel& m : models)
    out.push_back(m.type.empty() || count[m.type] > 1 ? m.files[0].path : m.type);
  return out;
}

std::string listed(const std::vector<std::string>& words) {
  std::string out;
  for (std::size_t i = 0; i < words.size() && i < 24; ++i) out += (i ? ", " : "") + words[i];
  return out + (words.size() > 24 ? fmt::format(" and {} more", words.size() - 24) : "");
}

Selection of_gguf(const GgufModel& m) {
  Selection s;
  s.kind = Selection::Kind::gguf, s.files = m.files, s.main = m.files[0].path;
  s.what = described(m), s.complete = m.complete();
  if (m.parts > 1) s.what += fmt::format(" in {} files", m.parts);
  return s;
}

// The safetensors files of the model itself: the sharded set where there is an index, else
// model.safetensors, else what lies at the top but other copies of the same weights.
std::vector<RepoFile> weights(const std::vector<RepoFile>& files) {
  std::vector<RepoFile> tensors, shards, whole;
  bool index = false;
  for (const RepoFile& f : files) {
    if (!at_top(f.path)) continue;
    index |= f.path == "model.safetensors.index.json";
    if (!f.path.ends_with(".safetensors") || f.path.starts_with("consolidated")) continue;
    tensors.push_back(f);
    if (f.path.find("-of-") != f.path.npos) shards.push_back(f);
    if (f.path == "model.safetensors") whole.push_back(f);
  }
  if (index && !shards.empty()) return shards;
  return whole.empty() ? tensors : whole;
}

bool side_file(std::string_view path) {
  return std::find(kSideFiles.begin(), kSideFiles.end(), path) != kSideFiles.end() ||
         path == "model.safetensors.index.json" ||
         (path.starts_with("additional_chat_templates/") && path.ends_with(".jinja"));
}

Selection of_folder(const std::vector<RepoFile>& files, bool adapter) {
  Selection s;
  s.kind = adapter ? Selection::Kind::adapter : Selection::Kind::folder;
  for (const RepoFile& f : files)
    if (side_file(f.path) || (adapter && f.path == "adapter_config.json")) s.files.push_back(f);
  const auto tensors = weights(files);
  s.files.insert(s.files.end(), tensors.begin(), tensors.end());
  s.what = adapter               ? "LoRA adapter"
           : tensors.size() == 1 ? "safetensors"
                                 : fmt::format("safetensors in {} files", tensors.size());
  return s;
}

bool lists(const std::vector<RepoFile>& files, std::string_view path) {
  return std::any_of(files.begin(), files.end(), [&](const RepoFile& f) { return f.path == path; });
}

[[noreturn]] void no_weights(const std::vector<RepoFile>& files, const std::string& name) {
  const auto pickle = std::find_if(files.begin(), files.end(), [](const RepoFile& f) {
    return f.path.ends_with(".bin") || f.path.ends_with(".pth") || f.path.ends_with(".pt");
  });
  if (pickle != files.end())
    fail(ErrorKind::bad_file,
         "{}: has no safetensors and no GGUF files, only {} and the like, which can run code when "
         "they are read: look for a repository with safetensors of the same model",
         name, pickle->path);
  fail(ErrorKind::bad_file,
       "{}: has no model that can be read here (safetensors with config.json, "
       "or GGUF); a single file can be named as {}:FILE",
       name, name);
}

// The GGUF models that `choice` names: by type, by file, by file without its folder.
std::vector<GgufModel> matching(const std::vector<GgufModel>& models, const std::string& choice) {
  const std::string wanted = upper(choice);
  std::vector<GgufModel> found;
  const auto keep = [&](auto&& matches) {
    if (found.empty())
      std::copy_if(models.begin(), models.end(), std::back_inserter(found), matches);
  };
  const auto has = [&](const GgufModel& m, auto&& name) {
    return name(m.stem) == choice ||
           std::any_of(m.files.begin(), m.files.end(),
                       [&](const RepoFile& f) { return name(f.path) == choice; });
  };
  const auto whole = [](const std::string& path) { return std::string_view(path); };
  keep([&](const GgufModel& m) { return has(m, whole); });
  keep([&](const GgufModel& m) {
    return has(m, [](const std::string& path) { return base_name(path); });
  });
  keep([&](const GgufModel& m) { return m.type == wanted; });
  keep([&](const GgufModel& m) { return m.type == "UD-" + wanted; });
  return found;
}

Selection chosen(const std::vector<RepoFile>& files, const std::vector<GgufModel>& models,
                 const std::string& choice, const std::string& name) {
  const auto found = matching(models, choice);
  if (found.size() == 1) return of_gguf(found[0]);
  if (found.size() > 1)
    fail(ErrorKind::usage, "{}:{}: more than one file is of this kind: name one of {}", name,
         choice, listed(words_for(found)));
  for (const RepoFile& f : files)
    if (f.path == choice) {
      Selection s;
      s.kind = Selection::Kind::file, s.files = {f}, s.main = s.what = f.path;
      return s;
    }
  std::vector<std::string> words = words_for(models);
  if (words.empty() && !weights(files).empty())
    fail(ErrorKind::usage,
         "{}:{}: there is no such file, and no GGUF file at all: take {} as it is, "
         "and make one of this type with 'supersonic convert {} model.gguf --type …'",
         name, choice, name, name);
  std::vector<std::string> all = words;
  for (const RepoFile& f : files) all.push_back(f.path);
  const std::string meant = nearest(choice, all);
  fail(ErrorKind::usage, "{}:{}: there is no such type or file{}; there is {}", name, choice,
       meant.empty() ? "" : fmt::format("; did you mean {}:{}?", name, meant),
       words.empty() ? listed(all) : listed(words));
}

}  // namespace

std::uint64_t GgufModel::bytes() const { return sum(files); }
std::uint64_t Selection::bytes() const { return sum(files); }

std::string gguf_type(std::string_view path) {
  const std::string text = upper(base_name(path));
  std::string found;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (i > 0 && !word_end(text, i - 1)) continue;
    const bool dynamic = text.compare(i, 3, "UD-") == 0;
    if (const std::size_t n = type_length(std::string_view(text).substr(i + (dynamic ? 3 : 0)))) {
      found = text.substr(i, n + (dynamic ? 3 : 0));
      i += found.size() - 1;
    }
  }
  return found;
}

std::vector<GgufModel> gguf_models(const std::vector<RepoFile>& files) {
  std::map<std::string, GgufModel> sets;
  for (const RepoFile& f : files) {
    const std::string name = upper(base_name(f.path));
    if (!name.ends_with(".GGUF") || name.find("MMPROJ") != name.npos ||
        name.find("IMATRIX") != name.npos)
      continue;
    std::string stem = f.path.substr(0, f.path.size() - 5);
    const Part part = part_of(stem);
    if (part.count) stem.resize(stem.size() - 15);
    GgufModel& m = sets[fmt::format("{}\n{}", stem, part.count)];
    m.stem = stem, m.parts = std::max(1, part.count), m.type = gguf_type(stem);
    m.files.push_back(f);  // in the order of the paths, which is that of the parts
  }
  std::vector<GgufModel> out;
  for (auto& [key, m] : sets) {
    std::sort(m.files.begin(), m.files.end(),
              [](const RepoFile& a, const RepoFile& b) { return a.path < b.path; });
    out.push_back(std::move(m));
  }
  std::stable_sort(out.begin(), out.end(),
                   [](const GgufModel& a, const GgufModel& b) { return a.bytes() < b.bytes(); });
  return out;
}

Selection select_files(const std::vector<RepoFile>& files, const std::string& choice,
                       const std::string& name) {
  const auto models = gguf_models(files);
  if (!choice.empty()) return chosen(files, models, choice, name);
  const bool folder = lists(files, "config.json") && !weights(files).empty();
  const bool adapter = lists(files, "adapter_config.json") && !weights(files).empty();
  if (folder || adapter) {
    Selection s = of_folder(files, adapter && !lists(files, "model.safetensors.index.json") &&
                                       !lists(files, "model.safetensors"));
    s.others = words_for(models);
    return s;
  }
  if (models.empty()) no_weights(files, name);
  const auto best =
      std::min_element(models.begin(), models.end(),
                       [](const GgufModel& a, const GgufModel& b) { return rank(a) < rank(b); });
  Selection s = of_gguf(*best);
  s.chosen_here = models.size() > 1;
  const auto words = words_for(models);
  for (std::size_t i = 0; i < models.size(); ++i)
    if (&models[i] != &*best) s.others.push_back(words[i]);
  return s;
}

}  // namespace supersonic::hub
