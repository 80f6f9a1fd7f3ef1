/* bench_env: where a measurement was made and what it cost the host. POSIX.
 *
 * The one file that is given the commit and the prompts' folders by the build. */
#include "app/bench_internal.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <time.h>

#ifdef DP_COMMIT
const char *const build_commit = DP_COMMIT;
static const char prompt_dirs[] = DP_PROMPT_DIRS;
#else
const char *const build_commit = "";
static const char prompt_dirs[] = "bench/prompts";
#endif

/* Linux says the processor's name in a file, other systems do not say it here. */
static void read_cpu_name(char *name, size_t size) {
    char line[256];
    snprintf(name, size, "unknown");
    FILE *f = fopen("/proc/cpuinfo", "r");
    if (f == NULL) return;
    while (fgets(line, sizeof(line), f) != NULL) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || colon == NULL) continue;
        const size_t n = strcspn(colon + 1, "\n");
        snprintf(name, size, "%.*s", (int)n - (colon[1] == ' '), colon + 1 + (colon[1] == ' '));
        break;
    }
    fclose(f);
}

void host_describe(host_info *h) {
    struct utsname u;
    memset(h, 0, sizeof(*h));
    if (uname(&u) == 0) {
        snprintf(h->os_name, sizeof(h->os_name), "%.63s", u.sysname);
        snprintf(h->os_version, sizeof(h->os_version), "%.79s %.79s", u.release, u.machine);
    }
    read_cpu_name(h->cpu, sizeof(h->cpu));
}

time_text time_now(void) {
    struct timespec now;
    struct tm t;
    time_text out = { .iso = "1970-01-01T00:00:00Z" };
    clock_gettime(CLOCK_REALTIME, &now);
    if (gmtime_r(&now.tv_sec, &t) == NULL) return out;
    strftime(out.iso, sizeof(out.iso), "%Y-%m-%dT%H:%M:%SZ", &t);
    const size_t n = strftime(out.name, sizeof(out.name), "%Y-%m-%dT%H-%M-%S", &t);
    snprintf(out.name + n, sizeof(out.name) - n, "-%03ldZ", now.tv_nsec / 1000000);
    return out;
}

static double seconds_of(struct timeval t) {
    return (double)t.tv_sec + 1e-6 * (double)t.tv_usec;
}

double cpu_seconds(void) {
    struct rusage use;
    if (getrusage(RUSAGE_SELF, &use) != 0) return 0;
    return seconds_of(use.ru_utime) + seconds_of(use.ru_stime);
}

uint64_t host_bytes_peak(void) {
    struct rusage use;
    if (getrusage(RUSAGE_SELF, &use) != 0 || use.ru_maxrss < 0) return 0;
#ifdef __APPLE__
    return (uint64_t)use.ru_maxrss;
#else
    return (uint64_t)use.ru_maxrss * 1024;
#endif
}

bool sleep_seconds(double seconds, dp_error *err) {
    const double end = now_seconds() + seconds;
    double left = seconds;
    while (left > 0) {
        const long ns = left < 0.1 ? (long)(1e9 * left) : 100000000;
        nanosleep(&(struct timespec){ .tv_nsec = ns }, NULL);
        if (!check_interrupted(err)) return false;
        left = end - now_seconds();
    }
    return true;
}

bool find_prompt(const char *name, char *path, size_t size, dp_error *err) {
    const bool plain =
        name[0] != '\0' && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") == strlen(name);
    for (const char *at = prompt_dirs; plain && *at != '\0'; at += *at == ':') {
        const size_t n = strcspn(at, ":");
        if (snprintf(path, size, "%.*s/%s.txt", (int)n, at, name) < (int)size &&
            path_is_file(path)) {
            return true;
        }
        at += n;
    }
    return err_set(
        err, DP_E_ARGUMENT,
        "--prompt-name: there is no prompt \"%.60s\" (xs, short, medium, long, all) in %s", name,
        prompt_dirs);
}

/* Read by Mesa and by NVIDIA's driver when they are loaded; others keep theirs. What the
 * environment says already stands. */
void forget_shader_caches(void) {
    setenv("MESA_SHADER_CACHE_DISABLE", "true", 0);
    setenv("__GL_SHADER_DISK_CACHE", "0", 0);
}
