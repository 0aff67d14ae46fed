// Opens the plug-in beside libsupersonic.so; see the header.
#include "hub/http.h"

#include <dlfcn.h>

#include <filesystem>

#include "core/error.h"

namespace supersonic::hub {
namespace {

constexpr const char* kPlugin = "libsupersonic_hub.so";

struct Plugin {
  OpenHttp* http = nullptr;
  OpenDigest* digest = nullptr;
};

std::string plugin_path() {
  Dl_info here{};
  if (!dladdr(reinterpret_cast<const void*>(&open_http), &here) || !here.dli_fname) return kPlugin;
  return (std::filesystem::path(here.dli_fname).parent_path() / kPlugin).string();
}

Plugin open_plugin() {
  const std::string path = plugin_path();
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char* reason = dlerror();
    fail(ErrorKind::failure,
         "the network plug-in cannot be opened ({}): it needs libcurl.so.4 and libcrypto.so.3 "
         "(Debian: libcurl4, libssl3), and libcurl4-openssl-dev and libssl-dev when it is built",
         reason ? reason : path);
  }
  Plugin p;
  p.http = reinterpret_cast<OpenHttp*>(dlsym(library, kOpenHttp));
  p.digest = reinterpret_cast<OpenDigest*>(dlsym(library, kOpenDigest));
  CHECK(p.http && p.digest, "{} is of another version of Supersonic: install both again", path);
  return p;
}

const Plugin& plugin() {
  static const Plugin opened = open_plugin();
  return opened;
}

}  // namespace

std::string HttpHead::field(std::string_view name) const {
  for (auto it = fields.rbegin(); it != fields.rend(); ++it)
    if (it->first == name) return it->second;
  return {};
}

std::unique_ptr<Http> open_http() { return std::unique_ptr<Http>(plugin().http()); }

std::unique_ptr<Digest> open_digest(Digest::Kind kind) {
  return std::unique_ptr<Digest>(plugin().digest(kind));
}

}  // namespace supersonic::hub
