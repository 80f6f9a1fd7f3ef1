/* disk: names that are safe to use, and what the model folder needs of the file system. POSIX.
 *
 * Deleting walks by open folders (openat) and never opens a link, so that a link put into a model
 * cannot lead out of it, not even while it is being deleted. A lock is a file that is flocked; who
 * holds it deletes it, so who gets one looks whether the file is still the one of that name. */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64

#include "store/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    NAMES_BYTES_MAX = 64 * 1024 * 1024, /* of the names in one folder */
    REMOVE_DEPTH_MAX = 64,              /* folders in folders */
};

/* ---- names --------------------------------------------------------------------------------- */

bool name_is_plain(str name) {
    if (name.size == 0 || name.size > FILE_NAME_MAX || name.data[0] == '.') return false;
    while (name.size > 0) {
        uint32_t code;
        const size_t n = utf8_next(name, &code);
        if (n == 0 || code < 0x20 || (code >= 0x7f && code < 0xa0) || code == '/' || code == '\\') {
            return false;
        }
        name.data += n, name.size -= n;
    }
    return true;
}

bool model_name_check(const char *name, dp_error *err) {
    const str s = str_of(name);
    if (name_is_plain(s) && s.size <= STORE_NAME_MAX && s.data[0] != '-') return true;
    return err_set(err, DP_E_ARGUMENT,
                   "\"%.*s\" is no name for a model of the folder: 1 to %d bytes of UTF-8 without "
                   "'/', '\\' and control characters that begin neither with '.' nor with '-'",
                   STR_ARG(s), STORE_NAME_MAX);
}

bool name_ends(const char *name, const char *suffix) {
    const size_t n = strlen(name), m = strlen(suffix);
    return n > m && strcasecmp(name + n - m, suffix) == 0;
}

bool name_is_split(const char *name, uint32_t *index, uint32_t *n, size_t *stem) {
    enum { DIGITS = 5 };
    static const char shape[] = "-00000-of-00000.gguf";
    const size_t size = strlen(name), tail = sizeof(shape) - 1;
    uint64_t first, last;
    if (size <= tail) return false;
    const char *at = name + size - tail;
    for (size_t i = 0; i < tail; i++) {
        const bool digit = at[i] >= '0' && at[i] <= '9';
        if (shape[i] == '0' ? !digit : at[i] != shape[i]) return false;
    }
    if (!str_to_u64((str){ at + 1, DIGITS }, &first) ||
        !str_to_u64((str){ at + 5 + DIGITS, DIGITS }, &last)) {
        return false;
    }
    *index = (uint32_t)first;
    *n = (uint32_t)last;
    *stem = size - tail;
    return true;
}

bool hidden_path(char *out, size_t size, const char *folder, const char *name, const char *suffix,
                 dp_error *err) {
    char hidden[STORE_NAME_MAX + 32];
    const int n = snprintf(hidden, sizeof(hidden), ".%s.%s", name, suffix);
    assert(n > 0 && (size_t)n < sizeof(hidden));
    return path_join(out, size, folder, hidden, err);
}

/* ---- files and folders --------------------------------------------------------------------- */

bool disk_error(dp_error *err, const char *path, const char *what) {
    const int number = errno;
    char text[128];
#ifdef __GLIBC__
    const char *reason = strerror_r(number, text, sizeof(text));
#else
    const char *reason = strerror_r(number, text, sizeof(text)) == 0 ? text : "unknown error";
#endif
    return err_set(err, DP_E_FILE, "%.300s: %s: %s", path, what, reason);
}

/* `path` is for messages. */
static bool remove_entry(int folder, const char *name, const char *path, int depth, dp_error *err) {
    if (unlinkat(folder, name, 0) == 0 || errno == ENOENT) return true;
    if (errno != EISDIR && errno != EPERM) return disk_error(err, path, "cannot be deleted");
    const int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *inside = fd < 0 ? NULL : fdopendir(fd);
    if (inside == NULL) {
        disk_error(err, path, "cannot be deleted");
        if (fd >= 0) close(fd);
        return false;
    }
    bool ok = depth < REMOVE_DEPTH_MAX ||
              err_set(err, DP_E_FILE, "%.300s: more than %d folders in each other", path,
                      REMOVE_DEPTH_MAX);
    for (struct dirent *e; ok && (e = readdir(inside)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        ok = remove_entry(fd, e->d_name, path, depth + 1, err);
    }
    closedir(inside);
    if (ok && unlinkat(folder, name, AT_REMOVEDIR) != 0 && errno != ENOENT) {
        ok = disk_error(err, path, "cannot be deleted");
    }
    return ok;
}

bool disk_remove(const char *path, dp_error *err) {
    return remove_entry(AT_FDCWD, path, path, 0, err);
}

bool disk_rename(const char *path, const char *to, dp_error *err) {
    if (path_exists(to)) {
        errno = EEXIST;
        return disk_error(err, to, "cannot be made");
    }
    return rename(path, to) == 0 || disk_error(err, path, "cannot be renamed");
}

bool disk_replace(const char *path, const char *to, const char *old, dp_error *err) {
#ifdef RENAME_EXCHANGE
    if (renameat2(AT_FDCWD, path, AT_FDCWD, to, RENAME_EXCHANGE) == 0) {
        return rename(path, old) == 0 || disk_error(err, path, "cannot be renamed");
    }
    if (errno != EINVAL && errno != ENOSYS) return disk_error(err, to, "cannot be replaced");
#endif
    /* Two steps where the file system has no exchange; the first is undone if the second fails. */
    if (rename(to, old) != 0) return disk_error(err, to, "cannot be renamed");
    if (rename(path, to) == 0) return true;
    disk_error(err, path, "cannot be renamed");
    (void)!rename(old, to);
    return false;
}

uint64_t disk_bytes(const char *path) {
    struct stat status;
    if (stat(path, &status) != 0) return 0;
    if (S_ISREG(status.st_mode)) return (uint64_t)status.st_size;
    if (!S_ISDIR(status.st_mode)) return 0;
    uint64_t bytes = 0;
    DIR *inside = opendir(path);
    for (struct dirent *e; inside != NULL && (e = readdir(inside)) != NULL;) {
        if (fstatat(dirfd(inside), e->d_name, &status, 0) == 0 && S_ISREG(status.st_mode)) {
            bytes += (uint64_t)status.st_size;
        }
    }
    if (inside != NULL) closedir(inside);
    return bytes;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

bool disk_names(const char *path, bool hidden, arena *memory, const char ***names, uint32_t *n,
                dp_error *err) {
    buf all;
    buf_init(&all, NAMES_BYTES_MAX);
    *n = 0;
    *names = NULL;
    bool ok = folder_list(path, "", &all, err);
    char *copy = ok && all.size > 0 ? arena_copy(memory, all.data, all.size, err) : NULL;
    if (copy != NULL) {
        uint32_t count = 0;
        for (size_t i = 0; i < all.size; i++)
            count += copy[i] == '\0';
        *names = arena_new(memory, count, sizeof(**names), "the names in a folder", err);
    }
    ok = ok && (all.size == 0 || (copy != NULL && *names != NULL));
    for (size_t i = 0; ok && i < all.size; i += strlen(copy + i) + 1) {
        const char *name = copy + i;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) continue;
        if (hidden || name[0] != '.') (*names)[(*n)++] = name;
    }
    if (*n > 0) qsort(*names, *n, sizeof(**names), compare_names);
    buf_free(&all);
    return ok;
}

/* ---- locks --------------------------------------------------------------------------------- */

int store_lock(const char *folder, const char *name, dp_error *err) {
    char path[STORE_PATH_MAX];
    if (!hidden_path(path, sizeof(path), folder, name, "lock", err)) return -1;
    for (;;) {
        const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (fd < 0) {
            disk_error(err, path, "cannot be opened");
            return -1;
        }
        struct stat held, named;
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            if (errno == EWOULDBLOCK) {
                err_set(err, DP_E_FILE, "%s: another process is pulling or removing it", name);
            } else {
                disk_error(err, path, "cannot be locked");
            }
            close(fd);
            return -1;
        }
        if (fstat(fd, &held) == 0 && lstat(path, &named) == 0 && held.st_ino == named.st_ino &&
            held.st_dev == named.st_dev) {
            return fd;
        }
        close(fd); /* its holder has just deleted it */
    }
}

void store_unlock(const char *folder, const char *name, int lock) {
    char path[STORE_PATH_MAX];
    if (lock < 0) return;
    if (hidden_path(path, sizeof(path), folder, name, "lock", NULL)) unlink(path);
    close(lock);
}
