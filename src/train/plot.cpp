// Coordinates are in the units of the viewBox; long curves are thinned to the extremes of each
// pixel column.
#include "train/plot.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace supersonic::train {
namespace {

constexpr double kLeft = 62, kRight = 70, kTop = 34, kBottom = 40;
constexpr std::size_t kMaxPoints =
    1500;  // more than the pixels across: longer curves are thinned to extremes

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  void include(double v) {
    if (std::isfinite(v)) low = std::min(low, v), high = std::max(high, v);
  }
  double at(double v, double from, double to) const {
    return from + (v - low) / (high - low) * (to - from);
  }
};

void settle(Range& r) {
  if (!(r.low <= r.high)) r.low = 0, r.high = 1;
  if (r.low == r.high) {
    const double pad = r.low == 0 ? 1 : std::abs(r.low) * 0.1;
    r.low -= pad, r.high += pad;
  }
}

std::string tick_text(double v, double step) {
  if (v == 0) return "0";
  if (std::abs(v) >= 1e-3 && std::abs(v) < 1e5)
    return fmt::format("{:.{}f}", v,
                       std::max(0, static_cast<int>(std::ceil(-std::log10(step) - 1e-9))));
  return fmt::format("{:.3g}", v);
}

// Indices of the points to draw: all of them, or the lowest and highest of each bucket, so that no
// spike is lost.
std::vector<std::size_t> thinned(const std::vector<double>& y) {
  std::vector<std::size_t> out;
  const std::size_t buckets = kMaxPoints / 2, n = y.size();
  if (n <= kMaxPoints) {
    for (std::size_t i = 0; i < n; ++i) out.push_back(i);
    return out;
  }
  for (std::size_t b = 0; b < buckets; ++b) {
    const std::size_t begin = n * b / buckets, end = n * (b + 1) / buckets;
    const auto [low, high] = std::minmax_element(y.begin() + static_cast<std::ptrdiff_t>(begin),
                                                 y.begin() + static_cast<std::ptrdiff_t>(end));
    const auto i = static_cast<std::size_t>(low - y.begin()),
               j = static_cast<std::size_t>(high - y.begin());
    out.push_back(std::min(i, j));
    if (i != j) out.push_back(std::max(i, j));
  }
  out.back() = n - 1;
  return out;
}

struct Frame {
  Range x, y;
  double width, height;
  double px(double v) const { return x.at(v, kLeft, width - kRight); }
  double py(double v) const { return y.at(v, height - kBottom, kTop); }
};

void draw_axes(std::string& out, const Frame& f, const Plot& plot) {
  const auto ys = ticks(f.y.low, f.y.high, 5),
             xs = ticks(f.x.low, f.x.high, static_cast<int>(f.width / 110));
  for (double v : ys) {
    if (v < f.y.low || v > f.y.high) continue;
    out += fmt::format(
        "<line class=\"grid\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>", kLeft,
        f.width - kRight, f.py(v), f.py(v));
    out +=
        fmt::format("<text class=\"tick\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>",
                    kLeft - 8, f.py(v) + 4, tick_text(v, ys[1] - ys[0]));
  }
  for (double v : xs) {
    if (v < f.x.low || v > f.x.high) continue;
    out += fmt::format(
        "<text class=\"tick\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>", f.px(v),
        f.height - kBottom + 18, tick_text(v, xs[1] - xs[0]));
  }
  out += fmt::format(
      "<line class=\"axis\" x1=\"{0:.1f}\" x2=\"{1:.1f}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/>", kLeft,
      f.width - kRight, f.height - kBottom);
  out += fmt::format("<text class=\"tick\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>",
                     f.width - kRight, f.height - 6, escape_html(plot.x_label));
}

void draw_series(std::string& out, const Frame& f, const Series& s) {
  bool pen = false;
  std::string path, dots;
  for (std::size_t i : thinned(s.y)) {
    if (!std::isfinite(s.y[i])) {
      pen = false;
      continue;
    }
    const double x = f.px(s.x[i]), y = f.py(s.y[i]);
    path += fmt::format("{}{:.1f} {:.1f}", pen ? 'L' : 'M', x, y);
    pen = true;
    if (s.dots)
      dots += fmt::format(
          "<circle class=\"{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\"><title>{} {:.4g} at "
          "{}</title></circle>",
          s.style, x, y, escape_html(s.name), s.y[i], s.x[i]);
  }
  out += fmt::format("<path class=\"{}\" d=\"{}\"/>", s.style, path) + dots;
}

// The last values at the right edge, moved apart where they would overlap.
void draw_labels(std::string& out, const Frame& f, const std::vector<Series>& series) {
  std::vector<std::pair<double, const Series*>> labels;
  for (const Series& s : series)
    if (s.label && !s.y.empty() && std::isfinite(s.y.back()))
      labels.emplace_back(f.py(s.y.back()), &s);
  std::sort(labels.begin(), labels.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  double above = -1e9;
  for (auto& [y, s] : labels) {
    y = std::max(y, above + 15), above = y;
    out += fmt::format("<text class=\"{} value\" x=\"{:.1f}\" y=\"{:.1f}\">{:.3g}</text>", s->style,
                       f.width - kRight + 8, y + 4, s->y.back());
  }
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else if (c == '\'')
      out += "&#39;";
    else if (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t')
      out += ' ';
    else
      out += c;
  }
  return out;
}

std::vector<double> smoothed(const std::vector<double>& values, double span) {
  const double keep = span <= 1 ? 0 : (span - 1) / (span + 1);
  std::vector<double> out;
  double sum = 0, weight = 0;
  for (double v : values) {
    if (std::isfinite(v)) sum = keep * sum + (1 - keep) * v, weight = keep * weight + (1 - keep);
    out.push_back(weight > 0 ? sum / weight : std::numeric_limits<double>::quiet_NaN());
  }
  return out;
}

std::vector<double> ticks(double low, double high, int count) {
  const double raw = (high - low) / count, power = std::pow(10, std::floor(std::log10(raw)));
  const double part = raw / power, step = power * (part <= 1   ? 1
                                                   : part <= 2 ? 2
                                                   : part <= 5 ? 5
                                                               : 10);
  std::vector<double> out;
  for (double i = std::floor(low / step); out.size() < 2 || out.back() < high; ++i)
    out.push_back(i * step);
  return out;
}

std::string render_plot(const Plot& plot) {
  Frame f{.x = {}, .y = {}, .width = plot.width, .height = plot.height};
  for (const Series& s : plot.series) {
    for (double v : s.x) f.x.include(v);
    for (double v : s.y) f.y.include(v);
  }
  if (plot.from_zero) f.y.include(0);
  settle(f.x), settle(f.y);
  const auto ys = ticks(f.y.low, f.y.high, 5);
  f.y.low = ys.front(), f.y.high = std::max(ys.back(), f.y.high);
  std::string out = fmt::format(
      "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\"><text class=\"title\" x=\"{}\" "
      "y=\"18\">{}</text>",
      plot.width, plot.height, escape_html(plot.title), kLeft, escape_html(plot.title));
  double legend = plot.width - kRight;
  for (auto s = plot.series.rbegin(); plot.series.size() > 1 && s != plot.series.rend(); ++s) {
    out +=
        fmt::format("<text class=\"{} value\" x=\"{:.1f}\" y=\"18\" text-anchor=\"end\">{}</text>",
                    s->style, legend, escape_html(s->name));
    legend -= 7.5 * static_cast<double>(s->name.size()) + 18;
  }
  draw_axes(out, f, plot);
  for (const Series& s : plot.series) draw_series(out, f, s);
  draw_labels(out, f, plot.series);
  return out + "</svg>";
}

}  // namespace supersonic::train
