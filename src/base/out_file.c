/* out_file: files that are made piece by piece and take their name when they are whole.
 *
 * Space is reserved before the first byte, so that a full disk is met at the start. Writes carry
 * their own offset (pwrite), so threads may share a file. */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64

#include "base/base.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    OUTPUT_PATH_BYTES = 4096,
    WRITE_BYTES = 1 << 30, /* most bytes of one system call */
};

struct out_file {
    int fd;
    char *path;
};

static bool output_error(dp_error *err, const char *path, const char *what, int number) {
    char reason[128];
#ifdef __GLIBC__
    const char *text = strerror_r(number, reason, sizeof(reason));
#else
    const char *text = strerror_r(number, reason, sizeof(reason)) == 0 ? reason : "unknown error";
#endif
    return err_set(err, DP_E_FILE, "%s: %s: %s", path, what, text);
}

/* Gives the file its size with all of it on the disk, where the file system can promise that. */
static bool reserve(int fd, const char *path, uint64_t size, dp_error *err) {
    struct stat status;
    if (fstat(fd, &status) != 0) return output_error(err, path, "cannot be examined", errno);
    if ((uint64_t)status.st_size > size && ftruncate(fd, (off_t)size) != 0) {
        return output_error(err, path, "cannot be shortened", errno);
    }
    if (size == 0) return true;
    int number;
    do {
        number = posix_fallocate(fd, 0, (off_t)size);
    } while (number == EINTR);
    if (number == EOPNOTSUPP || number == EINVAL) {
        number = ftruncate(fd, (off_t)size) == 0 ? 0 : errno;
    }
    if (number == 0) return true;
    char what[80];
    snprintf(what, sizeof(what), "%" PRIu64 " bytes cannot be reserved", size);
    return output_error(err, path, what, number);
}

out_file *out_file_open(const char *path, uint64_t size, dp_error *err) {
    if (size > INT64_MAX) {
        err_set(err, DP_E_LIMIT, "%s: a file of %" PRIu64 " bytes", path, size);
        return NULL;
    }
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0) {
        output_error(err, path, "cannot be made", errno);
        return NULL;
    }
    const size_t n = strlen(path) + 1;
    out_file *o = mem_new(1, sizeof(out_file) + n, "a file", err);
    /* a lock on a file that has lost its name in the meantime holds nothing */
    struct stat locked, named;
    const bool ours = (flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) &&
                      fstat(fd, &locked) == 0 && stat(path, &named) == 0 &&
                      locked.st_dev == named.st_dev && locked.st_ino == named.st_ino;
    if (!ours) err_set(err, DP_E_FILE, "%s: is being written by another process", path);
    if (o == NULL || !ours || !reserve(fd, path, size, err)) {
        mem_free(o);
        close(fd);
        return NULL;
    }
    o->fd = fd;
    o->path = (char *)(o + 1);
    memcpy(o->path, path, n);
    return o;
}

bool out_file_read(out_file *o, uint64_t offset, void *out, size_t n, dp_error *err) {
    char *to = out;
    while (n > 0) {
        const ssize_t got = pread(o->fd, to, n < WRITE_BYTES ? n : WRITE_BYTES, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return output_error(err, o->path, "cannot be read", errno);
        if (got == 0) {
            return err_set(err, DP_E_FILE, "%s: ends at %" PRIu64, o->path, offset);
        }
        to += got;
        offset += (uint64_t)got;
        n -= (size_t)got;
    }
    return true;
}

bool out_file_write(out_file *o, uint64_t offset, const void *bytes, size_t n, dp_error *err) {
    const char *from = bytes;
    while (n > 0) {
        const ssize_t put = pwrite(o->fd, from, n < WRITE_BYTES ? n : WRITE_BYTES, (off_t)offset);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return output_error(err, o->path, "cannot be written", errno);
        from += put;
        offset += (uint64_t)put;
        n -= (size_t)put;
    }
    return true;
}

bool out_file_sync(out_file *o, dp_error *err) {
    return fsync(o->fd) == 0 || output_error(err, o->path, "cannot be written to the disk", errno);
}

void out_file_close(out_file *o) {
    if (o == NULL) return;
    close(o->fd);
    mem_free(o);
}

bool folder_make(const char *path, dp_error *err) {
    if (mkdir(path, 0777) == 0) return true;
    const int number = errno;
    return (number == EEXIST && path_is_folder(path)) ||
           output_error(err, path, "cannot be made", number);
}

bool folders_make(const char *path, dp_error *err) {
    char part[OUTPUT_PATH_BYTES];
    const size_t n = strlen(path);
    if (n == 0 || n >= sizeof(part)) {
        return err_set(err, DP_E_ARGUMENT, "a folder's path of %zu bytes: must be 1 to %zu", n,
                       sizeof(part) - 1);
    }
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != '\0') continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (!path_is_folder(part) && !folder_make(part, err)) return false;
    }
    return true;
}

bool path_remove(const char *path, dp_error *err) {
    struct stat status;
    if (lstat(path, &status) != 0) {
        return errno == ENOENT || output_error(err, path, "cannot be examined", errno);
    }
    if (!S_ISDIR(status.st_mode)) {
        return unlink(path) == 0 || output_error(err, path, "cannot be removed", errno);
    }
    DIR *folder = opendir(path);
    if (folder == NULL) return output_error(err, path, "cannot be listed", errno);
    bool ok = true;
    for (struct dirent *entry; ok && (entry = readdir(folder)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        ok = unlinkat(dirfd(folder), entry->d_name, 0) == 0 ||
             output_error(err, path, "a file in it cannot be removed", errno);
    }
    closedir(folder);
    return ok && (rmdir(path) == 0 || output_error(err, path, "cannot be removed", errno));
}

bool path_can_be_made(str path, dp_error *err) {
    char folder[OUTPUT_PATH_BYTES], shown[OUTPUT_PATH_BYTES];
    if (!path_parent(path, folder, sizeof(folder))) {
        return err_set(err, DP_E_FILE,
                       "%.100s...: a path of %zu bytes: its folder's has at most %d", path.data,
                       path.size, OUTPUT_PATH_BYTES - 1);
    }
    if (access(folder, W_OK | X_OK) == 0) return true;
    const int number = errno;
    snprintf(shown, sizeof(shown), "%.*s", STR_ARG(path));
    return output_error(err, shown, "cannot be made", number);
}

/* A file replaces a file by renaming; folders change places, and the old one is then removed. */
static bool replace_path(const char *from, const char *to, dp_error *err) {
    if (rename(from, to) == 0) return true;
    const int number = errno;
    if (number != EEXIST && number != ENOTEMPTY && number != EISDIR && number != ENOTDIR) {
        return output_error(err, to, "cannot be replaced", number);
    }
    char aside[OUTPUT_PATH_BYTES];
    const int n = snprintf(aside, sizeof(aside), "%s.%ld.old", to, (long)getpid());
    if (n < 0 || (size_t)n >= sizeof(aside)) {
        return err_set(err, DP_E_LIMIT, "%s: path of %zu bytes is too long", to, strlen(to));
    }
#ifdef RENAME_EXCHANGE
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_EXCHANGE) == 0) {
        return path_remove(from, err);
    }
#endif
    if (rename(to, aside) != 0) return output_error(err, to, "cannot be replaced", errno);
    if (rename(from, to) != 0) {
        const int why = errno;
        (void)!rename(aside, to);
        return output_error(err, to, "cannot be replaced", why);
    }
    return path_remove(aside, err);
}

bool path_replace(const char *from, const char *to, dp_error *err) {
    if (!replace_path(from, to, err)) return false;
    char folder[OUTPUT_PATH_BYTES];
    if (path_parent(str_of(to), folder, sizeof(folder))) folder_sync(folder);
    return true;
}

uint64_t disk_room(const char *path) {
    char folder[OUTPUT_PATH_BYTES];
    struct statvfs status;
    if (statvfs(path, &status) != 0 &&
        (!path_parent(str_of(path), folder, sizeof(folder)) || statvfs(folder, &status) != 0)) {
        return UINT64_MAX;
    }
    uint64_t bytes;
    return mul_u64(status.f_bavail, status.f_frsize, &bytes) ? bytes : UINT64_MAX;
}

bool path_exists(const char *path) {
    struct stat status;
    return lstat(path, &status) == 0;
}

bool path_is_same(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

bool path_is_inside(const char *path, const char *folder) {
    char a[PATH_MAX], b[PATH_MAX];
    if (realpath(path, a) == NULL || realpath(folder, b) == NULL) return false;
    const size_t n = strlen(b);
    return strncmp(a, b, n) == 0 && (a[n] == '\0' || a[n] == '/' || b[n - 1] == '/');
}

static void add_stamp(buf *out, const char *name, const struct stat *s) {
    buf_printf(out, "%s %" PRIu64 " %lld %ld\n", name, (uint64_t)s->st_size,
               (long long)s->st_mtim.tv_sec, s->st_mtim.tv_nsec);
}

void path_stamp(const char *path, buf *out) {
    struct stat status;
    if (stat(path, &status) != 0) return;
    if (!S_ISDIR(status.st_mode)) {
        add_stamp(out, "", &status);
        return;
    }
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        if (fstatat(dirfd(folder), entry->d_name, &status, 0) == 0 && S_ISREG(status.st_mode)) {
            add_stamp(out, entry->d_name, &status);
        }
    }
    if (folder != NULL) closedir(folder);
}

bool folder_is_empty(const char *path) {
    DIR *folder = opendir(path);
    bool empty = folder != NULL;
    for (struct dirent *entry; empty && (entry = readdir(folder)) != NULL;) {
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    }
    if (folder != NULL) closedir(folder);
    return empty;
}

uint64_t path_bytes(const char *path) {
    struct stat status;
    if (lstat(path, &status) != 0) return 0;
    if (!S_ISDIR(status.st_mode)) return (uint64_t)status.st_size;
    DIR *folder = opendir(path);
    uint64_t sum = 0;
    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        if (fstatat(dirfd(folder), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(status.st_mode)) {
            sum += (uint64_t)status.st_size;
        }
    }
    if (folder != NULL) closedir(folder);
    return sum;
}
