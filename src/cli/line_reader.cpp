#include "cli/line_reader.h"

#include <langinfo.h>
#include <poll.h>
#include <unistd.h>

#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cwchar>
#include <memory>

#include "core/error.h"
#include "core/interrupt.h"

#if SUPERSONIC_LIBEDIT
#include <histedit.h>
#endif

namespace supersonic::cli {
namespace {

std::optional<std::string> plain_line() {
  char* text = nullptr;
  std::size_t room = 0;
  const ssize_t n = getline(&text, &room, stdin);
  const std::unique_ptr<char, decltype(&std::free)> owner(text, &std::free);
  if (n < 0) return std::nullopt;
  std::string line(text, static_cast<std::size_t>(n));
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
  return line;
}

#if SUPERSONIC_LIBEDIT

// False once Ctrl-C was pressed. The signal may reach any thread, so it need not end the poll: the
// flag is looked at ten times a second.
bool wait_for_input() {
  pollfd terminal{STDIN_FILENO, POLLIN, 0};
  while (!interrupted())
    if (poll(&terminal, 1, 100) > 0) return true;
  return false;
}

// One character for libedit: 1, 0 at the end of the input, -1 where what came is no character.
int read_character(EditLine*, wchar_t* c) {
  std::mbstate_t state{};
  while (wait_for_input()) {
    char byte = 0;
    if (read(STDIN_FILENO, &byte, 1) <= 0) return 0;
    const std::size_t got = std::mbrtowc(c, &byte, 1, &state);
    if (got == static_cast<std::size_t>(-1)) return -1;
    if (got != static_cast<std::size_t>(-2)) return 1;
  }
  return 0;
}

// libedit without its signal handlers: they hand a signal on to the whole process group, by
// whichever thread the kernel chose for it, and a program of several threads may lose it so.
class Editor {
 public:
  Editor() {
    std::setlocale(LC_CTYPE, "");
    if (std::strcmp(nl_langinfo(CODESET), "UTF-8") != 0) std::setlocale(LC_CTYPE, "C.UTF-8");
    edit_ = el_init("supersonic", stdin, isatty(STDOUT_FILENO) ? stdout : stderr, stderr);
    history_ = history_init();
    if (!edit_ || !history_) fail(ErrorKind::memory, "no memory for the line editor");
    HistEvent event;
    history(history_, &event, H_SETSIZE, 1000);
    el_set(edit_, EL_CLIENTDATA, this);
    el_set(edit_, EL_PROMPT, &Editor::prompt_of);
    el_set(edit_, EL_EDITOR, "emacs");
    el_set(edit_, EL_SIGNAL, 0);
    el_set(edit_, EL_HIST, history, history_);
    el_set(edit_, EL_GETCFN, &read_character);
    constexpr const char* keys[][2] = {
        {"^R", "em-inc-search-prev"}, {"\\e[3~", "ed-delete-next-char"},
        {"\\e[1~", "ed-move-to-beg"}, {"\\e[4~", "ed-move-to-end"},
        {"\\e[1;5C", "em-next-word"}, {"\\e[1;5D", "ed-prev-word"}};
    for (const auto& [key, what] : keys) el_set(edit_, EL_BIND, key, what, nullptr);
    el_source(edit_, nullptr);  // ~/.editrc
  }
  ~Editor() {
    if (history_) history_end(history_);
    if (edit_) el_end(edit_);
  }
  Editor(const Editor&) = delete;

  std::optional<std::string> read(const char* prompt) {
    const InterruptGuard guard("\n");
    prompt_ = prompt;
    int count = 0;
    const char* text = el_gets(edit_, &count);
    if (!text || count <= 0 || interrupted()) return std::nullopt;
    std::string line(text, static_cast<std::size_t>(count));
    while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
    HistEvent event;
    if (!line.empty()) history(history_, &event, H_ENTER, line.c_str());
    return line;
  }

 private:
  static char* prompt_of(EditLine* edit) {
    void* self = nullptr;
    el_get(edit, EL_CLIENTDATA, &self);
    return const_cast<char*>(static_cast<Editor*>(self)->prompt_);
  }

  EditLine* edit_ = nullptr;
  History* history_ = nullptr;
  const char* prompt_ = "";
};

std::optional<std::string> edited_line(const char* prompt) {
  static Editor editor;
  return editor.read(prompt);
}

#else

std::optional<std::string> edited_line(const char* prompt) {
  std::fputs(prompt, stderr);
  return plain_line();
}

#endif

}  // namespace

bool input_is_terminal() { return isatty(STDIN_FILENO) == 1; }

std::optional<std::string> read_line(const char* prompt) {
  return input_is_terminal() ? edited_line(prompt) : plain_line();
}

}  // namespace supersonic::cli
