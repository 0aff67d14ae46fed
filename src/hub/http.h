// The wire: one HTTP exchange at a time, and the two hash functions of the hub. What speaks is
// libsupersonic_hub.so (src/hub/curl: libcurl and libcrypto), which is opened when the first of
// them is asked for, so that commands without network load neither library.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace supersonic::hub {

struct HttpHead {
  int status = 0;
  std::vector<std::pair<std::string, std::string>> fields;  // names in lower case
  std::string field(std::string_view name) const;           // of the last of that name; "" without
};

struct HttpRequest {
  std::string method = "GET", url;
  std::vector<std::string> headers;  // "Name: value"
  std::string_view body;             // of a POST or PUT; must outlive the exchange
  int file = -1;                     // or the body is this part of an open file
  std::uint64_t file_offset = 0, file_bytes = 0;
  double connect_timeout = 10, stall_timeout = 0;  // seconds; at least what the settings say
  std::string ca_file;
  // Receives the body as it comes; false ends the exchange.
  std::function<bool(const HttpHead&, std::span<const std::byte>)> on_body;
  std::function<bool()> keep_going;            // asked about every second and at each piece
  std::function<void(std::uint64_t)> on_sent;  // bytes of the body that were sent so far
};

enum class Fault { none, stopped, connect, timeout, broken, certificate, other };

struct HttpResult {
  HttpHead head;
  Fault fault = Fault::none;  // none: the whole answer came, whatever its status
  std::string problem;
};

class Http {
 public:
  virtual ~Http() = default;
  virtual HttpResult perform(const HttpRequest& request) = 0;  // follows no redirect
};

class Digest {
 public:
  enum class Kind { sha1, sha256 };
  virtual ~Digest() = default;
  virtual void update(std::span<const std::byte> bytes) = 0;
  virtual std::string hex() = 0;  // the end of it
};

// Throw Error(failure) where the plug-in cannot be opened.
std::unique_ptr<Http> open_http();
std::unique_ptr<Digest> open_digest(Digest::Kind kind);

// What the plug-in exports, as C functions.
using OpenHttp = Http*();
using OpenDigest = Digest*(Digest::Kind);
inline constexpr const char* kOpenHttp = "supersonic_open_http";
inline constexpr const char* kOpenDigest = "supersonic_open_digest";

}  // namespace supersonic::hub
