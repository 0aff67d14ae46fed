// Checkpoints and atomic files: whatever is interrupted or damaged, a final name holds a whole
// thing or nothing.
#include "io/checkpoint.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "io/folder_lock.h"
#include "io/mapped_file.h"
#include "io/output_file.h"
#include "io_test_util.h"

namespace supersonic::io {
namespace {

using io_test::error_of;
using io_test::mentions;
using io_test::TempDir;

void save(const std::string& root, std::int64_t step, const std::string& content) {
  CheckpointWriter out(root, step, R"({"lr":0.5})");
  out.write("weights.bin", std::as_bytes(std::span(content)));
  out.begin("state.bin");
  for (const char& c : content) out.append(std::as_bytes(std::span(&c, 1)));
  out.commit();
}

TEST(Checkpoint, the_newest_is_found_with_its_files_and_config) {
  const TempDir dir;
  EXPECT_FALSE(newest_checkpoint(dir / "absent").newest.has_value());
  save(dir.path(), 9, "old");
  save(dir.path(), 1000010, "newer");
  const auto found = newest_checkpoint(dir.path());
  ASSERT_TRUE(found.newest);
  EXPECT_TRUE(found.warnings.empty());
  EXPECT_EQ(found.newest->step, 1000010);
  EXPECT_EQ(found.newest->config_json, R"({"lr":0.5})");
  EXPECT_EQ(read_file(found.newest->file("weights.bin"), 100), "newer");
  EXPECT_EQ(read_file(found.newest->file("state.bin"), 100), "newer");
  EXPECT_THROW(found.newest->file("other"), Error);
  EXPECT_TRUE(std::filesystem::exists(dir / "step-000009/manifest.json"));
}

TEST(Checkpoint, hash_is_xxh3_128) {
  const TempDir dir;
  save(dir.path(), 1, "");
  // The published value for empty input, seed 0.
  EXPECT_EQ(newest_checkpoint(dir.path()).newest->files[0].hash,
            "99aa06d3014798d86001c324468d497f");
}

TEST(Checkpoint, damaged_ones_are_skipped_with_a_warning) {
  const TempDir dir;
  for (int step = 1; step <= 5; ++step) save(dir.path(), step, "content");
  std::ofstream(dir / "step-000005/weights.bin") << "tnetnoc";  // same size, other bytes
  std::ofstream(dir / "step-000004/state.bin") << "short";      // another size
  std::filesystem::remove(dir / "step-000003/manifest.json");   // no manifest
  std::ofstream(dir / "step-000002/manifest.json")
      << R"({"format":"supersonic-checkpoint","version":1,"step":2,)"
         R"("files":[{"name":"../step-000001/state.bin","bytes":7,"xxh3_128":""}]})";
  const auto found = newest_checkpoint(dir.path());
  ASSERT_TRUE(found.newest);
  EXPECT_EQ(found.newest->step, 1);
  ASSERT_EQ(found.warnings.size(), 4u);
  EXPECT_TRUE(mentions(found.warnings[0], "hash"));
  EXPECT_TRUE(mentions(found.warnings[1], "5 bytes, the manifest says 7"));
  EXPECT_TRUE(mentions(found.warnings[2], "manifest.json"));
  EXPECT_TRUE(mentions(found.warnings[3], "plain file name"));
}

TEST(Checkpoint, a_kill_while_writing_leaves_the_previous_one_and_the_next_run_cleans_up) {
  const TempDir dir;
  save(dir.path(), 1, "first");
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    CheckpointWriter out(dir.path(), 2);
    out.write("weights.bin", std::as_bytes(std::span("second", 6)));
    out.begin("state.bin");
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(dir.entries(), 2u) << "the leftover is there";
  EXPECT_EQ(newest_checkpoint(dir.path()).newest->step, 1);
  remove_unfinished(dir.path());
  EXPECT_EQ(dir.entries(), 1u) << "the leftover is gone";
  save(dir.path(), 2, "again");
  EXPECT_EQ(newest_checkpoint(dir.path()).newest->step, 2);
}

TEST(Checkpoint, adopts_files_that_other_writers_made) {
  const TempDir dir;
  {
    CheckpointWriter out(dir.path(), 1);
    write_file(out.staging() + "/adapter_config.json", "{}");
    out.adopt("adapter_config.json");
    EXPECT_THROW(out.adopt("absent"), Error);
    out.commit();
  }
  const auto found = newest_checkpoint(dir.path());
  ASSERT_TRUE(found.newest) << "its hash is checked like any other";
  EXPECT_EQ(read_file(found.newest->file("adapter_config.json"), 10), "{}");
}

TEST(Checkpoint, writing_a_step_again_replaces_it) {
  const TempDir dir;
  save(dir.path(), 3, "one");
  save(dir.path(), 3, "two");
  EXPECT_EQ(dir.entries(), 1u);
  EXPECT_EQ(read_file(newest_checkpoint(dir.path()).newest->file("weights.bin"), 100), "two");
}

TEST(Checkpoint, an_abandoned_one_vanishes_and_only_the_newest_are_kept) {
  const TempDir dir;
  for (int step = 1; step <= 4; ++step) save(dir.path(), step, "x");
  {
    CheckpointWriter out(dir.path(), 5);
    out.write("weights.bin", {});
    EXPECT_THROW(out.begin("../evil"), Error);
    EXPECT_THROW(out.begin("manifest.json"), Error);
  }
  EXPECT_EQ(dir.entries(), 4u);
  save(dir.path(), 9, "of a run that was given up");
  keep_newest(dir.path(), 2, 4);
  EXPECT_EQ(dir.entries(), 2u);
  EXPECT_TRUE(std::filesystem::exists(dir / "step-000003"));
  EXPECT_TRUE(std::filesystem::exists(dir / "step-000004"));
}

TEST(OutputFile, a_failed_write_leaves_the_old_file_and_no_temporary) {
  const TempDir dir;
  write_file(dir / "f", "old");
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {  // a file size limit fails a write in the way a full disk does
    ::signal(SIGXFSZ, SIG_IGN);
    const struct rlimit limit { 100'000, 100'000 };
    ::setrlimit(RLIMIT_FSIZE, &limit);
    int code = 1;
    try {
      OutputFile out(dir / "f");
      const std::string block(1 << 20, 'x');
      out.write(block);
      out.commit();
    } catch (const Error& e) {
      code = e.kind() == ErrorKind::failure &&
                     std::string(e.what()).find("ulimit -f") != std::string::npos
                 ? 7
                 : 2;
    }
    ::_exit(code);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 7);
  EXPECT_EQ(dir.entries(), 1u);
  EXPECT_EQ(read_file(dir / "f", 100), "old");
}

TEST(OutputFile, replaces_a_file_only_on_commit) {
  const TempDir dir;
  write_file(dir / "f", "old");
  OutputFile out(dir / "f");
  out.write("new");
  out.pad_to(8);
  EXPECT_EQ(out.size(), 8u);
  EXPECT_EQ(read_file(dir / "f", 100), "old");
  out.commit();
  EXPECT_EQ(read_file(dir / "f", 100), std::string("new\0\0\0\0\0", 8));
  EXPECT_EQ(dir.entries(), 1u);
  EXPECT_TRUE(mentions(error_of([&] { OutputFile(dir / "no/such"); }, ErrorKind::failure),
                       "cannot create"));
  EXPECT_TRUE(
      mentions(error_of([&] { (void)read_file(dir / "f", 3); }), "8 bytes, more than the 3"));
}

TEST(OutputFile, temporaries_of_killed_processes_are_removed_and_nothing_else) {
  const TempDir dir;
  for (const char* name : {".a.bin.tmp-17-0", "b.tmp-17-0", ".c.tmp-mine", ".d.tmp-1-2.txt"})
    write_file(dir / name, "x");
  std::filesystem::create_directory(dir / ".e.tmp-3-4");
  remove_temporaries(dir.path());
  EXPECT_FALSE(std::filesystem::exists(dir / ".a.bin.tmp-17-0"));
  EXPECT_EQ(dir.entries(), 4u);
}

TEST(FolderLock, one_process_at_a_time_and_a_killed_one_holds_nothing) {
  const TempDir dir;
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const FolderLock lock(dir.path());
    [[maybe_unused]] const auto n = ::write(ready[1], "x", 1);
    ::pause();
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_TRUE(mentions(error_of([&] { FolderLock lock(dir.path()); }, ErrorKind::failure),
                       "another run is writing there"));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_NO_THROW(FolderLock lock(dir.path()));
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST(MappedFile, refuses_what_is_not_a_readable_file) {
  const TempDir dir;
  EXPECT_TRUE(
      mentions(error_of([&] { (void)MappedFile::open(dir / "absent"); }), "check the path"));
  EXPECT_TRUE(mentions(error_of([&] { (void)MappedFile::open(dir.path()); }), "is a directory"));
  EXPECT_TRUE(
      mentions(error_of([&] { (void)MappedFile::open("/dev/null"); }), "not a regular file"));
  std::ofstream(dir / "empty");
  EXPECT_TRUE(MappedFile::open(dir / "empty").bytes().empty());
  write_file(dir / "f", "abc");
  MappedFile a = MappedFile::open(dir / "f");
  const auto* data = a.bytes().data();
  const MappedFile b = std::move(a);
  EXPECT_EQ(b.bytes().data(), data) << "views survive a move";
  EXPECT_TRUE(a.bytes().empty());
}

}  // namespace
}  // namespace supersonic::io
