// Every part of every file is a task of its own for the workers; a file is closed and verified when
// its parts are there. See the header.
#include "hub/upload.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <deque>
#include <map>

#include "core/error.h"
#include "hub/name.h"
#include "hub/workers.h"
#include "io/json_fields.h"
#include "io/json_tree.h"

namespace supersonic::hub {
namespace {

using io::JsonTree;
using io::JsonView;
constexpr std::size_t kFilesOfABatch = 256, kMostParts = 10'000;
constexpr const char* kLfs = "application/vnd.git-lfs+json";

struct Part {
  std::size_t file = 0;  // index of the Transfer
  std::string url, etag;
  std::uint64_t offset = 0, bytes = 0;
};

struct Transfer {
  PushFile* file = nullptr;
  int fd = -1;
  std::vector<std::string> headers;   // of a single PUT
  std::string close_url, verify_url;  // empty: none
  std::vector<std::string> verify_headers;
  Transfer() = default;
  Transfer(Transfer&& o) noexcept
      : file(o.file),
        fd(std::exchange(o.fd, -1)),
        headers(std::move(o.headers)),
        close_url(std::move(o.close_url)),
        verify_url(std::move(o.verify_url)),
        verify_headers(std::move(o.verify_headers)) {}
  ~Transfer() {
    if (fd >= 0) ::close(fd);
  }
};

// An address that the hub gave: http(s), and never http where the hub itself has https.
std::string address(JsonView action, const Client& client, const std::string& source) {
  const std::string href = io::JsonFields(action, source).string("href").value_or("");
  const std::string checked =
      redirected(client.settings().endpoint, at_endpoint(href, client.settings().endpoint));
  CHECK_FILE(!checked.empty(), "{}: \"{}\" is no address to send to", source, printable(href, 120));
  return checked;
}

bool plain_header(const std::string& name, const std::string& value) {
  const auto ok = [](const std::string& s) {
    return s.find_first_of(std::string_view("\r\n\0", 3)) == s.npos;
  };
  return !name.empty() && name.find(':') == name.npos && ok(name) && ok(value);
}

std::vector<std::string> headers_of(JsonView action) {
  std::vector<std::string> out;
  for (const auto& [name, value] : action.find("header").members())
    if (const auto text = value.text(); text && plain_header(name, *text))
      out.push_back(name + ": " + *text);
  return out;
}

// chunk_size and the numbered addresses of a multipart upload.
std::vector<Part> parts_of(JsonView action, const PushFile& file, std::size_t index,
                           const std::string& source) {
  const JsonView header = action.find("header"), size = header.find("chunk_size");
  std::uint64_t chunk = 0;
  if (size.is_integer())
    chunk = static_cast<std::uint64_t>(std::max<std::int64_t>(size.integer().value_or(0), 0));
  if (const auto text = size.text())
    std::from_chars(text->data(), text->data() + text->size(), chunk);
  CHECK_FILE(chunk > 0, "{}: chunk_size is no size", source);
  std::map<std::uint64_t, std::string> urls;
  for (const auto& [name, value] : header.members()) {
    std::uint64_t number = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
    const auto url = value.text();
    if (error == std::errc{} && end == name.data() + name.size() && url) urls[number] = *url;
  }
  const std::uint64_t wanted = (file.size - 1) / chunk + 1;
  CHECK_FILE(urls.size() == wanted && wanted <= kMostParts,
             "{}: {} addresses for the {} parts of {}", source, urls.size(), wanted, file.path);
  std::vector<Part> parts;
  for (const auto& [number, url] : urls) {
    const std::uint64_t offset = parts.size() * chunk;
    parts.push_back({index, url, "", offset, std::min(chunk, file.size - offset)});
  }
  return parts;
}

class Uploads {
 public:
  Uploads(const Settings& settings, const Watch& watch, Client& client, const PushOptions& options)
      : settings_(settings),
        watch_(watch),
        client_(client),
        options_(options),
        url_(settings.endpoint + "/" + options.repo + ".git/info/lfs/objects/batch") {}

  void ask(const std::vector<PushFile*>& files, std::size_t begin) {
    JsonTree objects = JsonTree::array();
    std::map<std::string, PushFile*> by_hash;
    for (std::size_t i = begin; i < std::min(files.size(), begin + kFilesOfABatch); ++i) {
      if (!by_hash.emplace(files[i]->sha256, files[i]).second) continue;  // the same content twice
      objects.push_back(object_of(*files[i]));
    }
    const JsonTree question =
        JsonTree::object({{"hash_algo", "sha256"},
                          {"objects", objects},
                          {"operation", "upload"},
                          {"ref", JsonTree::object({{"name", options_.revision}})},
                          {"transfers", JsonTree::array({"basic", "multipart"})}});
    const io::JsonDocument answer(client_.post(url_, question.dump(), kLfs, subject("")), url_);
    const JsonView answers = answer.root().find("objects");
    CHECK_FILE(answers.is_array(), "{}: the answer has no list of objects", url_);
    std::size_t answered = 0;
    for (const JsonView& object : answers.items()) {
      const auto it = by_hash.find(io::JsonFields(object, url_).string("oid").value_or(""));
      if (it == by_hash.end()) continue;
      add(object, *it->second);
      ++answered;
    }
    CHECK_FILE(answered == by_hash.size(), "{}: answers for {} of {} files", url_, answered,
               by_hash.size());
  }

  std::uint64_t run(const Push::Progress& progress) {
    for (const Part& p : parts_) total_ += p.bytes;
    run_workers(
        settings_, watch_, parts_.size(), options_.jobs,
        [&](Client& client, std::size_t i) { send(client, parts_[i]); },
        [&] {
          if (progress && total_) progress(std::min<std::uint64_t>(sent_, total_), total_);
        });
    for (std::size_t i = 0; i < transfers_.size(); ++i) close(transfers_[i], i);
    return total_;
  }

 private:
  Subject subject(const std::string& path) const {
    return {options_.repo, options_.revision, path};
  }

  static JsonTree object_of(const PushFile& f) {
    return JsonTree::object({{"oid", f.sha256}, {"size", f.size}});
  }

  void add(JsonView object, PushFile& file) {
    if (object.contains("error")) {
      const io::JsonFields error = io::JsonFields(object, url_).object("error");
      fail(ErrorKind::network, "{}: the hub does not take it: {}", file.path,
           printable(error.string("message").value_or("")));
    }
    const JsonView actions = object.find("actions"), action = actions.find("upload");
    if (!action) return;  // it is there
    Transfer t;
    t.file = &file;
    t.fd = ::open(file.source.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat info {};
    CHECK_FILE(t.fd >= 0 && ::fstat(t.fd, &info) == 0 &&
                   static_cast<std::uint64_t>(info.st_size) == file.size,
               "{}: changed or vanished while it was being sent", file.source);
    const std::string target = address(action, client_, url_);
    const bool many = action.find("header").contains("chunk_size");
    if (many) {
      t.close_url = target;
      for (Part& p : parts_of(action, file, transfers_.size(), url_))
        parts_.push_back(std::move(p));
    } else {
      t.headers = headers_of(action);
      parts_.push_back({transfers_.size(), target, "", 0, file.size});
    }
    if (const JsonView verify = actions.find("verify")) {
      t.verify_url = address(verify, client_, url_);
      t.verify_headers = headers_of(verify);
    }
    transfers_.push_back(std::move(t));
  }

  void send(Client& client, Part& part) {
    const Transfer& t = transfers_[part.file];
    const std::string target = redirected(settings_.endpoint, part.url);
    CHECK_FILE(!target.empty(), "{}: \"{}\" is no address to send to", url_,
               printable(part.url, 120));
    for (int tries = 1;; ++tries) {
      HttpRequest request;
      request.method = "PUT", request.url = target, request.headers = t.headers;
      request.file = t.fd, request.file_offset = part.offset, request.file_bytes = part.bytes;
      request.stall_timeout = 60;
      std::uint64_t before = 0;
      request.on_sent = [&](std::uint64_t n) { sent_ += n - before, before = n; };
      const HttpResult result = client.exchange(std::move(request));
      if (result.fault == Fault::none && result.head.status / 100 == 2) {
        part.etag = result.head.field("etag");
        return;
      }
      sent_ -= before;
      if (!Client::worth_another_try(result) || !client.wait(result, tries, t.file->path))
        client.refuse(result, subject(t.file->path));
    }
  }

  void close(const Transfer& t, std::size_t index) {
    if (!t.close_url.empty()) {
      JsonTree parts = JsonTree::array();
      for (const Part& p : parts_) {
        if (p.file != index) continue;
        CHECK_FILE(!p.etag.empty(), "{}: the store did not name a part of {}", url_, t.file->path);
        parts.push_back(JsonTree::object({{"etag", p.etag}, {"partNumber", parts.size() + 1}}));
      }
      const JsonTree body = JsonTree::object({{"oid", t.file->sha256}, {"parts", parts}});
      client_.post(t.close_url, body.dump(), kLfs, subject(t.file->path));
    }
    if (!t.verify_url.empty()) {
      client_.post(t.verify_url, object_of(*t.file).dump(), kLfs, subject(t.file->path),
                   t.verify_headers);
    }
  }

  const Settings& settings_;
  const Watch& watch_;
  Client& client_;
  const PushOptions& options_;
  std::string url_;
  std::vector<Transfer> transfers_;
  std::vector<Part> parts_;
  std::atomic<std::uint64_t> sent_{0};
  std::uint64_t total_ = 0;
};

}  // namespace

std::uint64_t upload_large(const Settings& settings, const Watch& watch, Client& client,
                           const PushOptions& options, const std::vector<PushFile*>& files,
                           const Push::Progress& progress) {
  if (files.empty()) return 0;
  Uploads uploads(settings, watch, client, options);
  for (std::size_t begin = 0; begin < files.size(); begin += kFilesOfABatch)
    uploads.ask(files, begin);
  return uploads.run(progress);
}

}  // namespace supersonic::hub
