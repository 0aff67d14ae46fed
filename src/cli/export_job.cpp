#include "cli/export_job.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "backend/cpu/cpu_backend.h"
#include "cli/console.h"
#include "cli/json_writer.h"
#include "cli/model_reference.h"
#include "cli/progress.h"
#include "core/device.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "core/machine.h"
#include "infer/compare.h"
#include "io/staged_output.h"
#include "models/adapter.h"
#include "models/export.h"
#include "text/model_text.h"
#include "text/tokenizer.h"

namespace supersonic::cli {
namespace {

constexpr std::uint64_t kShownBytes = std::uint64_t{64}
                                      << 20;  // less is written before anybody looks
constexpr const char* kNotice =
    "\nstopping; nothing will be left (Ctrl-C again to leave at once)\n";

// The largest relative error of the logits that rounding to a type explains. Measured over SmolLM2
// and the random models of the tests: f32 1.2e-6 (another order of summation), f16 1e-3, bf16 8e-3,
// q8_0 2.4e-2, q6_k 7e-2, 4 and 5 bits 0.11 to 0.35, 3 bits 0.36 to 0.57, 2 bits 0.66 to 0.95. q
// and k rows in the wrong order give 0.8 to 0.9, whatever the type: of 2 bits only the KL warning
// is left.
double tolerance(const std::string& type) {
  if (type == "f32") return 1e-5;
  if (type == "f16") return 4e-3;
  if (type == "bf16") return 3e-2;
  if (type == "q8_0") return 6e-2;
  if (type == "q6_k") return 1.2e-1;
  if (type == "q3_k") return 6.5e-1;
  if (type == "q2_k" || type == "tq1_0" || type == "tq2_0") return 1.1;
  return 4e-1;
}

// The coarsest type among those that were written anew decides.
double tolerance_of(const models::ExportSummary& s) {
  double most = tolerance("f32");
  for (const auto& [type, count] : s.encoded) most = std::max(most, tolerance(type));
  return most;
}

// Nats a token from which a result is worth a warning: text of the source's own kind then looks a
// tenth less likely to the result, exp(0.1) in perplexity.
constexpr double kNotableKl = 0.1;

struct Verified {
  infer::LogitDifference difference;
  double tolerance = 0;
  std::size_t tokens = 0;
  bool notable() const { return difference.kl > kNotableKl; }
  // The types that come closer than those whose rounding `tolerance` explains.
  const char* better() const {
    return tolerance > cli::tolerance("q6_k")   ? "q6_k or q8_0"
           : tolerance > cli::tolerance("q8_0") ? "q8_0"
                                                : "bf16 or f32";
  }
};

void check_tokens(const std::string& source, const std::string& result,
                  std::span<const std::int32_t> ids) {
  const auto decoded = text::ModelText(source).tokenizer().decode(ids, false);
  CHECK(text::ModelText(result).tokenizer().decode(ids, false) == decoded,
        "{}: its tokenizer reads the source's token ids as another text; nothing was written",
        result);
}

bool same_rotation(const models::Rotation& wanted, const models::Rotation& got) {
  if (!wanted.inv_freq || !got.inv_freq) return !wanted.inv_freq && !got.inv_freq;
  const auto w = wanted.inv_freq->values<const float>(), g = got.inv_freq->values<const float>();
  bool same = w.size() == g.size() &&
              std::abs(wanted.magnitude - got.magnitude) <= 1e-5f * wanted.magnitude;
  for (std::size_t i = 0; same && i < w.size(); ++i) same = std::abs(w[i] - g[i]) <= 1e-5f * w[i];
  return same;
}

// What a short text does not show: rotation and attention far away from its beginning.
void check_positions(const models::Model& source, const models::Model& result) {
  const io::ModelConfig &a = source.config, &b = result.config;
  bool same = same_rotation(source.rope, result.rope) &&
              same_rotation(source.local_rope, result.local_rope) &&
              same_rotation(source.long_rope, result.long_rope) &&
              (!source.long_rope.inv_freq ||
               a.rope_scaling.original_max_position == b.rope_scaling.original_max_position);
  for (std::int64_t i = 0; same && i < a.num_hidden_layers; ++i) {
    same = a.slides(i) == b.slides(i) && a.rotates(i) == b.rotates(i);
    if (a.slides(i)) same = same && a.sliding_window == b.sliding_window;
  }
  CHECK(same,
        "{}: this container cannot say how the model turns or limits far positions ({} scaling, "
        "window {}); nothing was written. Choose the "
        "other container (--to), or --no-verify for short texts",
        result.path, io::name_of(a.rope_scaling.kind), a.sliding_window);
}

Verified check(const infer::LogitDifference& d, double limit, std::size_t tokens,
               const std::string& path) {
  CHECK(d.relative_error <= limit,
        "{}: its logits differ from the source's by {:.3g} relative (KL {:.3g} nats a token), "
        "where this type explains {:.3g}; nothing was "
        "written. {}; --no-verify writes it all the same",
        path, d.relative_error, d.kl, limit,
        limit > tolerance("f32") ? "A type with more bits comes closer"
                                 : "This is a defect, please report it");
  return {d, limit, tokens};
}

void write_report(JsonWriter& w, const std::optional<Verified>& v) {
  w.key("verified");
  if (!v) {
    w.null();
    return;
  }
  w.begin_object()
      .key("relative_error")
      .value(v->difference.relative_error)
      .key("kl")
      .value(v->difference.kl)
      .key("kl_warning")
      .value(v->notable());
  w.key("same_top")
      .value(v->difference.same_top)
      .key("tolerance")
      .value(v->tolerance)
      .key("tokens")
      .value(v->tokens)
      .end_object();
}

void report_check(const std::optional<Verified>& v) {
  if (!v) return print("  logits        not compared (--no-verify)\n");
  print(
      fmt::format("  logits        relative error {:.2g} (allowed {:.2g}), KL {:.2g} nats, same "
                  "first choice {:.1f} %, over {} tokens\n",
                  v->difference.relative_error, v->tolerance, v->difference.kl,
                  100 * v->difference.same_top, v->tokens));
}

void warn(const std::string& path, const std::optional<Verified>& v) {
  if (v && v->notable())
    log_warning(
        "{}: its predictions are {:.2g} nats a token away from the source's (KL; below {} is "
        "good), and {:.0f} % of its first choices are others; --type {} comes closer",
        path, v->difference.kl, kNotableKl, 100 * (1 - v->difference.same_top), v->better());
}

// Loads what was written and compares it with the source.
Verified compare(const models::Model& source, const nn::LoraSet* lora, const std::string& written,
                 double limit, Backend& backend) {
  log_info("comparing logits with the source");
  const auto ids = infer::probe_ids(source);
  const auto wanted = infer::prompt_logits(source, lora, ids, backend);
  check_interrupt();
  const models::Model result = models::load_model(written);
  check_tokens(source.path, written, ids);
  check_positions(source, result);
  return check(infer::difference(wanted, infer::prompt_logits(result, nullptr, ids, backend),
                                 source.config.vocab_size),
               limit, ids.size(), written);
}

void report(const ExportJob& job, const std::string& path, const models::ExportSummary& s,
            const std::optional<Verified>& verified) {
  if (job.json) {
    JsonWriter w;
    w.begin_object()
        .key("output")
        .value(path)
        .key("container")
        .value(job.gguf() ? "gguf" : "hf")
        .key("bytes")
        .value(s.bytes);
    if (job.gguf()) w.key("files").value(s.files.size());
    w.key("tensors").value(s.tensors).key("copied").value(s.copied()).key("types").begin_object();
    for (const auto& [name, count] : s.types) w.key(name).value(count);
    w.end_object();
    write_report(w, verified);
    w.end_object();
    return print(w.text() + "\n");
  }
  std::string types;
  for (const auto& [name, count] : s.types)
    types += fmt::format("{}{} {}", types.empty() ? "" : ", ", count, name);
  const std::string files =
      s.files.size() > 1 ? fmt::format(" and {} more", s.files.size() - 1) : "";
  print(fmt::format("{}{}\n  tensors       {} ({}), {} copied unchanged, {:.1f} MiB\n",
                    s.files.size() > 1 ? path : job.output, files, s.tensors, types, s.copied(),
                    static_cast<double>(s.bytes) / (1 << 20)));
  report_check(verified);
}

template <class F>
auto staged(const io::StagedOutput& out, F&& f) {
  try {
    return f();
  } catch (const Error& e) {
    throw out.renamed(e);
  }
}

}  // namespace

void ExportJob::options(Options& o) {
  o.group("Output");
  o.add("to", to, "Container; auto: by the output's name").choices({"auto", "gguf", "hf"});
  o.add("type", type,
        fmt::format("Type of the matrices: auto, {}", fmt::join(models::export_types(true), ", ")))
      .value("TYPE");
  o.add("shard-size", shard_size,
        "Largest file; auto: 5 GiB in a folder, and a GGUF model is one file");
  o.add("force", force, "Replace what is there");
  o.add("threads", threads, "Threads; auto: as many CPUs as this process may use").range(1, 1024);
  o.add("device", device,
        "Where to compare logits: auto (a GPU where one is), cpu, cuda, cuda:1, …")
      .value("DEVICE");
  o.add("verify", verify, "Compare logits with the source before the output takes its name");
}

Backend& ExportJob::prepare_backend() const {
  cpu::set_threads(threads.value_or(usable_threads()));
  return device_backend(device);
}

bool ExportJob::gguf() const { return to == "auto" ? output.ends_with(".gguf") : to == "gguf"; }

int ExportJob::export_model(models::Model& model, const nn::LoraSet* lora,
                            const std::vector<std::string>& inputs) const {
  Backend& backend = prepare_backend();
  if (shard_size && shard_size->count == 0) fail(ErrorKind::usage, "--shard-size must be above 0");
  const InterruptGuard guard(kNotice);
  io::StagedOutput out(output,
                       gguf() ? io::StagedOutput::Kind::file : io::StagedOutput::Kind::folder,
                       force, inputs);
  std::optional<Verified> verified;
  const models::ExportSummary s = staged(out, [&] {
    auto summary = write_model(model, lora, out.staged());
    check_interrupt();
    const std::string written = summary.files.empty() ? out.staged() : summary.files[0];
    if (verify) verified = compare(model, lora, written, tolerance_of(summary), backend);
    check_interrupt();
    return summary;
  });
  const bool split = s.files.size() > 1;
  if (split)
    out.commit_files(s.files);
  else
    out.commit();
  warn(output, verified);
  report(*this, split ? out.final_path(s.files[0]) : out.path(), s, verified);
  flush_output();
  return guard.complete(0);
}

models::ExportSummary ExportJob::write_model(const models::Model& model, const nn::LoraSet* lora,
                                             const std::string& path) const {
  models::ExportOptions options{.type = type, .lora = lora, .shard_bytes = {}, .progress = {}};
  if (shard_size) options.shard_bytes = shard_size->count;
  std::optional<Progress> progress;
  options.progress = [&](std::uint64_t done, std::uint64_t total) {
    if (total < kShownBytes) return;
    if (!progress) progress.emplace("writing", "MiB", total >> 20);
    progress->update(done >> 20);
  };
  auto summary = gguf() ? models::write_gguf_model(model, path, options)
                        : models::write_hf_model(model, path, options);
  if (progress) progress->finish();
  return summary;
}

int ExportJob::export_adapter(models::Model& base, const io::LoraAdapter& adapter,
                              const std::vector<std::string>& inputs) const {
  prepare_backend();
  const InterruptGuard guard(kNotice);
  const DType dtype = type == "bf16" ? DType::bf16 : type == "f16" ? DType::f16 : DType::f32;
  if (type != "auto" && type != name_of(dtype))
    fail(ErrorKind::usage, "--type {}: an adapter can be written as f32, bf16, f16", type);
  io::StagedOutput out(output,
                       gguf() ? io::StagedOutput::Kind::file : io::StagedOutput::Kind::folder,
                       force, inputs);
  io::LoraConfig config = adapter.config;
  config.target_pattern.clear();
  if (config.base_model.empty()) config.base_model = cached_name(base.path);
  if (config.base_model.empty()) config.base_model = base.path;
  const nn::LoraSet lora = models::attach_adapter(base, adapter, inputs[0]);
  const auto ids = infer::probe_ids(base);
  const auto wanted = verify ? infer::prompt_logits(base, &lora, ids) : std::vector<float>{};
  std::optional<Verified> verified;
  const std::size_t modules = adapter.modules.size();
  staged(out, [&] {
    const io::LoraAdapter named = models::extract_adapter(base, lora, config);
    if (gguf())
      io::write_gguf_adapter(out.staged(), models::to_gguf_adapter(base, named), dtype);
    else
      models::write_adapter(out.staged(), base, named, dtype);
    check_interrupt();
    if (!verify) return;
    const nn::LoraSet written =
        models::attach_adapter(base, models::read_adapter(out.staged(), base), out.staged());
    const auto d = infer::difference(wanted, infer::prompt_logits(base, &written, ids),
                                     base.config.vocab_size);
    verified = check(d, tolerance(std::string(name_of(dtype))), ids.size(), out.staged());
  });
  out.commit();
  if (json) {
    JsonWriter w;
    w.begin_object()
        .key("output")
        .value(out.path())
        .key("container")
        .value(gguf() ? "gguf-adapter" : "peft")
        .key("modules")
        .value(modules);
    write_report(w, verified);
    w.end_object();
    print(w.text() + "\n");
  } else {
    print(fmt::format("{}\n  modules       {}, {}\n", output, modules, name_of(dtype)));
    report_check(verified);
  }
  flush_output();
  return guard.complete(0);
}

}  // namespace supersonic::cli
