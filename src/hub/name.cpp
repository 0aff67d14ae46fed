// Names and paths are checked character by character against what is allowed, not against a list of
// what is dangerous.
#include "hub/name.h"

#include <algorithm>

#include "core/error.h"

namespace supersonic::hub {
namespace {

constexpr std::size_t kMostName = 96, kMostRevision = 200, kMostPath = 1000, kMostComponent = 200;

bool letter_or_digit(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// Owner and name: letters, digits, '-', '_' and '.', as the hub allows them.
std::string word_problem(std::string_view word, std::string_view what) {
  if (word.empty()) return fmt::format("the {} is empty", what);
  if (word.size() > kMostName) return fmt::format("the {} has over {} characters", what, kMostName);
  for (const char c : word)
    if (!letter_or_digit(c) && c != '-' && c != '_' && c != '.')
      return fmt::format("the {} has a character that names on the hub do not have", what);
  const auto edge = [](char c) { return c == '-' || c == '.'; };
  if (edge(word.front()) || edge(word.back()))
    return fmt::format("the {} begins or ends with '-' or '.'", what);
  if (word.find("--") != word.npos || word.find("..") != word.npos)
    return fmt::format("the {} has '--' or '..'", what);
  if (word.ends_with(".git") || word.ends_with(".ipynb"))
    return fmt::format("the {} ends with .git or .ipynb", what);
  return {};
}

std::string revision_problem(std::string_view text) {
  if (text.empty()) return "the revision after '@' is empty";
  if (text.size() > kMostRevision) return "the revision is too long";
  for (const char c : text)
    if (!letter_or_digit(c) && std::string_view("-_./+").find(c) == std::string_view::npos)
      return "the revision has a character that branches and tags do not have";
  const std::string problem = path_problem(text);
  return problem.empty() ? problem : "the revision " + problem;
}

// The length of the UTF-8 sequence at the start of the text; 0: none.
std::size_t utf8_length(std::string_view text) {
  const auto at = [&](std::size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  const auto tail = [&](std::size_t i) { return (at(i) & 0xc0) == 0x80; };
  const unsigned a = at(0);
  if (a < 0x80) return 1;
  if (a >= 0xc2 && a < 0xe0) return tail(1) ? 2 : 0;
  if (a >= 0xe0 && a < 0xf0) {
    if (!tail(1) || !tail(2)) return 0;
    const bool bad = (a == 0xe0 && at(1) < 0xa0) || (a == 0xed && at(1) >= 0xa0);
    return bad ? 0 : 3;
  }
  if (a < 0xf0 || a > 0xf4 || !tail(1) || !tail(2) || !tail(3)) return 0;
  return (a == 0xf0 && at(1) < 0x90) || (a == 0xf4 && at(1) >= 0x90) ? 0 : 4;
}

bool control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }
// U+0080 to U+009F are control characters, too.
bool control_pair(std::string_view text) {
  return text.size() >= 2 && text[0] == '\xc2' && static_cast<unsigned char>(text[1]) < 0xa0;
}

std::string percent_encoded(std::string_view text, bool keep_slash) {
  std::string out;
  for (const char c : text) {
    if (letter_or_digit(c) || c == '-' || c == '_' || c == '.' || c == '~' ||
        (keep_slash && c == '/'))
      out += c;
    else
      out += fmt::format("%{:02X}", static_cast<unsigned>(static_cast<unsigned char>(c)));
  }
  return out;
}

}  // namespace

std::string ModelName::text() const {
  return repo() + (choice.empty() ? "" : ":" + choice) + (revision_given ? "@" + revision : "");
}

std::optional<ModelName> parse_name(std::string_view text, std::string* why) {
  std::string ignored;
  std::string& problem = why ? *why : ignored;
  if (text.starts_with("hf://")) text.remove_prefix(5);
  const std::size_t slash = text.find('/');
  if (slash == text.npos) return problem = "a '/' between owner and name is missing", std::nullopt;
  ModelName out;
  out.owner = text.substr(0, slash);
  text.remove_prefix(slash + 1);
  const std::size_t end = std::min(text.find_first_of(":@"), text.size());
  out.name = text.substr(0, end);
  text.remove_prefix(end);
  if (text.starts_with(':')) {
    const std::size_t at = std::min(text.rfind('@'), text.size());
    out.choice = text.substr(1, at - 1);
    text.remove_prefix(at);
    problem = out.choice.empty() ? "the file or type after ':' is empty" : path_problem(out.choice);
    if (!problem.empty()) return std::nullopt;
  }
  if (text.starts_with('@')) {
    out.revision = text.substr(1), out.revision_given = true;
    if (!(problem = revision_problem(out.revision)).empty()) return std::nullopt;
  }
  if (!(problem = word_problem(out.owner, "owner")).empty()) return std::nullopt;
  if (!(problem = word_problem(out.name, "name")).empty()) return std::nullopt;
  if (out.repo().size() > kMostName)
    return problem = fmt::format("it has over {} characters", kMostName), std::nullopt;
  return out;
}

ModelName require_name(std::string_view text) {
  std::string why;
  const auto name = parse_name(text, &why);
  if (!name)
    fail(ErrorKind::usage,
         "'{}' is no name of a model on the hub ({}): write OWNER/NAME, "
         "OWNER/NAME:Q4_K_M for a GGUF type or file, OWNER/NAME@REVISION",
         printable(text), why);
  return *name;
}

bool is_hex(std::string_view text, std::size_t digits) {
  return text.size() == digits && text.find_first_not_of("0123456789abcdef") == text.npos;
}
bool is_commit(std::string_view text) { return is_hex(text, 40); }

std::string path_problem(std::string_view path) {
  if (path.empty()) return "is empty";
  if (path.size() > kMostPath) return fmt::format("has over {} bytes", kMostPath);
  if (path.front() == '/') return "is absolute";
  for (std::size_t i = 0; i < path.size();) {
    if (path[i] == '\\') return "has a backslash";
    if (control(path[i]) || control_pair(path.substr(i))) return "has a control character";
    const std::size_t n = utf8_length(path.substr(i));
    if (n == 0) return "is not UTF-8";
    i += n;
  }
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    if (part.empty()) return "has an empty component";
    if (part == "." || part == "..") return fmt::format("has the component '{}'", part);
    if (part.size() > kMostComponent)
      return fmt::format("has a component of over {} bytes", kMostComponent);
    if (part == ".git") return "is inside .git";
    begin = end + 1;
  }
  return {};
}

void check_path(std::string_view path, const std::string& source) {
  const std::string problem = path_problem(path);
  CHECK_FILE(problem.empty(), "{}: refused, since the path \"{}\" {}", source, printable(path),
             problem);
}

std::string url_path(std::string_view path) { return percent_encoded(path, true); }
std::string url_segment(std::string_view text) { return percent_encoded(text, false); }

std::string printable(std::string_view text, std::size_t limit) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    if (out.size() >= limit) return out + "…";
    const std::size_t n = utf8_length(text.substr(i));
    if (n == 0 || control(text[i]) || control_pair(text.substr(i)))
      out += '?';
    else
      out += text.substr(i, n);
    i += std::max<std::size_t>(n, 1);
  }
  return out;
}

}  // namespace supersonic::hub
