// What the hub or the network refuses, said so that a person knows what to do next.
#include "core/error.h"
#include "core/nearest.h"
#include "hub/client.h"
#include "hub/name.h"
#include "io/json.h"

namespace supersonic::hub {
namespace {

std::string how_to_log_in(const Settings& s) {
  return fmt::format(
      "set HF_TOKEN to a token from {}/settings/tokens, or write it to the file that HF_TOKEN_PATH "
      "names",
      s.endpoint);
}

}  // namespace

void Client::refuse(const HttpResult& r, const Subject& subject) {
  const std::string problem = printable(r.problem);
  switch (r.fault) {
    case Fault::none:
      refuse_status(r, subject);
    case Fault::stopped:
      fail(ErrorKind::interrupted, "interrupted");
    case Fault::certificate:
      fail(ErrorKind::network,
           "{}: the certificate of the server is not accepted: {}; where a proxy signs anew, "
           "name its certificates with SSL_CERT_FILE",
           subject.text(), problem);
    case Fault::connect:
      fail(ErrorKind::network,
           "{}: cannot reach {}: {}; check the network and the proxy (HTTPS_PROXY), or give "
           "--offline to use what is cached",
           subject.text(), settings_.endpoint, problem);
    case Fault::timeout:
      fail(ErrorKind::network,
           "{}: {}; the server was silent for {:.0f} s (HF_HUB_DOWNLOAD_TIMEOUT): try again later, "
           "what is "
           "there is kept",
           subject.text(), problem, settings_.stall_timeout);
    case Fault::broken:
    case Fault::other:
      break;
  }
  fail(ErrorKind::network,
       "{}: the transfer broke off: {}; the same command goes on where it stopped", subject.text(),
       problem);
}

void Client::refuse_status(const HttpResult& r, const Subject& subject) {
  const std::string code = r.head.field("x-error-code"),
                    page = settings_.endpoint + "/" + subject.repo;
  const std::string said = printable(r.head.field("x-error-message"));
  const int status = r.head.status;
  if (code == "GatedRepo")
    fail(ErrorKind::network, "{}: is gated: accept its conditions at {}, then {}{}", subject.text(),
         page, how_to_log_in(settings_),
         token_allowed_ ? fmt::format(" (the account of the token from {} has no access)",
                                      settings_.token_source)
                        : "");
  if (!settings_.token.empty() && !token_allowed_ && (status == 401 || status == 403))
    fail(ErrorKind::network,
         "{}: the hub wants a login ({}), and a token is not sent over plain http: use an "
         "HF_ENDPOINT with https",
         subject.text(), status);
  if (status == 401 && token_allowed_)
    fail(ErrorKind::network,
         "{}: not there, private, or the token from {} is not accepted ({}): check the name at {}, "
         "and the token at "
         "{}/settings/tokens",
         subject.text(), settings_.token_source, status, page, settings_.endpoint);
  if (status == 401)
    fail(ErrorKind::network,
         "{}: not there, or private: check the name at {}; for a private model {}", subject.text(),
         page, how_to_log_in(settings_));
  if (status == 403)
    fail(ErrorKind::network,
         "{}: forbidden{}: the token from {} lacks the permission (reading, or writing for push)",
         subject.text(), said.empty() ? "" : fmt::format(" ({})", said),
         token_allowed_ ? settings_.token_source : "HF_TOKEN, which is not set,");
  if (status == 404) refuse_missing(subject, code);
  if (status == 429)
    fail(ErrorKind::network,
         "{}: the hub limits how often it is asked (429): try again in a few minutes{}",
         subject.text(), token_allowed_ ? "" : "; it asks less of those with a token (HF_TOKEN)");
  fail(ErrorKind::network, "{}: the hub answers {}{}: {}", subject.text(), status,
       said.empty() ? "" : fmt::format(" ({})", said),
       status >= 500 ? "it has a problem of its own, try again later"
                     : "this was not expected; is HF_ENDPOINT a hub?");
}

void Client::refuse_missing(const Subject& subject, const std::string& code) {
  if (code == "RevisionNotFound" || (code.empty() && subject.revision != "main" &&
                                     subject.path.empty() && !is_commit(subject.revision)))
    fail(ErrorKind::network, "{}: there is no branch, tag or commit '{}'{}", subject.repo,
         subject.revision, near_revisions(subject));
  if (code == "EntryNotFound")
    fail(ErrorKind::network, "{}: there is no such file in this revision", subject.text());
  fail(ErrorKind::network,
       "{}: there is no such model: check the name at {}/models?search={}; for a private model {}",
       subject.text(), settings_.endpoint,
       url_segment(subject.repo.substr(subject.repo.find('/') + 1)), how_to_log_in(settings_));
}

// "; did you mean …? there is …": the branches and tags of the repository. Says nothing where they
// cannot be had: the error that this explains is the one to report.
std::string Client::near_revisions(const Subject& subject) {
  std::string body;
  HttpRequest request;
  request.url = api(subject.repo) + "/refs";
  const HttpResult result = attempt(request, body, std::size_t{4} << 20);
  if (result.fault != Fault::none || result.head.status != 200) return {};
  std::vector<std::string> names;
  try {
    const io::JsonDocument document(body, request.url);
    for (const char* kind : {"branches", "tags"})
      for (const io::JsonView& item : document.root().find(kind).items())
        if (const auto name = item.find("name").text()) names.push_back(*name);
  } catch (const std::exception&) {
    return {};
  }
  const std::string meant = nearest(subject.revision, names);
  std::string out = meant.empty() ? "" : fmt::format("; did you mean '{}'?", printable(meant));
  for (std::size_t i = 0; i < names.size() && i < 12; ++i)
    out += (i ? ", " : "; there is ") + printable(names[i], 80);
  return out;
}

}  // namespace supersonic::hub
