// One writer a folder: while a FolderLock lives, no other process gets one for the same folder. The
// kernel drops it with the process, however that ends, so no stale lock can remain. File systems
// that have no locks are taken as they are.
#pragma once
#include <string>

namespace supersonic::io {

class FolderLock {
 public:
  // The folder must exist. Throws Error(failure) when another process holds its lock.
  explicit FolderLock(const std::string& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;

 private:
  int fd_ = -1;
};

}  // namespace supersonic::io
