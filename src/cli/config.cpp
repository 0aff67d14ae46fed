// The YAML config: a flat map from option names (dashes or underscores) to values; lists where an
// option repeats. Unknown keys are refused, so that a misspelt one cannot be silently ignored.
// Written back, it reproduces the run.
#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "cli/options.h"
#include "core/error.h"

namespace supersonic::cli {
namespace {

constexpr std::size_t kMaxConfigBytes = 1 << 20;

YAML::Node load(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in)
    fail(ErrorKind::usage, "{}: cannot open the config file: {}", path, std::strerror(errno));
  std::string text(kMaxConfigBytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(in.gcount()));
  if (in.bad() || text.size() > kMaxConfigBytes)
    fail(ErrorKind::usage, "{}: not a config file (unreadable or over {} bytes)", path,
         kMaxConfigBytes);
  try {
    return YAML::Load(text);
  } catch (const YAML::Exception& e) {
    fail(ErrorKind::usage, "{}:{}: not valid YAML: {}", path, e.mark.line + 1, e.msg);
  }
}

// A scalar of the resolved config, quoted where YAML would read something else.
std::string quoted(const std::string& text) {
  YAML::Emitter out;
  out << text;
  return out.c_str();
}

}  // namespace

void Options::read_config(const std::string& path) {
  const YAML::Node root = load(path);
  if (root.IsNull()) return;
  if (!root.IsMap())
    fail(ErrorKind::usage, "{}: the config must be a map of option names to values", path);
  std::vector<std::string> names;
  for (const Option& o : options_)
    if (!o.flag_only_) names.push_back(o.name_);
  for (const auto& entry : root) {
    const std::string where = fmt::format("{}:{}", path, entry.first.Mark().line + 1);
    if (!entry.first.IsScalar())
      fail(ErrorKind::usage, "{}: a key must be an option's name", where);
    std::string key = entry.first.Scalar();
    std::replace(key.begin(), key.end(), '_', '-');
    Option* o = find(key);
    if (!o || o->flag_only_) {
      const std::string meant = nearest(key, names);
      fail(ErrorKind::usage, "{}: unknown key '{}'{}", where, entry.first.Scalar(),
           meant.empty() ? fmt::format("; '{}' has no such option", command_)
                         : fmt::format("; did you mean '{}'?", meant));
    }
    const std::string source = fmt::format("{}: {}", where, key);
    const YAML::Node& value = entry.second;
    if (value.IsNull()) continue;
    if (value.IsScalar()) {
      assign(*o, value.Scalar(), Origin::config, source);
    } else if (value.IsSequence() && o->kind_ == ValueKind::list) {
      if (value.size() == 0 && o->origin_ < Origin::config)
        static_cast<std::vector<std::string>*>(o->target_)->clear(), o->origin_ = Origin::config;
      for (const auto& item : value) {
        if (!item.IsScalar()) fail(ErrorKind::usage, "{}: the items must be plain values", source);
        assign(*o, item.Scalar(), Origin::config, source);
      }
    } else {
      fail(ErrorKind::usage, "{}: needs {}", source,
           o->kind_ == ValueKind::list ? "a list" : "one plain value");
    }
  }
}

std::string Options::resolved_yaml() const {
  std::string out = fmt::format("# supersonic {}\n", command_);
  for (const Option& o : options_) {
    if (o.flag_only_) continue;
    std::string value;
    if (o.kind_ == ValueKind::list) {
      std::vector<std::string> items = *static_cast<const std::vector<std::string>*>(o.target_);
      for (std::string& item : items) item = quoted(item);
      value = fmt::format("[{}]", fmt::join(items, ", "));
    } else {
      value = o.kind_ == ValueKind::text ? quoted(o.print()) : o.print();
    }
    out += fmt::format("{}: {}  # {}\n", o.name_, value, name_of(o.origin_));
  }
  return out;
}

}  // namespace supersonic::cli
