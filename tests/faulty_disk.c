/* A disk that fails: loaded with LD_PRELOAD, it lets calls that change files below a folder fail, or copies the folder.

   FAULT_BELOW  the folder, without links; unset: nothing happens
   FAULT_AT     the number of the call, from 0
   FAULT        a number of errno for that call; negative: for it and all later ones
   FAULT_LOG    a file, to which the name and the path of each such call are appended
   FAULT_COPIES a folder that gets a copy of FAULT_BELOW before one in FAULT_EVERY calls, named by the number of the call:
                what a process leaves that is killed there; no call fails then

   Of a write that fails or is copied, half is written. Where the disk is full, files can still be removed. Nothing is
   synced, because that takes time and changes nothing that a test sees. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

enum { WORKS, FAILS, COPIED };

static long calls = 0;
static pthread_mutex_t copying = PTHREAD_MUTEX_INITIALIZER;

/* What happens to this call, about a path or a descriptor: where it fails, errno is set. */
static int fate(const char *name, const char *path, int descriptor, long *number) {
    const char *below = getenv("FAULT_BELOW"), *at = getenv("FAULT_AT"), *fault = getenv("FAULT"), *log = getenv("FAULT_LOG");
    char full[2 * PATH_MAX] = "", link[64];
    if (!below) return WORKS;
    if (!path) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
        if (readlink(link, full, PATH_MAX - 1) < 0) return WORKS;
    } else if (path[0] == '/') {
        snprintf(full, sizeof full, "%s", path);
    } else {
        char folder[PATH_MAX];
        snprintf(full, sizeof full, "%s/%s", getcwd(folder, sizeof folder) ? folder : "", path);
    }
    if (strncmp(full, below, strlen(below))) return WORKS;
    pthread_mutex_lock(&copying); /* wait for a copy that another thread makes */
    long call = *number = calls++;
    pthread_mutex_unlock(&copying);
    if (log) {
        char line[3 * PATH_MAX];
        int length = snprintf(line, sizeof line, "%s %s\n", name, full);
        int file = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT, 0600);
        syscall(SYS_write, file, line, length);
        syscall(SYS_close, file);
    }
    if (getenv("FAULT_COPIES")) return call % atol(getenv("FAULT_EVERY")) ? WORKS : COPIED;
    if (!at || !fault) return WORKS;
    long error = atol(fault);
    if (error == -ENOSPC && (!strcmp(name, "unlink") || !strcmp(name, "rmdir"))) return WORKS;
    if (call != atol(at) && !(error < 0 && call > atol(at))) return WORKS;
    errno = labs(error);
    return FAILS;
}

/* Copy the folder, which is what a process leaves that is killed now. */
static void copy(long call) {
    char place[PATH_MAX], *words[] = {"cp", "-a", getenv("FAULT_BELOW"), place, NULL}, *variables[] = {NULL};
    pid_t child;
    snprintf(place, sizeof place, "%s/%ld", getenv("FAULT_COPIES"), call);
    pthread_mutex_lock(&copying);
    if (!posix_spawn(&child, "/bin/cp", NULL, NULL, words, variables)) waitpid(child, NULL, 0);
    pthread_mutex_unlock(&copying);
}

/* Whether a call fails that does not end half done. */
static int fails(const char *name, const char *path, int descriptor) {
    long call;
    int found = fate(name, path, descriptor, &call);
    if (found == COPIED) copy(call);
    return found == FAILS;
}

ssize_t write(int file, const void *content, size_t size) {
    long call;
    int found = fate("write", NULL, file, &call), error = errno;
    if (found == WORKS) return syscall(SYS_write, file, content, size);
    ssize_t half = size > 1 ? syscall(SYS_write, file, content, size / 2) : 0;
    if (found == COPIED) {
        copy(call);
        return half < 0 ? half : half + syscall(SYS_write, file, (const char *)content + half, size - half);
    }
    errno = error;
    return -1;
}

#define OPEN(name)                                                                  \
    int name(const char *path, int flags, ...) {                                    \
        va_list rest;                                                               \
        va_start(rest, flags);                                                      \
        mode_t mode = va_arg(rest, mode_t);                                         \
        va_end(rest);                                                               \
        if (flags & (O_WRONLY | O_RDWR | O_CREAT) && fails("open", path, 0)) return -1; \
        return REAL(name)(path, flags, mode);                                       \
    }
OPEN(open)
OPEN(open64)

#define FOPEN(name)                                                          \
    FILE *name(const char *path, const char *mode) {                         \
        if (mode[0] != 'r' && fails("fopen", path, 0)) return NULL;           \
        return REAL(name)(path, mode);                                       \
    }
FOPEN(fopen)
FOPEN(fopen64)

#define CALL(type, name, parameters, arguments, path, descriptor) \
    type name parameters {                                        \
        return fails(#name, path, descriptor) ? -1 : REAL(name) arguments; \
    }
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

int fsync(int file) { return fails("fsync", NULL, file) ? -1 : 0; }
int fdatasync(int file) { return fails("fdatasync", NULL, file) ? -1 : 0; }

/* What shutil.rmtree uses; the path is relative to a folder's descriptor. */
int unlinkat(int folder, const char *path, int flags) {
    if (fails(flags & AT_REMOVEDIR ? "rmdir" : "unlink", NULL, folder)) return -1;
    return REAL(unlinkat)(folder, path, flags);
}
