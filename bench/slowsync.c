/* Preloaded in front of the C library: each fsync and fdatasync takes SLOW_FSYNC_MS longer, as on
 * a disk that is slower than this one. Build: cc -shared -fPIC -O2 -o slowsync.so slowsync.c -ldl
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
#include <errno.h>

static void slow(void) {
    static long wait = -1; /* nanoseconds; a race writes the same value twice */
    if (wait < 0) {
        const char *text = getenv("SLOW_FSYNC_MS");
        wait = text ? (long)(atof(text) * 1e6) : 0;
    }
    struct timespec left = {wait / 1000000000L, wait % 1000000000L};
    while (wait > 0 && nanosleep(&left, &left) == -1 && errno == EINTR) {
    }
}

int fsync(int file) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    slow();
    return real(file);
}

int fdatasync(int file) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    slow();
    return real(file);
}
