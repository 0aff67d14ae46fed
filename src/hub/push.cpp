// Repository, modes, commit; the store is spoken to in upload.cpp. See the header.
#include "hub/push.h"

#include <algorithm>
#include <filesystem>
#include <map>

#include "core/error.h"
#include "hub/download.h"
#include "hub/name.h"
#include "hub/upload.h"
#include "io/json_fields.h"
#include "io/json_tree.h"
#include "io/mapped_file.h"

namespace supersonic::hub {
namespace {

using io::JsonTree;
constexpr std::size_t kFilesOfAQuestion = 256, kSample = 512, kPiece = std::size_t{4} << 20;
constexpr std::uint64_t kMostRegular = std::uint64_t{32} << 20;
constexpr const char* kJson = "application/json";

std::string dumped(const JsonTree& value) { return value.dump(-1, JsonTree::Utf8::replace); }

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t word = 0;
    const std::size_t n = std::min<std::size_t>(3, bytes.size() - i);
    for (std::size_t k = 0; k < 3; ++k)
      word = word << 8 | (k < n ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    for (std::size_t k = 0; k < 4; ++k) out += k <= n ? kDigits[word >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

// The content of a file, mapped or held.
template <class F>
void with_content(const PushFile& f, F&& use) {
  if (f.source.empty()) return use(std::string_view(f.content));
  const io::MappedFile file = io::MappedFile::open(f.source);
  CHECK_FILE(file.bytes().size() == f.size,
             "{}: changed while it was being sent: push again when nobody writes to it", f.source);
  use(file.text());
}

}  // namespace

Push::Push(const Settings& settings, PushOptions options, const Watch& watch)
    : settings_(settings), options_(std::move(options)), watch_(watch), client_(settings, watch) {
  if (settings_.token.empty())
    fail(ErrorKind::network,
         "{}: pushing needs a token that may write: set HF_TOKEN to one from {}/settings/tokens, "
         "or write it to the file "
         "that HF_TOKEN_PATH names",
         options_.repo, settings_.endpoint);
}

void Push::open_repository() {
  const std::size_t slash = options_.repo.find('/');
  JsonTree body = JsonTree::object({{"name", options_.repo.substr(slash + 1)},
                                    {"organization", options_.repo.substr(0, slash)}});
  if (options_.is_private) body.set("private", true);
  body.set("type", "model");
  const std::string text = dumped(body);
  HttpRequest request;
  request.method = "POST", request.url = settings_.endpoint + "/api/repos/create",
  request.body = text;
  request.headers = {std::string("Content-Type: ") + kJson};
  std::string answer;
  const HttpResult result = client_.attempt(request, answer, std::size_t{1} << 20);
  // 409: it is there. 403: this account may not make one, but may perhaps write to one that is
  // there.
  const int status = result.head.status;
  if (result.fault != Fault::none || (status / 100 != 2 && status != 409 && status != 403))
    client_.refuse(result, subject());
  if (status == 403) {
    HttpRequest look;
    look.url = client_.api(options_.repo);
    const HttpResult there = client_.attempt(look, answer, std::size_t{64} << 20);
    if (there.fault != Fault::none || there.head.status != 200) client_.refuse(result, subject());
  }
  head_ = client_.commit_of(options_.repo, options_.revision);
  tree_ = client_.tree(options_.repo, head_);
}

bool Push::has_file(const std::string& path) const {
  return std::any_of(tree_.begin(), tree_.end(), [&](const RepoFile& f) { return f.path == path; });
}

void Push::hash(std::vector<PushFile>& files, const Progress& progress) {
  std::uint64_t total = 0, done = 0;
  for (const PushFile& f : files) total += f.size;
  for (PushFile& f : files) {
    const auto sha256 = blob_digest(true, f.size), sha1 = blob_digest(false, f.size);
    with_content(f, [&](std::string_view bytes) {
      for (std::size_t at = 0; at < bytes.size(); at += kPiece) {
        const auto piece = std::as_bytes(std::span(bytes.substr(at, kPiece)));
        sha256->update(piece);
        if (f.size <= kMostRegular) sha1->update(piece);
        if (!watch_.goes_on()) fail(ErrorKind::interrupted, "interrupted");
        if (progress) progress(done += piece.size(), total);
      }
    });
    f.sha256 = sha256->hex();
    if (f.size <= kMostRegular) f.git_sha1 = sha1->hex();
  }
}

// Which files the hub wants in its store. What it has under the same path with the same hash is not
// sent again.
void Push::ask_modes(std::vector<PushFile>& files) {
  const std::string url = client_.api(options_.repo) + "/preupload/" +
                          url_segment(options_.revision) +
                          (options_.create_pr ? "?create_pr=1" : "");
  std::map<std::string, PushFile*> by_path;
  for (PushFile& f : files) by_path[f.path] = &f;
  std::size_t answered = 0;
  for (std::size_t begin = 0; begin < files.size(); begin += kFilesOfAQuestion) {
    JsonTree asked = JsonTree::array();
    for (std::size_t i = begin; i < std::min(files.size(), begin + kFilesOfAQuestion); ++i)
      with_content(files[i], [&](std::string_view bytes) {
        asked.push_back(JsonTree::object({{"path", files[i].path},
                                          {"sample", base64(bytes.substr(0, kSample))},
                                          {"size", files[i].size}}));
      });
    const std::string question = dumped(JsonTree::object({{"files", asked}}));
    const io::JsonDocument answer(client_.post(url, question, kJson, subject()), url);
    const io::JsonFields fields(answer, url);
    const io::JsonView answers = fields.find("files");
    CHECK_FILE(answers.is_array(), "{}: the answer has no list of files", url);
    for (const io::JsonView& item : answers.items()) {
      const io::JsonFields entry(item, url);
      const auto it = by_path.find(entry.string("path").value_or(""));
      if (it == by_path.end()) continue;
      it->second->large = entry.string("uploadMode").value_or("") == "lfs" && it->second->size > 0;
      it->second->ignored = entry.boolean("shouldIgnore").value_or(false);
      ++answered;
    }
  }
  CHECK_FILE(answered == files.size(), "{}: answers for {} of {} files", url, answered,
             files.size());
  for (PushFile& f : files) {
    CHECK(f.large || f.size <= kMostRegular,
          "{}: has {} bytes, and the hub does not want it in its store of large files: add its "
          "kind to the "
          "repository's .gitattributes",
          f.path, f.size);
    const std::string& etag = f.large ? f.sha256 : f.git_sha1;
    f.unchanged = std::any_of(tree_.begin(), tree_.end(), [&](const RepoFile& r) {
      return r.path == f.path && r.etag == etag;
    });
  }
}

std::uint64_t Push::upload(std::vector<PushFile>& files, const Progress& progress) {
  std::vector<PushFile*> wanted;
  for (PushFile& f : files)
    if (f.large && !f.unchanged && !f.ignored) wanted.push_back(&f);
  return upload_large(settings_, watch_, client_, options_, wanted, progress);
}

PushResult Push::send(std::vector<PushFile>& files, const Progress& progress) {
  ask_modes(files);
  const bool news = std::any_of(files.begin(), files.end(),
                                [](const PushFile& f) { return !f.unchanged && !f.ignored; });
  if (!news)
    return {.commit = head_,
            .url = settings_.endpoint + "/" + options_.repo,
            .pull_request = {},
            .nothing_new = true};
  const std::uint64_t sent = upload(files, progress);
  PushResult result = commit(files);
  result.bytes_sent = sent;
  return result;
}

std::string Push::commit_body(const std::vector<PushFile>& files) const {
  const auto line = [](const char* key, const JsonTree& value) {
    return dumped(JsonTree::object({{"key", key}, {"value", value}})) + "\n";
  };
  std::string body = line(
      "header", JsonTree::object(
                    {{"description", ""}, {"parentCommit", head_}, {"summary", options_.message}}));
  for (const PushFile& f : files) {
    if (f.unchanged || f.ignored) continue;
    if (f.large)
      body +=
          line("lfsFile",
               JsonTree::object(
                   {{"algo", "sha256"}, {"oid", f.sha256}, {"path", f.path}, {"size", f.size}}));
    else
      with_content(f, [&](std::string_view bytes) {
        body += line("file",
                     JsonTree::object(
                         {{"content", base64(bytes)}, {"encoding", "base64"}, {"path", f.path}}));
      });
  }
  return body;
}

// Whether the head of the revision has all of what was to be committed.
bool Push::arrived(const std::vector<PushFile>& files) {
  const std::string head = client_.commit_of(options_.repo, options_.revision);
  if (head == head_) return false;
  const auto tree = client_.tree(options_.repo, head);
  for (const PushFile& f : files) {
    if (f.unchanged || f.ignored) continue;
    const std::string& etag = f.large ? f.sha256 : f.git_sha1;
    if (std::none_of(tree.begin(), tree.end(),
                     [&](const RepoFile& r) { return r.path == f.path && r.etag == etag; }))
      return false;
  }
  head_ = head;
  return true;
}

// A commit names its parent, so that it can be made once only; where the answer is lost, the head
// tells whether it was made.
PushResult Push::commit(const std::vector<PushFile>& files) {
  const std::string body = commit_body(files), url = client_.api(options_.repo) + "/commit/" +
                                                     url_segment(options_.revision) +
                                                     (options_.create_pr ? "?create_pr=1" : "");
  PushResult out;
  out.url = settings_.endpoint + "/" + options_.repo;
  for (const PushFile& f : files) out.files += !f.unchanged && !f.ignored;
  for (int tries = 1;; ++tries) {
    HttpRequest request;
    request.method = "POST", request.url = url, request.body = body, request.stall_timeout = 120;
    request.headers = {"Content-Type: application/x-ndjson", std::string("Accept: ") + kJson};
    std::string answer;
    request.on_body = [&](const HttpHead&, std::span<const std::byte> bytes) {
      answer.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      return answer.size() < std::size_t{1} << 20;
    };
    const HttpResult result = client_.exchange(request);
    if (result.fault == Fault::none && result.head.status / 100 == 2) {
      const io::JsonDocument root(answer, url);
      const io::JsonFields fields(root, url);
      out.commit = printable(fields.string("commitOid").value_or(""));
      out.pull_request = printable(fields.string("pullRequestUrl").value_or(""));
      return out;
    }
    const bool unclear = Client::worth_another_try(result) && !options_.create_pr;
    const bool moved =
        result.fault == Fault::none && (result.head.status == 409 || result.head.status == 412);
    if ((unclear || moved) && arrived(files)) return out.commit = head_, out;
    if (moved)
      fail(ErrorKind::network,
           "{}: somebody else has changed {} meanwhile: look at it, and push again (large files "
           "are not sent twice)",
           options_.repo, options_.revision);
    if (!unclear || !client_.wait(result, tries, options_.repo)) client_.refuse(result, subject());
  }
}

}  // namespace supersonic::hub
