// Names, lists of files and addresses, as a hub or a person might send them: a value or an Error,
// and what is accepted stays below its folder.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "core/error.h"
#include "hub/listing.h"
#include "hub/name.h"
#include "hub/url.h"

using namespace supersonic;

namespace {

void demand(bool holds) {
  if (!holds) std::abort();
}

// Oracle: the standard library's own idea of where a path leads.
void demand_inside(const std::string& path) {
  const std::filesystem::path p = std::filesystem::path("/top") / path,
                              normal = p.lexically_normal();
  demand(normal == p && normal.string().starts_with("/top/") && path.find('\0') == path.npos);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  if (const auto name = hub::parse_name(text)) {
    demand(hub::parse_name(name->text()).has_value());
    demand_inside(name->owner), demand_inside(name->name), demand_inside(name->revision);
    if (!name->choice.empty()) demand_inside(name->choice);
  }
  if (const std::string target = hub::redirected("https://hub.example/a/b", text);
      !target.empty()) {
    demand(target.starts_with("https://") || target.starts_with("HTTPS://") ||
           hub::origin_of(target).starts_with("https://"));
    demand(target.find_first_of("\r\n \\") == target.npos);
  }
  try {
    auto files = hub::parse_tree(text, "list");
    hub::check_tree(files, "list");
    for (const auto& f : files) demand_inside(f.path);
    hub::select_files(files, "", "a/b");
  } catch (const Error&) {
  }
  return 0;
}
