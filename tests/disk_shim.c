/* Between a process and its disk: logs what changes files under one folder, or fails or kills at the n-th change.

   Preloaded (LD_PRELOAD); `disk_shim.py` compiles it, arms it through shim_arm() and reads its log. A log record is
       u8 op, u64 inode, u64 offset, u32 path length, u32 second path length, u64 data length, path, second path, data
   Memory maps are not seen: of SQLite's files only the -shm is written that way, and nothing in it needs to survive. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { CREATE = 1, WRITE, TRUNCATE, SYNC, RENAME, UNLINK, MKDIR, RMDIR, MARK };
enum { NOTHING, LOG, KILL, FAIL };

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static char root[PATH_MAX];
static size_t root_length;
static int mode = NOTHING, log_handle = -1, failing_errno, is_down;
static long count, at;
static char *paths[65536];

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Watch `folder`: mode 1 logs into `log`, 2 kills at change n, 3 answers changes from n on with `error`. */
void shim_arm(const char *folder, int how, long n, int error, const char *log) {
    strncpy(root, folder, sizeof root - 1);
    root_length = strlen(root);
    mode = how, at = n, failing_errno = error, count = 0, is_down = 0;
    if (how == LOG) log_handle = REAL(open)(log, O_WRONLY | O_CREAT | O_APPEND, 0666);
}

long shim_count(void) { return count; }

static int watched(const char *path) {
    return mode && path && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

static char *of(int handle) { return handle >= 0 && handle < 65536 ? paths[handle] : NULL; }

static const char *joined(int directory, const char *path, char *space) {
    if (path[0] == '/') return path;
    if (directory == AT_FDCWD) {
        if (!getcwd(space, PATH_MAX)) return path;
    } else {
        if (!of(directory)) return path;
        strcpy(space, of(directory));
    }
    strcat(strcat(space, "/"), path);
    return space;
}

static void record(int op, uint64_t inode, uint64_t offset, const char *path, const char *second, const void *data,
                   uint64_t length) {
    if (mode != LOG) return;
    uint32_t first_length = path ? strlen(path) : 0, second_length = second ? strlen(second) : 0;
    char head[33];
    memcpy(head, &(uint8_t){op}, 1);
    memcpy(head + 1, &inode, 8), memcpy(head + 9, &offset, 8);
    memcpy(head + 17, &first_length, 4), memcpy(head + 21, &second_length, 4), memcpy(head + 25, &length, 8);
    ssize_t (*put)(int, const void *, size_t) = REAL(write);
    if (put(log_handle, head, 33) != 33 || put(log_handle, path, first_length) != (ssize_t)first_length ||
        put(log_handle, second, second_length) != (ssize_t)second_length ||
        (length && put(log_handle, data, length) != (ssize_t)length))
        abort();
}

/* Before each change: whether it shall fail. */
static int refused(void) {
    count++;
    if (mode == KILL && count >= at) kill(getpid(), SIGKILL);
    if (mode == FAIL && count >= at) is_down = 1;
    if (is_down) errno = failing_errno;
    return is_down;
}

/* A full or read-only disk can be read; one that is gone cannot. */
static int unreadable(void) {
    if (!is_down || failing_errno == ENOSPC || failing_errno == EROFS) return 0;
    errno = failing_errno;
    return 1;
}

static uint64_t inode_of(int handle) {
    struct stat about;
    return fstat(handle, &about) ? 0 : about.st_ino;
}

static uint64_t inode_at(const char *path) {
    struct stat about;
    return lstat(path, &about) ? 0 : about.st_ino;
}

static void remember(int handle, const char *path) {
    if (handle >= 0 && handle < 65536) free(paths[handle]), paths[handle] = strdup(path);
}

static int opened(int directory, const char *name, int flags, mode_t rights) {
    char space[2 * PATH_MAX];
    const char *path = joined(directory, name, space);
    int (*real)(int, const char *, int, ...) = REAL(openat);
    if (!watched(path)) return real(directory, name, flags, rights);
    pthread_mutex_lock(&lock);
    int handle = -1, is_new = (flags & O_CREAT) && !inode_at(path);
    int changes = is_new || (flags & O_TRUNC);
    if (!(changes && refused()) && !unreadable() &&
        !(is_down && failing_errno == EROFS && (flags & O_ACCMODE) != O_RDONLY && (errno = EROFS))) {
        handle = real(directory, name, flags, rights);
        if (handle >= 0) {
            remember(handle, path);
            if (is_new) record(CREATE, inode_of(handle), 0, path, NULL, NULL, 0);
            else if (flags & O_TRUNC) record(TRUNCATE, inode_of(handle), 0, path, NULL, NULL, 0);
        }
    }
    pthread_mutex_unlock(&lock);
    return handle;
}

#define RIGHTS(flags, rights)             \
    mode_t rights = 0;                    \
    if (flags & (O_CREAT | O_TMPFILE)) {  \
        va_list rest;                     \
        va_start(rest, flags);            \
        rights = va_arg(rest, unsigned);  \
        va_end(rest);                     \
    }

int open(const char *path, int flags, ...) { RIGHTS(flags, rights) return opened(AT_FDCWD, path, flags, rights); }
int open64(const char *path, int flags, ...) {
    RIGHTS(flags, rights) return opened(AT_FDCWD, path, flags | O_LARGEFILE, rights);
}
int openat(int directory, const char *path, int flags, ...) {
    RIGHTS(flags, rights) return opened(directory, path, flags, rights);
}
int openat64(int directory, const char *path, int flags, ...) {
    RIGHTS(flags, rights) return opened(directory, path, flags | O_LARGEFILE, rights);
}

int close(int handle) {
    pthread_mutex_lock(&lock);
    if (of(handle)) free(paths[handle]), paths[handle] = NULL;
    int result = REAL(close)(handle);
    pthread_mutex_unlock(&lock);
    return result;
}

/* C streams write inside libc, unseen: what such a file holds is logged when it is closed. */
static FILE *stream(FILE *(*real)(const char *, const char *), const char *path, const char *how) {
    char space[2 * PATH_MAX];
    path = joined(AT_FDCWD, path, space);
    if (!watched(path) || how[0] != 'w') return real(path, how);
    int handle = opened(AT_FDCWD, path, O_RDWR | O_CREAT | O_TRUNC, 0666);
    return handle < 0 ? NULL : fdopen(handle, how);
}
FILE *fopen(const char *path, const char *how) { return stream(REAL(fopen), path, how); }
FILE *fopen64(const char *path, const char *how) { return stream(REAL(fopen64), path, how); }

int fclose(FILE *file) {
    int handle = fileno(file);
    char *path = of(handle);
    if (!path || !watched(path)) return REAL(fclose)(file);
    pthread_mutex_lock(&lock);
    int result = -1;
    if (!refused()) {
        fflush(file);
        struct stat about;
        if (mode == LOG && !fstat(handle, &about)) {
            char *data = malloc(about.st_size + 1);
            if (pread(handle, data, about.st_size, 0) != about.st_size) abort();
            record(WRITE, about.st_ino, 0, path, NULL, data, about.st_size);
            free(data);
        }
        free(paths[handle]), paths[handle] = NULL;
        result = REAL(fclose)(file);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t write(int handle, const void *data, size_t length) {
    char *path = of(handle);
    ssize_t (*real)(int, const void *, size_t) = REAL(write);
    if (!path || !watched(path)) return real(handle, data, length);
    pthread_mutex_lock(&lock);
    ssize_t done = -1;
    if (!refused()) {
        int appends = fcntl(handle, F_GETFL) & O_APPEND;
        off_t offset = lseek(handle, 0, appends ? SEEK_END : SEEK_CUR);
        done = real(handle, data, length);
        if (done > 0) record(WRITE, inode_of(handle), offset, path, NULL, data, done);
    }
    pthread_mutex_unlock(&lock);
    return done;
}

static ssize_t written(int handle, const void *data, size_t length, off_t offset) {
    char *path = of(handle);
    ssize_t (*real)(int, const void *, size_t, off_t) = REAL(pwrite);
    if (!path || !watched(path)) return real(handle, data, length, offset);
    pthread_mutex_lock(&lock);
    ssize_t done = -1;
    if (!refused()) {
        done = real(handle, data, length, offset);
        if (done > 0) record(WRITE, inode_of(handle), offset, path, NULL, data, done);
    }
    pthread_mutex_unlock(&lock);
    return done;
}
ssize_t pwrite(int handle, const void *data, size_t length, off_t offset) {
    return written(handle, data, length, offset);
}
ssize_t pwrite64(int handle, const void *data, size_t length, off64_t offset) {
    return written(handle, data, length, offset);
}

ssize_t read(int handle, void *data, size_t length) {
    char *path = of(handle);
    if (path && watched(path) && unreadable()) return -1;
    return REAL(read)(handle, data, length);
}
ssize_t pread(int handle, void *data, size_t length, off_t offset) {
    char *path = of(handle);
    if (path && watched(path) && unreadable()) return -1;
    return REAL(pread)(handle, data, length, offset);
}
ssize_t pread64(int handle, void *data, size_t length, off64_t offset) {
    char *path = of(handle);
    if (path && watched(path) && unreadable()) return -1;
    return REAL(pread64)(handle, data, length, offset);
}

static int shortened(int handle, off_t size) {
    char *path = of(handle);
    int (*real)(int, off_t) = REAL(ftruncate);
    if (!path || !watched(path)) return real(handle, size);
    pthread_mutex_lock(&lock);
    int result = -1;
    if (!refused() && !(result = real(handle, size)))
        record(TRUNCATE, inode_of(handle), size, path, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
int ftruncate(int handle, off_t size) { return shortened(handle, size); }
int ftruncate64(int handle, off64_t size) { return shortened(handle, size); }

static int forced(int handle, int (*real)(int)) {
    char *path = of(handle);
    if (!path || !watched(path)) return real(handle);
    pthread_mutex_lock(&lock);
    int result = -1;
    if (!refused() && !(result = 0)) /* not really: the disk that forgets is the replayed one, and this is quick */
        record(SYNC, inode_of(handle), 0, path, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
int fsync(int handle) { return forced(handle, REAL(fsync)); }
int fdatasync(int handle) { return forced(handle, REAL(fdatasync)); }

static int renamed(int from, const char *old, int to, const char *fresh) {
    char space[2 * PATH_MAX], other[2 * PATH_MAX];
    const char *path = joined(from, old, space), *second = joined(to, fresh, other);
    int (*real)(int, const char *, int, const char *) = REAL(renameat);
    if (!watched(path)) return real(from, old, to, fresh);
    pthread_mutex_lock(&lock);
    int result = -1;
    if (!refused() && !(result = real(from, old, to, fresh))) record(RENAME, 0, 0, path, second, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
int rename(const char *old, const char *fresh) { return renamed(AT_FDCWD, old, AT_FDCWD, fresh); }
int renameat(int from, const char *old, int to, const char *fresh) { return renamed(from, old, to, fresh); }

static int removed(int directory, const char *name, int flags) {
    char space[2 * PATH_MAX];
    const char *path = joined(directory, name, space);
    int (*real)(int, const char *, int) = REAL(unlinkat);
    if (!watched(path)) return real(directory, name, flags);
    if (strstr(path, "/.mark-")) {
        record(MARK, 0, 0, path, NULL, NULL, 0);
        return 0;
    }
    pthread_mutex_lock(&lock);
    int result = -1;
    if (inode_at(path) == 0) result = real(directory, name, flags); /* no change to count */
    else if (!refused() && !(result = real(directory, name, flags)))
        record(flags & AT_REMOVEDIR ? RMDIR : UNLINK, 0, 0, path, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
int unlink(const char *path) { return removed(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return removed(AT_FDCWD, path, AT_REMOVEDIR); }
int unlinkat(int directory, const char *path, int flags) { return removed(directory, path, flags); }

int mkdirat(int directory, const char *name, mode_t rights) {
    char space[2 * PATH_MAX];
    const char *path = joined(directory, name, space);
    int (*real)(int, const char *, mode_t) = REAL(mkdirat);
    if (!watched(path)) return real(directory, name, rights);
    pthread_mutex_lock(&lock);
    int result = -1;
    if (inode_at(path)) result = real(directory, name, rights);
    else if (!refused() && !(result = real(directory, name, rights)))
        record(MKDIR, inode_at(path), 0, path, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
int mkdir(const char *path, mode_t rights) { return mkdirat(AT_FDCWD, path, rights); }
