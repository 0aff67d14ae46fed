// Options: what a command accepts, each declared once. From the declaration follow the flag, the
// environment variable (SUPERSONIC_SEQ_LEN), the YAML key (seq-len or seq_len), the help text with
// the default, and the reference page. A value comes from the highest of: flag, environment, config
// file, the model's generation_config.json, built-in. Wrong input throws Error(usage), naming the
// option, the value, what is allowed, and the nearest match.
#pragma once
#include <cstdint>
#include <deque>
#include <functional>
#include <initializer_list>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/nearest.h"

namespace supersonic::cli {

// A size in bytes; written as 24GiB, 512M, 1.5G (powers of 1024) or a plain number.
struct Bytes {
  std::uint64_t count = 0;
  bool operator==(const Bytes&) const = default;
};

// Where a value came from, lowest precedence first.
enum class Origin : std::uint8_t { built_in, model, config, environment, flag };
std::string_view name_of(Origin origin);

// The value types that an option may have. std::optional<T> reads and prints "auto" as no value.
// parse_value returns false when the text is no such value.
bool parse_value(std::string_view text, bool& out);
bool parse_value(std::string_view text, int& out);
bool parse_value(std::string_view text, std::int64_t& out);
bool parse_value(std::string_view text, std::uint64_t& out);
bool parse_value(std::string_view text, float& out);
bool parse_value(std::string_view text, double& out);
bool parse_value(std::string_view text, Bytes& out);
bool parse_value(std::string_view text, std::string& out);
bool parse_value(std::string_view text, std::vector<std::string>& out);  // appends
std::string print_value(bool value);
std::string print_value(int value);
std::string print_value(std::int64_t value);
std::string print_value(std::uint64_t value);
std::string print_value(float value);
std::string print_value(double value);
std::string print_value(Bytes value);
std::string print_value(const std::string& value);
std::string print_value(const std::vector<std::string>& value);  // comma-separated

template <class T>
bool parse_value(std::string_view text, std::optional<T>& out) {
  if (text == "auto") return out.reset(), true;
  return parse_value(text, out.emplace());
}
template <class T>
std::string print_value(const std::optional<T>& value) {
  return value ? print_value(*value) : "auto";
}

enum class ValueKind : std::uint8_t { boolean, number, bytes, text, list };
template <class T>
inline constexpr ValueKind kind_of = ValueKind::number;
template <>
inline constexpr ValueKind kind_of<bool> = ValueKind::boolean;
template <>
inline constexpr ValueKind kind_of<Bytes> = ValueKind::bytes;
template <>
inline constexpr ValueKind kind_of<std::string> = ValueKind::text;
template <>
inline constexpr ValueKind kind_of<std::vector<std::string>> = ValueKind::list;
template <class T>
inline constexpr ValueKind kind_of<std::optional<T>> = kind_of<T>;
template <class T>
inline constexpr bool is_optional = false;
template <class T>
inline constexpr bool is_optional<std::optional<T>> = true;

class Option {
 public:
  Option& letter(char c);                       // -r
  Option& value(std::string_view placeholder);  // what help shows for the value: FILE
  Option& choices(std::initializer_list<std::string_view> allowed);
  Option& range(double low, double high);  // inclusive; a number outside is refused
  Option& at_least(double low) { return range(low, std::numeric_limits<double>::infinity()); }
  Option& required();
  Option& commas();  // list: each value is split at commas
  Option& shown(
      std::string_view default_text);  // what help shows as the default instead of the value
  Option& model();                     // names a model: see resolve_models
  Option& flag_only();  // no environment variable and no config key: --help, --config

  std::string_view name() const { return name_; }
  Origin origin() const { return origin_; }
  // The value as it was written, also where resolve_models has put a path in its place.
  std::string print() const { return given_.empty() ? print_(target_) : given_; }

 private:
  friend class Options;
  friend class HelpText;
  std::string name_, help_, placeholder_, group_, shown_, default_, given_;
  std::vector<std::string_view> choices_;
  void* target_ = nullptr;
  bool (*parse_)(std::string_view, void*) = nullptr;
  std::string (*print_)(const void*) = nullptr;
  ValueKind kind_ = ValueKind::text;
  Origin origin_ = Origin::built_in;
  double low_ = -std::numeric_limits<double>::infinity();
  double high_ = std::numeric_limits<double>::infinity();
  char letter_ = 0;
  int position_ = -1;  // index among the positional arguments
  bool required_ = false, commas_ = false, flag_only_ = false, model_ = false, counted_ = false,
       or_auto_ = false;
};

class Options {
 public:
  explicit Options(std::string_view command) : command_(command) {}

  // Starts a section of the help text; options declared after it belong to it.
  void group(std::string_view title) { group_ = title; }

  // The target holds the built-in default and receives the value. A bool is set by --name and
  // cleared by --no-name.
  template <class T>
  Option& add(std::string_view name, T& target, std::string_view help) {
    Option& o = declare(name, help);
    o.kind_ = kind_of<T>;
    o.or_auto_ = is_optional<T>;
    o.target_ = &target;
    o.parse_ = [](std::string_view text, void* to) {
      return parse_value(text, *static_cast<T*>(to));
    };
    o.print_ = [](const void* from) { return print_value(*static_cast<const T*>(from)); };
    o.default_ = print_value(target);
    return o;
  }
  // The same, and it also takes the next positional argument. A list takes all that are left.
  template <class T>
  Option& positional(std::string_view name, T& target, std::string_view help) {
    Option& o = add(name, target, help);
    o.position_ = positions_++;
    return o;
  }
  // Counts how often it is given: -vv.
  Option& count(std::string_view name, int& target, std::string_view help);

  // Reads flags, then the environment, then the config file that --config (or SUPERSONIC_CONFIG)
  // names, then checks that what is required was given. `environment` maps a variable's name to its
  // value or null.
  using Environment = std::function<const char*(const char*)>;
  void parse(std::span<const char* const> arguments, const Environment& environment);
  void read_config(const std::string& path);
  void check_required() const;
  // Puts resolve(text) in the place of each text option that names a model and is not empty.
  void resolve_models(const std::function<std::string(const std::string&)>& resolve);

  // A value from the model's own files: used unless a flag, variable or config key has set the
  // option.
  template <class T>
  void model_default(std::string_view name, const T& value) {
    Option* o = find(name);
    if (o && o->origin_ <= Origin::model)
      *static_cast<T*>(o->target_) = value, o->origin_ = Origin::model;
  }
  bool given(std::string_view name) const;  // by flag, environment or config
  bool has(std::string_view name) const { return find(name) != nullptr; }

  std::string resolved_yaml()
      const;  // every option with its value and origin; a config file that reproduces the run
  std::string_view command() const { return command_; }

 private:
  friend class HelpText;
  Option& declare(std::string_view name, std::string_view help);
  Option* find(std::string_view name);
  const Option* find(std::string_view name) const;
  Option* find_letter(char c);
  std::size_t parse_long(std::string_view argument, std::span<const char* const> rest);
  std::size_t parse_short(std::string_view argument, std::span<const char* const> rest);
  void parse_position(std::string_view argument, int& position);
  void assign(Option& option, std::string_view text, Origin origin, std::string_view source);
  void check_value(const Option& option, std::string_view text, std::string_view source) const;
  [[noreturn]] void unknown_option(std::string_view name) const;
  [[noreturn]] void refuse(std::string message) const;

  std::string_view command_, group_ = "Options";
  std::deque<Option> options_;
  int positions_ = 0;
};

std::string environment_name(std::string_view option);  // seq-len -> SUPERSONIC_SEQ_LEN

}  // namespace supersonic::cli
