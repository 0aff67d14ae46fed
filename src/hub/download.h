// One file from the hub into the cache: resumable, verified, and under its name only when it is
// whole. What has come so far lies in blobs/ETAG.incomplete; whoever comes next, after a kill or a
// broken line, hashes that and asks for the rest.
#pragma once
#include <atomic>
#include <cstdint>

#include "hub/cache.h"
#include "hub/client.h"

namespace supersonic::hub {

struct Download {
  std::string repo, commit;
  RepoFile file;
};

// `arrived` counts the file's bytes that are here, those of earlier tries included; `received` what
// came over the network. Throws Error(network) where it cannot be had, Error(bad_file) where its
// hash is wrong, Error(failure) where it cannot be written.
struct Counters {
  std::atomic<std::uint64_t> arrived{0}, received{0};
};
void download(Client& client, const Cache& cache, const Download& job, Counters& counters);

// Bytes of the file that are still to come, without looking into it.
std::uint64_t missing_bytes(const Cache& cache, const Download& job);

// The hash under which the cache and the hub know a content: SHA-256, or git's SHA-1 of a blob.
std::unique_ptr<Digest> blob_digest(bool large, std::uint64_t size);

}  // namespace supersonic::hub
