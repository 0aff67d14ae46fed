// Where the hub is, where its cache lies and how it is spoken to: the environment variables that
// huggingface_hub reads, with the same meaning.
//
//   HF_ENDPOINT                  https://huggingface.co
//   HF_HUB_CACHE, HF_HOME        the cache; else $XDG_CACHE_HOME/huggingface/hub, ~/.cache/…
//   HF_TOKEN, HF_TOKEN_PATH      the token, or its file (else $HF_HOME/token)
//   HF_HUB_OFFLINE               1: no network          HF_HUB_DISABLE_IMPLICIT_TOKEN  1: no token
//   HF_HUB_DOWNLOAD_TIMEOUT      seconds without a byte before a transfer counts as broken
//   HF_HUB_DISABLE_SYMLINKS      1: files in snapshots instead of links to blobs
#pragma once
#include <functional>
#include <string>

namespace supersonic::hub {

struct Settings {
  std::string endpoint = "https://huggingface.co";  // no slash at the end
  std::string cache;                                // the folder with models--OWNER--NAME
  std::string token;                                // empty: none
  std::string token_source;                         // for messages: "HF_TOKEN", or the file
  bool offline = false, symlinks = true;
  double connect_timeout = 10, stall_timeout = 10;  // seconds
  int retries = 5;                                  // tries after the first one, without progress
  std::string ca_file;                              // empty: the system's certificates
};

using Environment = std::function<const char*(const char*)>;
// Throws Error(usage) where a variable cannot be used.
Settings read_settings(const Environment& environment);
Settings read_settings();
// The cache's part of it alone: the endpoint and the token are not looked at.
Settings read_cache_settings(const Environment& environment);
Settings read_cache_settings();

}  // namespace supersonic::hub
