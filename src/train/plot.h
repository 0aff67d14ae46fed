// Line plots as SVG text: axes with round ticks, one polyline a series, the last value written at
// its end. Colours are CSS classes, so that the page decides them. Points that are not finite break
// the line.
#pragma once
#include <string>
#include <vector>

namespace supersonic::train {

struct Series {
  std::string name, style;  // style: CSS class
  std::vector<double> x, y;
  bool dots = false;  // mark each point (few points: evaluations)
  bool label = true;  // write the last value at the end of the line
};

struct Plot {
  std::string title, x_label;
  std::vector<Series> series;
  double width = 900, height = 320;
  bool from_zero = false;  // the y axis starts at 0
};

std::string render_plot(const Plot& plot);
std::string escape_html(std::string_view text);

// Exponential moving average with bias correction, over about `span` points; values that are not
// finite are passed over.
std::vector<double> smoothed(const std::vector<double>& values, double span);

// Round tick positions that cover [low, high], about `count` of them.
std::vector<double> ticks(double low, double high, int count);

}  // namespace supersonic::train
