// The hub's cache on this machine, in the layout that huggingface_hub has, so that each finds what
// the other has downloaded:
//
//   models--OWNER--NAME/blobs/ETAG                      content, named by its hash
//   models--OWNER--NAME/snapshots/COMMIT/PATH           relative link to a blob, or the file itself
//   models--OWNER--NAME/refs/BRANCH                     the commit, as text
//   .locks/models--OWNER--NAME/ETAG.lock                flock(2) of whoever writes that blob
//
// A snapshot's file that exists is whole: blobs get their names, and links are made, when the
// content is complete and its hash right. Below snapshots, folders are never entered through a
// symbolic link.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "hub/listing.h"
#include "hub/name.h"
#include "hub/settings.h"

namespace supersonic::hub {

struct CachedSnapshot {
  std::string commit;
  std::vector<std::string> refs;                 // branches and tags that point to it
  std::vector<RepoFile> files;                   // etag empty: no link but a file
  std::int64_t last_used = 0, last_changed = 0;  // seconds since 1970
  std::uint64_t bytes() const;
};

struct CachedRepo {
  std::string owner, name, folder;
  std::vector<CachedSnapshot> snapshots;
  std::uint64_t bytes = 0;       // on the disk: each blob counts once
  std::uint64_t unfinished = 0;  // bytes of downloads that did not end
  std::string repo() const { return owner + "/" + name; }
};

class Cache {
 public:
  explicit Cache(const Settings& settings);

  const std::string& root() const { return root_; }
  std::string folder(const std::string& repo) const;  // models--OWNER--NAME
  std::string blob(const std::string& repo, const std::string& etag) const;
  std::string snapshot(const std::string& repo, const std::string& commit) const;

  // The commit of a revision whose snapshot is there.
  std::optional<std::string> commit_of(const std::string& repo, const std::string& revision) const;
  std::vector<RepoFile> files(const std::string& repo, const std::string& commit) const;
  std::vector<CachedRepo> list() const;  // sorted by name
  std::optional<CachedRepo> find(const std::string& repo) const;

  void prepare(const std::string& repo) const;  // makes the folders, and CACHEDIR.TAG
  void set_ref(const std::string& repo, const std::string& revision,
               const std::string& commit) const;
  // Puts the blob under its path into the snapshot: a link, or where there are none the file
  // itself.
  void place(const std::string& repo, const std::string& commit, const RepoFile& file) const;
  bool has(const std::string& repo, const std::string& commit, const RepoFile& file) const;
  // Notes that the files are used now (their blobs' access time), where that may be noted.
  static void touch(const std::string& path);

 private:
  CachedRepo read_repo(const std::string& folder_name) const;
  std::string root_;
  bool symlinks_ = true;
};

// Waits for, and holds, the lock of a blob. `say` hears once that there is somebody to wait for.
class BlobLock {
 public:
  template <class Say, class GoesOn>
  BlobLock(const Cache& cache, const std::string& repo, const std::string& etag, Say&& say,
           GoesOn&& goes_on)
      : path_(lock_path(cache, repo, etag)) {
    for (bool said = false; !try_lock(); said = true) {
      if (!said) say();
      if (!goes_on()) stop();
      pause();
    }
  }
  ~BlobLock();
  BlobLock(const BlobLock&) = delete;

  static std::string lock_path(const Cache& cache, const std::string& repo,
                               const std::string& etag);
  // Whether somebody holds a lock of this repository's blobs at this moment.
  static bool any(const Cache& cache, const std::string& repo);

 private:
  bool try_lock();
  static void pause();
  [[noreturn]] static void stop();
  std::string path_;
  int fd_ = -1;
};

// Makes the folders of a relative path below `root`, none of which may be a symbolic link.
void make_folders_below(const std::string& root, const std::string& relative);

}  // namespace supersonic::hub
