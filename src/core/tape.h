// Tape: the thread's recorder. Sequence numbers give the order in which a plan runs; nothing is ever re-sorted.
// Outside a capture, recorded nodes wait on the thread's tape until eval() or a read runs them (SUPERSONIC_EAGER=1: at once).
#pragma once
#include "core/op.h"

namespace supersonic {

class Tape {
 public:
  static Tape& current();  // of this thread

  std::vector<Ref<Node>>& nodes() { return nodes_; }
  std::uint64_t next_seq() { return ++seq_; }
  std::uint32_t region() const { return region_; }
  std::uint32_t open_region();
  bool captured() const { return captured_; }  // of a TapeScope
  void set_region(std::uint32_t id) { region_ = id; }
  void append(Ref<Node> node);

 private:
  friend class TapeScope;
  std::vector<Ref<Node>> nodes_;
  std::uint64_t seq_ = 0;
  std::uint32_t region_ = 0, regions_ = 0;
  bool captured_ = false;
};

// Records into a tape of its own while it lives: a capture, or a definition being expanded.
class TapeScope {
 public:
  TapeScope();
  ~TapeScope();
  TapeScope(const TapeScope&) = delete;
  Tape& tape() { return tape_; }

 private:
  Tape tape_;
  Tape* outer_;
};

// Marks the nodes recorded while it lives as one checkpoint region: the policy may keep its inside or recompute it.
class Region {
 public:
  Region() : outer_(Tape::current().region()) { Tape::current().set_region(Tape::current().open_region()); }
  ~Region() { Tape::current().set_region(outer_); }
  Region(const Region&) = delete;

 private:
  std::uint32_t outer_;
};

}  // namespace supersonic
