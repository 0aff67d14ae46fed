// The option parser: flags, environment, precedence, and errors that say what to write instead. The
// config file is read in config.cpp.
#include "cli/options.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace supersonic::cli {

std::string_view name_of(Origin origin) {
  constexpr std::string_view names[] = {"default", "model", "config", "environment", "flag"};
  return names[static_cast<int>(origin)];
}

std::string environment_name(std::string_view option) {
  std::string out = "SUPERSONIC_";
  for (char c : option)
    out += c == '-' ? '_' : c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  return out;
}

Option& Option::letter(char c) { return letter_ = c, *this; }
Option& Option::value(std::string_view placeholder) { return placeholder_ = placeholder, *this; }
Option& Option::choices(std::initializer_list<std::string_view> allowed) {
  return choices_ = allowed, *this;
}
Option& Option::range(double low, double high) { return low_ = low, high_ = high, *this; }
Option& Option::required() { return required_ = true, *this; }
Option& Option::commas() { return commas_ = true, *this; }
Option& Option::shown(std::string_view text) { return shown_ = text, *this; }
Option& Option::model() { return model_ = true, *this; }
Option& Option::flag_only() { return flag_only_ = true, *this; }

Option& Options::declare(std::string_view name, std::string_view help) {
  CHECK(!find(name), "{}: option --{} is declared twice", command_, name);
  Option& o = options_.emplace_back();
  o.name_ = name, o.help_ = help, o.group_ = group_;
  return o;
}

Option& Options::count(std::string_view name, int& target, std::string_view help) {
  Option& o = add(name, target, help);
  o.counted_ = true;
  return o;
}

const Option* Options::find(std::string_view name) const {
  for (const Option& o : options_)
    if (o.name_ == name) return &o;
  return nullptr;
}
Option* Options::find(std::string_view name) {
  return const_cast<Option*>(std::as_const(*this).find(name));
}
Option* Options::find_letter(char c) {
  for (Option& o : options_)
    if (o.letter_ == c) return &o;
  return nullptr;
}

bool Options::given(std::string_view name) const {
  const Option* o = find(name);
  return o && o->origin_ >= Origin::config;
}

void Options::refuse(std::string message) const {
  fail(ErrorKind::usage, "{}: {}\n'supersonic {} --help' lists the options", command_, message,
       command_);
}

void Options::unknown_option(std::string_view name) const {
  std::vector<std::string> names;
  for (const Option& o : options_) {
    names.push_back(o.name_);
    if (o.kind_ == ValueKind::boolean) names.push_back("no-" + o.name_);
  }
  const std::string meant = nearest(name, names);
  refuse(fmt::format("unknown option '--{}'{}", name,
                     meant.empty() ? "" : fmt::format("; did you mean '--{}'?", meant)));
}

void Options::check_value(const Option& o, std::string_view text, std::string_view source) const {
  if (!o.choices_.empty() && o.kind_ == ValueKind::text) {
    const std::vector<std::string> allowed(o.choices_.begin(), o.choices_.end());
    if (std::find(allowed.begin(), allowed.end(), text) == allowed.end()) {
      const std::string meant = nearest(text, allowed);
      std::string list;  // an empty choice is the default, which needs no name
      for (const std::string& choice : allowed)
        if (!choice.empty()) list += (list.empty() ? "" : ", ") + choice;
      refuse(fmt::format("{} takes {}, not '{}'{}", source, list, text,
                         meant.empty() ? "" : fmt::format("; did you mean '{}'?", meant)));
    }
  }
  double number = 0;
  if (o.kind_ != ValueKind::number || !parse_value(text, number)) return;
  if (number >= o.low_ && number <= o.high_) return;
  if (o.high_ == std::numeric_limits<double>::infinity())
    refuse(fmt::format("{} must be at least {}, got {}", source, o.low_, text));
  refuse(fmt::format("{} must be from {} to {}, got {}", source, o.low_, o.high_, text));
}

// Gives the option a value, unless a source of higher precedence has. A list is replaced by a
// higher source and grows within one.
void Options::assign(Option& o, std::string_view text, Origin origin, std::string_view source) {
  if (origin < o.origin_) return;
  check_value(o, text, source);
  if (o.kind_ == ValueKind::list) {
    auto& list = *static_cast<std::vector<std::string>*>(o.target_);
    if (origin > o.origin_) list.clear();
    while (o.commas_ && text.find(',') != std::string_view::npos) {
      list.emplace_back(text.substr(0, text.find(',')));
      text.remove_prefix(text.find(',') + 1);
    }
  }
  if (!o.parse_(text, o.target_)) {
    const char* what = o.kind_ == ValueKind::boolean ? "true or false"
                       : o.kind_ == ValueKind::bytes ? "a size such as 24GiB or 512M"
                                                     : "a number";
    refuse(
        fmt::format("{} needs {}{}, got '{}'", source, what, o.or_auto_ ? " or auto" : "", text));
  }
  o.origin_ = origin;
}

// --name value, --name=value, --flag, --no-flag. Returns how many of `rest` were used.
std::size_t Options::parse_long(std::string_view argument, std::span<const char* const> rest) {
  const std::size_t equals = argument.find('=');
  const std::string_view name = argument.substr(0, equals);
  const bool inline_value = equals != std::string_view::npos;
  const std::string_view text = inline_value ? argument.substr(equals + 1) : std::string_view();
  const std::string source = fmt::format("--{}", name);
  Option* o = find(name);
  if (!o && name.starts_with("no-")) {
    o = find(name.substr(3));
    if (!o || o->kind_ != ValueKind::boolean) unknown_option(name);
    if (inline_value)
      refuse(fmt::format("{} takes no value; write --{}={}", source, o->name_, text));
    return assign(*o, "false", Origin::flag, source), 0;
  }
  if (!o) unknown_option(name);
  if (o->counted_ && !inline_value) {
    ++*static_cast<int*>(o->target_);
    return o->origin_ = Origin::flag, 0;
  }
  if (inline_value) return assign(*o, text, Origin::flag, source), 0;
  if (o->kind_ == ValueKind::boolean) return assign(*o, "true", Origin::flag, source), 0;
  if (rest.empty()) refuse(fmt::format("{} needs a value", source));
  const std::string_view next = rest[0];
  if (next.starts_with("--") && find(next.substr(2, next.find('=') - 2)))
    refuse(fmt::format("{} needs a value, but '{}' follows; write {}={} if that is the value",
                       source, next, source, next));
  return assign(*o, next, Origin::flag, source), 1;
}

// -n 5, -n5, -v, -vv.
std::size_t Options::parse_short(std::string_view argument, std::span<const char* const> rest) {
  for (std::size_t i = 0; i < argument.size(); ++i) {
    Option* o = find_letter(argument[i]);
    if (!o) refuse(fmt::format("unknown option '-{}'", argument[i]));
    const std::string source = fmt::format("-{} (--{})", argument[i], o->name_);
    if (o->counted_) {
      ++*static_cast<int*>(o->target_), o->origin_ = Origin::flag;
      continue;
    }
    if (o->kind_ == ValueKind::boolean) {
      assign(*o, "true", Origin::flag, source);
      continue;
    }
    if (i + 1 < argument.size()) return assign(*o, argument.substr(i + 1), Origin::flag, source), 0;
    if (rest.empty()) refuse(fmt::format("{} needs a value", source));
    return assign(*o, rest[0], Origin::flag, source), 1;
  }
  return 0;
}

void Options::parse_position(std::string_view argument, int& position) {
  for (Option& o : options_) {
    if (o.position_ != position) continue;
    if (o.kind_ != ValueKind::list) ++position;
    // A model given by flag leaves the positional arguments to those after it: run -m MODEL
    // "prompt".
    if (o.kind_ != ValueKind::list && o.origin_ == Origin::flag)
      return parse_position(argument, position);
    return assign(o, argument, Origin::flag, o.placeholder_.empty() ? o.name_ : o.placeholder_);
  }
  refuse(fmt::format("unexpected argument '{}'", argument));
}

void Options::parse(std::span<const char* const> arguments, const Environment& environment) {
  std::vector<std::string_view> positions;
  bool only_positions = false;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string_view argument = arguments[i];
    const auto rest = arguments.subspan(i + 1);
    if (only_positions || argument.size() < 2 || argument[0] != '-') {
      positions.push_back(argument);
    } else if (argument == "--") {
      only_positions = true;
    } else {
      i += argument[1] == '-' ? parse_long(argument.substr(2), rest)
                              : parse_short(argument.substr(1), rest);
    }
  }
  int position = 0;
  for (std::string_view argument : positions) parse_position(argument, position);
  for (Option& o : options_) {
    if (o.flag_only_) continue;
    const std::string variable = environment_name(o.name_);
    if (const char* text = environment(variable.c_str()))
      assign(o, text, Origin::environment, variable);
  }
  const Option* config = find("config");
  if (config && !config->print().empty()) read_config(config->print());
}

void Options::check_required() const {
  for (const Option& o : options_) {
    if (!o.required_) continue;
    if (o.origin_ >= Origin::config) {
      if (o.kind_ == ValueKind::text && o.print().empty())
        refuse(fmt::format("--{} is empty", o.name_));
      continue;
    }
    if (o.position_ < 0) refuse(fmt::format("--{} is required", o.name_));
    refuse(fmt::format("{} is missing", o.placeholder_.empty() ? o.name_ : o.placeholder_));
  }
}

void Options::resolve_models(const std::function<std::string(const std::string&)>& resolve) {
  for (Option& o : options_) {
    if (!o.model_ || o.kind_ != ValueKind::text || o.print().empty()) continue;
    auto& text = *static_cast<std::string*>(o.target_);
    std::string path = resolve(text);
    if (path != text) o.given_ = std::exchange(text, std::move(path));
  }
}

}  // namespace supersonic::cli
