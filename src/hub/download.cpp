// Writing at offsets of its own and hashing what was written in order, a transfer may stop and go
// on at any byte; two processes that write the same file (where locks do not work) write the same
// bytes.
#include "hub/download.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <filesystem>

#include "core/error.h"
#include "hub/name.h"
#include "io/output_file.h"

namespace supersonic::hub {
namespace {

constexpr std::size_t kPiece = std::size_t{1} << 20;

class Partial {
 public:
  Partial(const Cache& cache, const Download& job, Client& client, Counters& counters)
      : job_(job),
        client_(client),
        counters_(counters),
        path_(cache.blob(job.repo, job.file.etag) + ".incomplete"),
        shown_(job.repo + ":" + job.file.path) {
    fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd_ < 0) io::fail_write(path_, errno);
  }
  ~Partial() {
    if (fd_ >= 0) ::close(fd_);
  }

  // Brings the content to its end; true where its hash is right.
  bool complete() {
    take_what_is_there();
    for (int tries = 1; offset_ < job_.file.size;) {
      const std::uint64_t before = offset_;
      const HttpResult result = transfer();
      if (write_error_)
        io::fail_write(path_, write_error_,
                       ". What has come so far is kept; the same command goes on");
      if (offset_ == job_.file.size) break;
      if (offset_ > before) tries = 1;
      const bool cut = result.fault == Fault::none && result.head.status / 100 == 2;
      if (too_much_)
        fail(ErrorKind::bad_file, "{}: more bytes come than the hub's list has ({})", shown_,
             job_.file.size);
      if (result.fault == Fault::stopped) fail(ErrorKind::interrupted, "interrupted");
      if (result.fault == Fault::none && result.head.status == 416)
        restart();
      else if (!cut && !Client::worth_another_try(result))
        client_.refuse(result, subject());
      if (!client_.wait(result, tries++, shown_)) give_up(result, cut);
    }
    return digest_->hex() == job_.file.etag;
  }

  // Empty again, as after a wrong hash.
  void restart() {
    counters_.arrived -= offset_;
    offset_ = 0, digest_ = blob_digest(job_.file.large(), job_.file.size);
    if (::ftruncate(fd_, 0) != 0) io::fail_write(path_, errno);
  }
  bool resumed() const { return resumed_; }

  void commit(const std::string& blob) {
    if (::fsync(fd_) != 0) io::fail_write(path_, errno);
    if (::rename(path_.c_str(), blob.c_str()) != 0) io::fail_write(blob, errno);
    io::sync_directory(std::filesystem::path(blob).parent_path().string());
  }
  void discard() { ::unlink(path_.c_str()); }

 private:
  Subject subject() const { return {job_.repo, job_.commit, job_.file.path}; }

  void take_what_is_there() {
    digest_ = blob_digest(job_.file.large(), job_.file.size);
    struct stat info {};
    if (::fstat(fd_, &info) != 0 || static_cast<std::uint64_t>(info.st_size) > job_.file.size)
      return restart();
    const auto there = static_cast<std::uint64_t>(info.st_size);
    std::vector<std::byte> buffer(there ? kPiece : 0);
    while (offset_ < there) {
      if (!client_.watch().goes_on()) fail(ErrorKind::interrupted, "interrupted");
      const ssize_t n = ::pread(fd_, buffer.data(), buffer.size(), static_cast<off_t>(offset_));
      if (n <= 0) return restart();
      take({buffer.data(), static_cast<std::size_t>(n)});
    }
    resumed_ = offset_ > 0;
    // Room for the rest, so that a full disk is found before the transfer; a courtesy, as file
    // systems differ.
    if (job_.file.size > offset_ &&
        ::fallocate(fd_, FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset_),
                    static_cast<off_t>(job_.file.size - offset_)) != 0 &&
        (errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
      io::fail_write(path_, errno, ". What has come so far is kept; the same command goes on");
  }

  void take(std::span<const std::byte> bytes) {
    digest_->update(bytes);
    offset_ += bytes.size(), counters_.arrived += bytes.size();
  }

  bool write(std::span<const std::byte> bytes) {
    if (bytes.size() > job_.file.size - offset_) return too_much_ = true, false;
    for (std::size_t done = 0; done < bytes.size();) {
      const ssize_t n = ::pwrite(fd_, bytes.data() + done, bytes.size() - done,
                                 static_cast<off_t>(offset_ + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return write_error_ = errno, false;
      done += static_cast<std::size_t>(n);
    }
    counters_.received += bytes.size();
    take(bytes);
    return true;
  }

  // Whether the answer begins where this file ends; a server that ignores the range begins anew.
  bool begins_here(const HttpHead& head) {
    if (head.status == 200) {
      if (offset_ > 0) restart(), resumed_ = false;
      return true;
    }
    const std::string range = head.field("content-range");  // "bytes 100-199/200"
    std::uint64_t first = 0;
    if (!range.starts_with("bytes ")) return false;
    const auto [end, error] = std::from_chars(range.data() + 6, range.data() + range.size(), first);
    const std::size_t slash = range.find('/');
    return error == std::errc{} && *end == '-' && first == offset_ && slash != range.npos &&
           (range.substr(slash + 1) == "*" ||
            range.substr(slash + 1) == std::to_string(job_.file.size));
  }

  HttpResult transfer() {
    HttpRequest request;
    request.url = fmt::format("{}/{}/resolve/{}/{}", client_.settings().endpoint, job_.repo,
                              job_.commit, url_path(job_.file.path));
    request.headers = {"Accept-Encoding: identity"};
    if (offset_ > 0) request.headers.push_back(fmt::format("Range: bytes={}-", offset_));
    bool begun = false, wrong_range = false;
    request.on_body = [&](const HttpHead& head, std::span<const std::byte> bytes) {
      if (head.status != 200 && head.status != 206) return true;  // an error's text
      if (!begun && !begins_here(head)) return wrong_range = true, false;
      begun = true;
      return write(bytes);
    };
    HttpResult result = client_.exchange(std::move(request));
    if (wrong_range) {
      restart();
      result.fault = Fault::broken,
      result.problem = "the server sent another part of the file than was asked for";
    }
    return result;
  }

  [[noreturn]] void give_up(const HttpResult& result, bool cut) {
    if (!cut) client_.refuse(result, subject());
    fail(ErrorKind::network,
         "{}: ends after {} of {} bytes, again and again: try again later, what has come is kept",
         shown_, offset_, job_.file.size);
  }

  const Download& job_;
  Client& client_;
  Counters& counters_;
  std::string path_, shown_;
  std::unique_ptr<Digest> digest_;
  int fd_ = -1, write_error_ = 0;
  std::uint64_t offset_ = 0;
  bool resumed_ = false, too_much_ = false;
};

void fetch_blob(Client& client, const Cache& cache, const Download& job, Counters& counters) {
  Partial partial(cache, job, client, counters);
  bool right = partial.complete();
  if (!right && partial.resumed()) {  // what was there was of something else
    if (client.watch().say)
      client.watch().say(
          fmt::format("{}:{}: the part that was there is damaged; downloading all of it again",
                      job.repo, job.file.path));
    partial.restart();
    right = partial.complete();
  }
  if (!right) {
    partial.discard();
    fail(ErrorKind::bad_file,
         "{}:{}: what the server sent does not have the hash that the hub lists ({}): removed it; "
         "try again, and "
         "look for a proxy or a mirror that changes files",
         job.repo, job.file.path, job.file.etag);
  }
  partial.commit(cache.blob(job.repo, job.file.etag));
}

bool is_whole(const std::string& blob, std::uint64_t size) {
  std::error_code error;
  return std::filesystem::is_regular_file(blob, error) &&
         std::filesystem::file_size(blob, error) == size;
}

}  // namespace

std::unique_ptr<Digest> blob_digest(bool large, std::uint64_t size) {
  auto digest = open_digest(large ? Digest::Kind::sha256 : Digest::Kind::sha1);
  if (!large) {
    const std::string head = fmt::format("blob {}", size);
    digest->update(std::as_bytes(std::span(head.c_str(), head.size() + 1)));  // with its NUL
  }
  return digest;
}

std::uint64_t missing_bytes(const Cache& cache, const Download& job) {
  if (cache.has(job.repo, job.commit, job.file)) return 0;
  const std::string blob = cache.blob(job.repo, job.file.etag);
  if (is_whole(blob, job.file.size)) return 0;
  std::error_code error;
  const std::uint64_t there = std::filesystem::file_size(blob + ".incomplete", error);
  return error || there > job.file.size ? job.file.size : job.file.size - there;
}

void download(Client& client, const Cache& cache, const Download& job, Counters& counters) {
  if (cache.has(job.repo, job.commit, job.file)) {
    counters.arrived += job.file.size;
    return;
  }
  const BlobLock lock(
      cache, job.repo, job.file.etag,
      [&] {
        if (client.watch().say)
          client.watch().say(fmt::format("{}:{}: another process is downloading it; waiting",
                                         job.repo, job.file.path));
      },
      [&] { return client.watch().goes_on(); });
  if (is_whole(cache.blob(job.repo, job.file.etag), job.file.size) ||
      cache.has(job.repo, job.commit, job.file))
    counters.arrived += job.file.size;
  else
    fetch_blob(client, cache, job, counters);
  if (!cache.has(job.repo, job.commit, job.file)) cache.place(job.repo, job.commit, job.file);
}

}  // namespace supersonic::hub
