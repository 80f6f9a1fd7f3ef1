/* file: reading files by ranges, writing them all or nothing. The only file of the library that
 * needs POSIX.
 *
 * A file's size is taken once, at opening; whoever shortens it afterwards gets an error from the
 * read that misses the bytes. Reads carry their own offset (pread), so threads may share a file. */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64

#include "base/base.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PATH_BYTES = 4096,
    IO_BYTES = 1 << 30, /* most bytes of one system call: Linux stops at 2 GiB - 4 KiB */
};

struct file {
    int fd;
    uint64_t size;
    char *path;
};

/* strerror that threads may share; the two forms of strerror_r differ, this is the GNU one. */
static const char *system_reason(int number, char *text, size_t size) {
#ifdef __GLIBC__
    return strerror_r(number, text, size);
#else
    return strerror_r(number, text, size) == 0 ? text : "unknown error";
#endif
}

static bool io_error(dp_error *err, const char *path, const char *what) {
    const int number = errno;
    char reason[128];
    return err_set(err, DP_E_FILE, "%s: %s: %s", path, what,
                   system_reason(number, reason, sizeof(reason)));
}

file *file_open(const char *path, dp_error *err) {
    /* Non-blocking: opening a pipe that nobody writes to would wait for ever. */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        io_error(err, path, "cannot be opened");
        return NULL;
    }
    struct stat status;
    file *f = NULL;
    if (fstat(fd, &status) != 0) {
        io_error(err, path, "cannot be examined");
    } else if (S_ISDIR(status.st_mode)) {
        err_set(err, DP_E_FILE, "%s: is a folder, not a file", path);
    } else if (!S_ISREG(status.st_mode)) {
        err_set(err, DP_E_FILE, "%s: is not a regular file", path);
    } else {
        const size_t n = strlen(path) + 1;
        f = mem_new(1, sizeof(file) + n, "a file", err);
        if (f != NULL) {
            f->fd = fd;
            f->size = (uint64_t)status.st_size;
            f->path = (char *)(f + 1);
            memcpy(f->path, path, n);
        }
    }
    if (f == NULL) close(fd);
    return f;
}

void file_close(file *f) {
    if (f == NULL) return;
    close(f->fd);
    mem_free(f);
}

uint64_t file_size(const file *f) {
    return f->size;
}

const char *file_path(const file *f) {
    return f->path;
}

bool file_read(file *f, uint64_t offset, void *out, size_t n, dp_error *err) {
    if (offset > f->size || n > f->size - offset) {
        return err_set(err, DP_E_FILE,
                       "%s: %zu bytes at %" PRIu64 " reach past the end of the file at %" PRIu64,
                       f->path, n, offset, f->size);
    }
    char *to = out;
    while (n > 0) {
        const ssize_t got = pread(f->fd, to, n < IO_BYTES ? n : IO_BYTES, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return io_error(err, f->path, "cannot be read");
        if (got == 0) {
            return err_set(err, DP_E_FILE,
                           "%s: ends at %" PRIu64 ", was %" PRIu64 " bytes long when opened",
                           f->path, offset, f->size);
        }
        to += got;
        offset += (uint64_t)got;
        n -= (size_t)got;
    }
    return true;
}

void file_read_ahead(const file *f, uint64_t offset, uint64_t n) {
    if (offset >= f->size) return;
    (void)posix_fadvise(f->fd, (off_t)offset, (off_t)min_u64(n, f->size - offset),
                        POSIX_FADV_WILLNEED);
}

bool file_read_all(const char *path, size_t ceiling, buf *out, dp_error *err) {
    buf_init(out, ceiling);
    file *f = file_open(path, err);
    if (f == NULL) return false;
    bool ok = false;
    if (f->size > ceiling) {
        err_set(err, DP_E_LIMIT, "%s: %" PRIu64 " bytes, the limit is %zu", path, f->size, ceiling);
    } else {
        const size_t n = (size_t)f->size;
        out->data = mem_resize(NULL, n + 1, 1, "a file's bytes", err);
        if (out->data != NULL) {
            out->capacity = n + 1;
            out->data[0] = '\0';
            ok = file_read(f, 0, out->data, n, err);
        }
    }
    if (ok) {
        out->size = (size_t)f->size;
        out->data[out->size] = '\0';
    } else {
        buf_free(out);
    }
    file_close(f);
    return ok;
}

static bool write_bytes(int fd, const char *path, const void *bytes, size_t n, dp_error *err) {
    const char *from = bytes;
    while (n > 0) {
        const ssize_t put = write(fd, from, n < IO_BYTES ? n : IO_BYTES);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return io_error(err, path, "cannot be written");
        from += put;
        n -= (size_t)put;
    }
    return true;
}

bool path_parent(str path, char *out, size_t size) {
    size_t n = path.size;
    while (n > 0 && path.data[n - 1] == '/')
        n--;
    if (n == 0 && path.size > 0) n = 1; /* the root's is the root */
    while (n > 0 && path.data[n - 1] != '/')
        n--;
    const str folder = n > 0 ? (str){ path.data, n } : STR(".");
    if (folder.size >= size) return false;
    memcpy(out, folder.data, folder.size);
    out[folder.size] = '\0';
    return true;
}

void folder_sync(const char *path) {
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    if (fd < 0) return;
    (void)!fsync(fd);
    close(fd);
}

bool file_write_atomic(const char *path, const void *bytes, size_t n, dp_error *err) {
    static atomic_uint counter;
    char temporary[PATH_BYTES];
    const int length = snprintf(temporary, sizeof(temporary), "%s.%ld-%u.part", path,
                                (long)getpid(), atomic_fetch_add(&counter, 1));
    if (length < 0 || (size_t)length >= sizeof(temporary)) {
        return err_set(err, DP_E_LIMIT, "%s: path of %zu bytes is too long", path, strlen(path));
    }
    const int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) return io_error(err, path, "cannot be made");
    bool ok = write_bytes(fd, path, bytes, n, err);
    if (ok && fsync(fd) != 0) ok = io_error(err, path, "cannot be written to the disk");
    if (close(fd) != 0 && ok) ok = io_error(err, path, "cannot be closed");
    if (ok && rename(temporary, path) != 0) ok = io_error(err, path, "cannot be replaced");
    char folder[PATH_BYTES];
    if (ok) {
        if (path_parent(str_of(path), folder, sizeof(folder))) folder_sync(folder);
    } else {
        unlink(temporary);
    }
    return ok;
}

bool path_is_folder(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

bool path_is_file(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && S_ISREG(status.st_mode);
}

bool folder_list(const char *path, const char *suffix, buf *names, dp_error *err) {
    DIR *folder = opendir(path);
    if (folder == NULL) return io_error(err, path, "cannot be listed");
    errno = 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        const str name = str_of(entry->d_name);
        if (str_ends(name, suffix)) buf_add(names, name.data, name.size + 1);
    }
    const bool ok = errno == 0 || io_error(err, path, "cannot be listed");
    closedir(folder);
    return ok && buf_ok(names, "the names in a folder", err);
}

str path_last(const char *path) {
    str s = str_of(path);
    while (s.size > 1 && s.data[s.size - 1] == '/') s.size--;
    size_t first = s.size;
    while (first > 0 && s.data[first - 1] != '/') first--;
    return (str){ s.data + first, s.size - first };
}

bool path_join(char *out, size_t size, const char *folder, const char *name, dp_error *err) {
    const size_t n = strlen(folder);
    const char *between = n == 0 || folder[n - 1] == '/' ? "" : "/";
    const int length = snprintf(out, size, "%s%s%s", folder, between, name);
    if (length >= 0 && (size_t)length < size) return true;
    return err_set(err, DP_E_LIMIT, "%s/%s: path is longer than %zu bytes", folder, name, size - 1);
}

uint64_t memory_of_host(void) {
    const long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGE_SIZE);
    return pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : 0;
}
