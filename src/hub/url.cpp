// Addresses are compared and followed as text: only what is needed to decide who is asked.
#include "hub/url.h"

#include <algorithm>

namespace supersonic::hub {
namespace {

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return text;
}

}  // namespace

std::string origin_of(const std::string& url) {
  const std::size_t scheme_end = url.find("://");
  if (scheme_end == url.npos) return {};
  const std::string scheme = lower(url.substr(0, scheme_end));
  if (scheme != "http" && scheme != "https") return {};
  const std::size_t begin = scheme_end + 3;
  const std::string host = lower(url.substr(begin, url.find_first_of("/?#\\", begin) - begin));
  if (host.empty() || host.find('@') != host.npos) return {};
  const std::size_t colon = host.rfind(':'), bracket = host.rfind(']');
  const bool port = colon != host.npos && (bracket == host.npos || colon > bracket);
  return scheme + "://" + host + (port ? "" : scheme == "https" ? ":443" : ":80");
}

bool is_this_machine(const std::string& origin) {
  if (origin.starts_with("http://localhost:") || origin.starts_with("http://[::1]:")) return true;
  if (!origin.starts_with("http://127.")) return false;
  const std::string host = origin.substr(7, origin.rfind(':') - 7);
  return host.find_first_not_of("0123456789.") == host.npos;
}

std::string redirected(const std::string& base, const std::string& location) {
  const auto bad = [](char c) { return c <= ' ' || c == 0x7f || c == '\\'; };
  if (location.empty() || std::any_of(location.begin(), location.end(), bad)) return {};
  const std::string from = origin_of(base);
  if (from.empty()) return {};
  const std::string scheme = from.substr(0, from.find(':'));
  std::string target = location;
  if (location.starts_with("//")) {
    target = scheme + ":" + location;
  } else if (location.starts_with("/")) {
    target = base.substr(0, base.find_first_of("/?#", base.find("://") + 3)) + location;
  } else if (location.find("://") == location.npos) {
    const std::string path = base.substr(0, base.find_first_of("?#"));
    target = path.substr(0, path.rfind('/') + 1) + location;
  }
  const std::string to = origin_of(target);
  if (to.empty() || (scheme == "https" && !to.starts_with("https:"))) return {};
  return target;
}

std::string at_endpoint(const std::string& url, const std::string& endpoint) {
  const std::string hub = "https://huggingface.co";
  return url.starts_with(hub + "/") ? endpoint + url.substr(hub.size()) : url;
}

}  // namespace supersonic::hub
