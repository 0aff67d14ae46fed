// A folder or file to a repository on the hub: large files to its store first (LFS, in parts where
// the hub asks for parts), then one commit that makes all of them visible at once. What the hub has
// already is not sent again, and an answer that was lost is not answered by a second commit.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "hub/client.h"

namespace supersonic::hub {

struct PushFile {
  std::string path;    // in the repository
  std::string source;  // on this machine; empty: `content` is it
  std::string content;
  std::uint64_t size = 0;
  std::string sha256, git_sha1;
  bool large = false;      // the hub wants it in its store
  bool unchanged = false;  // the hub has this content under this path
  bool ignored = false;    // by the repository's .gitignore
};

struct PushOptions {
  std::string repo, revision = "main", message;
  bool is_private = false, create_pr = false;
  int jobs = 4;
};

struct PushResult {
  std::string commit, url, pull_request;
  std::size_t files = 0;         // in the commit
  std::uint64_t bytes_sent = 0;  // of large files
  bool nothing_new = false;
};

class Push {
 public:
  Push(const Settings& settings, PushOptions options, const Watch& watch);
  // Makes the repository where there is none; then its head commit is known.
  void open_repository();
  bool has_file(const std::string& path) const;  // in the revision that is pushed to
  using Progress = std::function<void(std::uint64_t done, std::uint64_t total)>;
  void hash(std::vector<PushFile>& files, const Progress& progress);
  PushResult send(std::vector<PushFile>& files, const Progress& progress);

 private:
  void ask_modes(std::vector<PushFile>& files);
  std::uint64_t upload(std::vector<PushFile>& files, const Progress& progress);
  PushResult commit(const std::vector<PushFile>& files);
  bool arrived(const std::vector<PushFile>& files);
  std::string commit_body(const std::vector<PushFile>& files) const;
  Subject subject(const std::string& path = "") const {
    return {options_.repo, options_.revision, path};
  }

  const Settings& settings_;
  PushOptions options_;
  const Watch& watch_;
  Client client_;
  std::string head_;
  std::vector<RepoFile> tree_;
};

}  // namespace supersonic::hub
