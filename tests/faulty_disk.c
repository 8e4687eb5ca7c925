/* A disk that fails: loaded with LD_PRELOAD, it lets calls that change files below a folder fail, or kills the process.

   FAULT_BELOW  the folder, without links; unset: nothing happens
   FAULT_AT     the number of the call, from 0
   FAULT        a number of errno for that call; negative: for it and all later ones; 9999: SIGKILL instead
   FAULT_LOG    a file, to which the name and the path of each such call are appended

   Of a write that fails, half is written. Where the disk is full, files can still be removed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static long calls = 0;

/* Whether this call, about a path or a descriptor, must fail; then errno is set. */
static int fails(const char *name, const char *path, int descriptor) {
    const char *below = getenv("FAULT_BELOW"), *at = getenv("FAULT_AT"), *fault = getenv("FAULT"), *log = getenv("FAULT_LOG");
    char full[2 * PATH_MAX] = "", link[64];
    if (!below) return 0;
    if (!path) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
        if (readlink(link, full, PATH_MAX - 1) < 0) return 0;
    } else if (path[0] == '/') {
        snprintf(full, sizeof full, "%s", path);
    } else {
        char folder[PATH_MAX];
        snprintf(full, sizeof full, "%s/%s", getcwd(folder, sizeof folder) ? folder : "", path);
    }
    if (strncmp(full, below, strlen(below))) return 0;
    long call = __sync_fetch_and_add(&calls, 1);
    if (log) {
        char line[3 * PATH_MAX];
        int length = snprintf(line, sizeof line, "%s %s\n", name, full);
        int file = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT, 0600);
        syscall(SYS_write, file, line, length);
        syscall(SYS_close, file);
    }
    if (!at || !fault) return 0;
    long number = atol(fault);
    int later = number < 0 && call > atol(at);
    if (number == -ENOSPC && (!strcmp(name, "unlink") || !strcmp(name, "rmdir"))) return 0;
    if (call != atol(at) && !later) return 0;
    errno = labs(number);
    return 1;
}

/* The same for calls that do not end half done. */
static int ends(const char *name, const char *path, int descriptor) {
    if (!fails(name, path, descriptor)) return 0;
    if (errno == 9999) raise(SIGKILL);
    return 1;
}

ssize_t write(int file, const void *content, size_t size) {
    int half = fails("write", NULL, file), error = errno;
    if (half) {
        if (size > 1) syscall(SYS_write, file, content, size / 2);
        if (error == 9999) raise(SIGKILL);
        errno = error;
        return -1;
    }
    return syscall(SYS_write, file, content, size);
}

#define OPEN(name)                                                                  \
    int name(const char *path, int flags, ...) {                                    \
        va_list rest;                                                               \
        va_start(rest, flags);                                                      \
        mode_t mode = va_arg(rest, mode_t);                                         \
        va_end(rest);                                                               \
        if (flags & (O_WRONLY | O_RDWR | O_CREAT) && ends("open", path, 0)) return -1; \
        return REAL(name)(path, flags, mode);                                       \
    }
OPEN(open)
OPEN(open64)

#define FOPEN(name)                                                          \
    FILE *name(const char *path, const char *mode) {                         \
        if (mode[0] != 'r' && ends("fopen", path, 0)) return NULL;           \
        return REAL(name)(path, mode);                                       \
    }
FOPEN(fopen)
FOPEN(fopen64)

#define CALL(type, name, parameters, arguments, path, descriptor) \
    type name parameters {                                        \
        return ends(#name, path, descriptor) ? -1 : REAL(name) arguments; \
    }
CALL(int, fsync, (int file), (file), NULL, file)
CALL(int, fdatasync, (int file), (file), NULL, file)
CALL(int, ftruncate64, (int file, off64_t size), (file, size), NULL, file)
CALL(ssize_t, sendfile64, (int out, int in, off64_t *from, size_t size), (out, in, from, size), NULL, out)
CALL(int, fchmod, (int file, mode_t mode), (file, mode), NULL, file)
CALL(int, chmod, (const char *path, mode_t mode), (path, mode), path, 0)
CALL(int, mkdir, (const char *path, mode_t mode), (path, mode), path, 0)
CALL(int, rmdir, (const char *path), (path), path, 0)
CALL(int, unlink, (const char *path), (path), path, 0)
CALL(int, rename, (const char *from, const char *to), (from, to), to, 0)
CALL(int, link, (const char *from, const char *to), (from, to), to, 0)
CALL(int, symlink, (const char *from, const char *to), (from, to), to, 0)

/* What shutil.rmtree uses; the path is relative to a folder's descriptor. */
int unlinkat(int folder, const char *path, int flags) {
    if (ends(flags & AT_REMOVEDIR ? "rmdir" : "unlink", NULL, folder)) return -1;
    return REAL(unlinkat)(folder, path, flags);
}
