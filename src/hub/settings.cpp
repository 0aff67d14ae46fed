// Environment to settings; nothing here touches the network or the cache.
#include "hub/settings.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>

#include "core/error.h"
#include "hub/name.h"
#include "io/output_file.h"

namespace supersonic::hub {
namespace {

namespace fs = std::filesystem;
constexpr std::size_t kMostToken = 4096;

std::string text_of(const Environment& environment, const char* name) {
  const char* value = environment(name);
  return value ? value : "";
}

bool is_on(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](char c) {
    return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  });
  return text == "1" || text == "ON" || text == "YES" || text == "TRUE";
}

std::string expanded(const std::string& path, const Environment& environment) {
  if (path == "~" || path.starts_with("~/")) return text_of(environment, "HOME") + path.substr(1);
  return path;
}

std::string trimmed(const std::string& text) {
  const std::size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

std::string home_of_hub(const Environment& environment) {
  if (const auto home = text_of(environment, "HF_HOME"); !home.empty())
    return expanded(home, environment);
  std::string cache = text_of(environment, "XDG_CACHE_HOME");
  if (cache.empty()) cache = expanded("~/.cache", environment);
  return (fs::path(cache) / "huggingface").string();
}

// A token becomes a line of a header: anything but visible ASCII would end or change that.
void check_token(const Settings& s) {
  for (const char c : s.token)
    if (c <= ' ' || c > '~')
      fail(ErrorKind::usage,
           "the token of {} has a blank or another character that tokens do not have: copy it "
           "again from the hub's settings",
           s.token_source);
  if (s.token.size() > kMostToken)
    fail(ErrorKind::usage, "the token of {} has over {} characters", s.token_source, kMostToken);
}

void read_token(Settings& s, const std::string& home, const Environment& environment) {
  if (is_on(text_of(environment, "HF_HUB_DISABLE_IMPLICIT_TOKEN"))) return;
  s.token = trimmed(text_of(environment, "HF_TOKEN")), s.token_source = "HF_TOKEN";
  if (s.token.empty()) {
    std::string file = expanded(text_of(environment, "HF_TOKEN_PATH"), environment);
    if (file.empty()) file = (fs::path(home) / "token").string();
    std::error_code ignored;
    if (!fs::is_regular_file(file, ignored)) return;
    s.token = trimmed(io::read_file(file, kMostToken)), s.token_source = file;
  }
  check_token(s);
}

double seconds_of(const Environment& environment, const char* name, double otherwise) {
  const std::string text = text_of(environment, name);
  if (text.empty()) return otherwise;
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || !(value > 0 && value <= 86400))
    fail(ErrorKind::usage, "{}={}: is no number of seconds above 0", name, printable(text));
  return value;
}

void read_endpoint(Settings& s, const Environment& environment) {
  std::string text = text_of(environment, "HF_ENDPOINT");
  while (text.ends_with('/')) text.pop_back();
  if (text.empty()) return;
  const bool known = text.starts_with("https://") || text.starts_with("http://");
  const bool plain =
      std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 127; });
  if (!known || !plain || text.find_first_of("?#@\\") != text.npos)
    fail(ErrorKind::usage, "HF_ENDPOINT={}: is no address such as https://huggingface.co",
         printable(text));
  s.endpoint = text;
}

}  // namespace

Settings read_cache_settings(const Environment& environment) {
  Settings s;
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"})
    if (s.cache.empty()) s.cache = expanded(text_of(environment, name), environment);
  if (s.cache.empty()) s.cache = (fs::path(home_of_hub(environment)) / "hub").string();
  s.cache = fs::absolute(s.cache).lexically_normal().string();
  while (s.cache.size() > 1 && s.cache.ends_with('/')) s.cache.pop_back();
  s.symlinks = !is_on(text_of(environment, "HF_HUB_DISABLE_SYMLINKS"));
  s.offline = is_on(text_of(environment, "HF_HUB_OFFLINE")) ||
              is_on(text_of(environment, "TRANSFORMERS_OFFLINE"));
  return s;
}

Settings read_settings(const Environment& environment) {
  Settings s = read_cache_settings(environment);
  read_endpoint(s, environment);
  read_token(s, home_of_hub(environment), environment);
  s.stall_timeout = seconds_of(environment, "HF_HUB_DOWNLOAD_TIMEOUT", s.stall_timeout);
  s.connect_timeout = seconds_of(environment, "HF_HUB_ETAG_TIMEOUT", s.connect_timeout);
  for (const char* name : {"SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"})
    if (s.ca_file.empty()) s.ca_file = text_of(environment, name);
  return s;
}

Settings read_cache_settings() {
  return read_cache_settings([](const char* name) { return std::getenv(name); });
}

Settings read_settings() {
  return read_settings([](const char* name) { return std::getenv(name); });
}

}  // namespace supersonic::hub
