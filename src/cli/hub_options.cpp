#include "cli/hub_options.h"

#include <fmt/core.h>

#include "cli/console.h"
#include "core/interrupt.h"

namespace supersonic::cli {
namespace {

constexpr std::uint64_t kShownBytes = std::uint64_t{4} << 20;

}  // namespace

void HubOptions::options(Options& o, bool has_offline) {
  o.group("Network");
  if (has_offline)
    o.add("offline", offline, "Use what is in the cache alone; also HF_HUB_OFFLINE=1");
  o.add("connections", connections, "Transfers at a time").range(1, 32);
  o.add("retries", retries,
        "Tries after a failed one, with growing pauses, as long as nothing comes")
      .range(0, 100);
}

hub::Settings HubOptions::settings() const {
  hub::Settings s = hub::read_settings();
  s.offline |= offline;
  s.retries = retries;
  return s;
}

hub::Watch watch_transfers(std::optional<Progress>& progress) {
  return {.say =
              [&progress](const std::string& text) {
                if (progress) progress->clear();
                log_text(Level::info, text);
              },
          .keep_going = [] { return !interrupted(); }};
}

void show_bytes(std::optional<Progress>& progress, std::string_view label, std::uint64_t done,
                std::uint64_t total, std::string_view note) {
  if (total < kShownBytes) return;
  if (!progress) progress.emplace(label, "B", total, done);
  progress->update(done, note);
}

std::string size_text(std::uint64_t bytes) {
  const auto n = static_cast<double>(bytes);
  if (n >= 0x1p30) return fmt::format("{:.2f} GiB", n / 0x1p30);
  if (n >= 0x1p20) return fmt::format("{:.1f} MiB", n / 0x1p20);
  return n >= 1024 ? fmt::format("{:.1f} KiB", n / 1024) : fmt::format("{} bytes", bytes);
}

std::string age_text(std::int64_t seconds, std::int64_t now) {
  const std::int64_t age = std::max<std::int64_t>(0, now - seconds);
  const auto ago = [](std::int64_t n, const char* unit) {
    return fmt::format("{} {}{} ago", n, unit, n == 1 ? "" : "s");
  };
  if (age < 60) return "just now";
  if (age < 3600) return ago(age / 60, "minute");
  if (age < 86400) return ago(age / 3600, "hour");
  return ago(age / 86400, "day");
}

}  // namespace supersonic::cli
