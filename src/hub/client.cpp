// Requests, redirects, second tries; what is refused is explained in client_errors.cpp.
#include "hub/client.h"

#include <algorithm>
#include <charconv>
#include <thread>

#include "core/error.h"
#include "hub/name.h"
#include "io/json_fields.h"

namespace supersonic::hub {
namespace {

constexpr int kMostRedirects = 10, kMostPages = 1000;
constexpr std::size_t kMostPage = std::size_t{64} << 20, kMostProblem = std::size_t{64} << 10;
constexpr double kFirstWait = 0.25, kLongestWait = 300;
constexpr double kPatience = 120;  // seconds of silence while the hub works on what was sent

bool is_redirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

// The number after `mark` in a header's value, or -1.
double number_after(const std::string& text, std::string_view mark) {
  const std::size_t at = text.find(mark);
  double value = -1;
  if (at != text.npos)
    std::from_chars(text.data() + at + mark.size(), text.data() + text.size(), value);
  return value;
}

// Seconds that the hub asks to wait: Retry-After: 7, or RateLimit: "api";r=0;t=55.
double asked_wait(const HttpHead& head) {
  const double after = number_after(head.field("retry-after"), "");
  const double limit = head.status == 429 ? number_after(head.field("ratelimit"), ";t=") : -1;
  return std::clamp(std::max(after, limit), 0.0, kLongestWait);
}

// <https://…>; rel="next" of a Link header.
std::string next_page(const std::string& link) {
  const std::size_t mark = link.find("rel=\"next\"");
  if (mark == link.npos) return {};
  const std::size_t end = link.rfind('>', mark), begin = link.rfind('<', end);
  if (end == link.npos || begin == link.npos) return {};
  return link.substr(begin + 1, end - begin - 1);
}

}  // namespace

std::string Subject::text() const {
  return repo + (path.empty() ? "" : ":" + path) +
         (revision.empty() || revision == "main" ? "" : "@" + revision);
}

Client::Client(const Settings& settings, const Watch& watch)
    : settings_(settings), watch_(watch), http_(open_http()) {
  const std::string home = origin_of(settings_.endpoint);
  token_allowed_ =
      !settings_.token.empty() && (home.starts_with("https:") || is_this_machine(home));
}

bool Client::trusted(const std::string& url) const {
  const std::string origin = origin_of(url);
  return !origin.empty() && origin == origin_of(settings_.endpoint);
}

HttpResult Client::exchange(HttpRequest request) {
  request.connect_timeout = settings_.connect_timeout;
  request.stall_timeout = std::max(request.stall_timeout, settings_.stall_timeout);
  request.ca_file = settings_.ca_file;
  request.keep_going = watch_.keep_going;
  const auto headers = request.headers;
  if (const auto on_body = request.on_body)
    request.on_body = [on_body](const HttpHead& head, std::span<const std::byte> bytes) {
      return is_redirect(head.status) || on_body(head, bytes);
    };
  for (int hop = 0; hop <= kMostRedirects; ++hop) {
    request.headers = headers;
    if (token_allowed_ && trusted(request.url))
      request.headers.push_back("Authorization: Bearer " + settings_.token);
    HttpResult result = http_->perform(request);
    if (result.fault != Fault::none || !is_redirect(result.head.status)) return result;
    const std::string target = redirected(request.url, result.head.field("location"));
    // What is sent goes to the hub itself and to the upload addresses that it names, not further.
    const bool sends = request.method == "POST" || request.method == "PUT";
    if (target.empty() || (sends && origin_of(target) != origin_of(request.url))) {
      result.fault = Fault::other;
      result.problem = fmt::format("redirected to an address that is not followed ({})",
                                   printable(result.head.field("location"), 120));
      return result;
    }
    request.url = target;
  }
  return {.head = {}, .fault = Fault::other, .problem = "redirected in a circle"};
}

bool Client::worth_another_try(const HttpResult& r) {
  if (r.fault == Fault::connect || r.fault == Fault::timeout || r.fault == Fault::broken)
    return true;
  if (r.fault != Fault::none) return false;
  const int s = r.head.status;
  return s == 408 || s == 429 || s == 500 || s == 502 || s == 503 || s == 504;
}

bool Client::wait(const HttpResult& result, int tries, const std::string& what) {
  if (tries > settings_.retries) return false;
  const double asked = asked_wait(result.head);
  const double seconds =
      std::max(asked, kFirstWait * static_cast<double>(1u << std::min(tries - 1, 7)));
  if (watch_.say && (tries > 1 || seconds >= 1)) {
    const std::string why = result.fault == Fault::none
                                ? fmt::format("the hub answers {}", result.head.status)
                                : printable(result.problem);
    watch_.say(fmt::format("{}: {}; next try in {:.1f} s", what, why, seconds));
  }
  using Clock = std::chrono::steady_clock;
  const auto until = Clock::now() + std::chrono::duration<double>(seconds);
  while (Clock::now() < until) {
    if (!watch_.goes_on()) fail(ErrorKind::interrupted, "interrupted");
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

HttpResult Client::attempt(const HttpRequest& request, std::string& body, std::size_t limit) {
  for (int tries = 1;; ++tries) {
    body.clear();
    bool too_long = false;
    HttpRequest again = request;
    again.on_body = [&](const HttpHead& head, std::span<const std::byte> bytes) {
      const std::size_t most = head.status < 300 ? limit : kMostProblem;
      if (body.size() + bytes.size() > most) return too_long = true, head.status >= 300;
      body.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      return true;
    };
    HttpResult result = exchange(std::move(again));
    if (result.fault == Fault::stopped && !too_long) fail(ErrorKind::interrupted, "interrupted");
    if (result.fault == Fault::stopped)
      fail(ErrorKind::network, "{}: answers with over {} bytes", printable(request.url), limit);
    if (!worth_another_try(result) || !wait(result, tries, printable(origin_of(request.url))))
      return result;
  }
}

std::string Client::get(const std::string& url, const Subject& subject, std::string* next) {
  std::string body;
  HttpRequest request;
  request.url = url;
  request.headers = {"Accept: application/json"};
  const HttpResult result = attempt(request, body, kMostPage);
  if (result.fault != Fault::none || result.head.status != 200) refuse(result, subject);
  if (next) *next = next_page(result.head.field("link"));
  return body;
}

std::string Client::post(const std::string& url, const std::string& body, const std::string& type,
                         const Subject& subject, const std::vector<std::string>& headers) {
  std::string answer;
  HttpRequest request;
  request.method = "POST", request.url = url, request.body = body;
  request.headers = {"Content-Type: " + type, "Accept: application/json"};
  if (type.starts_with("application/vnd.git-lfs")) request.headers[1] = "Accept: " + type;
  request.headers.insert(request.headers.end(), headers.begin(), headers.end());
  request.stall_timeout = kPatience;
  const HttpResult result = attempt(request, answer, kMostPage);
  if (result.fault != Fault::none || result.head.status / 100 != 2) refuse(result, subject);
  return answer;
}

std::string Client::commit_of(const std::string& repo, const std::string& revision) {
  const std::string url = api(repo) + "/revision/" + url_segment(revision);
  const io::JsonDocument root(get(url, {repo, revision, ""}), url);
  const std::string commit = io::JsonFields(root, url).string("sha").value_or("");
  CHECK_FILE(is_commit(commit), "{}: \"{}\" is no commit", url, printable(commit, 80));
  return commit;
}

std::vector<RepoFile> Client::tree(const std::string& repo, const std::string& commit) {
  std::string url = api(repo) + "/tree/" + commit + "?recursive=true&expand=false";
  const std::string source = "the hub's list of the files of " + repo;
  std::vector<RepoFile> files;
  for (int page = 0; !url.empty(); ++page) {
    CHECK_FILE(page < kMostPages, "{}: over {} pages", source, kMostPages);
    std::string next;
    auto some = parse_tree(get(url, {repo, commit, ""}, &next), source);
    files.insert(files.end(), std::make_move_iterator(some.begin()),
                 std::make_move_iterator(some.end()));
    if (!next.empty()) next = redirected(url, at_endpoint(next, settings_.endpoint));
    CHECK_FILE(next.empty() || trusted(next), "{}: goes on at another host", source);
    url = next;
  }
  check_tree(files, source);
  return files;
}

std::string Client::text_file(const std::string& repo, const std::string& commit,
                              const std::string& path, std::size_t limit) {
  std::string body;
  HttpRequest request;
  request.url =
      fmt::format("{}/{}/resolve/{}/{}", settings_.endpoint, repo, commit, url_path(path));
  const HttpResult result = attempt(request, body, limit);
  if (result.fault == Fault::none && result.head.status == 404) return {};
  if (result.fault != Fault::none || result.head.status != 200)
    refuse(result, {repo, commit, path});
  return body;
}

}  // namespace supersonic::hub
