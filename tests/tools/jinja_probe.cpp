// Renders chat templates for the Python tests: reads requests, one JSON object a line, from stdin;
// writes one JSON line each. Request {"template": path, "input": {messages, tools, …}, "now":
// seconds}; answer {"text", "spans", "generation"} or {"error"}.
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "text/chat_template.h"

using nlohmann::json;
using namespace supersonic;

static json answer(const json& request) {
  std::string source;
  if (request.contains("source")) {
    source = request["source"];
  } else {
    std::ifstream file(request["template"].get<std::string>(), std::ios::binary);
    source.assign(std::istreambuf_iterator<char>(file), {});
  }
  try {
    text::Heap heap;
    text::ChatInput input = text::parse_chat_input(request["input"].get<std::string>(), heap);
    input.now = request.value("now", std::int64_t{0});
    const text::Rendered r = text::ChatTemplate(source, "probe").render(input);
    json spans = json::array(), generation = json::array();
    for (const auto& s : r.spans) spans.push_back({s.begin, s.end, s.trusted});
    for (const auto& g : r.generation) generation.push_back({g.begin, g.end});
    return {{"text", r.text}, {"spans", spans}, {"generation", generation}};
  } catch (const Error& error) {
    return {{"error", error.what()}};
  }
}

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    std::cout << answer(json::parse(line)).dump(-1, ' ', false, json::error_handler_t::replace)
              << std::endl;
  }
}
