// Drives the tokenizer from the Python tests: one JSON request a line on stdin, one JSON answer a
// line on stdout.
//   tokenizer_probe json TOKENIZER_JSON [CONFIG_JSON]      tokenizer_probe gguf KEYS_JSON
//   tokenizer_probe model GGUF_FILE_OR_FOLDER              tokenizer_probe pieces TOKENIZER_MODEL
// KEYS_JSON holds the tokenizer.ggml.* values (model, pre, tokens, scores, token_type, merges,
// bos_id …). Requests: {"encode": text, "add": b, "parse": b}, "hex" for bytes
// instead of text  {"spans": [[text, trusted], …],
// "ends": b}  {"decode": ids, "skip": b}  {"stream": ids}
//   {"chat": messages, "add_generation_prompt": b} (model only)  {"hf": true}  {"gguf": true}
//   {"bench": file, "rounds": n}
#include <chrono>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "core/error.h"
#include "text/chat_template.h"
#include "text/dataset.h"
#include "text/model_text.h"
#include "text/tokenizer.h"

using Json = nlohmann::json;
using namespace supersonic;

static std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw Error("cannot open " + path);
  std::stringstream out;
  out << in.rdbuf();
  return out.str();
}

// Bytes that JSON cannot carry.
static std::string from_hex(const std::string& digits) {
  std::string out;
  for (size_t i = 0; i + 1 < digits.size(); i += 2)
    out += static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16));
  return out;
}

static text::Tokenizer from_keys(const Json& keys) {
  const auto strings = keys.at("tokens").get<std::vector<std::string>>();
  const auto merges = keys.value("merges", std::vector<std::string>());
  const auto scores = keys.value("scores", std::vector<float>());
  const auto types = keys.value("token_type", std::vector<int32_t>());
  const std::string model = keys.at("model"), pre = keys.value("pre", ""),
                    name = keys.value("name", "");
  const std::vector<std::string_view> token_views(strings.begin(), strings.end()),
      merge_views(merges.begin(), merges.end());
  text::GgufVocab vocab;
  vocab.model = model, vocab.pre = pre, vocab.name = name;
  vocab.tokens = token_views, vocab.merges = merge_views, vocab.scores = scores,
  vocab.token_type = types;
  vocab.bos_id = keys.value("bos_id", -1), vocab.eos_id = keys.value("eos_id", -1),
  vocab.unk_id = keys.value("unk_id", -1);
  vocab.pad_id = keys.value("pad_id", -1), vocab.eot_id = keys.value("eot_id", -1);
  if (keys.contains("add_bos")) vocab.add_bos = keys["add_bos"].get<bool>();
  if (keys.contains("add_eos")) vocab.add_eos = keys["add_eos"].get<bool>();
  if (keys.contains("add_space_prefix"))
    vocab.add_space_prefix = keys["add_space_prefix"].get<bool>();
  return text::Tokenizer::from_gguf(vocab, "keys");
}

static Json bench(const text::Tokenizer& tokenizer, const Json& request) {
  const std::string data = read_file(request["bench"]);
  std::vector<std::string> lines;
  std::stringstream in(data);
  if (request.value("whole", false))
    lines.push_back(data);
  else
    for (std::string line; std::getline(in, line);) lines.push_back(line + "\n");
  double best = 1e30;
  size_t tokens = 0;
  for (int round = 0; round < request.value("rounds", 3); ++round) {
    tokens = 0;
    const auto start = std::chrono::steady_clock::now();
    for (const std::string& line : lines)
      tokens += tokenizer.encode(line, {.add_special = false, .parse_special = true}).size();
    best = std::min(
        best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return {{"seconds", best}, {"tokens", tokens}, {"bytes", data.size()}};
}

static Json gguf(const text::Tokenizer& tokenizer) {
  const auto d = to_gguf_vocab(tokenizer);
  return {{"model", d.model},
          {"pre", d.pre},
          {"tokens", d.tokens},
          {"scores", d.scores},
          {"token_type", d.token_type},
          {"merges", d.merges},
          {"bos_id", d.bos_id},
          {"eos_id", d.eos_id},
          {"unk_id", d.unk_id},
          {"pad_id", d.pad_id},
          {"add_bos", d.add_bos},
          {"add_eos", d.add_eos},
          {"add_space_prefix", d.add_space_prefix}};
}

// The ids of a conversation, by the model's own template.
static Json chat(const text::ModelText& model, const text::Tokenizer& tokenizer,
                 const Json& request) {
  const text::TokenizerView view = model.view(tokenizer);
  text::Heap heap;
  text::ChatInput input = text::parse_chat_input(request["chat"].dump(), heap);
  input.bos_token = view.bos_text, input.eos_token = view.eos_text;
  input.add_generation_prompt = request.value("add_generation_prompt", false);
  const auto compiled = model.chat_template();
  if (!compiled) throw Error("the model has no chat template");
  const text::Rendered rendered = compiled->render(input);
  text::Encoded out;
  view.encode(rendered.text, rendered.spans, out);
  return out.ids;
}

// {"train": messages, "template": source}: the ids of a conversation and which of them are learned.
static Json train(const text::ModelText& model, const text::Tokenizer& tokenizer,
                  const Json& request) {
  const text::ChatTemplate compiled(request["template"].get<std::string>(), "probe");
  text::Heap heap;
  text::Sample sample;
  sample.messages = text::parse_chat_input(request["train"].dump(), heap).messages;
  std::vector<text::Tokens> out;
  text::RenderOptions options;
  options.chat_template = &compiled;
  tokenize_sample(sample, model.view(tokenizer), options, out);
  return {{"ids", out.at(0).ids}, {"trained", out.at(0).trained}};
}

static Json answer(const text::ModelText* model, const text::Tokenizer& tokenizer,
                   const Json& request) {
  if (request.contains("chat") && model) return chat(*model, tokenizer, request);
  if (request.contains("train") && model) return train(*model, tokenizer, request);
  if (request.contains("hex"))
    return tokenizer.encode(from_hex(request["hex"]),
                            {.add_special = request.value("add", true),
                             .parse_special = request.value("parse", false)});
  if (request.contains("encode"))
    return tokenizer.encode(request["encode"].get<std::string>(),
                            {.add_special = request.value("add", true),
                             .parse_special = request.value("parse", false)});
  if (request.contains("spans")) {
    std::string joined;
    std::vector<text::TextSpan> spans;
    for (const Json& span : request["spans"]) {
      const size_t begin = joined.size();
      joined += span[0].get_ref<const std::string&>();
      spans.push_back({begin, joined.size(), span[1].get<bool>()});
    }
    text::Encoded out;
    tokenizer.encode_spans(joined, spans, out);
    if (request.value("ends", false)) return {{"ids", out.ids}, {"ends", out.ends}};
    return out.ids;
  }
  if (request.contains("decode"))
    return tokenizer.decode(request["decode"].get<std::vector<int32_t>>(),
                            request.value("skip", true));
  if (request.contains("stream")) {
    text::StreamDecoder stream(tokenizer, request.value("skip", true));
    std::string out;
    for (const Json& id : request["stream"]) {
      const std::string part = stream.push(id.get<int32_t>());
      (void)Json(part).dump();  // throws when a character was split
      out += part;
    }
    return out + stream.finish();
  }
  if (request.contains("hf")) {
    const auto files = to_hf_json(tokenizer, model ? model->template_source() : "");
    return {{"tokenizer.json", files.tokenizer_json},
            {"tokenizer_config.json", files.tokenizer_config_json},
            {"special_tokens_map.json", files.special_tokens_map_json}};
  }
  if (request.contains("gguf")) return gguf(tokenizer);
  if (request.contains("bench")) return bench(tokenizer, request);
  throw Error("unknown request");
}

int main(int argc, char** argv) try {
  if (argc < 3) throw Error("usage: tokenizer_probe json|gguf FILE [CONFIG]", ErrorKind::usage);
  const std::string kind = argv[1];
  std::optional<text::ModelText> model;
  if (kind == "model") model.emplace(argv[2]);
  const std::string data = model ? "" : read_file(argv[2]),
                    config = argc > 3 ? read_file(argv[3]) : std::string();
  const text::Tokenizer tokenizer =
      model              ? model->tokenizer()
      : kind == "gguf"   ? from_keys(Json::parse(data))
      : kind == "pieces" ? text::Tokenizer::from_sentence_piece(data, config, argv[2])
                         : text::Tokenizer::from_json(data, config, argv[2]);
  std::ios::sync_with_stdio(false);
  for (std::string line; std::getline(std::cin, line);)
    std::cout << answer(model ? &*model : nullptr, tokenizer, Json::parse(line)).dump() << "\n";
  return 0;
} catch (const Error& error) {
  std::cerr << error.what() << "\n";
  return static_cast<int>(error.kind());
}
