// Speaks the hub's protocol: asks, follows redirects, tries again, and turns what the hub answers
// into values or into an error with a remedy. One Client is used by one thread.
//
// Who sees the token: requests to the endpoint's own scheme, host and port, and nobody else,
// wherever a redirect or an upload address leads. Over plain http it goes to this machine alone.
#pragma once
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "hub/http.h"
#include "hub/listing.h"
#include "hub/settings.h"
#include "hub/url.h"

namespace supersonic::hub {

// What a request is about, for messages.
struct Subject {
  std::string repo, revision, path;
  std::string text() const;
};

// How a long transfer speaks to whoever waits for it. All may be empty; they may be called from any
// thread.
struct Watch {
  std::function<void(const std::string&)> say;  // a line about a delay
  std::function<bool()> keep_going;             // false: stop
  bool goes_on() const { return !keep_going || keep_going(); }
};

class Client {
 public:
  Client(const Settings& settings, const Watch& watch);

  std::string commit_of(const std::string& repo, const std::string& revision);
  std::vector<RepoFile> tree(const std::string& repo, const std::string& commit);
  // A small text file of a repository; empty where there is none.
  std::string text_file(const std::string& repo, const std::string& commit, const std::string& path,
                        std::size_t limit);

  // One exchange with redirects followed, no second try. on_body sees the last answer alone.
  HttpResult exchange(HttpRequest request);
  // The same, tried again where that may help; the body as text of at most `limit` bytes.
  HttpResult attempt(const HttpRequest& request, std::string& body, std::size_t limit);
  // POST of a document; the answer must be 2xx.
  std::string post(const std::string& url, const std::string& body, const std::string& type,
                   const Subject& subject, const std::vector<std::string>& headers = {});

  // Waits before try number `tries` (from 1), as long as the answer asks or doubling from 0.25 s.
  // Throws Error(interrupted) when the watch says stop; returns false after the last try.
  bool wait(const HttpResult& result, int tries, const std::string& what);
  static bool worth_another_try(const HttpResult& result);
  [[noreturn]] void refuse(const HttpResult& result, const Subject& subject);

  const Settings& settings() const { return settings_; }
  const Watch& watch() const { return watch_; }
  bool trusted(const std::string& url) const;  // of the endpoint itself
  std::string api(const std::string& repo) const {
    return settings_.endpoint + "/api/models/" + repo;
  }

 private:
  std::string get(const std::string& url, const Subject& subject, std::string* next = nullptr);
  [[noreturn]] void refuse_status(const HttpResult& result, const Subject& subject);
  [[noreturn]] void refuse_missing(const Subject& subject, const std::string& code);
  std::string near_revisions(const Subject& subject);

  const Settings& settings_;
  const Watch& watch_;
  std::unique_ptr<Http> http_;
  bool token_allowed_ = false;
};

}  // namespace supersonic::hub
