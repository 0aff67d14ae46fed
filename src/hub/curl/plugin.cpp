// libsupersonic_hub.so: HTTP by libcurl, SHA-1 and SHA-256 by libcrypto. One Http is one libcurl
// handle, used by one thread, which keeps its connections between exchanges. Certificates are
// always verified, redirects are left to the caller (who decides which host may see a token),
// proxies come from the environment as libcurl reads it.
#include <curl/curl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <mutex>
#include <new>

#include "hub/http.h"

namespace supersonic::hub {
namespace {

constexpr std::size_t kMostFields = 200, kMostField = 16384;

// One exchange in flight: what libcurl's callbacks see.
struct Exchange {
  const HttpRequest& request;
  HttpResult result = {};
  std::uint64_t sent = 0;
  bool stopped = false, failed_to_read = false, stalled = false;
  // When a byte last moved in either direction.
  std::chrono::steady_clock::time_point moved = std::chrono::steady_clock::now();
  curl_off_t bytes = 0;
};

void trim(std::string_view& text) {
  while (!text.empty() && std::strchr(" \t\r\n", text.front())) text.remove_prefix(1);
  while (!text.empty() && std::strchr(" \t\r\n", text.back())) text.remove_suffix(1);
}

std::size_t on_header(char* data, std::size_t, std::size_t bytes, void* user) {
  auto& x = *static_cast<Exchange*>(user);
  std::string_view line(data, bytes);
  if (line.starts_with("HTTP/"))
    x.result.head.fields.clear();  // after "100 Continue", or a proxy's
  const std::size_t colon = line.find(':');
  if (colon == line.npos || x.result.head.fields.size() >= kMostFields || bytes > kMostField)
    return bytes;
  std::string name(line.substr(0, colon));
  std::transform(name.begin(), name.end(), name.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  std::string_view value = line.substr(colon + 1);
  trim(value);
  x.result.head.fields.emplace_back(std::move(name), std::string(value));
  return bytes;
}

std::size_t on_data(char* data, std::size_t, std::size_t bytes, void* user, CURL* curl) {
  auto& x = *static_cast<Exchange*>(user);
  long status = 0;
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
  x.result.head.status = static_cast<int>(status);
  if (x.request.on_body &&
      !x.request.on_body(x.result.head, {reinterpret_cast<const std::byte*>(data), bytes})) {
    x.stopped = true;
    return 0;
  }
  return bytes;
}

struct Receiver {
  Exchange* exchange;
  CURL* curl;
};
std::size_t on_write(char* data, std::size_t size, std::size_t count, void* user) {
  auto& r = *static_cast<Receiver*>(user);
  return on_data(data, 1, size * count, r.exchange, r.curl);
}

std::size_t on_read(char* to, std::size_t size, std::size_t count, void* user) {
  auto& x = *static_cast<Exchange*>(user);
  const std::uint64_t total = x.request.file >= 0 ? x.request.file_bytes : x.request.body.size();
  const std::size_t n =
      static_cast<std::size_t>(std::min<std::uint64_t>(size * count, total - x.sent));
  if (x.request.file >= 0 && n > 0) {
    const ssize_t got =
        ::pread(x.request.file, to, n, static_cast<off_t>(x.request.file_offset + x.sent));
    if (got <= 0) return x.failed_to_read = true, CURL_READFUNC_ABORT;
    x.sent += static_cast<std::uint64_t>(got);
    if (x.request.on_sent) x.request.on_sent(x.sent);
    return static_cast<std::size_t>(got);
  }
  if (n > 0) std::memcpy(to, x.request.body.data() + x.sent, n);
  x.sent += n;
  return n;
}

int on_seek(void* user, curl_off_t offset, int origin) {
  if (origin != SEEK_SET) return CURL_SEEKFUNC_CANTSEEK;
  static_cast<Exchange*>(user)->sent = static_cast<std::uint64_t>(offset);
  return CURL_SEEKFUNC_OK;
}

// libcurl calls this at each piece, and about once a second where nothing comes. Its own limit on
// slow transfers averages over several seconds.
int on_progress(void* user, curl_off_t, curl_off_t received, curl_off_t, curl_off_t sent) {
  auto& x = *static_cast<Exchange*>(user);
  const auto now = std::chrono::steady_clock::now();
  if (received + sent != x.bytes) x.bytes = received + sent, x.moved = now;
  x.stalled = std::chrono::duration<double>(now - x.moved).count() >
              x.request.stall_timeout + x.request.connect_timeout * (x.bytes == 0);
  x.stopped = x.request.keep_going && !x.request.keep_going();
  return x.stopped || x.stalled;
}

Fault fault_of(CURLcode code) {
  switch (code) {
    case CURLE_OK:
      return Fault::none;
    case CURLE_COULDNT_CONNECT:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
      return Fault::connect;
    case CURLE_OPERATION_TIMEDOUT:
      return Fault::timeout;
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
    case CURLE_SSL_CONNECT_ERROR:
      return Fault::broken;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
      return Fault::certificate;
    default:
      return Fault::other;
  }
}

class Curl final : public Http {
 public:
  Curl() {
    static std::once_flag once;
    std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
    curl_ = curl_easy_init();
    if (!curl_) throw std::bad_alloc();
  }
  ~Curl() override { curl_easy_cleanup(curl_); }

  HttpResult perform(const HttpRequest& request) override {
    Exchange x{.request = request};
    Receiver receiver{&x, curl_};
    char reason[CURL_ERROR_SIZE] = {};
    curl_easy_reset(curl_);
    option(CURLOPT_ERRORBUFFER, reason);
    curl_slist* headers = prepare(request, x, receiver);
    const CURLcode code = curl_easy_perform(curl_);
    curl_slist_free_all(headers);
    long status = 0;
    curl_easy_getinfo(curl_, CURLINFO_RESPONSE_CODE, &status);
    x.result.head.status = static_cast<int>(status);
    x.result.fault = x.stopped ? Fault::stopped : x.stalled ? Fault::timeout : fault_of(code);
    if (code != CURLE_OK) x.result.problem = reason[0] ? reason : curl_easy_strerror(code);
    if (x.stalled) x.result.problem = "nothing more comes";
    if (x.failed_to_read) x.result.problem = "the file that is sent became shorter";
    return std::move(x.result);
  }

 private:
  template <class T>
  void option(CURLoption name, T value) {
    curl_easy_setopt(curl_, name, value);
  }

  curl_slist* prepare(const HttpRequest& r, Exchange& x, Receiver& receiver) {
    option(CURLOPT_URL, r.url.c_str());
    option(CURLOPT_PROTOCOLS_STR, "http,https");
    option(CURLOPT_FOLLOWLOCATION, 0L);
    option(CURLOPT_NOSIGNAL, 1L);
    option(CURLOPT_SSL_VERIFYPEER, 1L);
    option(CURLOPT_SSL_VERIFYHOST, 2L);
    if (!r.ca_file.empty()) option(CURLOPT_CAINFO, r.ca_file.c_str());
    option(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(r.connect_timeout * 1000));
    option(CURLOPT_BUFFERSIZE, 256L << 10);
    option(CURLOPT_USERAGENT, "supersonic/" SUPERSONIC_VERSION);
    option(CURLOPT_HEADERFUNCTION, &on_header);
    option(CURLOPT_HEADERDATA, &x);
    option(CURLOPT_WRITEFUNCTION, &on_write);
    option(CURLOPT_WRITEDATA, &receiver);
    option(CURLOPT_NOPROGRESS, 0L);
    option(CURLOPT_XFERINFOFUNCTION, &on_progress);
    option(CURLOPT_XFERINFODATA, &x);
    prepare_body(r, x);
    curl_slist* headers = curl_slist_append(nullptr, "Expect:");
    for (const std::string& header : r.headers)
      headers = curl_slist_append(headers, header.c_str());
    option(CURLOPT_HTTPHEADER, headers);
    return headers;
  }

  void prepare_body(const HttpRequest& r, Exchange& x) {
    if (r.method != "POST" && r.method != "PUT") return;
    const std::uint64_t bytes = r.file >= 0 ? r.file_bytes : r.body.size();
    if (r.method == "POST") {
      option(CURLOPT_POST, 1L);
      option(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(bytes));
    } else {
      option(CURLOPT_UPLOAD, 1L);
      option(CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(bytes));
    }
    option(CURLOPT_READFUNCTION, &on_read);
    option(CURLOPT_READDATA, &x);
    option(CURLOPT_SEEKFUNCTION, &on_seek);
    option(CURLOPT_SEEKDATA, &x);
  }

  CURL* curl_ = nullptr;
};

class Evp final : public Digest {
 public:
  explicit Evp(Kind kind) : context_(EVP_MD_CTX_new()) {
    if (!context_) throw std::bad_alloc();
    EVP_DigestInit_ex(context_, kind == Kind::sha1 ? EVP_sha1() : EVP_sha256(), nullptr);
  }
  ~Evp() override { EVP_MD_CTX_free(context_); }
  void update(std::span<const std::byte> bytes) override {
    EVP_DigestUpdate(context_, bytes.data(), bytes.size());
  }
  std::string hex() override {
    unsigned char value[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    EVP_DigestFinal_ex(context_, value, &size);
    std::string out;
    for (unsigned i = 0; i < size; ++i)
      for (const int digit : {value[i] >> 4, value[i] & 15}) out += "0123456789abcdef"[digit];
    return out;
  }

 private:
  EVP_MD_CTX* context_;
};

}  // namespace

extern "C" {
__attribute__((visibility("default"))) Http* supersonic_open_http() { return new Curl; }
__attribute__((visibility("default"))) Digest* supersonic_open_digest(Digest::Kind kind) {
  return new Evp(kind);
}
}

}  // namespace supersonic::hub
