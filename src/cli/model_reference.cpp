// One function finds models for every command; see the header.
#include "cli/model_reference.h"

#include <filesystem>

#include "cli/console.h"
#include "core/error.h"
#include "hub/pull.h"

namespace supersonic::cli {
namespace {

namespace fs = std::filesystem;

// A name with such an end that is in no cache is a misspelt path.
bool looks_like_file(const std::string& text) {
  for (const char* end : {".gguf", ".safetensors", ".json", ".bin", "/"})
    if (text.ends_with(end)) return true;
  return false;
}

}  // namespace

std::string resolve_model(const std::string& text) {
  const bool explicitly = text.starts_with("hf://");
  std::error_code error;
  if (!explicitly && (text.empty() || fs::exists(text, error))) return text;
  const auto name = explicitly ? hub::require_name(text) : hub::parse_name(text);
  if (!name) return text;
  const hub::Settings settings = hub::read_cache_settings();
  const hub::Cache cache(settings);
  if (!explicitly && looks_like_file(text) && !cache.find(name->repo())) return text;
  const hub::Found found = hub::find_cached(cache, *name);
  if (found.selection.chosen_here)
    log_info("{}: {} of the types in the cache; name another as {}:{}", name->text(),
             found.selection.what, name->repo(), found.selection.others[0]);
  hub::Cache::touch(found.path);
  return found.path;
}

std::string cached_name(const std::string& path) {
  const fs::path root = hub::read_cache_settings().cache;
  const fs::path inside = fs::absolute(path).lexically_normal().lexically_relative(root);
  if (inside.empty()) return {};
  const std::string folder = inside.begin()->string();
  const std::size_t mark = folder.find("--", 8);
  if (!folder.starts_with("models--") || mark == folder.npos) return {};
  return folder.substr(8, mark - 8) + "/" + folder.substr(mark + 2);
}

std::string model_label(const std::string& path) {
  const std::string name = cached_name(path);
  return name.empty() ? fs::path(path).filename().string() : name;
}

}  // namespace supersonic::cli
