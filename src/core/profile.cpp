#include "core/profile.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

namespace supersonic::profile {
namespace {

struct Row {
  std::string kernel, step;
  double seconds = 0, shortest = 1e30;  // of all calls, of one
  double undisturbed = 0;  // as long as if each call had taken the shortest time of its kind
  long calls = 0;
};

constexpr const char* kHeader = "   seconds    share     calls    us/call   shortest";

void print_row(const Row& r, double total) {
  fmt::print(stderr, "{:>10.3f} {:>6.1f} % {:>9} {:>10.1f} {:>10.1f}  {}\n", r.seconds,
             100 * r.seconds / std::max(total, 1e-30), r.calls,
             1e6 * r.seconds / static_cast<double>(r.calls), 1e6 * r.shortest, r.step);
}

class Table {
 public:
  ~Table() {
    std::erase_if(rows_, [](const Row& r) { return r.calls == 0; });
    if (rows_.empty()) return;
    double total = 0, undisturbed = 0;
    std::map<std::string, Row> by_kernel;
    for (const Row& r : rows_) {
      Row& sum = by_kernel[r.kernel];
      sum.step = r.kernel;
      sum.seconds += r.seconds;
      sum.undisturbed += r.shortest * static_cast<double>(r.calls);
      sum.calls += r.calls;
      total += r.seconds;
      undisturbed += r.shortest * static_cast<double>(r.calls);
    }
    std::vector<Row> kernels;
    for (auto& [name, row] : by_kernel) {
      row.shortest = row.undisturbed / static_cast<double>(row.calls);
      kernels.push_back(row);
    }
    fmt::print(stderr,
               "profile: {:.3f} s in kernels, {:.3f} s had every call been as fast as the fastest "
               "of its step\n{}  kernel\n",
               total, undisturbed, kHeader);
    print(kernels, total);
    fmt::print(stderr, "{}  step\n", kHeader);
    print(rows_, total);
  }

  int find(const std::string& kernel, const std::string& step) {
    const std::lock_guard lock(mutex_);
    for (std::size_t i = 0; i < rows_.size(); ++i)
      if (rows_[i].step == step) return static_cast<int>(i);
    rows_.push_back(Row{kernel, step});
    return static_cast<int>(rows_.size()) - 1;
  }

  void add(int row, double seconds) {
    const std::lock_guard lock(mutex_);
    rows_[row].seconds += seconds;
    rows_[row].shortest = std::min(rows_[row].shortest, seconds);
    ++rows_[row].calls;
  }

 private:
  static void print(std::vector<Row>& rows, double total) {
    std::sort(rows.begin(), rows.end(),
              [](const Row& a, const Row& b) { return a.seconds > b.seconds; });
    for (const Row& r : rows) print_row(r, total);
  }

  std::mutex mutex_;
  std::vector<Row> rows_;
};

Table& table() {
  static Table made;
  return made;
}

const char* kernel_name(const Step& s) {
  return s.copy ? "copy" : s.form ? s.form->name : s.kernel->name;
}

// A label without the folders of its file: "Gemm' (linear.cpp:42)".
std::string short_label(const std::string& label) {
  const auto bracket = label.find('('), slash = label.rfind('/');
  if (bracket == std::string::npos || slash == std::string::npos || slash < bracket) return label;
  return label.substr(0, bracket + 1) + label.substr(slash + 1);
}

}  // namespace

bool enabled() {
  static const bool on = [] {
    const char* v = std::getenv("SUPERSONIC_PROFILE");
    return v && *v && *v != '0';
  }();
  return on;
}

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int row_of(const Step& s) {
  std::string step = fmt::format("{}  {} ", kernel_name(s), short_label(s.label));
  for (const Operand& o : s.problem.out) step += " " + to_string(o.spec);
  step += " <-";
  for (const Operand& i : s.problem.in) step += " " + to_string(i.spec);
  return table().find(kernel_name(s), step);
}

void add(int row, double seconds) { table().add(row, seconds); }

}  // namespace supersonic::profile
