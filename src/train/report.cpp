// The page is one string: style, figures, plots, answers, settings. All text from outside passes
// escape_html.
#include "train/report.h"

#include <fmt/core.h>

#include <algorithm>

#include "io/output_file.h"
#include "train/plot.h"

namespace supersonic::train {
namespace {

constexpr const char* kStyle = R"css(
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--dim:#667080;--line:#e4e7ec;--card:#f6f7f9;--a:#2563c9;--b:#d9480f;--c:#0b7a5a}
@media(prefers-color-scheme:dark){:root{--bg:#14171b;--fg:#e7eaee;--dim:#97a1af;--line:#2b3138;--card:#1c2126;--a:#6ea8fe;--b:#ff9a5c;--c:#4fd1a5}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:980px;margin:0 auto;padding:32px 20px 60px}h1{font-size:24px;line-height:1.25;margin:0}h2{font-size:17px;margin:36px 0 10px}
.sub{color:var(--dim);margin:4px 0 24px}.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:0 0 24px}
.card{background:var(--card);border-radius:10px;padding:12px 14px}.card b{display:block;font-size:20px;font-weight:600;font-variant-numeric:tabular-nums}
.card span{color:var(--dim);font-size:13px}svg{display:block;width:100%;height:auto;margin:6px 0 14px;font-family:inherit}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(270px,1fr));gap:8px 12px}
.grid{stroke:var(--line)}.axis{stroke:var(--dim)}.tick{fill:var(--dim);font-size:12px}.title{fill:var(--fg);font-size:14px;font-weight:600}
path{fill:none;stroke-width:2;stroke-linejoin:round}path.raw{stroke:var(--a);opacity:.28;stroke-width:1}path.train{stroke:var(--a)}path.eval{stroke:var(--b)}path.other{stroke:var(--c);stroke-width:1.6}
circle.eval{fill:var(--b)}.value{font-size:13px;font-weight:600}text.raw,text.train{fill:var(--a)}text.eval{fill:var(--b)}text.other{fill:var(--c)}
table{border-collapse:collapse;width:100%;font-size:14px}td{border-top:1px solid var(--line);padding:5px 10px 5px 0;vertical-align:top;overflow-wrap:anywhere}
td:first-child{color:var(--dim);width:34%}pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:0;font:13px/1.5 ui-monospace,Consolas,monospace}
.sample{background:var(--card);border-radius:10px;padding:12px 14px;margin:0 0 12px}.sample td:first-child{width:90px}
@media print{body{font-size:12px}.card,.sample{border:1px solid var(--line)}}
)css";

template <class Record, class Get>
std::vector<double> column(const std::vector<Record>& records, Get get) {
  std::vector<double> out;
  for (const Record& r : records) out.push_back(static_cast<double>(get(r)));
  return out;
}

std::string loss_plot(const LossCurve& curve) {
  const auto steps = column(curve.steps, [](const StepRecord& r) { return r.step; });
  const auto losses = column(curve.steps, [](const StepRecord& r) { return r.loss; });
  Plot plot{.title = "Loss (nats per token)", .x_label = "step", .series = {}, .height = 380};
  if (!steps.empty()) {
    const bool many = steps.size() >= 20;
    plot.series.push_back(
        {"train, each step", many ? "raw" : "train", steps, losses, false, !many});
    const double span = std::clamp(static_cast<double>(steps.size()) / 20, 5.0, 50.0);
    if (many)
      plot.series.push_back(
          {"train, smoothed", "train", steps, smoothed(losses, span), false, true});
  }
  if (!curve.evals.empty())
    plot.series.push_back(
        {"held out", "eval", column(curve.evals, [](const EvalRecord& r) { return r.step; }),
         column(curve.evals, [](const EvalRecord& r) { return r.loss; }), true, true});
  return render_plot(plot);
}

template <class Get>
std::string small_plot(const char* title, const LossCurve& curve, Get get) {
  const auto steps = column(curve.steps, [](const StepRecord& r) { return r.step; });
  return render_plot({.title = title,
                      .x_label = "step",
                      .series = {{title, "other", steps, column(curve.steps, get), false, true}},
                      .width = 330,
                      .height = 210,
                      .from_zero = true});
}

// Tokens per second between neighbouring steps, smoothed over a few.
std::string speed_plot(const LossCurve& curve) {
  std::vector<double> steps, rates;
  for (std::size_t i = 1; i < curve.steps.size(); ++i) {
    const StepRecord &a = curve.steps[i - 1], &b = curve.steps[i];
    if (!(b.seconds > a.seconds)) continue;
    steps.push_back(static_cast<double>(b.step));
    rates.push_back(static_cast<double>(b.tokens - a.tokens) / (b.seconds - a.seconds));
  }
  return render_plot({.title = "Tokens per second",
                      .x_label = "step",
                      .series = {{"speed", "other", steps, smoothed(rates, 5), false, true}},
                      .width = 330,
                      .height = 210,
                      .from_zero = true});
}

std::string table(const Report::Rows& rows, bool preformatted) {
  std::string out = "<table>";
  for (const auto& [name, value] : rows) {
    const std::string text = escape_html(value);
    out += fmt::format("<tr><td>{}</td><td>{}</td></tr>", escape_html(name),
                       preformatted ? "<pre>" + text + "</pre>" : text);
  }
  return out + "</table>";
}

}  // namespace

std::string render_report(const Report& report, const LossCurve& curve) {
  std::string out = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width,initial-scale=1\"><title>{}</title><style>{}</style></"
      "head><body><main>",
      escape_html(report.title), kStyle);
  out += fmt::format("<h1>{}</h1><p class=\"sub\">{}</p>", escape_html(report.title),
                     escape_html(report.subtitle));
  if (!report.figures.empty()) {
    out += "<div class=\"cards\">";
    for (const auto& [name, value] : report.figures)
      out += fmt::format("<div class=\"card\"><b>{}</b><span>{}</span></div>", escape_html(value),
                         escape_html(name));
    out += "</div>";
  }
  out += loss_plot(curve);
  if (curve.steps.size() > 1) {
    out += "<div class=\"pair\">";
    out += small_plot("Learning rate", curve, [](const StepRecord& r) { return r.learning_rate; });
    out += small_plot("Gradient norm", curve, [](const StepRecord& r) { return r.grad_norm; });
    out += speed_plot(curve) + "</div>";
  }
  if (!report.samples.empty()) out += "<h2>Answers</h2>";
  for (const auto& [prompt, answers] : report.samples)
    out += fmt::format("<div class=\"sample\"><pre>{}</pre>{}</div>", escape_html(prompt),
                       table(answers, true));
  if (!report.settings.empty()) out += "<h2>Settings</h2>" + table(report.settings, false);
  return out + "</main></body></html>\n";
}

void write_report(const std::string& path, const Report& report, const LossCurve& curve) {
  io::write_file(path, render_report(report, curve));
}

}  // namespace supersonic::train
