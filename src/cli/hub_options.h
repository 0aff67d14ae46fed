// What the commands that deal with the hub share: their options, sizes and times for people, and
// the line of progress.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "cli/options.h"
#include "cli/progress.h"
#include "hub/client.h"
#include "hub/settings.h"

namespace supersonic::cli {

struct HubOptions {
  bool offline = false;
  int connections = 4, retries = 5;
  void options(Options& o, bool has_offline);
  hub::Settings settings() const;  // the environment's, with these
};

// Says on stderr what a transfer waits for, below the line of progress; stops at Ctrl-C.
hub::Watch watch_transfers(std::optional<Progress>& progress);
// Shows `done` of `total` bytes, where there is enough to show.
void show_bytes(std::optional<Progress>& progress, std::string_view label, std::uint64_t done,
                std::uint64_t total, std::string_view note = {});

std::string size_text(std::uint64_t bytes);                    // "1.25 GiB", "93.0 MiB", "12 kB"
std::string age_text(std::int64_t seconds, std::int64_t now);  // "3 days ago"

}  // namespace supersonic::cli
