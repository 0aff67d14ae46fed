// Any bytes as a template, rendered over a small conversation: refused or rendered, never a crash
// or an endless run.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/error.h"
#include "text/chat_template.h"

using namespace supersonic;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static constexpr std::string_view kInput =
      R"({"messages":[{"role":"system","content":"S é"},{"role":"user","content":"a <b> 'c'"},)"
      R"({"role":"assistant","content":"x","tool_calls":[{"function":{"name":"f","arguments":{"k":[1,2.5,null,true]}}}]}],)"
      R"("tools":[{"type":"function","function":{"name":"f"}}],"bos_token":"<s>","eos_token":"</s>","add_generation_prompt":true})";
  try {
    text::Heap heap;
    text::ChatInput input = text::parse_chat_input(kInput, heap);
    input.now = 1700000000;
    const auto r =
        text::ChatTemplate({reinterpret_cast<const char*>(data), size}, "fuzz").render(input);
    const std::size_t covered = r.spans.empty() ? 0 : r.spans.back().end;
    if (covered != r.text.size()) __builtin_trap();
  } catch (const Error&) {
  }
  return 0;
}
